"""Decisions over HTTP: latency at a rate, open loop, every answer checked and durable.

    .venv/bin/python -m bench.http --rate 1000 [--alone] [--seconds 60] [--runs 3] [--json] [--write]
        [--connections 512] [--workers 1] [--warm 30000] [--warm-seconds 90] [--model DIR] [--port PORT]
        [--stall 0]

Starts the service with the demonstration's model, Valkey and the journal; without `--alone` also Kafka,
Flink, publisher and projector, which follow the same decisions. Payments of a generated world arrive as a
Poisson process from a compiled generator in a process of its own; latency counts from when each was due.
What is measured is the steady state: history is sent and worked off before, then the rate runs unmeasured.
Afterwards each answer must be in the journal exactly once. Of `--runs` runs the one with the median p99 is
reported.

Nothing is reported when a port is taken, an answer is wrong, or less than 98 % of the rate was reached.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bench.command import arguments, teller, terms, warming
from bench.load import disk, standstill
from bench.load.artefact import demonstration_model
from bench.load.course import EXPLAINED_SHARE_MIN, REST_S, course, payments_with
from bench.load.traffic import traffic
from cordon.evidence import ROOT, Evidence
from features import load

# Highest p99 in milliseconds, by rate: of the service alone, and with the whole stack beside it.
ALONE_MS: Final = {1_000: 5.0, 2_000: 6.0, 4_000: 6.0, 8_000: 10.0}
BESIDE_MS: Final = {1_000: 10.0, 2_000: 20.0}


def main() -> None:
    """Measures; the status says whether the target was met."""
    options = parser().parse_args()
    name = f"http_{'alone' if options.alone else 'beside'}_{options.rate}"
    evidence = Evidence.begin(name if options.workers == 1 else f"{name}_w{options.workers}")
    (ROOT / ".cordon").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / ".cordon") as directory:
        report = measure(Path(directory), options, teller(options, evidence))
    limit_ms = (ALONE_MS if options.alone else BESIDE_MS).get(options.rate, float("inf"))
    met = report["p99_ms"] < limit_ms and report["explained_share"] >= EXPLAINED_SHARE_MIN
    evidence.end(report, holds=met, write=options.write)


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = arguments(__doc__)
    found.add_argument("--rate", type=int, default=1_000, help="requests per second")
    found.add_argument("--alone", action="store_true", help="service, Valkey and journal only")
    found.add_argument("--seconds", type=float, default=60.0, help="of each run")
    found.add_argument("--runs", type=int, default=3)
    found.add_argument("--connections", type=int, default=512)
    found.add_argument("--workers", type=int, default=1, help="processes of the service")
    warming(found)
    found.add_argument("--model", type=Path, default=None, help="artefact; the demonstration's if absent")
    found.add_argument("--port", type=int, default=None, help="of the service; any free one if absent")
    found.add_argument("--stall", type=float, default=0.0, help="seconds for which the service is stopped")
    return found


def measure(directory: Path, options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """The median run's report. Raises `NotMeasured`."""
    catalogue = load("payments")
    model = options.model or demonstration_model(catalogue, say)
    each = round(options.rate * options.seconds)
    steady = round(options.rate * options.warm_seconds)
    payments = traffic(catalogue, options.warm + steady + options.runs * each, directory)
    waits_ms = disk.syncs(directory)
    say(f"waits for the disk by itself, ms: {waits_ms}")
    stood = standstill.standstills()
    say(f"processors that stand still by themselves, share of the time and longest in ms: {stood}")
    with course(
        directory / "stack", payments_with(model, workers=options.workers),
        alone=options.alone, connections=options.connections, port=options.port, say=say,
    ) as (running, _):  # fmt: skip
        warm = running.warm_up(payments.take(options.warm), payments.take(steady), options.warm_seconds)
        say(f"warm: {warm}")
        runs = []
        for number in range(options.runs):
            time.sleep(REST_S)
            runs.append(running.run(payments.take(each), options.seconds, number, options.stall))
            say(str(runs[-1].report()))
        stored = running.check_journals()
        running.drain()
    middle = sorted(runs, key=lambda run: run.percentile(99))[(len(runs) - 1) // 2]
    return {
        **middle.report(),
        "p99_ms_of_runs": [run.percentile(99) for run in runs],
        "beside": not options.alone,
        "journalled": stored,
        **warm,
        "stalled_s": options.stall,
        "disk_alone_ms": waits_ms,
        "standstill_alone": stood,
        **terms(
            seconds=options.seconds,
            runs=options.runs,
            workers=options.workers,
            connections=options.connections,
        ),
    }


if __name__ == "__main__":
    main()
