"""A replay from end to end. This module reads the clock; everything it calls takes times as arguments."""

import asyncio
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
    conflict-free batch."""

    history: History
    injection: Injection = field(default_factory=Injection)
    pace: Pace = field(default_factory=Pace)
    passage: Passage | None = None
    lookahead: Lookahead = field(default_factory=Lookahead)
    quiet: bool = False


def messages(replay: Replay, known: Extent, manifest: Manifest) -> Iterator[Placed]:
    """The messages of a replay in the order in which they leave. Pure but for reading the history."""
    stream = merged(replay.history, known, entities=replay.passage is not None)
    return injected(stream, replay.history.schema, replay.injection, manifest)


def to_kafka(replay: Replay, door: KafkaDoor, *, clock: Callable[[], float] = time.monotonic) -> Manifest:
    """Replays into the Kafka door and returns what was sent.

    Blocks until everything is delivered. Raises `HistoryError`, `Undelivered`, `NotPassed`.
    """
    known, manifest = extent(replay.history), Manifest()
    stream = messages(replay, known, manifest)
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
            for batch in batches(stream, replay.lookahead):
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

    Raises `HistoryError`, `DoorRefused`, `NotPassed`.
    """
    known, manifest = extent(replay.history), Manifest()
    stream = messages(replay, known, manifest)
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
                for batch in batches(stream, replay.lookahead):
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
