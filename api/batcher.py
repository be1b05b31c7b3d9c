"""Micro-batches for the HTTP door: whatever waits is decided together, one batch at a time.

The engine runs inline on the event loop: a hop to a thread would cost more than the batch takes, and while
one batch is being decided the next one gathers.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from api.answer import Answer, Pending
from api.engine import Engine
from api.work import Inbound

PENDING_POLL_S = 0.02
# Between two batches the event loop sends the answers, reads what has arrived, and lets that join the queue.
ROUNDS = 3
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
            answer = await self._submit(inbound)
            if not isinstance(answer, Pending) or asyncio.get_running_loop().time() > until:
                return answer
            await asyncio.sleep(PENDING_POLL_S)

    def _submit(self, inbound: Inbound) -> asyncio.Future[Answer]:
        if self.full:
            raise QueueFull
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((inbound, future, loop.time() + self._wait_s_max))
        self._wake.set()
        return future

    async def run(self) -> None:
        """Drain until cancelled. What the engine raises stops the process: it is fenced or broken."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._waiting:
                    began_s = loop.time()
                    size = self._drain()
                    for _ in range(ROUNDS):
                        await asyncio.sleep(0)
                    if size == self._size_max:
                        self._pace_s += PACE_WEIGHT * ((loop.time() - began_s) / size - self._pace_s)
        finally:
            for _, future, _ in self._waiting:
                future.cancel()

    def _drain(self) -> int:
        """Decide a batch; its size."""
        now_s = asyncio.get_running_loop().time()
        taken: list[tuple[Inbound, asyncio.Future[Answer]]] = []
        while self._waiting and len(taken) < self._size_max:
            inbound, future, until_s = self._waiting.popleft()
            if future.done():
                continue  # the caller went away
            if now_s > until_s:
                future.set_exception(QueueFull())
            else:
                taken.append((inbound, future))
        if not taken:
            return 0
        try:
            answers = self._engine.decide_batch([inbound for inbound, _ in taken], now_ms=self._clock())
        except BaseException:
            for _, future in taken:
                future.cancel()
            raise
        self.on_batch(len(taken))
        for (_, future), answer in zip(taken, answers, strict=True):
            if not future.done():
                future.set_result(answer)
        return len(taken)
