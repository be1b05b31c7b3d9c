"""One row and batches scored: XGBoost's `inplace_predict(validate_features=False)` and the compiled kernel.

    .venv/bin/python -m bench.score [--seconds 20]

One thread each, in one process, in turns. The margins of 20,000 rows must be equal bit for bit first.
"""

import argparse
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from bench.model import DEPTH, FEATURES, SIZES, TREES, fit, interleaved, ratio, rows, table
from cordon.evidence import Evidence
from models.ensemble import Ensemble, Member
from models.kernel.forest import Forest
from models.scorer import KernelScorer

RATIO_MIN: Final = 5.0
CHECKED_ROWS: Final = 20_000
CALLS_MAX: Final = 20_000
FULL_SECONDS: Final = 20.0


def measure(seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """The report of one run of about `seconds`. Raises `KernelError` where there is no kernel."""
    booster = fit()
    content = bytes(booster.save_raw("ubj"))
    scorer = KernelScorer(
        Ensemble(tuple(f"f{i}" for i in range(FEATURES)), (Member("only", content, 1.0, uses_labels=False),))
    )

    def reference(matrix: Any) -> Any:
        return booster.inplace_predict(matrix, predict_type="margin", validate_features=False)

    matrix = rows(CHECKED_ROWS, seed=4)
    expected, found = reference(matrix), scorer.score(matrix)
    singles = np.concatenate([scorer.score(matrix[i : i + 1]) for i in range(1000)])
    worst = float(np.abs(found - expected).max())
    equal = (
        found.tobytes() == expected.astype(np.float64).tobytes()
        and singles.tobytes() == found[:1000].tobytes()
    )
    say(f"{CHECKED_ROWS:,} margins {'are bit-equal' if equal else f'differ by up to {worst}'}")
    timings = {
        size: interleaved([reference, scorer.score], size, seconds / len(SIZES), CALLS_MAX) for size in SIZES
    }
    for line in table(("XGBoost", "kernel"), timings):
        say(line)
    ratios = {size: ratio(*taken) for size, taken in timings.items()}
    return {
        "ratio_single": ratios[1],
        "ratio_batch": ratios[SIZES[-1]],
        "max_abs_diff": worst,
        "bit_equal": equal,
        "xgboost_us": {size: asdict(taken[0]) for size, taken in timings.items()},
        "kernel_us": {size: asdict(taken[1]) for size, taken in timings.items()},
        "path": Forest([content], [1.0]).path,
        "trees": TREES,
        "depth": DEPTH,
        "features": FEATURES,
        "runs": 1,
        "threads": 1,
    }


def holds(report: dict[str, Any]) -> bool:
    """Whether the bar is met: five times XGBoost for one row, margins bit-equal."""
    return bool(report["bit_equal"]) and report["ratio_single"] >= RATIO_MIN


def main() -> None:
    """Measures and keeps the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=FULL_SECONDS)
    options = parser.parse_args()
    evidence = Evidence.begin("score")
    report = measure(options.seconds, evidence.progress)
    evidence.end(report, holds=holds(report), write=True)


if __name__ == "__main__":
    main()
