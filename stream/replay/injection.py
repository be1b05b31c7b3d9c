"""What goes wrong between a payment and the door: repeats, disorder, garbage. Seeded and counted."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

import msgspec

from features.schema import Schema
from stream.replay.item import Item
from stream.replay.malformed import spoil
from stream.replay.manifest import Manifest

_MINUTE_MS = 60_000
_MALFORMED_AFTER = 50  # transactions before the first malformed message


class Placed(NamedTuple):
    """A message and the event time at which it is sent (its own, or later where it was held back)."""

    position_ms: int
    item: Item


@dataclass(frozen=True, slots=True)
class Injection:
    """Shares are of transactions (`duplicates`: of all messages).

    `duplicates`: sent again with the same content, up to `repeat_within_ms` of event time later.
    `conflicts`: sent again with another amount or, without amounts, another time. `disorder`: sent late, by
    up to `disorder_ms`; events and labels of such a transaction wait for it. `malformed`: added messages.
    """

    duplicates: float = 0.0
    conflicts: float = 0.0
    disorder: float = 0.0
    malformed: float = 0.0
    disorder_ms: int = 60 * _MINUTE_MS
    repeat_within_ms: int = 5 * _MINUTE_MS
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("duplicates", "conflicts", "disorder", "malformed"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share between 0 and 1")


def injected(items: Iterator[Item], schema: Schema, plan: Injection, manifest: Manifest) -> Iterator[Placed]:
    """The messages in the order in which they are sent, counted in `manifest` as they leave.

    Pure but for the counters: same items, plan and seed give the same messages.
    """
    chance = random.Random(f"replay-{plan.seed}")
    waiting: list[tuple[int, int, Item]] = []
    delayed: dict[str, int] = {}
    number = 0

    def hold(position_ms: int, item: Item) -> None:
        nonlocal number
        number += 1
        heappush(waiting, (position_ms, number, item))

    transactions = malformed = 0
    for item in items:
        while waiting and waiting[0][0] <= item.time_ms:
            position, _, held = heappop(waiting)
            delayed.pop(held.id, None)
            yield _counted(position, held, manifest)
        at = item.time_ms
        if item.kind == "transaction":
            transactions += 1
            if plan.disorder and chance.random() < plan.disorder:
                at += chance.randrange(1, plan.disorder_ms + 1)
                delayed[item.id] = at
                manifest.disordered += 1
        elif item.transaction_id in delayed:
            at = max(at, delayed[item.transaction_id] + 1)
            manifest.held += 1
        if plan.duplicates and chance.random() < plan.duplicates:
            hold(at + chance.randrange(1, plan.repeat_within_ms + 1), item._replace(injected="duplicate"))
        if item.kind == "transaction":
            if plan.conflicts and chance.random() < plan.conflicts:
                hold(at + chance.randrange(1, plan.repeat_within_ms + 1), _conflicting(item, schema))
            if plan.malformed and transactions > _MALFORMED_AFTER and chance.random() < plan.malformed:
                bad, fault = spoil(item, schema, malformed, chance)
                malformed += 1
                manifest.faults.append(fault)
                hold(at, bad)
        if at == item.time_ms:
            yield _counted(at, item, manifest)
        else:
            hold(at, item)
    while waiting:
        position, _, held = heappop(waiting)
        yield _counted(position, held, manifest)


def _conflicting(item: Item, schema: Schema) -> Item:
    body = msgspec.json.decode(item.body)
    name = schema.amount if schema.amount in body else schema.time
    body[name] += 1
    return item._replace(body=msgspec.json.encode(body), injected="conflict")


def _counted(position_ms: int, item: Item, manifest: Manifest) -> Placed:
    if item.injected is None:
        manifest.sent[item.kind] += 1
        if manifest.first_event_ms is None:
            manifest.first_event_ms = item.time_ms
        manifest.last_event_ms = max(manifest.last_event_ms or item.time_ms, item.time_ms)
    elif item.injected == "duplicate":
        manifest.duplicates[item.kind] += 1
    elif item.injected == "conflict":
        manifest.conflicts[item.kind] += 1
    else:
        manifest.malformed[item.injected.removeprefix("malformed:")] += 1
    return Placed(position_ms, item)
