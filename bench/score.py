"""One row and batches scored: XGBoost's `inplace_predict(validate_features=False)` and the compiled kernel.

    .venv/bin/python -m bench.score [--seconds 30] [--json] [--write]

One thread each, in one process, in turns. First the margins of 20,000 rows must be equal bit for bit.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from bench.command import arguments, teller
from bench.model import Matrix, NothingToMeasure, compare, fit, open_kernel, rows
from cordon.evidence import Evidence

RATIO_MIN: Final = 5.0
CHECKED_ROWS: Final = 20_000
CHECKED_SINGLES: Final = 1_000
SECONDS: Final = 30.0


def measure(seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """The report of `seconds` of timing. Raises `NothingToMeasure`."""
    booster = fit()
    kernel = open_kernel(booster)

    def xgboost(matrix: Matrix) -> Any:
        return booster.inplace_predict(matrix, predict_type="margin", validate_features=False)

    matrix = rows(CHECKED_ROWS, seed=4)
    expected = xgboost(matrix).astype(np.float64)
    singles = [kernel.score(matrix[i : i + 1]) for i in range(CHECKED_SINGLES)]
    found = np.concatenate([kernel.score(matrix), *singles])
    expected = np.concatenate([expected, expected[:CHECKED_SINGLES]])
    worst = float(np.abs(found - expected).max())
    if found.tobytes() != expected.tobytes():
        raise NothingToMeasure(f"margins differ from XGBoost's by up to {worst}")
    say(f"{CHECKED_ROWS:,} margins are bit-equal")
    compared = compare(xgboost, kernel.score, seconds)
    for line in compared.lines():
        say(line)
    return {**compared.report(), "max_abs_diff": worst, "bit_equal": True}


def main() -> None:
    """Measures and keeps the result."""
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of timing, altogether")
    options = parser.parse_args()
    evidence = Evidence.begin("score")
    report = measure(options.seconds, teller(options, evidence))
    evidence.end(report, holds=report["ratio_single"] >= RATIO_MIN, write=options.write)


if __name__ == "__main__":
    main()
