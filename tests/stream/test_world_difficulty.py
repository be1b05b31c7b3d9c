"""The world must not be solvable from a transaction's own fields, and must be from its history.

The histories here are crude (counts and first times by entity), so that the test does not depend on the
catalogue: it says where the signal is, not how much of it a good model finds.
"""

import numpy as np
import pyarrow.compute as pc
import pytest
from sklearn.metrics import average_precision_score
from xgboost import XGBClassifier

from stream.world.spec import DAY_MS, HOUR_MS, WorldSpec
from stream.world.vocabulary import CURRENCY_EXPONENT, UNITS_PER_EURO
from stream.world.world import generate

STATELESS_AP_MAX = 0.35
PARAMETERS = {
    "n_estimators": 120,
    "max_depth": 5,
    "learning_rate": 0.12,
    "base_score": 0.5,
    "max_bin": 512,
    "n_jobs": 1,
}


@pytest.fixture(scope="module")
def table():
    return generate(WorldSpec(customers=4_000, days=60), seed=21).transactions


def codes(column):
    return pc.dictionary_encode(column.combine_chunks()).indices.fill_null(-1).to_numpy()


def stateless(table):
    currency = table["currency"].to_pylist()
    units = np.array([UNITS_PER_EURO[c] * 10 ** CURRENCY_EXPONENT[c] for c in currency])
    time, amount = table["time"].to_numpy(), table["amount"].to_numpy()
    columns = [amount / units, amount % 100, time // HOUR_MS % 24, (time // DAY_MS + 3) % 7]
    for name in (
        "currency",
        "channel",
        "entry",
        "category",
        "merchant_country",
        "ip_country",
        "billing_country",
    ):
        columns.append(codes(table[name]))
    for name in ("terminal", "device", "ip", "email"):
        columns.append(table[name].is_valid().to_numpy())
    columns.append(
        pc.fill_null(pc.not_equal(table["ip_country"], table["billing_country"]), False).to_numpy()
    )
    columns.append(
        pc.fill_null(pc.not_equal(table["merchant_country"], table["billing_country"]), False).to_numpy()
    )
    columns += [
        table["latitude"].to_numpy(),
        table["longitude"].to_numpy(),
        np.array(table["bin"].to_pylist(), float),
    ]
    return np.column_stack([np.asarray(column, np.float64) for column in columns])


def in_window(entity, time, window_ms):
    """How many transactions of the same entity in the window before each one, itself included."""
    order = np.lexsort((np.arange(len(time)), entity))
    key = entity[order].astype(np.int64) * (1 << 42) + (time[order] - time.min())
    first = np.searchsorted(entity[order], entity[order], "left")
    count = np.empty(len(time))
    count[order] = np.arange(len(time)) - np.maximum(np.searchsorted(key, key - window_ms, "left"), first) + 1
    return np.where(entity < 0, np.nan, count)


def histories(table):
    time = table["time"].to_numpy()
    entities = {
        name: codes(table[name])
        for name in ("card", "customer", "merchant", "terminal", "device", "ip", "email")
    }
    columns = [
        in_window(ids, time, window) for ids in entities.values() for window in (HOUR_MS, DAY_MS, 7 * DAY_MS)
    ]
    for one, other in (
        ("customer", "device"),
        ("customer", "ip"),
        ("card", "merchant"),
        ("customer", "email"),
    ):
        pair = np.where(entities[other] < 0, -1, entities[one].astype(np.int64) * (1 << 30) + entities[other])
        ids = np.unique(pair, return_inverse=True)[1] - (pair < 0).any()
        columns.append(in_window(ids, time, 1 << 41))
    for shared in ("device", "ip", "merchant", "terminal"):
        pair = entities[shared].astype(np.int64) * (1 << 30) + entities["card"]
        first = in_window(np.unique(pair, return_inverse=True)[1], time, 1 << 41) == 1
        columns.append(in_window(np.where(first, entities[shared], -1), time, DAY_MS))
    return np.column_stack(columns)


def average_precision(matrix, fraud, time):
    train = time < np.quantile(time, 0.6)
    model = XGBClassifier(**PARAMETERS).fit(matrix[train], fraud[train])
    return average_precision_score(fraud[~train], model.predict_proba(matrix[~train])[:, 1])


@pytest.mark.long
def test_a_stateless_model_stays_poor_and_histories_make_it_good(table):
    fraud, time = table["fraud"].to_numpy(), table["time"].to_numpy()
    own_fields = stateless(table)
    poor = average_precision(own_fields, fraud, time)
    good = average_precision(np.column_stack([own_fields, histories(table)]), fraud, time)
    assert poor < STATELESS_AP_MAX, poor
    assert good > poor + 0.25, (poor, good)
    assert good < 0.97, "a world that crude counts solve is too easy"
