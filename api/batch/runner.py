"""Works batches off, line by line, in the spare lane of the batcher: interactive requests go first.

A batch belongs to whoever holds its lock. A process that dies leaves it to the next one, which goes on behind
the last durable result; what was decided but not written down there is answered from its claim, so that
everything is decided once.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from api.answer import Answer
from api.batch.result import Batch, Malformed, payload_of, result_of
from api.batch.shelf import Held, InputLost, Shelf, ShelfUnusable
from api.work import Inbound

GROUP: Final = 64
LOOK_EVERY_S: Final = 1.0
AGAIN_S: Final = 0.5
TIDY_EVERY_S: Final = 600.0
LOG = logging.getLogger("cordon.batch")


class Runner:
    """`decide`: one event's answer, without hurry. `able`: whether deciding makes sense now.

    `ended` is told of every batch that has ended, before that is written down: after a crash in between it is
    told again, with the same batch. It raises `OSError` where it must be told later.
    """

    def __init__(
        self,
        shelf: Shelf,
        decide: Callable[[Inbound], Awaitable[Answer]],
        able: Callable[[], bool],
        clock: Callable[[], int],
        ended: Callable[[Batch, int], None],
        *,
        keep_ms: int,
    ) -> None:
        self._shelf = shelf
        self._decide = decide
        self._able = able
        self._clock = clock
        self._ended = ended
        self._keep_ms = keep_ms
        self._news = asyncio.Event()

    def wake(self) -> None:
        """A batch was accepted here."""
        self._news.set()

    async def run(self) -> None:
        """Work until cancelled."""
        tidied_s = -TIDY_EVERY_S
        loop = asyncio.get_running_loop()
        while True:
            self._news.clear()
            try:
                for batch in await asyncio.to_thread(self._shelf.open):
                    await self._work(batch.id)
                if loop.time() - tidied_s >= TIDY_EVERY_S:
                    tidied_s = loop.time()
                    await asyncio.to_thread(self._shelf.tidy, self._clock() - self._keep_ms)
            except (OSError, ShelfUnusable) as error:
                LOG.error("batches wait: %s", error)
            try:
                await asyncio.wait_for(self._news.wait(), LOOK_EVERY_S)
            except TimeoutError:
                continue

    async def _work(self, id_: str) -> None:
        held = await asyncio.to_thread(self._shelf.hold, id_)
        if held is None:
            return
        why = None
        try:
            try:
                await self._lines(held, await asyncio.to_thread(held.lines))
            except InputLost as error:
                why = f"the lines cannot be read: {error}"
            now_ms = self._clock()
            self._ended(held.batch, now_ms)
            await asyncio.to_thread(held.end, now_ms, why)
            LOG.info("batch %s: %d of %d lines", id_, held.batch.sums.done, held.batch.lines)
        finally:
            held.close()

    async def _lines(self, held: Held, lines: list[bytes]) -> None:
        while held.batch.sums.done < len(lines):
            begin = held.batch.sums.done
            group = enumerate(lines[begin : begin + GROUP], begin + 1)
            results = await asyncio.gather(*(self._line(number, line) for number, line in group))
            await asyncio.to_thread(held.append, results)

    async def _line(self, number: int, line: bytes) -> dict[str, Any]:
        payload = payload_of(line)
        if isinstance(payload, Malformed):
            answer: Answer | Malformed = payload
        else:
            answer = await self._decide_when_able(payload)
        found = result_of(number, payload, answer)
        while found is None:
            await asyncio.sleep(AGAIN_S)
            found = result_of(number, payload, await self._decide_when_able(payload))
        return found

    async def _decide_when_able(self, payload: Any) -> Answer:
        while not self._able():
            await asyncio.sleep(AGAIN_S)
        return await self._decide(Inbound("transaction", payload, "http"))
