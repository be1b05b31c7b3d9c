"""Decisions of one process from Kafka, observed in Redis, recorded: how many a second.

    .venv/bin/python -m bench.decide [--catalogue payments] [--transactions N] [--seconds 60] [--warm 20000]
        [--model DIR] [--json] [--write]

The topic is filled, then the Kafka door is started beside Valkey and the broker; nothing follows its journal.
Payments of a generated world are decided with the demonstration's model, the handbook's transactions by rules
alone. A decision counts once it is durable; the clock runs over all that follow the first `--warm`, CPU over
the same ones. Without `--transactions` there are as many as the bar passes in `--seconds`.

Afterwards the journal must hold every transaction exactly once, with its whole vector, none degraded. What
the stages of a decision took is what the records say, `rest` everything around them: reading the topic,
what is asked of the store, encoding, the journal.
"""

import argparse
import contextlib
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from api.journal import Mark
from api.journal_reader import contents
from bench.command import arguments, teller, terms
from bench.load.artefact import demonstration_model
from bench.load.course import CALM, EXPLAINED_SHARE_MIN, NotMeasured
from bench.load.decided import transactions
from bench.load.traffic import traffic
from cordon.evidence import Evidence
from cordon.settings import Settings
from cordon.stack.local import Local, Options, local
from cordon.stack.process import processor_s
from cordon.stack.supervisor import Stack
from features import DAY, Catalogue, load
from stream.replay.item import Item
from stream.replay.kafka_door import KafkaDoor, KafkaSender
from stream.replay.manifest import Manifest

TPS_MIN: Final = {"payments": 8_000.0, "handbook": 8_000.0}
SECONDS: Final = 60.0
BESIDE: Final = ("valkey", "kafka", "topics")
MEASURED: Final = ("door", "valkey", "kafka")
STAGES: Final = ("features", "score", "rules", "explain")
LOOK_S: Final = 0.002
PATIENCE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of a record. `stages_us`: of its whole batch, and its size."""

    explained: bool
    stages_us: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Moment:
    """What was so at one time: decisions that are durable, seconds of processor time of each part."""

    at_s: float
    durable: int
    cpu_s: dict[str, float]


def main() -> None:
    """Measures; the status says whether the bar was met."""
    parser = arguments(__doc__)
    parser.add_argument("--catalogue", choices=tuple(TPS_MIN), default="payments")
    parser.add_argument("--transactions", type=int, default=None, help="that are measured")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="at the bar; sizes the topic")
    parser.add_argument("--warm", type=int, default=20_000, help="transactions before the clock starts")
    parser.add_argument("--model", type=Path, default=None, help="artefact; the demonstration's if absent")
    options = parser.parse_args()
    evidence = Evidence.begin("decide" if options.catalogue == "payments" else f"decide_{options.catalogue}")
    with tempfile.TemporaryDirectory(prefix="cordon-decide-") as name:
        report = measure(Path(name), options, teller(options, evidence))
    fast = report["tps"] >= TPS_MIN[options.catalogue]
    explained = not report["model"] or report["explained_share"] >= EXPLAINED_SHARE_MIN
    evidence.end(report, holds=fast and explained, write=options.write)


def measure(directory: Path, options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """The report. Raises `NotMeasured`."""
    catalogue = load(options.catalogue)
    model = options.model or (demonstration_model(catalogue, say) if catalogue.name == "payments" else None)
    measured = options.transactions or round(options.seconds * TPS_MIN[options.catalogue])
    count = options.warm + measured
    overrides = {
        "brakes": CALM,
        "catalogue": {"name": options.catalogue, "lateness_ms": DAY},
        "decide": {"clock": "event", **({"model_dir": model.resolve()} if model else {})},
    }
    plan = local(Settings.load(**overrides), directory / "stack", Options(usual_ports=False))
    parts = {part.name: part for part in plan.parts}
    with Stack([parts[name] for name in BESIDE], directory / "stack", say=say) as stack:
        kafka = plan.settings.kafka
        sent = fill(KafkaDoor(kafka.bootstrap, kafka.transactions), items(catalogue, count, directory))
        say(f"{len(sent)} transactions are in the topic")
        stack.add(parts["door"])
        with durable(plan) as mark:
            begun = reached(stack, mark, options.warm)
            say(f"the first {begun.durable} are decided")
            ended = reached(stack, mark, count)
    found = check(plan, catalogue, sent, whole=model is not None)
    took_s, decided = ended.at_s - begun.at_s, ended.durable - begun.durable
    return {
        "tps": round(decided / took_s, 1),
        "catalogue": catalogue.name,
        "transactions": decided,
        "warm": begun.durable,
        "features": len(catalogue.names),
        "model": model.name if model else None,
        "explained_share": round(sum(one.explained for one in found) / count, 4),
        "cpu_us_per_tx": {
            name: round((ended.cpu_s[name] - begun.cpu_s[name]) / decided * 1e6, 1) for name in MEASURED
        },
        "wall_us_per_tx": stages(found[begun.durable :], took_s / decided * 1e6),
        **terms(seconds=took_s),
    }


def items(catalogue: Catalogue, count: int, directory: Path) -> Iterable[Item]:
    """Transactions in time order, as a topic carries them."""
    if catalogue.name == "payments":
        return traffic(catalogue, count, directory).take(count)
    return simulated(catalogue, count)


def simulated(catalogue: Catalogue, count: int) -> Iterator[Item]:
    """Random transactions of the handbook's shape."""
    schema = catalogue.schema
    for number, (time_ms, values) in enumerate(transactions(catalogue, count)):
        id_ = f"tx-{number}"
        body = json.dumps({schema.id: id_, schema.time: time_ms, **values}).encode()
        key = str(values[schema.primary]).encode()
        yield Item(time_ms, "transaction", id_, id_, key, body)


