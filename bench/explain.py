"""Exact SHAP values of one row and of batches: XGBoost's `pred_contribs` and the compiled kernel.

    .venv/bin/python -m bench.explain [--seconds 30]

One thread each, in one process, in turns. The contributions of 2,000 rows must agree within 1e-5 first.
XGBoost explains a DMatrix only, so making it is part of its time; the ratio without that is reported as well.
"""

import argparse
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import xgboost as xgb

from bench.model import DEPTH, FEATURES, SIZES, TREES, Matrix, fit, interleaved, ratio, rows, table
from cordon.evidence import Evidence
from models.ensemble import Ensemble, Member
from models.kernel.forest import Forest
from models.scorer import KernelScorer

RATIO_MIN: Final = 3.0
DIFFERENCE_MAX: Final = 1e-5
CHECKED_ROWS: Final = 2_000
CALLS_MAX: Final = 20_000
FULL_SECONDS: Final = 30.0


def measure(seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """The report of one run of about `seconds`. Raises `KernelError` where there is no kernel."""
    booster = fit()
    content = bytes(booster.save_raw("ubj"))
    scorer = KernelScorer(
        Ensemble(tuple(f"f{i}" for i in range(FEATURES)), (Member("only", content, 1.0, uses_labels=False),))
    )

    def reference(matrix: Matrix) -> Any:
        return booster.predict(xgb.DMatrix(matrix, nthread=1), pred_contribs=True, validate_features=False)

    matrix = rows(CHECKED_ROWS, seed=4)
    found = scorer.contributions(matrix)
    worst = float(np.abs(found - reference(matrix)).max())
    additivity = float(np.abs(found.sum(axis=1) - scorer.score(matrix)).max())
    say(f"{CHECKED_ROWS:,} rows explained: within {worst:.2g} of XGBoost, {additivity:.2g} of their margins")
    timings = {
        size: interleaved([reference, scorer.contributions], size, seconds / len(SIZES), CALLS_MAX)
        for size in SIZES
    }
    for line in table(("XGBoost", "kernel"), timings):
        say(line)
    made = {size: interleaved([lambda m: xgb.DMatrix(m, nthread=1)], size, 1.0, 200)[0] for size in SIZES}
    ratios = {size: ratio(*taken) for size, taken in timings.items()}
    single = timings[1]
    forest = Forest([content], [1.0])
    return {
        "ratio_single": ratios[1],
        "ratio_batch": ratios[SIZES[-1]],
        "ratio_single_without_dmatrix": round((single[0].p10_us - made[1].p10_us) / single[1].p10_us, 2),
        "max_abs_diff": worst,
        "additivity_error_max": additivity,
        "xgboost_us": {size: asdict(taken[0]) for size, taken in timings.items()},
        "kernel_us": {size: asdict(taken[1]) for size, taken in timings.items()},
        "dmatrix_us": {size: asdict(taken) for size, taken in made.items()},
        "path": forest.path,
        "table_bytes": forest.table_bytes,
        "trees": TREES,
        "depth": DEPTH,
        "features": FEATURES,
        "runs": 1,
        "threads": 1,
    }


def holds(report: dict[str, Any]) -> bool:
    """Whether the bar is met: three times XGBoost for one row, contributions within 1e-5."""
    return bool(report["max_abs_diff"] <= DIFFERENCE_MAX and report["ratio_single"] >= RATIO_MIN)


def main() -> None:
    """Measures and keeps the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=FULL_SECONDS)
    options = parser.parse_args()
    evidence = Evidence.begin("explain")
    report = measure(options.seconds, evidence.progress)
    evidence.end(report, holds=holds(report), write=True)


if __name__ == "__main__":
    main()
