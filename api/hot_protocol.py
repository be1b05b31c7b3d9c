"""HTTP/1.1 as uvicorn speaks it, with a short way for the hot routes.

A plain POST of an event is read, asked and answered on its connection: no scope, no task, no messages
between them. Whatever is not plain (another route or method, HTTP/1.0, `Expect`, an upgrade, a request that
waits behind another of its connection, a caller who does not read) goes uvicorn's usual way to the ASGI
application, which answers the hot routes as well. A test holds both ways to the same answers.
"""

import asyncio
import logging
from functools import partial
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from api.answer import Answer, Pending
from api.hot import KINDS, REFUSALS, HotRoutes, Response
from api.problem import too_large
from api.work import EventKind, Inbound

LOG = logging.getLogger("cordon.api")
FAILED: Final = Response(
    500,
    ((b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"21")),
    b"Internal Server Error",
)
_KINDS: Final[dict[bytes, EventKind]] = {path.encode(): kind for path, kind in KINDS.items()}


class Exchange:
    """One request on the short way, in place of uvicorn's cycle. `started`: of the timer."""

    __slots__ = ("body", "disconnected", "keep_alive", "kind", "more_body", "response_complete", "started")

    def __init__(self, kind: EventKind, started: int, *, keep_alive: bool) -> None:
        self.kind = kind
        self.started = started
        self.keep_alive = keep_alive
        self.body = bytearray()
        self.more_body = True
        self.response_complete = False
        self.disconnected = False

    @property
    def message_event(self) -> "Exchange":
        """uvicorn wakes whoever reads the body: nobody here."""
        return self

    def set(self) -> None:
        """See `message_event`."""


class HotProtocol(HttpToolsProtocol):
    """One connection."""

    hot: HotRoutes

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        app: Any = self.app
        if not isinstance(app, HotRoutes):
            raise TypeError(app)
        self.hot = app
        self._asking: set[asyncio.Task[Answer]] = set()

    def on_message_begin(self) -> None:
        """A request line follows; its scope is made where somebody needs it."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        """Choose the way."""
        kind = _KINDS.get(self.url)
        cycle: Any = self.cycle
        if (
            kind is None
            or self.parser.get_method() != b"POST"
            or (cycle is not None and not cycle.response_complete)
            or self.expect_100_continue
            or self.flow.write_paused
            or self.parser.get_http_version() != "1.1"
            or self.parser.should_upgrade()
        ):
            self._usual()
            return
        exchange: Any = Exchange(kind, self.hot.timer(), keep_alive=self.parser.should_keep_alive())
        self.cycle = exchange
        try:
            self.hot.admit(self.headers)
        except REFUSALS as error:
            self._answer(exchange, self.hot.refuse(error))

    def _usual(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        exchange: Any = self.cycle
        if not isinstance(exchange, Exchange):
            super().on_body(body)
        elif not exchange.response_complete:
            exchange.body += body
            if len(exchange.body) > self.hot.body_bytes_max:
                self._answer(exchange, self.hot.refuse(too_large()))

    def on_message_complete(self) -> None:
        """The request is whole: ask."""
        exchange: Any = self.cycle
        if not isinstance(exchange, Exchange):
            super().on_message_complete()
        elif not exchange.response_complete:
            self._ask(exchange)

    def _ask(self, exchange: Exchange) -> None:
        try:
            inbound = self.hot.open(exchange.kind, exchange.body)
            future = self.hot.batcher.submit(inbound)
        except REFUSALS as error:
            self._answer(exchange, self.hot.refuse(error))
        else:
            future.add_done_callback(partial(self._answered, exchange, inbound))

    def _answered(self, exchange: Exchange, again: Inbound | None, future: "asyncio.Future[Answer]") -> None:
        """The engine's answer is there. `again`: what to ask for where another attempt is under way."""
        error = None if future.cancelled() else future.exception()
        if future.cancelled() or (error is not None and not isinstance(error, REFUSALS)):
            LOG.error("a request failed", exc_info=error)
            exchange.keep_alive = False
            self._answer(exchange, FAILED)
        elif error is not None:
            self._answer(exchange, self.hot.refuse(error))
        elif isinstance(answer := future.result(), Pending) and again is not None:
            task = self.loop.create_task(self.hot.batcher.decide(again))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
            task.add_done_callback(partial(self._answered, exchange, None))
        else:
            self._answer(exchange, self.hot.close(answer))

    def _answer(self, exchange: Exchange, response: Response) -> None:
        exchange.response_complete = True
        self.hot.note(exchange.kind, exchange.started)
        if exchange.disconnected:
            return
        lines = [STATUS_LINE[response.status]]
        for name, value in response.headers:
            lines += (name, b": ", value, b"\r\n")
        lines += (b"\r\n" if exchange.keep_alive else b"connection: close\r\n\r\n", response.body)
        self.transport.write(b"".join(lines))
        if not exchange.keep_alive:
            self.transport.close()
        self.on_response_complete()
