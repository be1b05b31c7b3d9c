"""When the truth becomes known: frauds reported after days or weeks, some never, some disputes unfounded."""

import numpy as np

from stream.world.rows import Array, Rows
from stream.world.spec import DAY_MS, HOUR_MS, WorldSpec

_DELAYS = ((0.55, 3.0, 0.7), (0.35, 13.0, 0.5), (0.10, 35.0, 0.4))
"""(share, median days, sigma of the log): noticed in the app, on the statement, by a chargeback."""
_LONGEST_DAYS = 100.0
UNKNOWN = -1
"""The time of a label that never comes."""


def _delays(rng: np.random.Generator, count: int) -> Array:
    which = rng.choice(len(_DELAYS), count, p=[share for share, *_ in _DELAYS])
    median = np.array([days for _, days, _ in _DELAYS])[which]
    sigma = np.array([spread for *_, spread in _DELAYS])[which]
    result: Array = np.minimum(median * np.exp(sigma * rng.standard_normal(count)), _LONGEST_DAYS)
    return result


def report(spec: WorldSpec, rng: np.random.Generator, rows: Rows, declined: Array) -> tuple[Array, Array]:
    """`label_time` and `label_withdrawn_time` of each transaction, epoch ms, UNKNOWN for never.

    `rows` are in time order. The frauds of one campaign on one card become known together, when the owner
    looks: a delay after the first of them, though none before six hours after itself.
    """
    label = np.full(len(rows), UNKNOWN, np.int64)
    withdrawn = np.full(len(rows), UNKNOWN, np.int64)
    fraud = np.flatnonzero(rows["fraud"])
    chance = (
        rows["reported"][fraud] / 0.92 * (1 - spec.unreported_share) * np.where(declined[fraud], 0.8, 1.0)
    )
    key = rows["campaign"][fraud].astype(np.int64) * (1 << 32) + rows["card"][fraud]
    _, first, group = np.unique(key, return_index=True, return_inverse=True)
    seen = rows["time"][fraud][first] + (_delays(rng, len(first)) * DAY_MS * spec.label_delay_scale).astype(
        np.int64
    )
    least = int(6 * HOUR_MS * min(spec.label_delay_scale, 1.0))
    jitter = (rng.random(len(fraud)) * 3 * HOUR_MS * spec.label_delay_scale).astype(np.int64)
    at = np.maximum(seen[group], rows["time"][fraud] + least) + jitter
    label[fraud] = np.where(rng.random(len(fraud)) < chance, at, UNKNOWN)

    disputed = np.flatnonzero(~rows["fraud"] & (rng.random(len(rows)) < spec.disputed_share))
    wait = np.exp(np.log(16.0) + 0.6 * rng.standard_normal(len(disputed))) * DAY_MS * spec.label_delay_scale
    label[disputed] = rows["time"][disputed] + wait.astype(np.int64)
    settle = (rng.uniform(3, 25, len(disputed)) * DAY_MS * spec.label_delay_scale).astype(np.int64)
    withdrawn[disputed] = np.where(rng.random(len(disputed)) < 0.8, label[disputed] + settle, UNKNOWN)
    return label, withdrawn
