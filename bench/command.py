"""What every measurement takes and reports: `--json`, `--write`, and what its figures depend on."""

import argparse
import os
from collections.abc import Callable
from typing import Any

from cordon.evidence import Evidence, machine


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with what all measurements take."""
    found = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("--json", action="store_true", help="only the JSON object")
    found.add_argument("--write", action="store_true", help="keep the result in bench/results/")
    return found


def warming(parser: argparse.ArgumentParser) -> None:
    """Adds what comes before the measured requests; see `bench.load.course.Course.warm_up`."""
    parser.add_argument("--warm", type=int, default=30_000, help="transactions of history, sent before")
    # At 1,000/s a task manager compiles for about 80 s; see docs/measuring.md.
    parser.add_argument("--warm-seconds", type=float, default=90.0, help="then at the rate, unmeasured")


def teller(options: argparse.Namespace, evidence: Evidence) -> Callable[[str], None]:
    """Where progress goes: nowhere with `--json`."""
    return (lambda line: None) if options.json else evidence.progress


def terms(*, seconds: float, runs: int = 1, workers: int = 1, connections: int = 0) -> dict[str, Any]:
    """What a figure depends on beside the commit. `seconds`: of each run; `workers`: processes of the part
    that is measured; `connections`: from the load to it."""
    return {
        "seconds_each": round(seconds, 1),
        "runs": runs,
        "workers": workers,
        "connections": connections,
        "cpu": machine()["cpu"],
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }
