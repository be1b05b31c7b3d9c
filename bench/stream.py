"""The whole stream: from Kafka to decided, recorded, published, counted by Flink and visible in Redis.

    .venv/bin/python -m bench.stream [--transactions 500000 | --seconds 250] [--warm 20000] [--model DIR]
        [--json] [--write]

The whole stack but the HTTP service, payments catalogue, fast lane and checkpoints on. A generated world is
produced to the topic as fast as the broker takes it; the time runs until the log holds every decision and
Flink's watermark has passed the last of them. Every transaction must have been decided once. Processor time
is each part's own.
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from bench.command import arguments, teller, terms
from bench.load.artefact import demonstration_model
from bench.load.course import CALM, NotMeasured
from cordon.evidence import Evidence
from cordon.log import Record
from cordon.parity import Plan, replay_of
from cordon.pipeline import Pipeline, pipeline
from cordon.stack.local import NAMES, Options
from cordon.stack.process import processor_s
from features import Catalogue, load
from stream.replay.run import Replay
from stream.world.spec import WorldSpec
from stream.world.world import generate, write_history

TPS_MIN: Final = 2_000.0
SECONDS: Final = 250.0
SEED: Final = 303
DAYS: Final = 60
PER_CUSTOMER_AND_DAY: Final = 1.5
PATIENCE_S: Final = 1_200.0
PARTS: Final = {"door": "stream_door", "valkey": "redis", "kafka": "kafka", "publisher": "publisher",
                "projector": "projector"}  # fmt: skip


def tiles_per_tx(catalogue: Catalogue, history: Path) -> float:
    """Tiles and entries of maps that Flink updates for a transaction, on average: those of its entities."""
    table = pq.read_table(history, columns=list(catalogue.schema.by_name))
    total, rows = 0, int(table.num_rows)
    for name, layout in catalogue.layouts.items():
        fields = next(entity.fields for entity in catalogue.schema.entities if entity.name == name)
        present = int(table.select(fields).drop_null().num_rows)
        total += present * (sum(map(bool, layout.tiers)) + len(layout.maps))
    return round(total / rows, 1)


def spent_s(running: Pipeline) -> dict[str, float]:
    """Seconds of processor time that each part has used; Flink's Python workers apart from its JVMs."""
    found: dict[str, float] = {"flink_jvm": 0.0, "flink_python": 0.0}
    for part in (*PARTS, "taskmanager", "jobmanager"):
        for pid in running.stack.processes(part):
            try:
                is_java = b"java" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
            except OSError:
                continue
            name = PARTS.get(part) or ("flink_jvm" if is_java else "flink_python")
            found[name] = found.get(name, 0.0) + processor_s([pid])
    return found


def measure(options: argparse.Namespace, directory: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """The report. Raises `NotMeasured` where answers are wrong."""
    catalogue = load("payments")
    model = options.model or demonstration_model(catalogue, say)
    measured = options.transactions or round((options.seconds or SECONDS) * TPS_MIN)
    wanted = measured + options.warm
    customers = max(50, round(1.05 * wanted / DAYS / PER_CUSTOMER_AND_DAY))
    world = generate(WorldSpec(customers=customers, days=DAYS), SEED)
    if len(world.transactions) <= wanted:
        raise NotMeasured(f"the world has {len(world.transactions)} transactions, {wanted} are wanted")
    path = directory / "world.parquet"
    write_history(world, path)
    times = world.transactions["time"]
    warm_ms, until_ms = times[options.warm].as_py(), times[wanted].as_py()
    decided: Counter[str] = Counter()

    def keep(_topic: str, record: Record) -> None:
        if record["type"] == "decision":
            decided[record["id"]] += 1

    overrides = {
        "brakes": CALM,
        "catalogue": {"name": "payments"},
        "decide": {"clock": "event", "model_dir": model.resolve()},
    }
    chosen = Options(only=[name for name in NAMES if name != "service"], usual_ports=False)
    stack = pipeline(directory / "stack", overrides, options=chosen, keep=keep, say=say)
    with stack as running:
        past = replay_of(Plan("payments", path, until_ms=until_ms), catalogue)
        running.kafka(Replay(past, before_ms=warm_ms, quiet=True))
        running.settle(patience_s=PATIENCE_S)
        warm = sum(decided.values())
        before = spent_s(running)
        began_s = time.monotonic()
        manifest = running.kafka(Replay(past, since_ms=warm_ms, quiet=True))
        say(f"{manifest.sent['transaction']} transactions produced in {manifest.seconds:.1f} s")
        running.settle(flink=False, patience_s=PATIENCE_S)
        say(f"decided and published after {time.monotonic() - began_s:.1f} s")
        running.settle(patience_s=PATIENCE_S)
        took_s = time.monotonic() - began_s
        used = {part: seconds - before.get(part, 0.0) for part, seconds in spent_s(running).items()}
        dead = running.dead_letters()
    sent = manifest.sent["transaction"]
    return {
        "transactions": sent,
        "tps": round(sent / took_s, 1),
        "lost": sent + warm - len(decided) + dead,
        "duplicates": sum(number - 1 for number in decided.values()),
        "tiles_per_tx": tiles_per_tx(catalogue, path),
        "cpu_us_per_tx": {part: round(seconds / sent * 1e6, 1) for part, seconds in sorted(used.items())},
        "warm": warm,
        **terms(seconds=took_s),
    }


def main() -> None:
    """Measures and keeps the result."""
    parser = arguments(__doc__)
    parser.add_argument("--transactions", type=int, default=None, help="500,000 if absent")
    parser.add_argument("--seconds", type=float, default=None, help="instead: as many as the bar passes")
    parser.add_argument("--warm", type=int, default=20_000, help="transactions before the clock starts")
    parser.add_argument("--model", type=Path, default=None, help="artefact; the demonstration's if absent")
    options = parser.parse_args()
    evidence = Evidence.begin("stream")
    with tempfile.TemporaryDirectory(prefix="cordon-stream-") as name:
        report = measure(options, Path(name), teller(options, evidence))
    holds = report["tps"] >= TPS_MIN and report["lost"] == report["duplicates"] == 0
    evidence.end(report, holds=holds, write=options.write)


if __name__ == "__main__":
    main()
