"""What the Flink jobs' merges cost a Valkey node, for each transaction: part of `bench.store`.

Of every entity of a transaction the jobs assert the tiles that it touched, its heads and marks, each entity
in a call of its own. Where the decision path observed, the state holds all of that; where it did not, every
tile is greater than the one held.
"""

from collections.abc import Callable, Iterator
from itertools import islice

from features.catalogue import Catalogue
from features.layout import Layout, Observation
from features.library import unpack_target
from features.state import Assertion, State
from features.store import Arrival, OnlineStore
from features.tier import TIERS

Rows = list[tuple[str, str, Assertion]]


def merge_costs(
    store: OnlineStore,
    catalogue: Catalogue,
    events: Iterator[Arrival],
    count: int,
    busy_s: Callable[[], float],
) -> dict[str, float]:
    """Microseconds of the server for each of `count` transactions, and tile rows that each asserts.

    `busy_s`: CPU seconds of the server so far. The transactions are observed here, unmeasured, before.
    """
    arrivals = list(islice(events, count))
    store.arrive(arrivals, now_ms=0, deadline_ms=2**52)
    held: Rows = []
    for target in (target for arrival in arrivals for target in arrival.targets):
        layout = catalogue.layouts[target.entity]
        state = State.decode(layout, store.read(target.entity, [target.pseudonym])[0])
        seen = unpack_target(layout, target.packed)
        held.append((target.entity, target.pseudonym, asserted(layout, state, seen)))
    new = [(entity, who, grown(assertion)) for entity, who, assertion in held]
    before = [store.read(entity, [who]) for entity, who, _ in held]
    held_s = merged(store, held, busy_s)
    assert [store.read(entity, [who]) for entity, who, _ in held] == before, "what is held changed a state"
    new_s = merged(store, new, busy_s)
    return {
        "held_us": round(held_s / count * 1e6, 1),
        "new_us": round(new_s / count * 1e6, 1),
        "tile_rows": round(sum(len(assertion.tiles) for _, _, assertion in held) / count, 1),
    }


def merged(store: OnlineStore, rows: Rows, busy_s: Callable[[], float]) -> float:
    """Seconds of the server for merging them all, in pipelines of one kind of entity."""
    began_s = busy_s()
    for entity in dict.fromkeys(entity for entity, _, _ in rows):
        store.merge(entity, [(who, assertion) for kind, who, assertion in rows if kind == entity])
    return busy_s() - began_s


def asserted(layout: Layout, state: State, seen: Observation) -> Assertion:
    """What the jobs say of an event once it is counted."""
    at = [TIERS[tier].tile(seen.time_ms) for tier in range(len(TIERS))]
    tiles = tuple((i, at[i], tuple(tiles[at[i]])) for i, tiles in enumerate(state.tiers) if at[i] in tiles)
    marks = tuple((j, mark, seen.time_ms) for j, mark in enumerate(seen.marks) if mark)
    return Assertion(tuple(seen.heads) if layout.heads else (), tiles, marks)


def grown(assertion: Assertion) -> Assertion:
    """The same with more in every slot."""
    tiles = tuple((tier, tile, tuple(slot + 1 for slot in slots)) for tier, tile, slots in assertion.tiles)
    return Assertion(assertion.heads, tiles, assertion.seen)
