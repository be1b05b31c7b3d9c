"""A replay from end to end. This module reads the clock; everything it calls takes times as arguments."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from stream.replay.history import Extent, History, extent
from stream.replay.http_door import Answered, HttpDoor, HttpSender, paced
from stream.replay.injection import Injection, Placed, injected
from stream.replay.item import Item
from stream.replay.kafka_door import KafkaDoor, KafkaSender, sleep_until
from stream.replay.lockstep import Lookahead, batches
from stream.replay.manifest import Manifest
from stream.replay.merge import merged
from stream.replay.pace import Pace, Timetable
from stream.replay.passage import Passage
from stream.replay.progress import Bar


@dataclass(frozen=True, slots=True)
class Replay:
    """What is replayed, with what going wrong, how fast. `passage`: lockstep, waiting for Flink after each
    conflict-free batch.

    Only messages with `since_ms` <= event time < `before_ms` are sent, so that one history can be replayed in
    parts: labels of an earlier part's transactions come with the part that they fall in.
    """

    history: History
    injection: Injection = field(default_factory=Injection)
    pace: Pace = field(default_factory=Pace)
    passage: Passage | None = None
    lookahead: Lookahead = field(default_factory=Lookahead)
    quiet: bool = False
    since_ms: int | None = None
    before_ms: int | None = None


def messages(
    replay: Replay, known: Extent, manifest: Manifest, entities: dict[str, tuple[str, ...]] | None = None
) -> Iterator[Placed]:
    """The messages of a replay in the order in which they leave. Pure but for reading the history.

    `entities` receives those of every transaction passed over, for a lockstep that goes on after it.
    """
    stream = merged(replay.history, known, entities=replay.passage is not None)
    part = within(stream, replay.since_ms, replay.before_ms, {} if entities is None else entities)
    return begun(injected(part, replay.history.schema, replay.injection, manifest))


def begun[T](stream: Iterator[T]) -> Iterator[T]:
    """The same stream with its first message at hand: the seconds that it takes to pass over an earlier part
    of the history must not count as the door's."""
    first = next(stream, None)
    return iter(()) if first is None else itertools.chain((first,), stream)


def within(
    stream: Iterator[Item], since_ms: int | None, before_ms: int | None, entities: dict[str, tuple[str, ...]]
) -> Iterator[Item]:
    """The part of a stream in event-time order that lies in `[since_ms, before_ms)`."""
    for item in stream:
        if before_ms is not None and item.time_ms >= before_ms:
            return
        if since_ms is None or item.time_ms >= since_ms:
            yield item
        elif item.kind == "transaction" and item.entities:
            entities[item.id] = item.entities


def to_kafka(replay: Replay, door: KafkaDoor, *, clock: Callable[[], float] = time.monotonic) -> Manifest:
    """Replays into the Kafka door and returns what was sent.

    Blocks until everything is delivered. Raises `InvalidHistory`, `Undelivered`, `NotPassed`.
    """
    known, manifest = extent(replay.history), Manifest()
    entities: dict[str, tuple[str, ...]] = {}
    stream = messages(replay, known, manifest, entities)
    with Bar(known.transactions, quiet=replay.quiet) as bar, KafkaSender(door, manifest) as sender:
        start_s = clock()
        if replay.passage is None:
            timetable = Timetable(replay.pace)
            for placed in stream:
                late_s = sleep_until(start_s + timetable.due_s(placed), clock) if replay.pace.limited else 0.0
                manifest.behind_ms_max = max(manifest.behind_ms_max, late_s * 1000)
                sender.send(placed.item)
                bar.show(manifest.sent["transaction"], clock() - start_s, placed.item.time_ms)
        else:
            for batch in batches(stream, replay.lookahead, entities):
                for placed in batch:
                    sender.send(placed.item)
                sender.drain()
                replay.passage.wait(recorded(batch))
                manifest.batches += 1
                bar.show(manifest.sent["transaction"], clock() - start_s, batch[-1].item.time_ms)
        sender.drain()
        manifest.seconds = clock() - start_s
        bar.show(manifest.sent["transaction"], manifest.seconds, manifest.last_event_ms or 0, last=True)
    return manifest


async def to_http(
    replay: Replay,
    door: HttpDoor,
    *,
    answered: Answered | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Manifest:
    """Replays into the HTTP door and returns what was sent and answered.

    Raises `InvalidHistory`, `DoorRefused`, `NotPassed`.
    """
    known, manifest = extent(replay.history), Manifest()
    entities: dict[str, tuple[str, ...]] = {}
    stream = messages(replay, known, manifest, entities)
    with Bar(known.transactions, quiet=replay.quiet) as bar:
        async with HttpSender(door, manifest, clock, answered) as sender:
            start_s = clock()
            if replay.passage is None:
                timetable = Timetable(replay.pace)
                timed = ((placed, timetable.due_s(placed)) for placed in stream)
                async for placed, due_s in paced(timed, start_s, clock, asyncio.sleep, manifest):
                    await sender.send(placed.item, due_s if replay.pace.limited else clock())
                    bar.show(manifest.sent["transaction"], clock() - start_s, placed.item.time_ms)
            else:
                for batch in batches(stream, replay.lookahead, entities):
                    for placed in batch:
                        await sender.send(placed.item, clock())
                    await sender.drain()
                    await asyncio.to_thread(replay.passage.wait, recorded(batch))
                    manifest.batches += 1
                    bar.show(manifest.sent["transaction"], clock() - start_s, batch[-1].item.time_ms)
            await sender.drain()
            manifest.seconds = clock() - start_s
            bar.show(manifest.sent["transaction"], manifest.seconds, manifest.last_event_ms or 0, last=True)
    return manifest


def recorded(batch: list[Placed]) -> list[Item]:
    """Those of a batch that a record in the log follows: not the repeats, not the malformed ones."""
    return [placed.item for placed in batch if placed.item.injected is None]
