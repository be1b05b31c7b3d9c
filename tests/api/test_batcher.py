"""The queue in front of the engine: batches, bounds, waiting for another attempt."""

import asyncio
import os
import time
from collections.abc import Sequence
from typing import Any

import pytest

from api.answer import Pending, Unknown
from api.batcher import AHEAD_MIN, LOOK_S, Batcher, QueueFull
from api.work import Inbound


class Counting:
    """An engine that answers each event with its own number; `pending` first answers that often."""

    def __init__(self, pending=0):
        self.batches = []
        self.pending = pending

    descriptors: Sequence[int] = ()

    def begin(self, inbound, *, now_ms):
        return inbound

    def gather(self):
        pass

    def has_landed(self, inbound):
        return True

    def record(self, inbound):
        pass

    def is_durable(self, inbound):
        return True

    def answer(self, inbound):
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
    """Notes how many batches were at the store when each began, and makes the next callers ask meanwhile.

    The store answers at the `looks`th look, the disk at the second."""

    def __init__(self, arriving, looks=1):
        super().__init__()
        self.looks = looks
        self.looked = self.synced = 0
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

    def has_landed(self, inbound):
        self.looked += 1
        return self.looked >= self.looks

    def record(self, inbound):
        assert self.looked >= self.looks
        self.looked = 0
        self.under_way -= 1

    def is_durable(self, inbound):
        self.synced += 1
        return self.synced > 1

    def answer(self, inbound):
        assert self.synced > 1
        self.synced = 0
        return super().answer(inbound)


@pytest.mark.parametrize(
    ("arriving", "begun"),
    [(AHEAD_MIN - 1, [(0, 1), (0, AHEAD_MIN - 1)]), (AHEAD_MIN, [(0, 1), (1, AHEAD_MIN)])],
)
def test_a_batch_departs_beside_another_only_if_enough_wait_for_it(monkeypatch, arriving, begun):
    monkeypatch.setattr("api.batcher.GATHER_S", 0.0)

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


class Waiting(Counting):
    """Store and disk answer when they are told to."""

    def __init__(self):
        super().__init__()
        self.store, self.disk = self.descriptors = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2)]
        self.steps = []

    def has_landed(self, inbound):
        return self._came(self.store)

    def record(self, inbound):
        self.steps.append("record")

    def is_durable(self, inbound):
        return self._came(self.disk)

    def answer(self, inbound):
        self.steps.append("answer")
        return super().answer(inbound)

    @staticmethod
    def _came(descriptor):
        try:
            return os.eventfd_read(descriptor) > 0
        except BlockingIOError:
            return False


def test_the_loop_turns_while_store_and_disk_are_at_a_batch():
    async def asked():
        engine: Any = Waiting()
        queue = Batcher(engine, lambda: 1, size_max=64, queue_max=1000)
        task = asyncio.create_task(queue.run())
        waiting = asyncio.ensure_future(queue.decide(event(0)))
        seen = []
        for descriptor in (None, engine.store, engine.disk):
            if descriptor is not None:
                os.eventfd_write(descriptor, 1)
            await asyncio.sleep(0.01)
            seen.append((list(engine.steps), waiting.done()))
        task.cancel()
        return seen

    assert asyncio.run(asked()) == [([], False), (["record"], False), (["record", "answer"], True)]


def test_a_process_that_stood_still_itself_turns_nobody_away(monkeypatch):
    monkeypatch.setattr("api.batcher.STUCK_S", 0.3)

    async def asked():
        engine: Any = Waiting()
        queue = Batcher(engine, lambda: 1, size_max=64, queue_max=1000)
        task = asyncio.create_task(queue.run())
        first = asyncio.ensure_future(queue.decide(event(0)))
        await asyncio.sleep(0)
        os.eventfd_write(engine.store, 1)
        await asyncio.sleep(0.05)
        # As one that was stopped: the disk is not asked meanwhile.
        time.sleep(0.6)
        await asyncio.sleep(0.05)
        recorded, full = list(engine.steps), queue.full
        os.eventfd_write(engine.disk, 1)
        answer: Any = await first
        task.cancel()
        return recorded, full, answer.transaction_id

    assert asyncio.run(asked()) == (["record"], False, "0")


def test_the_loop_goes_on_while_the_disk_stands_until_it_has_stood_for_long(monkeypatch):
    monkeypatch.setattr("api.batcher.STUCK_S", 0.3)
    monkeypatch.setattr("api.batcher.GATHER_S", 0.0)

    async def asked():
        engine: Any = Waiting()
        queue = Batcher(engine, lambda: 1, size_max=64, queue_max=1000)
        task = asyncio.create_task(queue.run())
        waiting = []
        for number in range(5):
            waiting.append(asyncio.ensure_future(queue.decide(event(number))))
            await asyncio.sleep(0)
            os.eventfd_write(engine.store, 1)
            await asyncio.sleep(0.02)
        judged, full = list(engine.steps), queue.full
        await asyncio.sleep(0.6)
        with pytest.raises(QueueFull):
            await queue.decide(event(5))
        answers = []
        for _ in waiting:
            os.eventfd_write(engine.disk, 1)
            await asyncio.sleep(0.05)
            answers.append(sum(future.done() for future in waiting))
        told = [getattr(future.result(), "transaction_id", None) for future in waiting]
        assert not queue.full
        task.cancel()
        return judged, full, answers, told

    judged, full, answers, told = asyncio.run(asked())
    assert (judged, full) == (["record"] * 5, False)
    assert answers == [1, 2, 3, 4, 5]
    assert told == ["0", "1", "2", "3", "4"]


