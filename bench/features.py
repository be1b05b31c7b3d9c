"""The Flink jobs alone: transactions and tile updates per second from a full topic, freshness at a rate.

    .venv/bin/python -m bench.features [--catalogue payments] [--transactions 100000] [--state rocksdb]
        [--parallelism 1] [--partitions 4] [--rate 1000] [--seconds 60] [--json] [--write]

Starts a broker, a Flink cluster and a Valkey node of its own. First the topic `decisions` is filled and the
jobs read it from the beginning: the time counts from the first published position to the last. Then records
are written at a steady rate, in transactions as the publisher does; a record is visible when the watermark
has passed it, which is never before its tiles are there. CPU is each part's own, in user and system mode.
Checkpoints are on, as in the local stack. A sample of states is compared with the log before anything is
reported. What a tile update is, `bench.load.decided.Source` says. `--seconds 0` leaves freshness out.
"""

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import redis

from bench.load.decided import Source
from cordon.evidence import ROOT, Evidence
from cordon.stack.flink import Flink
from cordon.stack.kafka import Kafka
from cordon.stack.part import Part
from cordon.stack.port import HOST, Ports
from cordon.stack.probe import JobsRunning
from cordon.stack.supervisor import Stack
from cordon.stack.topics import Topic, create_topics
from cordon.stack.valkey import Valkey
from features.catalogue import Catalogue, load
from features.library import Keys, parse_watermark
from tests.stream.log_world import expected_states

# What must hold: a figure of the report and its least value.
BARS: Final = {"payments": ("tile_updates_per_s", 40_000), "handbook": ("tps", 10_000)}
FRESH_MS_MAX: Final = 100
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measures and keeps the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--catalogue", choices=("payments", "handbook"), default="payments")
    parser.add_argument("--transactions", type=int, default=100_000)
    parser.add_argument("--state", choices=("rocksdb", "hashmap"), default="rocksdb")
    parser.add_argument("--parallelism", type=int, default=1)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--rate", type=int, default=1_000)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--json", action="store_true", help="only the JSON object")
    parser.add_argument("--write", action="store_true", help="keep the result in bench/results/")
    options = parser.parse_args()
    evidence = Evidence.begin("features" if options.catalogue == "payments" else "features_handbook")
    with tempfile.TemporaryDirectory(prefix="cordon-features-") as name:
        report = measure(Path(name), options, (lambda line: None) if options.json else evidence.progress)
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
        reader = Reader(node, options.partitions)
        stack.add(jobs)
        throughput = catch_up(stack, reader, source)
        say(f"the jobs read {throughput['transactions']} of them in {throughput['seconds']} s")
        visible = freshness(reader, source, options.rate, options.seconds) if options.seconds else None
        check(catalogue, reader, source)
    tps = throughput["transactions"] / throughput["seconds"]
    tiles = source.tiles / source.counted
    return {
        "tps": round(tps),
        "tile_updates_per_s": round(tps * tiles),
        "tiles_per_tx": round(tiles, 2),
        "catalogue": options.catalogue,
        "load_average": os.getloadavg(),
        "state": options.state,
        "parallelism": options.parallelism,
        "bytes_per_record": round(source.bytes / source.written),
        "throughput": throughput,
        "freshness": visible,
    }


class Reader:
    """Looks at the store."""

    def __init__(self, node: Valkey, partitions: int) -> None:
        self.client = redis.Redis(host=HOST, port=node.port)
        self._partitions = partitions

    def reached(self) -> list[int]:
        """Next offset of every partition of the decisions."""
        held = self.client.hgetall("{demo:meta}:watermark")
        assert isinstance(held, dict)
        marks = parse_watermark(
            {k: v for k, v in held.items() if isinstance(k, bytes) and isinstance(v, bytes)}
        )
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
    found: dict[str, float] = {}
    for name in ("taskmanager", "valkey", "kafka"):
        for pid in stack.processes(name):
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            found[name] = found.get(name, 0.0) + (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND
    return found


def freshness(reader: Reader, source: Source, rate: int, seconds: int) -> dict[str, Any]:
    """Open loop: a transaction every ten milliseconds, latency from its scheduled time."""
    times: dict[tuple[int, int], float] = {}
    seen: dict[tuple[int, int], float] = {}
    done = threading.Event()

    def watch() -> None:
        before = reader.reached()
        while not done.is_set():
            now, now_s = reader.reached(), time.monotonic()
            for partition, (old, new) in enumerate(zip(before, now, strict=True)):
                seen.update(((partition, offset), now_s) for offset in range(old, new))
            before = now
            time.sleep(0.001)

    source.prepare(rate * seconds)
    watcher = threading.Thread(target=watch)
    watcher.start()
    start_s, tick_s = time.monotonic(), 0.01
    for number in range(int(seconds / tick_s)):
        due_s = start_s + number * tick_s
        time.sleep(max(0.0, due_s - time.monotonic()))
        source.write(round(rate * tick_s), due_s, times)
    achieved = len(times) / (time.monotonic() - start_s)
    while reader.reached() != source.ends:
        time.sleep(0.1)
    time.sleep(0.1)
    done.set()
    watcher.join()
    latencies = sorted((seen[at] - sent) * 1_000 for at, sent in times.items() if at in seen)
    return {
        "rate": rate,
        "achieved": round(achieved),
        "not_seen": len(times) - len(latencies),
        **{f"p{p:g}_ms": round(quantile(latencies, p), 1) for p in (50, 90, 99, 99.9)},
        "max_ms": round(latencies[-1], 1),
    }


def quantile(ordered: list[float], percent: float) -> float:
    """The value below which so many percent lie."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def check(catalogue: Catalogue, reader: Reader, source: Source) -> None:
    """States of some entities are what follows from the log. Raises `AssertionError`."""
    keys = Keys("demo", catalogue.state_fingerprint)
    wanted = expected_states(catalogue, source.checked)
    assert wanted
    for (entity, who), state in wanted.items():
        assert reader.client.get(keys.state(entity, who)) == state, (entity, who)


if __name__ == "__main__":
    main()
