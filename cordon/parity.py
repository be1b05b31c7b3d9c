"""Skew, measured: a history goes through the whole stack, and every decision's vector is recomputed.

source file --replay--> Kafka --> door --> Redis, journal --> Kafka --> Flink --> Redis
     |                              `- vector of each decision -.
     `--> oracle, offline builder ------------------------------> compared bit by bit
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from cordon.log import Record
from cordon.pipeline import Pipeline, pipeline
from cordon.recompute import Log, Source, recompute
from cordon.stack.local import Options
from features import Catalogue
from features.event import parse_label, parse_lifecycle, parse_transaction
from features.history import NEVER, load_history
from features.history import History as Columns
from features.offline import Arrivals, build
from features.parity import Report, compare
from features.pseudonym import Pseudonyms
from features.rates import rates
from stream.replay import history as replayed
from stream.replay.history import History
from stream.replay.injection import Injection
from stream.replay.manifest import Manifest
from stream.replay.pace import Pace
from stream.replay.run import Replay

FLINK = ("jobmanager", "taskmanager")
KEPT = ("type", "id", "order", "claim", "degraded", "transaction_id", "fraud", "decided_ms")


@dataclass(frozen=True, slots=True)
class Plan:
    """One parity run.

    Everything before `test_from_ms` is a backfill, as fast as it goes, and not compared. `rate`: transactions
    per second afterwards; `None` without a limit. `pause_s`: Flink stands still for so long in the middle.
    Without the fast lane the part that is compared is replayed in lockstep with Flink.
    """

    catalogue: str
    history: Path
    events: Path | None = None
    label_delay_ms: int | None = None
    from_ms: int | None = None
    test_from_ms: int | None = None
    until_ms: int | None = None
    rate: float | None = None
    injection: Injection = field(default_factory=Injection)
    fast_lane: bool = True
    pause_s: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Outcome:
    """`oracle`, `offline`: comparisons of the decided vectors. `surplus`: log records without a source.
    `dead_letters`: messages of that topic; each malformed message of the replay must be one."""

    oracle: Report
    offline: Report
    surplus: int
    apart: int
    manifest: Manifest
    dead_letters: int

    @property
    def holds(self) -> bool:
        """Whether nothing differs, nothing is left out and nothing appeared from nowhere."""
        explained = self.surplus == 0 and self.dead_letters == self.manifest.malformed.total()
        return self.oracle.holds and self.offline.holds and explained

    def as_json(self, plan: Plan) -> dict[str, Any]:
        """The last line of `cordon parity --json`."""
        return {
            **self.oracle.as_json(),
            "offline_mismatch": sum(
                sum(c.values()) for c in (self.offline.mismatch, self.offline.missing, self.offline.extra)
            ),
            "surplus": self.surplus,
            "recovered_or_unobserved": self.apart,
            "dead_letters": self.dead_letters,
            "fast_lane": plan.fast_lane,
            "replay": self.manifest.as_dict(),
        }


class Keeper:
    """Keeps of each record what a comparison needs; vectors as float32. `phase` is noted with each record:
    everything of an earlier phase arrived before everything of a later one."""

    def __init__(self, test_from_ms: int | None) -> None:
        self.log = Log()
        self.phase = 0
        self._from_ms = test_from_ms or 0

    def __call__(self, topic: str, record: Record) -> None:
        """Take one record of the log."""
        slim: Record = {key: record[key] for key in KEPT if key in record}
        slim["phase"] = self.phase
        if record["type"] in ("decision", "abandoned"):
            if record["type"] == "decision" and record["time_ms"] >= self._from_ms:
                vector = [np.nan if x is None else x for x in record["features"]]
                slim["features"] = np.array(vector, np.float32)
            self.log.decisions.append(slim)
        elif record["type"] == "label":
            self.log.labels.append(slim)
        else:
            self.log.events.append(slim)


def run(plan: Plan, directory: Path, say: Callable[[str], None]) -> Outcome:
    """Replay, await, recompute, compare. Blocks for minutes; raises what the stack and the replay raise."""
    keeper = Keeper(plan.test_from_ms)
    name = plan.catalogue
    overrides: dict[str, Any] = {
        "catalogue": {"name": str(Path(name).resolve()) if name.endswith(".py") else name},
        "decide": {"fast_lane": plan.fast_lane, "clock": "event"},
        "kafka": {"partitions": 1},
        **plan.settings,
    }
    options = Options(usual_ports=False)
    with pipeline(directory, overrides, options=options, keep=keeper, say=say) as running:
        manifest = drive(plan, running, say)
        return judge(plan, running, keeper.log, manifest, say)


def drive(plan: Plan, running: Pipeline, say: Callable[[str], None]) -> Manifest:
    """Replay backfill and test; returns the manifest of the part that is compared."""
    past = replay_of(plan, running.catalogue)
    if plan.test_from_ms is not None:
        backfill = running.kafka(Replay(past, before_ms=plan.test_from_ms))
        running.settle(patience_s=300)
        say(f"backfilled {backfill.sent['transaction']} transactions")
    with contextlib.ExitStack() as stack:
        passage = None if plan.fast_lane else stack.enter_context(running.lockstep())
        if plan.pause_s:
            stack.enter_context(flink_paused(plan, running, say))
        pace = Pace(rate=plan.rate)
        part = Replay(past, plan.injection, pace, passage, since_ms=plan.test_from_ms)
        manifest = running.kafka(part)
    running.settle(patience_s=300)
    say(f"replayed {manifest.sent['transaction']} transactions in {manifest.seconds:.0f} s")
    return manifest


@contextlib.contextmanager
def flink_paused(plan: Plan, running: Pipeline, say: Callable[[str], None]) -> Iterator[None]:
    """Flink's processes stand still (SIGSTOP) in the middle of the block, as the rate foretells it."""
    known = replayed.extent(replay_of(plan, running.catalogue))
    share = (known.last_ms - (plan.test_from_ms or known.first_ms)) / max(1, known.last_ms - known.first_ms)
    middle_s = known.transactions * share / (plan.rate or 2_000) / 2
    resumed = threading.Event()

    def pause() -> None:
        time.sleep(middle_s)
        say(f"Flink stands still for {plan.pause_s:.0f} s")
        for part in FLINK:
            running.stack.pause(part)
        time.sleep(plan.pause_s)
        for part in FLINK:
            running.stack.resume(part)
        resumed.set()

    thread = threading.Thread(target=pause, name="pause", daemon=True)
    thread.start()
    yield
    thread.join()
    assert resumed.is_set(), "Flink was paused and resumed within the replay"


