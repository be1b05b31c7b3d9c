"""The Flink jobs alone: transactions and tile updates per second from a full topic, freshness at a rate.

    .venv/bin/python -m bench.features [--catalogue payments] [--transactions 100000] [--state rocksdb]
        [--parallelism 1] [--partitions 4] [--rate 1000] [--seconds 60] [--json] [--write]

Starts a broker, a Flink cluster and a Valkey node of its own. First the topic `decisions` is filled and the
jobs read it from the beginning: the time counts from the first published position to the last. Then records
are written at a steady rate, in transactions as the publisher does; a record is visible when the watermark
has passed it, which is never before its tiles are there. CPU is each part's own, in user and system mode.
Checkpoints come six times as often as by default: short runs hold them too. A sample of states is compared
with the log before anything is reported. What a tile update is, `bench.load.decided.Source` says.
`--seconds 0` leaves freshness out.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.command import arguments, teller, terms
from bench.load.course import ACHIEVED_SHARE_MIN, NotMeasured
from bench.load.decided import PSEUDONYMS, Source
from bench.load.watermark import Watch
from cordon.evidence import ROOT, Evidence
from cordon.stack.flink import Flink
from cordon.stack.kafka import Kafka
from cordon.stack.part import Part
from cordon.stack.port import Ports
from cordon.stack.probe import JobsRunning
from cordon.stack.process import processor_s
from cordon.stack.supervisor import Stack
from cordon.stack.topics import Topic, create_topics
from cordon.stack.valkey import Valkey
from cordon.tiles import check, count
from features.catalogue import Catalogue, load
from features.node import Limits
from features.redis_store import connect
from features.store import OnlineStore

# What must hold: a figure of the report and its least value.
BARS: Final = {"payments": ("tile_updates_per_s", 40_000), "handbook": ("tps", 10_000)}
FRESH_MS_MAX: Final = 100
CHECKPOINTS_MS: Final = 5_000
TICK_S: Final = 0.01
TICKS_MAX: Final = 100
"""That go into one transaction, at most."""
PATIENT: Final = Limits(read_s=30.0)
"""Who looks at the store waits for it, also while it waits for its disk."""


def main() -> None:
    """Measures and keeps the result."""
    parser = arguments(__doc__)
    parser.add_argument("--catalogue", choices=("payments", "handbook"), default="payments")
    parser.add_argument("--transactions", type=int, default=100_000)
    parser.add_argument("--state", choices=("rocksdb", "hashmap"), default="rocksdb")
    parser.add_argument("--parallelism", type=int, default=1)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--rate", type=int, default=1_000)
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    name = "features" if options.catalogue == "payments" else "features_handbook"
    evidence = Evidence.begin(name if options.parallelism == 1 else f"{name}_p{options.parallelism}")
    with tempfile.TemporaryDirectory(prefix="cordon-features-") as directory:
        report = measure(Path(directory), options, teller(options, evidence))
    fast = report[BARS[options.catalogue][0]] >= BARS[options.catalogue][1]
    fresh = report["freshness"] is None or report["freshness"]["p99_ms"] < FRESH_MS_MAX
    evidence.end(report, holds=fast and fresh, write=options.write)


def measure(directory: Path, options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """The figures as one object."""
    catalogue = load(options.catalogue)
    ports = Ports()
    kafka = Kafka(directory / "kafka", ROOT / ".jars" / "kafka", ports.take(), ports.take())
    node = Valkey(directory / "valkey", ports.take())
    python = ROOT / ".venv-flink" / "bin" / "python"
    flink = Flink(
        directory / "flink", python, ROOT / ".jars" / "flink", ports.take(), ports.take(),
        slots=4, state=options.state,
    )  # fmt: skip
    environment = {
        "CORDON_CATALOGUE__NAME": options.catalogue,
        "CORDON_REDIS__URL": f"unix://{node.socket}" if node.socket else node.url,
        "CORDON_KAFKA__BOOTSTRAP": kafka.bootstrap,
        "CORDON_FLINK__REST": flink.rest,
        "CORDON_FLINK__CHECKPOINTS": (directory / "checkpoints").as_uri(),
        "CORDON_FLINK__CHECKPOINT_INTERVAL_MS": str(CHECKPOINTS_MS),
        "CORDON_FLINK__PARALLELISM": str(options.parallelism),
        "CORDON_FLINK__STATE": options.state,
    }
    jobs = Part(
        "jobs",
        (str(python), "-m", "stream.jobs"),
        JobsRunning(flink.rest, 2),
        {**flink.environment(), **environment},
        directory=ROOT,
        start_timeout_s=240.0,
        stop_timeout_s=20.0,
    )
    with Stack([kafka.part(), node.part(), *flink.parts()], directory) as stack:
        names = ("decisions", "events", "labels")
        create_topics(kafka.bootstrap, [Topic(name, options.partitions) for name in names])
        later = options.rate * options.seconds
        source = Source(catalogue, kafka.bootstrap, options.partitions, options.transactions + later)
        source.fill(options.transactions)
        say(f"{source.written} decisions of {source.bytes // source.written} bytes are in the log")
        reader = Reader(node, catalogue, options.partitions)
        stack.add(jobs)
        throughput = catch_up(stack, reader, source)
        say(f"the jobs read {throughput['transactions']} of them in {throughput['seconds']} s")
        visible = freshness(reader, source, options.rate, options.seconds) if options.seconds else None
        right(catalogue, reader.store, source)
        reader.store.close()
    tps = throughput["transactions"] / throughput["seconds"]
    tiles = source.tiles / source.counted
    return {
        "tps": round(tps),
        "tile_updates_per_s": round(tps * tiles),
        "tiles_per_tx": round(tiles, 2),
        "catalogue": options.catalogue,
        "state": options.state,
        "parallelism": options.parallelism,
        "bytes_per_record": round(source.bytes / source.written),
        "throughput": throughput,
        "freshness": visible,
        **terms(seconds=throughput["seconds"], workers=options.parallelism),
    }


class Reader:
    """Looks at the store; for one thread."""

    def __init__(self, node: Valkey, catalogue: Catalogue, partitions: int) -> None:
        self._node = node
        self._catalogue = catalogue
        self._partitions = partitions
        self.store: OnlineStore = connect(node.url, catalogue, PSEUDONYMS.tenant, PATIENT)

    def another(self) -> "Reader":
        """For another thread."""
        return Reader(self._node, self._catalogue, self._partitions)

    def reached(self) -> list[int]:
        """Next offset of every partition of the decisions."""
        marks = self.store.watermark()
        return [marks.get(("decisions", p), ("", 0, 0, 0))[1] for p in range(self._partitions)]


def catch_up(stack: Stack, reader: Reader, source: Source) -> dict[str, Any]:
    """From the first published position to the last."""
    while not sum(reader.reached()):
        time.sleep(0.01)
    first, began_s, cpu_before = sum(reader.reached()), time.monotonic(), cpu(stack)
    last = sum(source.ends)
    while reader.reached() != source.ends:
        time.sleep(0.02)
    last_s, cpu_after = time.monotonic(), cpu(stack)
    # Offsets count the markers of transactions too: one a thousand records and partition.
    share = (last - first) / last
    transactions = round(source.written * share)
    spent = {name: cpu_after[name] - cpu_before.get(name, 0.0) for name in cpu_after}
    return {
        "transactions": transactions,
        "seconds": round(last_s - began_s, 3),
        "cpu_us_per_transaction": {n: round(s / transactions * 1e6, 1) for n, s in spent.items()},
    }


def cpu(stack: Stack) -> dict[str, float]:
    """CPU seconds of every part."""
    return {name: processor_s(stack.processes(name)) for name in ("taskmanager", "valkey", "kafka")}


def freshness(reader: Reader, source: Source, rate: int, seconds: int) -> dict[str, Any]:
    """Open loop: what is due every ten milliseconds, in one transaction, or in the next one where that is not
    done yet; latency from when it was due. Raises `NotMeasured` where the rate was not reached."""
    times_s: dict[tuple[int, int], float] = {}
    other = reader.another()
    source.prepare(rate * seconds)
    with Watch(lambda: dict(enumerate(other.reached())), time.monotonic) as watch:
        start_s = time.monotonic()
        due_s = [start_s + number * TICK_S for number in range(int(seconds / TICK_S))]
        while due_s:
            time.sleep(max(0.0, due_s[0] - time.monotonic()))
            now = [at_s for at_s in due_s[:TICKS_MAX] if at_s <= time.monotonic()]
            source.write(round(rate * TICK_S), now, times_s)
            del due_s[: len(now)]
        achieved = len(times_s) / (time.monotonic() - start_s)
        while reader.reached() != source.ends:
            time.sleep(0.1)
        time.sleep(0.1)
    other.store.close()
    if achieved < ACHIEVED_SHARE_MIN * rate:
        raise NotMeasured(f"{achieved:.0f}/s of the intended {rate}/s: freshness would say nothing")
    passed = [(watch.passed_s(*place), sent_s) for place, sent_s in times_s.items()]
    latencies_ms = [(seen_s - sent_s) * 1_000 for seen_s, sent_s in passed if seen_s is not None]
    if len(latencies_ms) < len(passed):
        raise NotMeasured(f"{len(passed) - len(latencies_ms)} records did not become visible")
    return {
        "rate": rate,
        "achieved": round(achieved),
        **{f"p{p:g}_ms": round(float(np.percentile(latencies_ms, p)), 1) for p in (50, 90, 99, 99.9)},
        "max_ms": round(max(latencies_ms), 1),
    }


def right(catalogue: Catalogue, store: OnlineStore, source: Source) -> None:
    """States of some entities are what follows from the log. Raises `NotMeasured`."""
    who = {(entity, name) for event in source.checked for entity, name in event.who.entities.items()}
    found = check(catalogue, store, count(catalogue, source.checked))
    if not who or not found.tiles or not found.holds:
        raise NotMeasured(f"states of {len(who)} entities are not what the log says: {found.examples}")


if __name__ == "__main__":
    main()
