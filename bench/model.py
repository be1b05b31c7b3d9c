"""The model that `bench.score` and `bench.explain` measure on, and how they measure.

300 trees of depth 6 over 60 features, fitted on seeded random rows of which a tenth is absent. Both sides get
the same rows, another one in each call (a row that is scored twice finds its nodes in the cache), and take
turns, call by call: whatever else the machine does meets both. On a busy machine a long call is interrupted
more often than a short one, which flatters the short one: so of two ratios, of the medians and of the 10th
percentiles, the smaller one is reported.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from bench.command import terms
from cordon.failure import Failure
from models.ensemble import Ensemble, Member
from models.kernel.errors import KernelError
from models.scorer import KernelScorer

Matrix = NDArray[np.float32]
Call = Callable[[Matrix], object]

FEATURES: Final = 60
TREES: Final = 300
DEPTH: Final = 6
TRAINING_ROWS: Final = 20_000
ABSENT: Final = 0.1
SIZES: Final = (1, 32, 128)
RUNS: Final = 3
WARM_UP: Final = 3
CALLS_MAX: Final = 20_000


class NothingToMeasure(Failure):
    """The kernel cannot be built here, or does not give XGBoost's answers: nothing is reported."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Microseconds per call: median, 10th and 90th percentile, over `calls` calls."""

    median_us: float
    p10_us: float
    p90_us: float
    calls: int


def open_kernel(booster: xgb.Booster) -> KernelScorer:
    """The booster as an ensemble of one. Raises `NothingToMeasure`."""
    names = tuple(f"f{i}" for i in range(FEATURES))
    member = Member("only", bytes(booster.save_raw("ubj")), 1.0, uses_labels=False)
    try:
        return KernelScorer(Ensemble(names, (member,)))
    except KernelError as error:
        raise NothingToMeasure(f"no compiled kernel: {error}") from error


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


@dataclass(frozen=True, slots=True)
class Comparison:
    """XGBoost and the kernel by rows per call; of `RUNS` runs the one with the median ratio."""

    ratios: dict[int, float]
    xgboost: dict[int, Timing]
    kernel: dict[int, Timing]
    seconds: float

    def report(self) -> dict[str, Any]:
        """The keys that both benchmarks report."""
        return {
            "ratio_single": self.ratios[SIZES[0]],
            "ratio_batch": self.ratios[SIZES[-1]],
            "xgboost_us": {size: asdict(timing) for size, timing in self.xgboost.items()},
            "kernel_us": {size: asdict(timing) for size, timing in self.kernel.items()},
            "trees": TREES,
            "depth": DEPTH,
            "features": FEATURES,
            **terms(seconds=self.seconds / RUNS, runs=RUNS),
        }

    def lines(self) -> list[str]:
        """For a person: median microseconds (and 90th percentile) per call."""
        shown = [f"{'rows':>6}{'XGBoost':>30}{'kernel':>30}{'ratio':>9}"]
        for size, times in self.ratios.items():
            cells = (
                f"{t.median_us:,.1f} ({t.p90_us:,.1f}) us" for t in (self.xgboost[size], self.kernel[size])
            )
            shown.append(f"{size:>6}" + "".join(f"{cell:>30}" for cell in cells) + f"{times:>8.1f}x")
        return shown


def compare(xgboost: Call, kernel: Call, seconds: float) -> Comparison:
    """Times both for `seconds` altogether."""
    compared = Comparison({}, {}, {}, seconds)
    for size in SIZES:
        runs = [interleaved((xgboost, kernel), size, seconds / len(SIZES) / RUNS) for _ in range(RUNS)]
        middle = sorted(runs, key=lambda run: ratio(*run))[RUNS // 2]
        compared.ratios[size] = ratio(*middle)
        compared.xgboost[size], compared.kernel[size] = middle
    return compared


def ratio(slow: Timing, fast: Timing) -> float:
    """How many times `slow` takes what `fast` takes, the smaller of two ways to say it."""
    return round(min(slow.median_us / fast.median_us, slow.p10_us / fast.p10_us), 2)


def interleaved(calls: Sequence[Call], size: int, seconds: float) -> list[Timing]:
    """Times every call on batches of `size` rows, in turns, for `seconds`."""
    matrix = rows(max(1024, 8 * size), seed=3)
    batches = [np.ascontiguousarray(matrix[i : i + size]) for i in range(0, len(matrix) - size + 1, size)]
    for call in calls:
        for batch in batches[:WARM_UP]:
            call(batch)
    taken: list[list[int]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    turn = 0
    while turn < CALLS_MAX and (time.perf_counter() < end or turn < WARM_UP):
        batch = batches[turn % len(batches)]
        for call, spent in zip(calls, taken, strict=True):
            started = time.perf_counter_ns()
            call(batch)
            spent.append(time.perf_counter_ns() - started)
        turn += 1
    return [_timing(sorted(spent)) for spent in taken]


def _timing(ordered_ns: Sequence[int]) -> Timing:
    def quantile(share: float) -> float:
        return round(ordered_ns[int(share * (len(ordered_ns) - 1))] / 1e3, 2)

    return Timing(round(median(ordered_ns) / 1e3, 2), quantile(0.1), quantile(0.9), len(ordered_ns))
