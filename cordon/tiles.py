"""What the online store should hold, counted from the source, against what it does hold."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from cordon.recompute import Log, Source
from features import Catalogue
from features.event import Identity, identify
from features.measure import FRAUD, TRANSACTION, WITHDRAWN
from features.pseudonym import Pseudonyms
from features.state import State
from features.store import OnlineStore
from features.tier import TIERS

CHUNK = 500
Slot = tuple[str, int, int]
"""`(section, tier or index, tile or mark)`."""


@dataclass(slots=True)
class Expected:
    """Slots of one entity as counted: `slots[section, index, key]` -> values."""

    slots: dict[Slot, list[int]] = field(default_factory=dict)


@dataclass(slots=True)
class Comparison:
    """`tiles`: expected slots groups (tiles of all tiers, heads, remembered values) that retention keeps.
    `examples`: some that differ, for a person."""

    tiles: int = 0
    wrong: int = 0
    surplus: int = 0
    missing: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether every slot is as counted."""
        return not (self.wrong or self.surplus or self.missing)

    def note(self, kind: str, text: str) -> None:
        """Count one difference."""
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.examples) < 10:
            self.examples.append(f"{kind}: {text}")


@dataclass(frozen=True, slots=True)
class Happened:
    """One event of the log with its content from the source."""

    source: str
    time_ms: int
    values: dict[str, str | int | float | bool | None]
    who: Identity


def happened(catalogue: Catalogue, names: Pseudonyms, source: Source, log: Log) -> Iterator[Happened]:
    """Everything in the log once, with the content that the source file gives it."""
    amount = catalogue.schema.amount or "amount"
    who = {i: identify(catalogue, names, t.values) for i, t in source.transactions.items()}
    for i in dict.fromkeys(record["id"] for record in log.decisions):
        found = source.transactions[i]
        yield Happened(TRANSACTION, found.time_ms, dict(found.values), who[i])
    for i, fraud in dict.fromkeys((record["transaction_id"], record["fraud"]) for record in log.labels):
        kind = FRAUD if fraud else WITHDRAWN
        yield Happened(kind, source.labels[i, fraud], dict(source.transactions[i].values), who[i])
    for i in dict.fromkeys(record["id"] for record in log.events):
        event = source.events[i]
        values = {**source.transactions[event.transaction_id].values, amount: event.amount}
        yield Happened(event.kind, event.time_ms, values, who[event.transaction_id])


def count(catalogue: Catalogue, events: Iterable[Happened]) -> dict[tuple[str, str], Expected]:
    """Every slot of every entity, by plain addition."""
    found: dict[tuple[str, str], Expected] = defaultdict(Expected)
    for event in events:
        for entity, layout in catalogue.layouts.items():
            if entity not in event.who.entities:
                continue
            slots = found[entity, event.who.entities[entity]].slots
            deltas = [m.delta(event.source, event.values) for m in layout.measures]
            for tier, kept in enumerate(layout.tiers):
                if any(deltas[i] for i in kept):
                    tile = slots.setdefault(("tile", tier, TIERS[tier].tile(event.time_ms)), [0] * len(kept))
                    for place, i in enumerate(kept):
                        if layout.measures[i].aggregate == "max":
                            tile[place] = max(tile[place], deltas[i])
                        else:
                            tile[place] += deltas[i]
            place_of = event.who.marks.get("place", 0)
            for index, head in enumerate(layout.heads):
                value = head.value(event.source, event.time_ms, place_of, event.values)
                _raise(slots, ("head", index, 0), value)
            for index, seen in enumerate(layout.maps):
                mark = event.who.marks.get(seen.field, 0)
                if mark and event.source == TRANSACTION:
                    _raise(slots, ("seen", index, mark), event.time_ms)
    return found


def _raise(slots: dict[Slot, list[int]], slot: Slot, value: int) -> None:
    if value:
        slots[slot] = [max(value, slots.get(slot, [0])[0])]


def check(catalogue: Catalogue, store: OnlineStore, expected: dict[tuple[str, str], Expected]) -> Comparison:
    """Read every entity's state and compare slot by slot, within what retention keeps."""
    result = Comparison()
    for entity in catalogue.layouts:
        names = [name for of, name in expected if of == entity]
        for at in range(0, len(names), CHUNK):
            chunk = names[at : at + CHUNK]
            for name, data in zip(chunk, store.read(entity, chunk), strict=True):
                state = State.decode(catalogue.layouts[entity], data)
                _compare(state, expected[entity, name].slots, f"{entity} {name}", result)
    return result


def _compare(state: State, slots: dict[Slot, list[int]], who: str, result: Comparison) -> None:
    stored = _slots(state)
    wanted = {slot: value for slot, value in slots.items() if _kept(state, slot, value)}
    wanted = _bounded(state, wanted)
    result.tiles += len(wanted)
    for slot, value in wanted.items():
        if slot not in stored:
            result.note("missing", f"{who} {slot} {value}")
        elif stored[slot] != value:
            result.note("wrong", f"{who} {slot} {stored[slot]} instead of {value}")
    for slot in stored.keys() - slots.keys():
        result.note("surplus", f"{who} {slot} {stored[slot]}")


def _slots(state: State) -> dict[Slot, list[int]]:
    found: dict[Slot, list[int]] = {}
    for tier, tiles in enumerate(state.tiers):
        found |= {("tile", tier, tile): values for tile, values in tiles.items()}
    for index, value in enumerate(state.heads):
        if value:
            found["head", index, 0] = [value]
    for index, entries in enumerate(state.maps):
        found |= {("seen", index, mark): [last] for mark, last in entries.items()}
    return found


def _kept(state: State, slot: Slot, value: Sequence[int]) -> bool:
    section, index, key = slot
    if section == "tile":
        return key >= state.layout.oldest(index, state.newest_ms)
    return section == "head" or value[0] >= state.newest_ms - state.layout.maps[index].horizon_ms


def _bounded(state: State, slots: dict[Slot, list[int]]) -> dict[Slot, list[int]]:
    """A map keeps its most recent values only."""
    dropped: set[Slot] = set()
    for index, seen in enumerate(state.layout.maps):
        mine = [slot for slot in slots if slot[0] == "seen" and slot[1] == index]
        mine.sort(key=lambda slot: (slots[slot][0], slot[2]))
        dropped.update(mine[: -seen.bound])
    return {slot: value for slot, value in slots.items() if slot not in dropped}
