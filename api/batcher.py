"""Micro-batches for the HTTP door: whatever waits is decided together.

The engine runs inline on the event loop: a hop to a thread would cost more than the batch takes, and while
one batch is being decided the next one gathers. What store and disk do of a batch overlaps with all others.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from api.answer import Answer, Pending
from api.engine import Engine
from api.flight import Flight
from api.work import Inbound

PENDING_POLL_S = 0.02
# How often it is looked for batches of which nobody was told.
LOOK_S = 0.02
# Nobody is let in any more once the disk has been seen to stand still for so long.
STUCK_S = 1.0
# So many must wait for a batch to depart beside the one that is under way: every batch has costs of its own,
# so that below that it is cheaper, and for all together sooner, to join them.
AHEAD_MIN = 4
# A batch departs no sooner after the one before, unless so many wait.
GATHER_S = 0.001
GATHER_MAX = 16
# Claims learn of their answers with the next batch, or so long after their own: a message of their own costs
# both sides more than what it says.
FLUSH_S = 0.005
# Events of the spare lane in one batch: while others ask, and after they have not asked for so long.
SPARE_BUSY = 4
SPARE_IDLE = 16
IDLE_S = 0.25
# While others ask, the lane rests this many times as long as each batch takes.
SPARE_REST = 2.0
# How much a new measurement of the time per event counts.
PACE_WEIGHT = 0.2


class QueueFull(Exception):
    """Too much is waiting, or this would wait too long, or has: turn it away before latency explodes."""


class Waiter(Protocol):
    """Who is told of an answer: a future, or whatever else must not wait for the loop's next turn. None of
    these raises."""

    def done(self) -> bool:
        """Whether nobody waits any more."""

    def set_result(self, result: Answer, /) -> None:
        """The answer."""

    def set_exception(self, exception: BaseException, /) -> None:
        """`QueueFull`: it waited for too long."""

    def cancel(self) -> object:
        """There will be no answer."""


class Batcher:
    """The queue and the turns that drain it. `clock`: wall clock in ms.

    `wait_s_max`: nobody waits longer for their batch, where there are more than go into one. How long the
    last in the queue would wait is known from full batches: what does not fill them is no overload.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Callable[[], int],
        *,
        size_max: int,
        queue_max: int,
        patience_s: float = 2.5,
        wait_s_max: float = 0.25,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._size_max = size_max
        self._queue_max = queue_max
        self._patience_s = patience_s
        self._wait_s_max = wait_s_max
        self._waiting: deque[tuple[Inbound, Waiter, float]] = deque()
        self._spare: deque[tuple[Inbound, Waiter, float]] = deque()
        self._asked_s = -math.inf
        self._rested_s = 0.0
        self._pace_s = 0.0
        self._answered_s = 0.0
        self._stood_s = 0.0
        self._turned_s = -math.inf
        self._departed: deque[_Batch] = deque()
        self._recorded: deque[_Batch] = deque()
        self._next_s = -math.inf
        self._gathering: asyncio.TimerHandle | None = None
        self._flushing: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None
        self._rest: asyncio.TimerHandle | None = None
        self._scheduled = False
        self._broken: asyncio.Future[None] | None = None
        self.on_batch: Callable[[int], None] = lambda size: None

    @property
    def full(self) -> bool:
        """Whether one more would be turned away."""
        waiting = len(self._waiting)
        stuck = self._stood_s > STUCK_S
        return stuck or waiting >= self._queue_max or waiting * self._pace_s > self._wait_s_max

    async def decide(self, inbound: Inbound) -> Answer:
        """Wait for the answer. Another attempt at the same id is waited for, within the time limit.

        Raises `QueueFull`.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._patience_s
        while True:
            future: asyncio.Future[Answer] = loop.create_future()
            self.submit(inbound, future)
            answer = await future
            if not isinstance(answer, Pending) or loop.time() > until:
                return answer
            await asyncio.sleep(PENDING_POLL_S)

    def spare(self, inbound: Inbound) -> asyncio.Future[Answer]:
        """Decide it when nobody else waits: no customer is behind it. The caller bounds how many."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._spare.append((inbound, future, math.inf))
        self._schedule()
        return future

    def submit(self, inbound: Inbound, waiter: Waiter) -> None:
        """One attempt, whose answer may be that another one is under way. Raises `QueueFull`."""
        if self.full:
            raise QueueFull
        self._waiting.append((inbound, waiter, asyncio.get_running_loop().time() + self._wait_s_max))
        self._schedule()

    async def run(self) -> None:
        """Drain until cancelled. What the engine raises stops the process: it is fenced or broken.

            batch 1   begin | .. store .. | record | .. disk .. | answer
            batch 2                 begin | .. store .. | record | .. disk .. | answer

        While store and disk are at their batches, the loop does what else there is: it reads requests, begins
        the next batch (beside another one at the store only where enough wait, `AHEAD_MIN`), judges one. What
        arrives within `GATHER_S` of a batch goes with the next one together. However long the disk takes, the
        loop goes on: what is judged meanwhile is written together, and nobody is let in after `STUCK_S`.
        """
        loop = asyncio.get_running_loop()
        self._broken = loop.create_future()
        descriptors = self._engine.descriptors
        for descriptor in descriptors:
            loop.add_reader(descriptor, self._heard)
        self._schedule()
        try:
            await self._broken
        finally:
            for descriptor in descriptors:
                loop.remove_reader(descriptor)
            for timer in (self._gathering, self._flushing, self._look, self._rest):
                if timer is not None:
                    timer.cancel()
            for batch in (*self._departed, *self._recorded):
                _cancel(batch.waiters)
            _cancel(waiter for _, waiter, _ in (*self._waiting, *self._spare))

    def _schedule(self) -> None:
        """A turn once the loop has read what has arrived by now, so that it joins the queue."""
        if not self._scheduled and self._broken is not None:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._step)

    def _step(self) -> None:
        self._scheduled = False
        if self._broken is None or self._broken.done():
            return
        try:
            if self._turn():
                self._schedule()
        except Exception as error:  # noqa: BLE001 -- whatever it is, it stops the process
            self._broken.set_exception(error)

    def _flush(self) -> None:
        """Nothing followed that would have taken the last answers to their claims."""
        self._flushing = None
        if self._broken is None or self._broken.done():
            return
        try:
            self._engine.flush(now_ms=self._clock())
        except Exception as error:  # noqa: BLE001 -- as in a step
            self._broken.set_exception(error)

    def _heard(self) -> None:
        """From the store or the disk."""
        self._engine.gather()
        self._step()

    def _turn(self) -> bool:
        """Everything that can be done now; whether there was anything."""
        engine, busy, now_s = self._engine, False, asyncio.get_running_loop().time()
        before_s, self._turned_s = self._turned_s, now_s
        if self._recorded:
            if engine.is_durable(self._recorded[0].flight):
                # The loop sends what was answered before anything else is done.
                self._answer()
                return True
            # A process that stood still itself says nothing of the disk: what counts is what was seen of it.
            self._stood_s += min(now_s - before_s, 2 * LOOK_S)
        landed = bool(self._departed) and engine.has_landed(self._departed[0].flight)
        if taken := self._take(now_s):
            self._begin(taken, now_s)
            busy = True
        if landed:
            engine.record(self._departed[0].flight)
            self._recorded.append(self._departed.popleft())
            busy = True
        if self._spare and self._rest is None and not (busy or self._departed or self._recorded):
            # Its part of the time only, while others ask.
            self._rest = asyncio.get_running_loop().call_at(self._rested_s, self._rested)
        return busy

    def _gathered(self) -> None:
        # The loop's clock may read a little less than the time for which the timer was set.
        self._gathering, self._next_s = None, -math.inf
        self._schedule()

    def _rested(self) -> None:
        self._rest = None
        self._schedule()

    def _begin(self, taken: list[tuple[Inbound, Waiter]], now_s: float) -> None:
        waiters = [waiter for _, waiter in taken]
        try:
            flight = self._engine.begin([inbound for inbound, _ in taken], now_ms=self._clock())
        except BaseException:
            _cancel(waiters)
            raise
        self._departed.append(_Batch(waiters, now_s, flight))
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(LOOK_S, self._look_again)

    def _look_again(self) -> None:
        """A store that never answers wakes nobody, nor does a disk for which somebody else has waited."""
        self._look = None
        if self._departed or self._recorded:
            self._schedule()
            self._look = asyncio.get_running_loop().call_later(LOOK_S, self._look_again)

    def _answer(self) -> None:
        """The batch that was recorded first."""
        batch = self._recorded[0]
        answers = self._engine.answer(batch.flight)
        self._recorded.popleft()
        self._stood_s = 0.0
        now_s = asyncio.get_running_loop().time()
        if len(answers) == self._size_max:
            took_s = now_s - max(batch.began_s, self._answered_s)
            self._pace_s += PACE_WEIGHT * (took_s / len(answers) - self._pace_s)
        self._answered_s = now_s
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_later(FLUSH_S, self._flush)
        self.on_batch(len(answers))
        if self._spare:
            # Whichever lane this was: the one that has time comes after twice of what was just taken.
            self._rested_s = now_s + SPARE_REST * (now_s - batch.began_s) if self._busy(now_s) else 0.0
        for waiter, answer in zip(batch.waiters, answers, strict=True):
            if not waiter.done():
                waiter.set_result(answer)

    def _take(self, now_s: float) -> list[tuple[Inbound, Waiter]]:
        """A batch of those that wait. If there are none, and nothing is under way, a small one of the spare
        lane: whoever comes next waits for that one, and for no other."""
        if self._waiting:
            if len(self._waiting) < (1, AHEAD_MIN, math.inf)[len(self._departed)]:
                return []
            if now_s < self._next_s and len(self._waiting) < GATHER_MAX:
                if self._gathering is None:
                    self._gathering = asyncio.get_running_loop().call_at(self._next_s, self._gathered)
                return []
            self._asked_s, self._next_s = now_s, now_s + GATHER_S
            return self._next(self._waiting, self._size_max, now_s)
        if self._departed or self._recorded or now_s < self._rested_s:
            return []
        return self._next(self._spare, SPARE_BUSY if self._busy(now_s) else SPARE_IDLE, now_s)

    def _busy(self, now_s: float) -> bool:
        return now_s - self._asked_s < IDLE_S

    @staticmethod
    def _next(
        lane: deque[tuple[Inbound, Waiter, float]], size_max: int, now_s: float
    ) -> list[tuple[Inbound, Waiter]]:
        """The first of a lane; who waited too long is turned away, unless all that wait are taken: whatever
        kept the loop from them, it is no overload."""
        overload = len(lane) > size_max
        taken: list[tuple[Inbound, Waiter]] = []
        while lane and len(taken) < size_max:
            inbound, waiter, until_s = lane.popleft()
            if waiter.done():
                continue  # the caller went away
            if overload and now_s > until_s:
                waiter.set_exception(QueueFull())
            else:
                taken.append((inbound, waiter))
        return taken


@dataclass(slots=True)
class _Batch:
    """Callers of one batch, when it was taken, and its flight."""

    waiters: list[Waiter]
    began_s: float
    flight: Flight


def _cancel(waiters: Iterable[Waiter]) -> None:
    for waiter in waiters:
        waiter.cancel()
