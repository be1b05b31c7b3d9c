"""A small seeded history with frauds that behaviour and labels both betray."""

import numpy as np

from models.booster import BoosterParameters
from models.examples import NEVER_MS, Examples
from models.train import MemberPlan, TrainingPlan

DAY = 86_400_000
FEATURES = ("amount", "card_count_1h", "card_amount_mean_30d", "terminal_fraud_count_7d", "device_new_30d")
SMALL = BoosterParameters(rounds=30, eta=0.2, max_depth=3, max_bin=1024, colsample_bytree=1.0, subsample=1.0)
PLAN = TrainingPlan(
    maturity_ms=7 * DAY,
    members=(
        MemberPlan("full", parameters=SMALL),
        MemberPlan("recent", history_days=28, parameters=SMALL),
        MemberPlan("behaviour", uses_labels=False, parameters=SMALL),
    ),
)


def history(rows=4000, days=60, rate=0.03, seed=5, label_delay_days=7):
    """`rows` transactions over `days`; about `rate` are fraud: dear, in bursts, at marked terminals."""
    random = np.random.default_rng(seed)
    fraud = random.random(rows) < rate
    amount = np.where(fraud, random.lognormal(9.5, 1.0, rows), random.lognormal(8.0, 0.8, rows)).round()
    marked = random.random(rows) < np.where(fraud, 0.7, 0.02)
    matrix = np.column_stack(
        [
            amount,
            random.poisson(np.where(fraud, 3.0, 0.7)) + 1,
            np.where(random.random(rows) < 0.1, np.nan, random.lognormal(8.0, 0.5, rows)),
            marked * random.integers(1, 5, rows),
            np.where(random.random(rows) < 0.3, np.nan, random.random(rows) < np.where(fraud, 0.6, 0.1)),
        ]
    ).astype(np.float32)
    time_ms = np.sort(random.integers(0, days * DAY, rows)).astype(np.int64)
    return Examples(
        matrix,
        FEATURES,
        time_ms,
        fraud,
        np.where(fraud, time_ms + label_delay_days * DAY, NEVER_MS),
        amount.astype(np.int64),
        frozenset({"terminal_fraud_count_7d"}),
    )
