"""The asynchronous client."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Literal, Self

import httpx

from client import call
from client.answers import (
    Accepted,
    Answer,
    Batch,
    BatchResult,
    CustomerExplanation,
    Entity,
    Explanation,
    Record,
    Records,
    Replayed,
)
from client.call import Call, Event, Insider, Language, Search
from client.errors import Unavailable, UnexpectedAnswer
from client.limits import Limits
from client.retry import Retry


class AsyncClient:
    """One service, over kept connections. Close it, or use it as an asynchronous context manager.

    Every method raises `Refused` (and those below it), `Unavailable`, `UnexpectedAnswer`. It tries again by
    itself where that can help; ids make everything count once. For one event loop.
    `credential`: an API key or a token. `random` and `sleep`: of the waits between attempts.
    """

    def __init__(
        self,
        url: str,
        credential: str,
        *,
        limits: Limits | None = None,
        retry: Retry | None = None,
        random: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        limits = limits or Limits()
        self._retry = retry or Retry()
        self._random = random
        self._sleep = sleep
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"authorization": f"Bearer {credential}", "accept": "application/json"},
            timeout=limits.timeout,
            limits=limits.pool,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def decide(self, transaction: Event) -> Answer:
        """Decide a transaction. The same id and content again gets the same answer, marked `replay`."""
        return await self._send(call.decide(transaction))

    async def label(self, report: Event) -> Accepted:
        """Report what a transaction turned out to be."""
        return await self._send(call.label(report))

    async def event(self, report: Event) -> Accepted:
        """Report what became of a transaction."""
        return await self._send(call.event(report))

    async def decision(self, id: str) -> Record:
        """The whole record of a decision."""
        return await self._send(call.decision(id))

    async def explanation(
        self, id: str, *, audience: Insider = "analyst", language: Language | None = None
    ) -> Explanation:
        """Why it was decided so: exact contributions, rules in words, what would have passed."""
        return await self._send(call.explanation(id, audience, language))

    async def customer_explanation(self, id: str, *, language: Language | None = None) -> CustomerExplanation:
        """What the customer may be told."""
        return await self._send(call.customer_explanation(id, language))

    async def replay(self, id: str, *, as_: Literal["stored", "current"] = "stored") -> Replayed:
        """Decide again, with what decided then or with what decides now. Nothing is recorded."""
        return await self._send(call.replay(id, as_))

    async def entity(self, type: str, id: str, *, at_ms: int | None = None) -> Entity:
        """An entity's features as they are now, or as of `at_ms`. Pairs: ids joined by a comma."""
        return await self._send(call.entity(type, id, at_ms))

    async def search(
        self, query: Search | None = None, *, limit: int = 50, cursor: str | None = None
    ) -> Records:
        """A page of the past decisions that match, newest first; all of them without a query."""
        return await self._send(call.search(query or Search(), limit, cursor))

    async def found(self, query: Search | None = None, *, page: int = 200) -> AsyncIterator[Record]:
        """Every past decision that matches, newest first, read `page` at a time."""
        cursor: str | None = None
        while True:
            records = await self.search(query, limit=page, cursor=cursor)
            for record in records.decisions:
                yield record
            cursor = records.next
            if cursor is None:
                return

    async def submit(self, transactions: Iterable[Event]) -> Batch:
        """Decide many, later and beside the interactive ones. The same transactions are the same batch."""
        return await self._send(call.submit(transactions))

    async def batch(self, id: str) -> Batch:
        """How far a batch is."""
        return await self._send(call.batch(id))

    async def wait(self, id: str, *, every_s: float = 1.0) -> Batch:
        """The batch once it has ended; asks `every_s` seconds."""
        while True:
            found = await self.batch(id)
            if found.ended:
                return found
            await self._sleep(every_s)

    async def results(self, id: str, *, page: int = 500, every_s: float = 1.0) -> AsyncIterator[BatchResult]:
        """What became of each line, in order; waits for what is not known yet, until the batch ends."""
        cursor: int | None = 0
        while cursor is not None:
            found = await self._send(call.results(id, cursor, page))
            for result in found.results:
                yield result
            if not found.results and found.next is not None:
                await self._sleep(every_s)
            cursor = found.next

    async def _send[T](self, request: Call[T]) -> T:
        for attempt in itertools.count(1):
            try:
                return await self._once(request)
            except Unavailable as error:
                wait_s = self._retry.wait_s(attempt, error.retry_after_s, self._random())
                if wait_s is None:
                    raise
            await self._sleep(wait_s)
        raise AssertionError  # count never ends

    async def _once[T](self, request: Call[T]) -> T:
        headers = {} if request.content is None else {"content-type": request.content_type}
        try:
            response = await self._http.request(
                request.method,
                request.path,
                params=request.params,
                content=request.content,
                headers=headers,
            )
        except (httpx.UnsupportedProtocol, httpx.DecodingError) as error:
            raise UnexpectedAnswer(f"{self._http.base_url}: {error}") from error
        except httpx.TransportError as error:
            raise Unavailable(f"{self._http.base_url}: {error or type(error).__name__}") from error
        return call.answer_of(request, response.status_code, response.headers, response.content)
