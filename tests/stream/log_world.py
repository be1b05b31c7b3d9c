"""A log of decided transactions, lifecycle events and labels of the payments schema, and the states that
follow from it: tiles added up one event at a time in plain dictionaries, merged into `State`."""

import json
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from confluent_kafka import Producer

from features.catalogue import Catalogue
from features.measure import FRAUD, TRANSACTION, WITHDRAWN, place_of
from features.payments import CATEGORIES, CHANNELS, LIFECYCLE
from features.pseudonym import Pseudonyms
from features.state import Assertion, State
from features.tier import DAY, MINUTE, TIERS

START_MS = 1_700_000_000_000
PSEUDONYMS = Pseudonyms("demo", b"0123456789abcdef")


@dataclass(frozen=True)
class Record:
    """One record of the log: its topic (`decisions`, `events`, `labels`) and its JSON."""

    topic: str
    body: dict


def decision(number: int, time_ms: int, values: dict, catalogue: Catalogue, kind: str = "decision") -> Record:
    """A decision as the publisher writes it: pseudonyms for ids, marks for remembered values."""
    entities = {}
    for entity in catalogue.schema.entities:
        parts = [values.get(name) for name in entity.fields]
        if None not in parts:
            entities[entity.name] = PSEUDONYMS.entity(entity.name, tuple(map(str, parts)))
    marks = {f: PSEUDONYMS.mark(f, str(values[f])) for f in catalogue.mark_fields if f in values}
    place = place_of(values.get("latitude"), values.get("longitude"))
    if place:
        marks["place"] = place
    shown = {k: v for k, v in values.items() if k not in catalogue.schema.identifying}
    body = {
        "type": kind,
        "v": 1,
        "id": f"tx-{number}",
        "time_ms": time_ms,
        "transaction": shown,
        "entities": entities,
        "marks": marks,
        "features": [0.5, None],
        "versions": {"model": "m", "code": 'quote " and \\ backslash'},
    }
    return Record("decisions", body)


def label(number: int, of: Record, time_ms: int, *, fraud: bool) -> Record:
    """A label of an earlier decision."""
    kept = {k: of.body[k] for k in ("entities", "transaction")}
    return Record(
        "labels", {"type": "label", "id": f"l-{number}", "time_ms": time_ms, "fraud": fraud, **kept}
    )


def event(number: int, of: Record, time_ms: int, kind: str, amount: int | None) -> Record:
    """A lifecycle event of an earlier decision."""
    kept = {k: of.body[k] for k in ("entities", "transaction")}
    body = {"type": "event", "id": f"e-{number}", "time_ms": time_ms, "kind": kind, **kept}
    return Record("events", body if amount is None else {**body, "amount": amount})


def payments(catalogue: Catalogue, count: int, seed: int, first_ms: int = START_MS) -> list[Record]:
    """Random transactions over two months, late ones among them, with what followed."""
    r = random.Random(seed)
    records: list[Record] = []
    now_ms = first_ms
    for number in range(count):
        now_ms += r.choice([0, 1, 900, 40_000, 25 * MINUTE, 5 * 60 * MINUTE])
        late_ms = r.choice([0, 0, 0, r.randrange(2 * 60 * MINUTE)])
        values: dict = {
            "amount": r.choice([0, 1, 999, 10_000_000, r.randrange(50_000)]),
            "currency": "EUR",
            "merchant": f"me_{r.randrange(4)}",
            "channel": r.choice(CHANNELS),
            "category": r.choice(CATEGORIES),
        }
        for name, number_of in (("card", 6), ("customer", 4), ("terminal", 5), ("device", 40), ("ip", 9)):
            if r.random() < 0.9:
                values[name] = f"{name}_{r.randrange(number_of)}"
        if r.random() < 0.6:
            values |= {"latitude": r.uniform(-90, 90), "longitude": r.uniform(-180, 180)}
        kind = "abandoned" if r.random() < 0.05 else "decision"
        records.append(decision(seed * 1_000_000 + number, now_ms - late_ms, values, catalogue, kind))
        earlier = r.choice([x for x in records[-50:] if x.topic == "decisions"])
        if r.random() < 0.4:
            amount = r.choice([None, 0, r.randrange(10_000)])
            records.append(event(number, earlier, now_ms + r.randrange(DAY), r.choice(LIFECYCLE), amount))
        if r.random() < 0.3:
            records.append(label(number, earlier, now_ms + r.randrange(DAY), fraud=r.random() < 0.8))
    return records


def produce(bootstrap: str, topics: Mapping[str, str], records: Iterable[Record], name: str) -> None:
    """Write the records in committed transactions, with an aborted copy of each batch before it."""
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": name, "linger.ms": 1})
    producer.init_transactions()
    waiting = list(records)
    for first in range(0, len(waiting), 500):
        batch = waiting[first : first + 500]
        for end in (producer.abort_transaction, producer.commit_transaction):
            producer.begin_transaction()
            for record in batch:
                key = next(iter(record.body["entities"].values()), "none")
                producer.produce(topics[record.topic], json.dumps(record.body).encode(), key=key)
            producer.flush()
            end()


def source_of(record: Record) -> str:
    """The source of measures that the record is."""
    if record.topic == "decisions":
        return TRANSACTION
    return record.body["kind"] if record.topic == "events" else FRAUD if record.body["fraud"] else WITHDRAWN


@dataclass
class Expected:
    """Absolute values of one entity."""

    tiles: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    heads: list[int] = field(default_factory=list)
    seen: dict[tuple[int, int], int] = field(default_factory=dict)


def expected_states(catalogue: Catalogue, records: Iterable[Record]) -> dict[tuple[str, str], bytes]:
    """Bytes of every state, by entity and pseudonym."""
    found: dict[tuple[str, str], Expected] = defaultdict(Expected)
    for record in records:
        body = record.body
        values = dict(body["transaction"])
        if record.topic == "events":
            values["amount"] = body.get("amount")
        for entity, pseudonym in body["entities"].items():
            layout = catalogue.layouts.get(entity)
            if layout is None:
                continue
            seen = layout.observation(1, source_of(record), body["time_ms"], values, body.get("marks", {}))
            if seen.empty:
                continue
            has = found[entity, pseudonym]
            has.heads = [max(a, b) for a, b in zip(has.heads or seen.heads, seen.heads, strict=True)]
            for tier, slots in enumerate(layout.tiers):
                deltas = [(seen.deltas[s], layout.measures[s].grows_by) for s in slots]
                if any(delta for delta, _ in deltas):
                    at = (tier, TIERS[tier].tile(seen.time_ms))
                    old = has.tiles.get(at, [0] * len(slots))
                    has.tiles[at] = [
                        a + d if grows == "add" else max(a, d)
                        for a, (d, grows) in zip(old, deltas, strict=True)
                    ]
            for index, mark in enumerate(seen.marks):
                if mark:
                    has.seen[index, mark] = max(has.seen.get((index, mark), 0), seen.time_ms)
    return {at: _merged(catalogue, at[0], has) for at, has in found.items()}


def _merged(catalogue: Catalogue, entity: str, has: Expected) -> bytes:
    state = State(catalogue.layouts[entity])
    tiles = tuple((tier, tile, tuple(slots)) for (tier, tile), slots in has.tiles.items())
    seen = tuple((index, mark, last_ms) for (index, mark), last_ms in has.seen.items())
    state.merge(Assertion(tuple(has.heads), tiles, seen))
    return state.encode()