def fill(door: KafkaDoor, found: Iterable[Item]) -> set[str]:
    """Produces all and waits until the broker has them; their ids. Raises `Undelivered`."""
    ids = set()
    with KafkaSender(door, Manifest()) as sender:
        for item in found:
            sender.send(item)
            ids.add(item.id)
    return ids


@contextlib.contextmanager
def durable(plan: Local) -> Iterator[Mark]:
    """The mark of the door's journal."""
    mark = Mark(journal_of(plan))
    try:
        yield mark
    finally:
        mark.close()


def journal_of(plan: Local) -> Path:
    """The only door's."""
    return plan.settings.journal.directory / "door-0"


def reached(stack: Stack, mark: Mark, count: int) -> Moment:
    """Waits until so many decisions are durable. Raises `NotMeasured` where nothing happens for long."""
    newest, heard_s = mark.sequence, time.monotonic()
    while (found := mark.sequence) < count:
        now_s = time.monotonic()
        if found > newest:
            newest, heard_s = found, now_s
        elif now_s - heard_s > PATIENCE_S:
            raise NotMeasured(f"the door stands still at {found} of {count} decisions: read its log")
        time.sleep(LOOK_S)
    at_s = time.monotonic()
    return Moment(at_s, found, {name: processor_s(stack.processes(name)) for name in MEASURED})


def check(plan: Local, catalogue: Catalogue, sent: set[str], *, whole: bool) -> list[Kept]:
    """Every transaction was decided once with everything it needs; what their records say, oldest first.

    `whole`: with a model. Raises `NotMeasured`.
    """
    seen: Counter[str] = Counter()
    allowed = [] if whole else ["model"]
    found = []
    for record in contents(journal_of(plan)):
        if record["type"] != "decision" or record["claim"] != "new":
            raise NotMeasured(f"{record['id']}: a record of another kind: {record['type']}")
        if record["degraded"] != allowed:
            raise NotMeasured(f"{record['id']} was decided without {', '.join(record['degraded'])}")
        if len(record["features"]) != len(catalogue.names):
            raise NotMeasured(f"{record['id']}: a vector of {len(record['features'])} features")
        seen[record["id"]] += 1
        weights = [reason["weight"] for reason in record["reasons"]]
        found.append(Kept(any(weight is not None for weight in weights), record["stages_us"]))
    wrong = {i for i in sent if seen[i] != 1} | (seen.keys() - sent)
    if wrong:
        raise NotMeasured(f"{len(wrong)} are not in the journal exactly once, such as {min(wrong)}")
    return found


def stages(found: Sequence[Kept], whole_us: float) -> dict[str, float]:
    """Mean microseconds of each stage for a transaction, by the clock: what batches took over their size."""
    mean = {
        name: sum(one.stages_us[name] / one.stages_us["batch"] for one in found) / len(found)
        for name in STAGES
    }
    mean["rest"] = whole_us - sum(mean.values())
    return {name: round(us, 1) for name, us in mean.items()}


if __name__ == "__main__":
    main()
