"""Exact SHAP values of one row and of batches: XGBoost's `pred_contribs` and the compiled kernel.

    .venv/bin/python -m bench.explain [--seconds 60] [--json] [--write]

One thread each, in one process, in turns. First the contributions of 2,000 rows must agree within 1e-5.
XGBoost explains a DMatrix only, so making it is part of its time; the ratio without that is reported as well.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import xgboost as xgb

from bench.command import arguments, teller
from bench.model import SIZES, Matrix, NothingToMeasure, compare, fit, interleaved, open_kernel, rows
from cordon.evidence import Evidence

RATIO_MIN: Final = 3.0
DIFFERENCE_MAX: Final = 1e-5
CHECKED_ROWS: Final = 2_000
SECONDS: Final = 60.0


def measure(seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """The report of `seconds` of timing. Raises `NothingToMeasure`."""
    booster = fit()
    kernel = open_kernel(booster)

    def made(matrix: Matrix) -> xgb.DMatrix:
        return xgb.DMatrix(matrix, nthread=1)

    def xgboost(matrix: Matrix) -> Any:
        return booster.predict(made(matrix), pred_contribs=True, validate_features=False)

    matrix = rows(CHECKED_ROWS, seed=4)
    found = kernel.contributions(matrix)
    worst = float(np.abs(found - xgboost(matrix)).max())
    additivity = float(np.abs(found.sum(axis=1) - kernel.score(matrix)).max())
    if not worst <= DIFFERENCE_MAX:
        raise NothingToMeasure(f"contributions differ from XGBoost's by up to {worst}")
    say(f"{CHECKED_ROWS:,} rows explained: within {worst:.2g} of XGBoost, {additivity:.2g} of their margins")
    compared = compare(xgboost, kernel.contributions, seconds)
    for line in compared.lines():
        say(line)
    (making,) = interleaved((made,), SIZES[0], 1.0)
    left = compared.xgboost[SIZES[0]].p10_us - making.p10_us
    return {
        **compared.report(),
        "ratio_single_without_dmatrix": round(left / compared.kernel[SIZES[0]].p10_us, 2),
        "dmatrix_us": asdict(making),
        "max_abs_diff": worst,
        "additivity_error_max": additivity,
    }


def main() -> None:
    """Measures and keeps the result."""
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of timing, altogether")
    options = parser.parse_args()
    evidence = Evidence.begin("explain")
    report = measure(options.seconds, teller(options, evidence))
    evidence.end(report, holds=report["ratio_single"] >= RATIO_MIN, write=options.write)


if __name__ == "__main__":
    main()
