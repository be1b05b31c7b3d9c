"""Sends a replay to the HTTP door: bounded concurrency, kept connections, retries that the id makes safe.

When to try again is the client's rule. The connections are a thin client of their own: what a full one adds
to each request would show in latencies that are measured from the scheduled time.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import random

from client.retry import RETRIED, Retry, retry_after_s
from stream.replay.http_client import Address, Connection, ConnectionLost, Response
from stream.replay.injection import Placed
from stream.replay.item import PATHS, Item
from stream.replay.manifest import Manifest

Answered = Callable[[Item, Response, float], None]
"""Called for each answer with the message, the response, and seconds since the message was due."""


class DoorRefused(RuntimeError):
    """The door did not take a message after every retry: is the service up? The replay stops."""


@dataclass(frozen=True, slots=True)
class HttpDoor:
    """Where and how. `connections`: requests under way at once; `queue`: messages waiting for one."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    connections: int = 64
    queue: int = 1_024
    timeout_s: float = 10.0
    retry: Retry = field(default_factory=lambda: Retry(attempts=9, base_s=0.1))


@dataclass(slots=True)
class HttpSender:
    """The running end of an `HttpDoor`. Use as an async context manager; `drain` waits for what is under way.

    An event or label is sent once the transaction it is about has been answered.
    """

    door: HttpDoor
    manifest: Manifest
    clock: Callable[[], float]
    answered: Answered | None = None
    _queue: asyncio.Queue[tuple[Item, float]] = field(init=False)
    _workers: list[asyncio.Task[None]] = field(default_factory=list)
    _under_way: dict[str, asyncio.Future[None]] = field(default_factory=dict)
    _failure: DoorRefused | None = None

    async def __aenter__(self) -> "HttpSender":
        self._queue = asyncio.Queue(self.door.queue)
        address = Address.parse(self.door.url)
        self._workers = [
            asyncio.create_task(self._work(Connection(address, self.door.headers, self.door.timeout_s)))
            for _ in range(self.door.connections)
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    async def send(self, item: Item, due_s: float) -> None:
        """Queues a message that was due at `due_s` of the clock. Raises `DoorRefused`."""
        if self._failure is not None:
            raise self._failure
        if item.kind == "transaction" and item.injected is None:
            self._under_way[item.id] = asyncio.get_running_loop().create_future()
        await self._queue.put((item, due_s))

    async def drain(self) -> None:
        """Waits until everything queued has been answered. Raises `DoorRefused`."""
        await self._queue.join()
        if self._failure is not None:
            raise self._failure

    async def _work(self, connection: Connection) -> None:
        try:
            while True:
                item, due_s = await self._queue.get()
                try:
                    if self._failure is None:
                        await self._one(connection, item, due_s)
                except DoorRefused as refusal:
                    self._failure = refusal
                finally:
                    self._finish(item)
                    self._queue.task_done()
        finally:
            await connection.close()

    def _finish(self, item: Item) -> None:
        if item.kind == "transaction" and item.injected is None:
            waiting = self._under_way.pop(item.id, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    async def _one(self, connection: Connection, item: Item, due_s: float) -> None:
        before = self._under_way.get(item.transaction_id)
        if before is not None and (item.kind != "transaction" or item.injected is not None):
            await asyncio.shield(before)
        for attempt in itertools.count(1):
            try:
                response = await connection.post(PATHS[item.kind], item.body)
            except ConnectionLost as error:
                problem: object = error
                asked_s = None
            else:
                if response.status not in RETRIED:
                    self.manifest.answers[f"{item.kind}:{response.status}"] += 1
                    if self.answered is not None:
                        self.answered(item, response, self.clock() - due_s)
                    return
                problem = f"status {response.status}"
                asked_s = retry_after_s(response.headers)
            wait_s = self.door.retry.wait_s(attempt, asked_s, random())
            if wait_s is None:
                raise DoorRefused(f"{self.door.url}{PATHS[item.kind]}: {problem} after {attempt} attempts")
            self.manifest.retries += 1
            await asyncio.sleep(wait_s)


async def paced(
    stream: Iterable[tuple[Placed, float]], start_s: float, clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]], manifest: Manifest,
) -> AsyncIterator[tuple[Placed, float]]:  # fmt: skip
    """Each message of the stream (with its due time in seconds after the start) at that time."""
    for placed, due_s in stream:
        ahead_s = start_s + due_s - clock()
        if ahead_s > 0.0005:
            await sleep(ahead_s)
        elif due_s > 0:
            manifest.behind_ms_max = max(manifest.behind_ms_max, -ahead_s * 1000)
        yield placed, start_s + due_s