def test_a_store_that_never_answers_is_looked_at_again():
    async def asked():
        engine: Any = Overlapping(0, looks=4)
        engine.synced = 1
        queue = Batcher(engine, lambda: 1, size_max=64, queue_max=1000)
        task = asyncio.create_task(queue.run())
        answer = await asyncio.wait_for(queue.decide(event(0)), 10 * LOOK_S)
        task.cancel()
        return answer

    assert asyncio.run(asked()).transaction_id == "0"


def test_answers_reach_their_claims_also_where_nothing_follows(monkeypatch):
    monkeypatch.setattr("api.batcher.FLUSH_S", 0.5)

    class Flushed(Counting):
        flushed = 0

        def flush(self, *, now_ms):
            self.flushed += 1

    async def asked():
        engine: Any = Flushed()
        queue = Batcher(engine, lambda: 1, size_max=64, queue_max=1000)
        task = asyncio.create_task(queue.run())
        for number in range(3):
            await queue.decide(event(number))
        soon = engine.flushed
        await asyncio.sleep(1.0)
        task.cancel()
        return soon, engine.flushed

    assert asyncio.run(asked()) == (0, 1)


def test_a_full_queue_turns_away_at_once():
    answers = asyncio.run(running(Counting(), 50, queue_max=20))
    assert sum(isinstance(a, QueueFull) for a in answers) == 30


def test_what_waited_too_long_is_turned_away():
    assert all(isinstance(a, QueueFull) for a in asyncio.run(running(Counting(), 5, wait_s_max=-1.0)))


@pytest.mark.parametrize(("count", "turned_away"), [(4, 0), (6, 6)])
def test_who_waited_while_the_loop_stood_is_turned_away_only_where_not_all_are_taken(count, turned_away):
    async def asked():
        queue = Batcher(Counting(), lambda: 1, size_max=4, queue_max=100, wait_s_max=0.05)  # type: ignore[arg-type]
        waiting = [asyncio.ensure_future(queue.decide(event(number))) for number in range(count)]
        await asyncio.sleep(0)
        time.sleep(0.1)
        task = asyncio.create_task(queue.run())
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        task.cancel()
        return sum(isinstance(answer, QueueFull) for answer in answers)

    assert asyncio.run(asked()) == turned_away


def test_another_attempt_is_waited_for_within_the_limit():
    (answer,) = asyncio.run(running(Counting(pending=3), 1))
    assert isinstance(answer, Unknown)
    (answer,) = asyncio.run(running(Counting(pending=1_000), 1, patience_s=0.1))
    assert isinstance(answer, Pending)


@pytest.mark.parametrize("step", ["begin", "record", "answer", "has_landed", "flush"])
def test_an_engine_that_breaks_stops_the_queue_and_nobody_waits_for_ever(step):
    class Broken(Counting):
        def fail(self, *_, **__):
            raise RuntimeError("fenced")

    async def both():
        engine: Any = Broken()
        setattr(engine, step, engine.fail)
        queue = Batcher(engine, lambda: 1, size_max=8, queue_max=8)
        task = asyncio.create_task(queue.run())
        said = await asyncio.gather(queue.decide(event(1)), return_exceptions=True)
        assert isinstance(said[0], asyncio.CancelledError) is (step != "flush")
        with pytest.raises(RuntimeError, match="fenced"):
            await task

    asyncio.run(both())


@pytest.mark.parametrize(("count", "batches"), [(6, [1, 5]), (40, [1, 16, 16, 7])])
def test_what_arrives_soon_after_a_batch_goes_together(monkeypatch, count, batches):
    """The first one departs at once, and so do enough; the rest when the time has passed."""
    monkeypatch.setattr("api.batcher.GATHER_S", 0.5)

    async def one_after_the_other():
        engine: Any = Counting()
        queue = Batcher(engine, lambda: 1, size_max=64, queue_max=100, wait_s_max=5.0)
        task = asyncio.create_task(queue.run())
        asked = []
        for number in range(count):
            asked.append(asyncio.ensure_future(queue.decide(event(number))))
            for _ in range(3):
                await asyncio.sleep(0)
        answers = await asyncio.gather(*asked)
        task.cancel()
        return engine.batches, [getattr(answer, "transaction_id", None) for answer in answers]

    made, told = asyncio.run(one_after_the_other())
    assert made == batches
    assert told == [str(number) for number in range(count)]


def test_what_would_wait_too_long_is_turned_away_at_once():
    class Slow(Counting):
        def record(self, inbound):
            time.sleep(0.02)

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
