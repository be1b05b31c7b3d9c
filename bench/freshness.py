"""How soon a decision is in the state that others read: journal, publisher, Kafka, Flink, Redis.

    .venv/bin/python -m bench.freshness --rate 1000 [--seconds 60] [--connections 512] [--workers 1]
        [--warm 30000] [--warm-seconds 90] [--model DIR] [--json] [--write]

The whole stack runs. Payments of a generated world arrive over HTTP as a Poisson process, after a warm-up,
both as in `bench.http`. The clock of a decision starts when its request was due, so it holds the time of the
answer too; what lies after the answer is reported beside it. It ends when Flink's watermark in Redis, read
hundreds of times a second, has passed the record: that is never before its tiles are there.

`own_key_stale` counts decisions that did not know an earlier transaction of one of their own entities, by the
oracle: the fast lane has to make it none. Nothing is reported when an answer is wrong or not in the journal,
a record did not become visible, or less than 98 % of the rate was reached.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.command import arguments, teller, terms, warming
from bench.load.artefact import demonstration_model
from bench.load.course import NotMeasured, Run, course, payments_with
from bench.load.traffic import WORLD, traffic
from bench.load.watermark import Watch
from cordon.evidence import ROOT, Evidence
from cordon.log import Record
from cordon.own_key import own_key_stale
from cordon.parity import Keeper, Plan
from cordon.pipeline import Pipeline
from features import load
from features.store import OnlineStore

P99_MS_MAX: Final = 100.0
QUANTILES: Final[Mapping[str, float]] = {
    "p50_ms": 50,
    "p90_ms": 90,
    "p99_ms": 99,
    "p999_ms": 99.9,
    "max_ms": 100,
}


def main() -> None:
    """Measures; the status says whether the bar was met."""
    parser = arguments(__doc__)
    parser.add_argument("--rate", type=int, default=1_000, help="requests per second")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--connections", type=int, default=512)
    parser.add_argument("--workers", type=int, default=1, help="processes of the service")
    warming(parser)
    parser.add_argument("--model", type=Path, default=None, help="artefact; the demonstration's if absent")
    options = parser.parse_args()
    evidence = Evidence.begin(f"freshness_{options.rate}")
    (ROOT / ".cordon").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / ".cordon") as name:
        report = measure(Path(name), options, teller(options, evidence))
    holds = report["p99_ms"] < P99_MS_MAX and report["own_key_stale"] == 0
    evidence.end(report, holds=holds, write=options.write)


class Places(Keeper):
    """Also keeps where in the log each decision lies; the topic has one partition."""

    def __init__(self) -> None:
        super().__init__(None)
        self.running: Pipeline | None = None
        self.offsets: dict[str, int] = {}

    def __call__(self, topic: str, record: Record) -> None:
        """Take one record of the log."""
        super().__call__(topic, record)
        if record["type"] == "decision" and self.running is not None:
            self.offsets[record["id"]] = self.running.reader.reached[topic, 0] - 1


def measure(directory: Path, options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """The report. Raises `NotMeasured`."""
    catalogue = load("payments")
    model = options.model or demonstration_model(catalogue, say)
    count = round(options.rate * options.seconds)
    steady = round(options.rate * options.warm_seconds)
    payments = traffic(catalogue, options.warm + steady + count, directory)
    places = Places()
    with course(
        directory / "stack", payments_with(model, workers=options.workers),
        alone=False, connections=options.connections, keep=places, say=say,
    ) as (running, pipeline):  # fmt: skip
        assert pipeline is not None
        places.running = pipeline
        warm = running.warm_up(payments.take(options.warm), payments.take(steady), options.warm_seconds)
        say(f"warm: {warm}")
        items = payments.take(count)
        with pipeline.connected() as store, Watch(lambda: reached(pipeline, store), time.monotonic) as watch:
            run = running.run(items, options.seconds, 0)
            running.drain()
            # The last look of the watcher may be older than that of `drain`.
            time.sleep(0.1)
        stored = running.check_journals()
        ids = [item.id for item in items]
        seen_s = [watch.passed_s(0, places.offsets[id_]) for id_ in ids]
        say("counting decisions that did not know an own earlier transaction")
        plan = Plan("payments", directory / WORLD)
        stale = own_key_stale(plan, catalogue, pipeline.pseudonyms, places.log, set(ids))
    return {
        **latencies(run, seen_s),
        "own_key_stale": stale,
        "decisions": count,
        "journalled": stored,
        "http": run.report(),
        **warm,
        **terms(seconds=options.seconds, workers=options.workers, connections=options.connections),
    }


def reached(running: Pipeline, store: OnlineStore) -> dict[int, int]:
    """Next offset of each partition of the decisions that Flink has passed."""
    topic = running.settings.kafka.decisions
    return {place[1]: mark[1] for place, mark in store.watermark().items() if place[0] == topic}


def latencies(run: Run, seen_s: Sequence[float | None]) -> dict[str, Any]:
    """Milliseconds from when each request was due until it was visible, and from its answer until then.

    `seen_s`: when each was, by the monotonic clock. Raises `NotMeasured` where one was not.
    """
    visible_s = [at_s for at_s in seen_s if at_s is not None]
    if len(visible_s) < len(seen_s):
        raise NotMeasured(f"{len(seen_s) - len(visible_s)} decisions did not become visible")
    due_s = run.load.started_s + np.array(run.due_s)
    answered_ms = np.array([answer.latency_ms for answer in run.load.answers])
    whole_ms = (np.array(visible_s) - due_s) * 1_000
    after_ms = whole_ms - answered_ms
    return {
        **{name: round(float(np.percentile(whole_ms, p)), 1) for name, p in QUANTILES.items()},
        "after_answer": {name: round(float(np.percentile(after_ms, p)), 1) for name, p in QUANTILES.items()},
        "intended_rps": round(run.rate, 1),
        "achieved_rps": round(run.load.achieved_rps, 1),
    }


if __name__ == "__main__":
    main()
