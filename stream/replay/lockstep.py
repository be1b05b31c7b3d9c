"""Order without the fast lane: no message leaves while an earlier one of the same entity is on its way.

With the fast lane off a decision sees only what Flink has written. So messages leave in batches in which no
two share an entity, and the next batch waits until the last has passed through Flink:

    stream      a1  b1  a2  c1  b2  d1          letters are entities, a label or event counts for
    batch 1     a1  b1      c1      d1          all entities of its transaction
    batch 2             a2      b2
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from stream.replay.injection import Placed
from stream.replay.item import Item


@dataclass(frozen=True, slots=True)
class Lookahead:
    """How far a batch may reach ahead of the oldest message that was held back.

    `span_ms`: event time, which must stay well below the schema's lateness; `messages`: at most so many.
    """

    span_ms: int = 30 * 60_000
    messages: int = 2_000


def batches(
    stream: Iterable[Placed], reach: Lookahead, ids: dict[str, tuple[str, ...]] | None = None
) -> Iterator[list[Placed]]:
    """Greedy conflict-free batches. Every message is in one batch; two that share an entity are in different
    batches, in their order of the stream; nothing overtakes by more than the reach.

    Messages without entities (malformed ones) conflict with nothing. `ids`: entities of transactions that
    were sent before, by id.
    """
    source = iter(stream)
    ids = {} if ids is None else ids
    pending: list[Placed] = []
    exhausted = False
    while pending or not exhausted:
        horizon = pending[0].position_ms + reach.span_ms if pending else None
        while not exhausted and len(pending) < reach.messages:
            if pending and horizon is not None and pending[-1].position_ms > horizon:
                break
            placed = next(source, None)
            if placed is None:
                exhausted = True
                break
            _remember(ids, placed.item)
            if horizon is None:
                horizon = placed.position_ms + reach.span_ms
            pending.append(placed)
        taken: set[str] = set()
        batch: list[Placed] = []
        held: list[Placed] = []
        for placed in pending:
            entities = touched(ids, placed.item)
            (held if taken.intersection(entities) else batch).append(placed)
            taken.update(entities)
        pending = held
        if batch:
            yield batch


def touched(ids: dict[str, tuple[str, ...]], item: Item) -> tuple[str, ...]:
    """What a message must not share with another under way: its entities and its transaction."""
    if item.injected is not None and item.injected.startswith("malformed"):
        return ()
    return (*ids.get(item.transaction_id, ()), f"transaction={item.transaction_id}")


def _remember(ids: dict[str, tuple[str, ...]], item: Item) -> None:
    if item.kind == "transaction" and item.injected is None:
        ids[item.transaction_id] = item.entities
