"""The Flink jobs alone: transactions and tile updates per second from a full topic, freshness at a rate.

    .venv/bin/python -m bench.features [--catalogue handbook] [--transactions 300000] [--state hashmap]
        [--parallelism 1] [--partitions 4] [--rate 1000] [--seconds 60]

Starts a broker, a Flink cluster and a Valkey node of its own. First the topic `decisions` is filled and the
jobs read it from the beginning: the time counts from the first published position to the last. Then records
are written at a steady rate, in transactions as the publisher does; a record is visible when the watermark
has passed it, which is never before its tiles are there. CPU is each part's own, in user and system mode.
A sample of states is compared with the log before anything is reported. Prints one JSON object.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis
from confluent_kafka import Producer

from cordon.stack.flink import Flink
from cordon.stack.kafka import Kafka
from cordon.stack.part import Part
from cordon.stack.port import HOST, Ports
from cordon.stack.probe import JobsRunning
from cordon.stack.supervisor import Stack
from cordon.stack.topics import Topic, create_topics
from cordon.stack.valkey import Valkey
from features import sql
from features.catalogue import Catalogue, load
from features.library import Keys, parse_watermark
from features.pseudonym import Pseudonyms
from features.state import State

ROOT = Path(__file__).resolve().parent.parent
START_MS = 1_522_540_800_000
PSEUDONYMS = Pseudonyms("demo", b"0123456789abcdef")
CUSTOMERS, TERMINALS = 5_000, 10_000
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transactions", type=int, default=300_000)
    parser.add_argument("--state", choices=("rocksdb", "hashmap"), default="hashmap")
    parser.add_argument("--parallelism", type=int, default=1)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--rate", type=int, default=1_000)
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(measure(Path(name), options)))


def measure(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The figures as one object."""
    catalogue = load("handbook")
    ports = Ports()
    kafka = Kafka(directory / "kafka", ROOT / ".jars" / "kafka", ports.take(), ports.take())
    node = Valkey(directory / "valkey", ports.take())
    python = ROOT / ".venv-flink" / "bin" / "python"
    flink = Flink(
        directory / "flink", python, ROOT / ".jars" / "flink", ports.take(), ports.take(),
        slots=4, state=options.state, task_manager_mib=3_072, managed_mib=768,
    )  # fmt: skip
    environment = {
        "CORDON_CATALOGUE__NAME": "handbook",
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
        source = Source(catalogue, kafka.bootstrap, options.partitions)
        source.fill(options.transactions)
        reader = Reader(node, options.partitions)
        stack.add(jobs)
        throughput = catch_up(stack, reader, source)
        visible = freshness(reader, source, options.rate, options.seconds)
        check(catalogue, reader, source)
    updates = len(sql.sections(catalogue))
    seconds = throughput["seconds"]
    return {
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load_average": os.getloadavg(),
        "state": options.state,
        "parallelism": options.parallelism,
        "tile_updates_per_transaction": updates,
        "transactions_per_second": round(throughput["transactions"] / seconds),
        "tile_updates_per_second": round(throughput["transactions"] * updates / seconds),
        "throughput": throughput,
        "freshness": visible,
    }


class Source:
    """Writes decisions of the handbook's shape; remembers what each customer's day must hold."""

    def __init__(self, catalogue: Catalogue, bootstrap: str, partitions: int) -> None:
        self._random = random.Random(1)
        self._customers = [PSEUDONYMS.entity("customer", (str(i),)) for i in range(CUSTOMERS)]
        self._terminals = [PSEUDONYMS.entity("terminal", (str(i),)) for i in range(TERMINALS)]
        self._marks = [PSEUDONYMS.mark("terminal", str(i)) for i in range(TERMINALS)]
        self._producer = Producer(
            {"bootstrap.servers": bootstrap, "transactional.id": "bench", "linger.ms": 0,
             "queue.buffering.max.messages": 1_000_000}
        )  # fmt: skip
        self._producer.init_transactions()
        self.written = 0
        self.ends = [0] * partitions
        self.amounts: dict[str, list[int]] = {}
        # What a decision carries beside what Flink reads: as long as a real one.
        self._ballast = {
            "outcome": "approve", "score": 12, "probability": 0.0123, "margin": -4.2, "expected_loss": 12,
            "rules": [{"id": f"r-{n}", "result": "no_hit", "action": "review"} for n in range(4)],
            "reasons": [{"code": "amount", "text": "unusual amount for the customer", "weight": 0.2}],
            "features": [round(self._random.random() * 100, 3) for _ in catalogue.features],
            "versions": {"model": "m1", "rules": "r1", "lists": "l1", "catalogue": "c1", "policy": "p1"},
            "freshness": {"flink_lag_ms": 12, "generation": "g", "state": "fresh"}, "degraded": [],
        }  # fmt: skip

    def fill(self, count: int) -> None:
        """Write in large transactions."""
        for first in range(0, count, 1_000):
            self._producer.begin_transaction()
            for _ in range(min(1_000, count - first)):
                self._produce(self._delivered)
            self._producer.commit_transaction()

    def write(self, count: int, sent_s: float, times: dict[tuple[int, int], float]) -> None:
        """One transaction; `times` receives the scheduled time of each record by (partition, offset)."""

        def delivered(error: object, message: Any) -> None:
            self._delivered(error, message)
            times[message.partition(), message.offset()] = sent_s

        self._producer.begin_transaction()
        for _ in range(count):
            self._produce(delivered)
        self._producer.commit_transaction()

    def _delivered(self, error: object, message: Any) -> None:
        assert error is None, error
        self.ends[message.partition()] = message.offset() + 1

    def _produce(self, delivered: Any) -> None:
        customer = self._random.randrange(CUSTOMERS)
        terminal = self._random.randrange(TERMINALS)
        amount = self._random.randrange(100, 20_000)
        who, where = self._customers[customer], self._terminals[terminal]
        body = {
            "type": "decision", "v": 1, "tenant": "demo", "id": str(self.written),
            "time_ms": START_MS + self.written * 9_000,
            "transaction": {"customer": who, "terminal": where, "amount": amount},
            "entities": {"customer": who, "terminal": where},
            "marks": {"terminal": self._marks[terminal]}, **self._ballast,
        }  # fmt: skip
        self.amounts.setdefault(who, []).append(amount)
        self.written += 1
        text = json.dumps(body, separators=(",", ":"))
        self._producer.produce("decisions", text, key=who, on_delivery=delivered)
        self._producer.poll(0)


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
    """CPU seconds of every part; of the task manager also its Python workers."""
    found: dict[str, float] = {}
    for name in ("taskmanager", "valkey", "kafka"):
        for pid in stack.processes(name):
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                is_python = b"python" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
            except OSError:
                continue
            part = f"{name} (python)" if is_python and name == "taskmanager" else name
            found[part] = found.get(part, 0.0) + (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND
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
    """Days of a hundred customers hold every amount that was written. Raises `AssertionError`."""
    keys = Keys("demo", catalogue.state_fingerprint)
    layout = catalogue.layouts["customer"]
    measures: Mapping[tuple[str, str], int] = {
        (m.source, m.aggregate): layout.tiers[2].index(i)
        for i, m in enumerate(layout.measures)
        if i in layout.tiers[2]
    }
    for who in sorted(source.amounts)[:100]:
        held = reader.client.get(keys.state("customer", who))
        assert isinstance(held, bytes)
        days = State.decode(layout, held).tiers[2].values()
        count = sum(day[measures["transaction", "count"]] for day in days)
        total = sum(day[measures["transaction", "sum"]] for day in days)
        assert (count, total) == (len(source.amounts[who]), sum(source.amounts[who])), (who, count, total)


if __name__ == "__main__":
    main()
