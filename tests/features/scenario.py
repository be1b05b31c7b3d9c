"""Random streams for the property tests: one stream for the store, the history file and the oracle."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features import Catalogue
from features.evaluate import Evaluator, Row
from features.event import identify
from features.history import History, load_history
from features.library import Packing
from features.measure import FRAUD, TRANSACTION, WITHDRAWN, Scalar
from features.memory_store import MemoryStore
from features.offline import Arrivals
from features.oracle import Happening, Oracle
from features.pseudonym import Pseudonyms
from features.store import Arrival, Status

PSEUDONYMS = Pseudonyms("demo", b"0123456789abcdef")
EPOCH_MS = 1_700_000_000_000


@dataclass(frozen=True, slots=True)
class Event:
    """One observed event. `row`: number of its transaction. For a lifecycle event `amount` may be given."""

    source: str
    time_ms: int
    row: int
    amount: int | None = None


@dataclass(slots=True)
class Stream:
    """Events in order of arrival; `values[r]`: fields of transaction `r`, numbered as they arrived."""

    catalogue: Catalogue
    values: list[dict[str, Scalar]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def fields(self, event: Event) -> dict[str, Scalar]:
        """What measures see of an event: its transaction's fields, a lifecycle event's own amount."""
        values = self.values[event.row]
        if event.source in self.catalogue.schema.lifecycle:
            return {**values, self.catalogue.schema.amount or "": event.amount}
        return values

    def rows(self) -> list[Row]:
        """What the evaluator is given for each transaction; the memory store is offered each event twice."""
        store = MemoryStore(self.catalogue.layouts, lambda: 0)
        packing, rows = Packing(self.catalogue), []
        for number, event in enumerate(self.events):
            values = self.fields(event)
            identity = identify(self.catalogue, PSEUDONYMS, self.values[event.row])
            targets = tuple(
                packing.target(
                    entity,
                    identity.entities[entity],
                    layout.observation(number + 1, event.source, event.time_ms, values, identity.marks),
                )
                for entity, layout in self.catalogue.layouts.items()
                if entity in identity.entities
            )
            arrival = Arrival(f"tx:{number}", b"content", b"owner", b"", targets)
            observed, again = store.arrive([arrival, arrival], now_ms=0, deadline_ms=1)
            assert (observed.status, again.status) == (Status.NEW, Status.PENDING)
            if event.source == TRANSACTION:
                states = {t.entity: state for t, state in zip(targets, observed.states, strict=True)}
                rows.append(Row(event.time_ms, values, identity, states, {}))
        return rows

    def online(self) -> NDArray[np.float32]:
        """The vectors of all transactions, online."""
        return Evaluator(self.catalogue).vectors(self.rows())

    def oracle(self) -> NDArray[np.float32]:
        """The same by the naive implementation."""
        oracle = Oracle(self.catalogue.schema, PSEUDONYMS.mark)
        rows = []
        for event in self.events:
            now = Happening(event.source, event.time_ms, self.fields(event))
            keys = oracle.keys(self.values[event.row])
            before = oracle.observe(now, keys)
            if event.source == TRANSACTION:
                row = oracle.vector(self.catalogue.features, now, keys, before)
                rows.append([math.nan if v is None else v for v in row])
        return np.array(rows, np.float32).reshape(len(rows), len(self.catalogue.features))

    def history(self, folder: Path) -> History:
        """The stream as Parquet files, read back. The file's rows are the transactions as they arrived."""
        path = folder / "stream.parquet"
        schema = self.catalogue.schema
        times = {e.row: e.time_ms for e in self.events if e.source == TRANSACTION}
        reports = {e.row: e.time_ms for e in self.events if e.source == FRAUD}
        withdrawals = {e.row: e.time_ms for e in self.events if e.source == WITHDRAWN}
        count = range(len(self.values))
        columns: dict[str, Sequence[object]] = {
            f.name: [v.get(f.name) for v in self.values] for f in schema.fields
        }
        columns["transaction_id"] = pa.array([f"tx{r}" for r in count], pa.string())
        columns["time"] = pa.array([times[r] for r in count], pa.int64())
        columns["fraud"] = pa.array([r in reports and r not in withdrawals for r in count], pa.bool_())
        columns["label_time"] = pa.array([reports.get(r) for r in count], pa.int64())
        columns["label_withdrawn_time"] = pa.array([withdrawals.get(r) for r in count], pa.int64())
        pq.write_table(pa.table(_typed(columns, self.catalogue)), path)
        events = [e for e in self.events if e.source in schema.lifecycle]
        pq.write_table(
            pa.table(
                {
                    "event_id": [f"ev{i}" for i in range(len(events))],
                    "transaction_id": pa.array([f"tx{e.row}" for e in events], pa.string()),
                    "time": pa.array([e.time_ms for e in events], pa.int64()),
                    "kind": pa.array([e.source for e in events], pa.string()),
                    "amount": pa.array([e.amount for e in events], pa.int64()),
                }
            ),
            folder / "stream.events.parquet",
        )
        return load_history(path, schema)

    def arrivals(self) -> Arrivals:
        """The order of arrival over the timeline of `history`."""
        schema = self.catalogue.schema
        place = {id(event): rank for rank, event in enumerate(self.events)}
        timeline = [e for e in self.events if e.source == TRANSACTION]
        timeline += [e for e in self.events if e.source in schema.lifecycle]
        for source in (FRAUD, WITHDRAWN):
            timeline += sorted((e for e in self.events if e.source == source), key=lambda e: e.row)
        return Arrivals(np.array([place[id(e)] for e in timeline], np.int64))