def judge(plan: Plan, running: Pipeline, log: Log, manifest: Manifest, say: Callable[[str], None]) -> Outcome:
    """Compare what was decided with oracle and offline builder."""
    catalogue = running.catalogue
    source = source_of(replay_of(plan, catalogue), catalogue)
    tested = {i for i, t in source.transactions.items() if t.time_ms >= (plan.test_from_ms or 0)}
    say(f"recomputing {len(tested)} decisions with the oracle")
    found = recompute(catalogue, source, log, pseudonyms=running.pseudonyms, compare=tested)
    excluded = len(found.missing)
    by_oracle = compare(catalogue.names, found.expected, found.actual, excluded)
    say("recomputing them with the offline builder")
    columns = load_history(plan.history, catalogue.schema, plan.label_delay_ms, plan.from_ms, plan.until_ms)
    offline = offline_vectors(catalogue, columns, log, found.ids, running.pseudonyms)
    by_offline = compare(catalogue.names, offline, found.actual, excluded)
    dead = running.dead_letters()
    return Outcome(by_oracle, by_offline, len(found.surplus), len(found.apart), manifest, dead)


def offline_vectors(
    catalogue: Catalogue, columns: Columns, log: Log, ids: list[str], pseudonyms: Pseudonyms
) -> NDArray[np.float32]:
    """The offline builder's rows for `ids`, in the order of arrival that the log tells."""
    order = arrivals(catalogue, columns, log)
    matrix = build(catalogue, columns, order=order, pseudonyms=pseudonyms, workers=2)
    row_of = {str(transaction_id): row for row, transaction_id in enumerate(columns.ids)}
    return matrix.values[[row_of[i] for i in ids]]


def arrivals(catalogue: Catalogue, columns: Columns, log: Log) -> Arrivals | None:
    """Running numbers of the log as ranks over the history's timeline; `None` where the log has none."""
    if not any(record["order"] for record in log.decisions):
        return None
    line = columns.timeline
    place: dict[tuple[str, str], int] = {("decision", str(t)): i for i, t in enumerate(columns.ids)}
    at = len(columns.ids)
    for event_id in columns.events.ids:
        place["event", str(event_id)] = at
        at += 1
    for kind, times in (("fraud", columns.label_time_ms), ("withdrawn", columns.withdrawn_ms)):
        for row in np.flatnonzero(times != NEVER):
            place[kind, str(columns.ids[row])] = at
            at += 1
    ranks = {entity: np.full(len(line), -1, np.int64) for entity in catalogue.entities}
    for kind, record in _placed(log):
        name = record["transaction_id" if kind in ("fraud", "withdrawn") else "id"]
        index = place.get((kind, name))
        for entity, (_, number) in record["order"].items():
            if index is not None and entity in ranks:
                ranks[entity][index] = number
    return Arrivals(entities=ranks)


def _placed(log: Log) -> Iterator[tuple[str, Record]]:
    for record in log.decisions:
        yield "decision", record
    for record in log.events:
        yield "event", record
    for record in log.labels:
        yield "fraud" if record["fraud"] else "withdrawn", record


def replay_of(plan: Plan, catalogue: Catalogue) -> History:
    """The replay's view of the plan's history."""
    return History(
        plan.history, catalogue.schema, plan.events, plan.label_delay_ms, plan.from_ms, plan.until_ms
    )


def source_of(past: History, catalogue: Catalogue) -> Source:
    """Everything that a replay of this history sends, parsed."""
    schema = catalogue.schema
    decode = msgspec.json.Decoder().decode
    table = rates(schema.base_currency)
    known = replayed.extent(past)
    transactions = {
        item.id: parse_transaction(schema, table, decode(item.body))
        for item in replayed.transactions(past, known)
    }
    labels = {}
    for item in replayed.labels(past, known):
        label = parse_label(decode(item.body))
        labels[label.transaction_id, label.fraud] = label.time_ms
    events = {}
    for item in replayed.events(past, known):
        events[item.id] = parse_lifecycle(schema, decode(item.body))
    return Source(transactions, labels, events)
