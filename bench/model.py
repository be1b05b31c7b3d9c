"""The model that `bench.score` and `bench.explain` measure on, and how they measure.

300 trees of depth 6 over 60 features, fitted on seeded random rows of which a tenth is absent. Both sides get
the same rows, another one in each call (a row that is scored twice finds its nodes in the cache), and take
turns, call by call: whatever else the machine does meets both. On a busy machine a long call is interrupted
more often than a short one, which flatters the short one: so of two ratios, of the medians and of the 10th
percentiles, the smaller one is reported.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
Call = Callable[[Matrix], object]

FEATURES: Final = 60
TREES: Final = 300
DEPTH: Final = 6
TRAINING_ROWS: Final = 20_000
ABSENT: Final = 0.1
SIZES: Final = (1, 32, 128)
WARM_UP: Final = 3


@dataclass(frozen=True, slots=True)
class Timing:
    """Microseconds per call: median, 10th and 90th percentile, over `calls` calls."""

    median_us: float
    p10_us: float
    p90_us: float
    calls: int


def rows(count: int, seed: int) -> Matrix:
    """float32 [count, 60], a tenth absent."""
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(count, FEATURES)).astype(np.float32)
    matrix[random.random(matrix.shape) < ABSENT] = np.nan
    return matrix


def fit() -> xgb.Booster:
    """The booster, one thread. All features matter, the first ones most."""
    matrix = rows(TRAINING_ROWS, seed=1)
    noise = np.random.default_rng(2).normal(size=TRAINING_ROWS)
    strength = 1.0 / np.sqrt(1.0 + np.arange(FEATURES))
    labels = np.nan_to_num(matrix) @ strength + noise > 2.0
    parameters: dict[str, Any] = {
        "objective": "binary:logistic",
        "tree_method": "hist",
        "base_score": 0.5,
        "max_depth": DEPTH,
        "max_bin": 1024,
        "eta": 0.05,
        "subsample": 0.8,
        "nthread": 1,
        "seed": 1,
    }
    booster = xgb.train(parameters, xgb.DMatrix(matrix, labels, nthread=1), TREES)
    booster.set_param({"nthread": 1})
    return booster


def interleaved(calls: Sequence[Call], size: int, seconds: float, calls_max: int) -> list[Timing]:
    """Times every call on batches of `size` rows, in turns, for `seconds` or until `calls_max` each."""
    matrix = rows(max(1024, 8 * size), seed=3)
    batches = [np.ascontiguousarray(matrix[i : i + size]) for i in range(0, len(matrix) - size + 1, size)]
    for call in calls:
        for batch in batches[:WARM_UP]:
            call(batch)
    taken: list[list[int]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    turn = 0
    while turn < calls_max and (time.perf_counter() < end or turn < WARM_UP):
        batch = batches[turn % len(batches)]
        for call, spent in zip(calls, taken, strict=True):
            started = time.perf_counter_ns()
            call(batch)
            spent.append(time.perf_counter_ns() - started)
        turn += 1
    return [_timing(sorted(spent)) for spent in taken]


def ratio(slow: Timing, fast: Timing) -> float:
    """How many times `slow` takes what `fast` takes, the smaller of two ways to say it."""
    return round(min(slow.median_us / fast.median_us, slow.p10_us / fast.p10_us), 2)


def _timing(ordered_ns: Sequence[int]) -> Timing:
    def quantile(share: float) -> float:
        return round(ordered_ns[int(share * (len(ordered_ns) - 1))] / 1e3, 2)

    return Timing(round(median(ordered_ns) / 1e3, 2), quantile(0.1), quantile(0.9), len(ordered_ns))


def table(names: Sequence[str], timings: dict[int, list[Timing]]) -> list[str]:
    """Lines for a person: median microseconds (and 90th percentile) per call."""
    lines = [f"{'rows':>6}" + "".join(f"{name:>30}" for name in names) + f"{'ratio':>9}"]
    for size, taken in timings.items():
        cells = "".join(f"{f'{t.median_us:,.1f} ({t.p90_us:,.1f}) us':>30}" for t in taken)
        lines.append(f"{size:>6}{cells}{ratio(taken[0], taken[1]):>8.1f}x")
    return lines
