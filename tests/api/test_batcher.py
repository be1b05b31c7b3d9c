"""The queue in front of the engine: batches, bounds, waiting for another attempt."""

import asyncio
import time
from typing import Any

import pytest

from api.answer import Pending, Unknown
from api.batcher import AHEAD_MIN, Batcher, QueueFull
from api.work import Inbound


class Counting:
    """An engine that answers each event with its own number; `pending` first answers that often."""

    def __init__(self, pending=0):
        self.batches = []
        self.pending = pending

    def begin(self, inbound, *, now_ms):
        return inbound

    def finish(self, inbound):
        self.batches.append(len(inbound))
        if self.pending:
            self.pending -= 1
            return [Pending("tx") for _ in inbound]
        return [Unknown(str(item.payload)) for item in inbound]

    def flush(self, *, now_ms):
        pass


def event(number):
    return Inbound("transaction", number, "http")


async def running(engine, count, **limits):
    queue = Batcher(engine, lambda: 1, **({"size_max": 64, "queue_max": 1000} | limits))
    task = asyncio.create_task(queue.run())
    try:
        return await asyncio.gather(*(queue.decide(event(i)) for i in range(count)), return_exceptions=True)
    finally:
        task.cancel()


def test_what_waits_is_decided_together_and_everybody_gets_their_own_answer():
    engine = Counting()
    answers = asyncio.run(running(engine, 150))
    assert [a.transaction_id for a in answers] == [str(i) for i in range(150)]
    assert max(engine.batches) == 64
    assert sum(engine.batches) == 150


class Overlapping(Counting):
    """Notes how many batches were under way when each began, and makes the next caller ask meanwhile."""

    def __init__(self, arriving):
        super().__init__()
        self.arriving = arriving
        self.begun = []
        self.under_way = 0
        self.ask = lambda: None

    def begin(self, inbound, *, now_ms):
        self.begun.append((self.under_way, len(inbound)))
        self.under_way += 1
        for _ in range(self.arriving):
            self.ask()
        self.arriving = 0
        return inbound

    def finish(self, inbound):
        self.under_way -= 1
        return super().finish(inbound)


@pytest.mark.parametrize(
    ("arriving", "begun"),
    [(AHEAD_MIN - 1, [(0, 1), (0, AHEAD_MIN - 1)]), (AHEAD_MIN, [(0, 1), (1, AHEAD_MIN)])],
)
def test_a_batch_departs_beside_another_only_if_enough_wait_for_it(arriving, begun):
    async def asked():
        engine: Any = Overlapping(arriving)
        queue = Batcher(engine, lambda: 1, size_max=64, queue_max=1000)
        waiting = []
        engine.ask = lambda: waiting.append(asyncio.ensure_future(queue.decide(event(1))))
        task = asyncio.create_task(queue.run())
        await queue.decide(event(0))
        await asyncio.gather(*waiting)
        task.cancel()
        return engine.begun

    assert asyncio.run(asked()) == begun


def test_a_full_queue_turns_away_at_once():
    answers = asyncio.run(running(Counting(), 50, queue_max=20))
    assert sum(isinstance(a, QueueFull) for a in answers) == 30


def test_what_waited_too_long_is_turned_away():
    assert all(isinstance(a, QueueFull) for a in asyncio.run(running(Counting(), 5, wait_s_max=-1.0)))


def test_another_attempt_is_waited_for_within_the_limit():
    (answer,) = asyncio.run(running(Counting(pending=3), 1))
    assert isinstance(answer, Unknown)
    (answer,) = asyncio.run(running(Counting(pending=1_000), 1, patience_s=0.1))
    assert isinstance(answer, Pending)


def test_an_engine_that_breaks_stops_the_queue_and_nobody_waits_for_ever():
    class Broken(Counting):
        def finish(self, inbound):
            raise RuntimeError("fenced")

    async def both():
        engine: Any = Broken()
        queue = Batcher(engine, lambda: 1, size_max=8, queue_max=8)
        task = asyncio.create_task(queue.run())
        with pytest.raises(asyncio.CancelledError):
            await queue.decide(event(1))
        with pytest.raises(RuntimeError, match="fenced"):
            await task

    asyncio.run(both())


def test_what_would_wait_too_long_is_turned_away_at_once():
    class Slow(Counting):
        def finish(self, inbound):
            time.sleep(0.02)
            return super().finish(inbound)

    async def both():
        engine: Any = Slow()
        queue = Batcher(engine, lambda: 1, size_max=2, queue_max=1_000, wait_s_max=0.1)
        task = asyncio.create_task(queue.run())
        known = await asyncio.gather(*(queue.decide(event(i)) for i in range(8)))
        assert not queue.full
        more = await asyncio.gather(*(queue.decide(event(i)) for i in range(100)), return_exceptions=True)
        assert not queue.full
        task.cancel()
        return known, more

    known, more = asyncio.run(both())
    assert len(known) == 8
    turned_away = [isinstance(answer, QueueFull) for answer in more]
    assert not any(turned_away[:4])
    assert all(turned_away[40:])