def _typed(columns: Mapping[str, Sequence[object]], catalogue: Catalogue) -> dict[str, object]:
    kinds = {"amount": pa.int64(), "integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}
    typed: dict[str, object] = dict(columns)
    for spec in catalogue.schema.fields:
        typed[spec.name] = pa.array(columns[spec.name], kinds.get(spec.kind, pa.string()))
    return typed


def payments_values(rng: random.Random) -> dict[str, Scalar]:
    """A valid payments transaction among few cards, so that histories grow."""
    values: dict[str, Scalar] = {
        "amount": rng.randrange(0, 100_000),
        "currency": "EUR",
        "card": f"cd_{rng.randrange(3)}",
        "merchant": f"me_{rng.randrange(50)}",
        "channel": rng.choice(["pos", "ecom"]),
        "category": rng.choice(["cash", "grocery", "gift_cards"]),
    }
    optional: dict[str, Scalar] = {
        "customer": f"cu_{rng.randrange(3)}",
        "device": f"de_{rng.randrange(60)}",
        "terminal": f"te_{rng.randrange(3)}",
        "ip": f"10.0.0.{rng.randrange(3)}",
        "email": f"a{rng.randrange(3)}@example.com",
        "entry": rng.choice(["chip", "online"]),
        "ip_country": rng.choice(["DE", "FR", "US", "VN"]),
        "billing_country": rng.choice(["DE", "FR"]),
        "merchant_country": rng.choice(["DE", "PL"]),
    }
    values.update({name: value for name, value in optional.items() if rng.random() < 0.7})
    if "terminal" in values:
        values["latitude"], values["longitude"] = rng.uniform(-90, 90), rng.uniform(-180, 180)
    return values


def till_values(rng: random.Random) -> dict[str, Scalar]:
    """A valid transaction of the small schema in `tests.features.till`."""
    values: dict[str, Scalar] = {"amount": rng.choice([0, 1, 250, 10_000_000])}
    optional: dict[str, Scalar] = {
        "card": f"c{rng.randrange(2)}",
        "shop": f"s{rng.randrange(45)}",
        "how": rng.choice(["chip", "web"]),
        "items": rng.randrange(0, 5),
        "gift": rng.random() < 0.5,
        "weight": rng.uniform(-1, 1),
        "origin": rng.choice(["a", "b"]),
    }
    values.update({name: value for name, value in optional.items() if rng.random() < 0.8})
    if rng.random() < 0.7:
        values["latitude"] = rng.choice([-90.0, 90.0, 48.137, 48.138, 0.005])
        values["longitude"] = rng.choice([-180.0, 180.0, 11.575, 11.5749])
    return values


def stream(catalogue: Catalogue, seed: int, size: int, late_share: float, steps_ms: Sequence[int]) -> Stream:
    """`size` events with ties, gaps and late ones; labels, withdrawals and lifecycle events among them.

    `steps_ms`: how far the clock moves between events. Nothing is later than the schema allows.
    """
    rng = random.Random(seed)
    draw = payments_values if catalogue.schema.name == "payments" else till_values
    made = Stream(catalogue)
    clock_ms = EPOCH_MS + rng.randrange(86_400_000)
    reported: dict[int, int] = {}
    withdrawn: set[int] = set()
    times: list[int] = []
    for _ in range(size):
        clock_ms += rng.choice(steps_ms)
        lateness = [1, 999, 60_000, 3_600_000, catalogue.schema.lateness_ms]
        time_ms = clock_ms - (rng.choice(lateness) if rng.random() < late_share else 0)
        kind = rng.random()
        row = rng.randrange(len(made.values)) if made.values else 0
        if not made.values or kind < 0.65:
            made.values.append(draw(rng))
            times.append(time_ms)
            made.events.append(Event(TRANSACTION, time_ms, len(made.values) - 1))
        elif kind < 0.75 and row not in reported:
            reported[row] = max(time_ms, times[row] + 1)
            made.events.append(Event(FRAUD, reported[row], row))
        elif kind < 0.85 and row in reported and row not in withdrawn:
            withdrawn.add(row)
            made.events.append(Event(WITHDRAWN, max(time_ms, reported[row] + 1), row))
        elif catalogue.schema.lifecycle:
            amount = rng.choice([None, rng.randrange(1_000)])
            made.events.append(Event(rng.choice(catalogue.schema.lifecycle), time_ms, row, amount))
    return made


def assert_same(names: Sequence[str], a: NDArray[np.float32], b: NDArray[np.float32]) -> None:
    """Bit-equal, NaN with NaN; says which feature of which row differs first."""
    assert a.shape == b.shape
    wrong = np.argwhere(~((a == b) | (np.isnan(a) & np.isnan(b))))
    assert not len(wrong), f"{len(wrong)} differ, first: row {wrong[0][0]} {names[wrong[0][1]]} " + str(
        (a[tuple(wrong[0])], b[tuple(wrong[0])])
    )
