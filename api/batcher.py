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


class QueueFull(Exception):
    """Too much is waiting, or this waited too long: turn it away before latency explodes."""


class Batcher:
    """The queue and the one task that drains it. `clock`: wall clock in ms."""

    def __init__(
        self,
        engine: Engine,
        clock: Callable[[], int],
        *,
        size_max: int,
        queue_max: int,
        patience_s: float = 2.5,
        wait_s_max: float = 1.0,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._size_max = size_max
        self._queue_max = queue_max
        self._patience_s = patience_s
        self._wait_s_max = wait_s_max
        self._waiting: deque[tuple[Inbound, asyncio.Future[Answer], float]] = deque()
        self._wake = asyncio.Event()
        self.on_batch: Callable[[int], None] = lambda size: None

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
        if len(self._waiting) >= self._queue_max:
            raise QueueFull
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((inbound, future, loop.time() + self._wait_s_max))
        self._wake.set()
        return future

    async def run(self) -> None:
        """Drain until cancelled. What the engine raises stops the process: it is fenced or broken."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._waiting:
                    self._drain()
                    # Let arrivals in and answers out before the next batch.
                    await asyncio.sleep(0)
        finally:
            for _, future, _ in self._waiting:
                future.cancel()

    def _drain(self) -> None:
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
            return
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
