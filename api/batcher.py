"""Micro-batches for the HTTP door: whatever waits is decided together, one batch at a time.

The engine runs inline on the event loop: a hop to a thread would cost more than the batch takes, and while
one batch is being decided the next one gathers. The store's share of a batch overlaps with the one before.
"""

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from api.answer import Answer, Pending
from api.engine import Engine, Flight
from api.work import Inbound

PENDING_POLL_S = 0.02
# Between two batches the event loop sends the answers, reads what has arrived, and lets that join the queue.
ROUNDS = 3
# So many must wait for a batch to depart beside the one that is under way: every batch has costs of its own,
# so that below that it is cheaper, and for all together sooner, to join them.
AHEAD_MIN = 4
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


class Batcher:
    """The queue and the one task that drains it. `clock`: wall clock in ms.

    `wait_s_max`: nobody waits longer for their batch. How long the last in the queue would wait is known from
    full batches: what does not fill them is no overload.
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
        self._waiting: deque[tuple[Inbound, asyncio.Future[Answer], float]] = deque()
        self._spare: deque[tuple[Inbound, asyncio.Future[Answer], float]] = deque()
        self._asked_s = -math.inf
        self._rested_s = 0.0
        self._pace_s = 0.0
        self._wake = asyncio.Event()
        self.on_batch: Callable[[int], None] = lambda size: None

    @property
    def full(self) -> bool:
        """Whether one more would be turned away."""
        waiting = len(self._waiting)
        return waiting >= self._queue_max or waiting * self._pace_s > self._wait_s_max

    async def decide(self, inbound: Inbound) -> Answer:
        """Wait for the answer. Another attempt at the same id is waited for, within the time limit.

        Raises `QueueFull`.
        """
        until = asyncio.get_running_loop().time() + self._patience_s
        while True:
            answer = await self.submit(inbound)
            if not isinstance(answer, Pending) or asyncio.get_running_loop().time() > until:
                return answer
            await asyncio.sleep(PENDING_POLL_S)

    def spare(self, inbound: Inbound) -> asyncio.Future[Answer]:
        """Decide it when nobody else waits: no customer is behind it. The caller bounds how many."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._spare.append((inbound, future, math.inf))
        self._wake.set()
        return future

    def submit(self, inbound: Inbound) -> asyncio.Future[Answer]:
        """The answer of one attempt, which may be that another one is under way. Raises `QueueFull`."""
        if self.full:
            raise QueueFull
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((inbound, future, loop.time() + self._wait_s_max))
        self._wake.set()
        return future

    async def run(self) -> None:
        """Drain until cancelled. What the engine raises stops the process: it is fenced or broken.

            batch 1   begin | .. store .. | finish
            batch 2                 begin | .. store .. | finish

        While the store is at one batch, the one before is finished, where enough wait for that
        (`AHEAD_MIN`): neither waits for the other.
        """
        under_way: list[_Batch] = []
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._waiting or self._spare or under_way:
                    if not self._waiting and not under_way:
                        await self._rest()
                    await self._round(under_way)
                self._engine.flush(now_ms=self._clock())
        finally:
            for batch in under_way:
                batch.cancel()
            for _, future, _ in (*self._waiting, *self._spare):
                future.cancel()

    async def _round(self, under_way: list["_Batch"]) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        taken = self._ahead(began_s) if under_way else self._take(began_s)
        if taken:
            batch = _Batch([future for _, future in taken], began_s)
            under_way.append(batch)
            batch.flight = self._engine.begin([inbound for inbound, _ in taken], now_ms=self._clock())
        if len(under_way) > 1 or not taken:
            self._finish(under_way)
        for _ in range(ROUNDS):
            await asyncio.sleep(0)
        if len(taken) == self._size_max:
            self._pace_s += PACE_WEIGHT * ((loop.time() - began_s) / len(taken) - self._pace_s)

    async def _rest(self) -> None:
        """Give the spare lane a part of the time only, while others ask; they end the rest."""
        rest_s = self._rested_s - asyncio.get_running_loop().time()
        if rest_s > 0:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), rest_s)

    def _ahead(self, now_s: float) -> list[tuple[Inbound, asyncio.Future[Answer]]]:
        """A batch beside the one under way."""
        return self._take(now_s) if len(self._waiting) >= AHEAD_MIN else []

    def _take(self, now_s: float) -> list[tuple[Inbound, asyncio.Future[Answer]]]:
        """A batch of those that wait. If there are none, a small one of the spare lane: whoever comes next
        waits for that one, and for no other."""
        if self._waiting:
            self._asked_s = now_s
            return self._next(self._waiting, self._size_max, now_s)
        if now_s < self._rested_s:
            return []
        return self._next(self._spare, SPARE_BUSY if self._busy(now_s) else SPARE_IDLE, now_s)

    def _busy(self, now_s: float) -> bool:
        return now_s - self._asked_s < IDLE_S

    @staticmethod
    def _next(
        lane: deque[tuple[Inbound, asyncio.Future[Answer], float]], size_max: int, now_s: float
    ) -> list[tuple[Inbound, asyncio.Future[Answer]]]:
        """The first of a lane; who waited too long is turned away."""
        taken: list[tuple[Inbound, asyncio.Future[Answer]]] = []
        while lane and len(taken) < size_max:
            inbound, future, until_s = lane.popleft()
            if future.done():
                continue  # the caller went away
            if now_s > until_s:
                future.set_exception(QueueFull())
            else:
                taken.append((inbound, future))
        return taken

    def _finish(self, under_way: list["_Batch"]) -> None:
        if not under_way:
            return
        batch = under_way[0]
        assert batch.flight is not None
        answers = self._engine.finish(batch.flight)
        del under_way[0]
        self.on_batch(len(answers))
        if self._spare:
            # Whichever lane this was: the one that has time comes after twice of what was just taken.
            now_s = asyncio.get_running_loop().time()
            self._rested_s = now_s + SPARE_REST * (now_s - batch.began_s) if self._busy(now_s) else 0.0
        for future, answer in zip(batch.futures, answers, strict=True):
            if not future.done():
                future.set_result(answer)


@dataclass(slots=True)
class _Batch:
    """Callers of one batch, when it was taken, and its flight once it has begun."""

    futures: list[asyncio.Future[Answer]]
    began_s: float
    flight: Flight | None = None

    def cancel(self) -> None:
        """Nobody will answer."""
        for future in self.futures:
            future.cancel()
