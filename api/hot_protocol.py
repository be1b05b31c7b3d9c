"""HTTP/1.1 as uvicorn speaks it, with a short way for the hot routes.

A plain POST of an event is read, asked and answered on its connection: no scope, no task, no messages
between them. Whatever is not plain (another route or method, HTTP/1.0, `Expect`, an upgrade, a request that
waits behind another of its connection, a caller who does not read) goes uvicorn's usual way to the ASGI
application, which answers the hot routes as well. A test holds both ways to the same answers.

A request that comes in one piece with a head that was read before (heads.py) is not read again.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from api.answer import Answer, Pending
from api.heads import Head, Heads
from api.hot import JSON_HEADERS, KINDS, REFUSALS, HotRoutes, Response
from api.problem import too_large
from api.work import EventKind, Inbound

LOG = logging.getLogger("cordon.api")
FAILED: Final = Response(500, ((b"content-type", b"text/plain; charset=utf-8"),), b"Internal Server Error")
_KINDS: Final[dict[bytes, EventKind]] = {path.encode(): kind for path, kind in KINDS.items()}
_HEADS: Final = Heads()


def _opening(response: Response) -> bytes:
    """An answer's first lines, up to the length of its body."""
    lines = [b"%b: %b\r\n" % header for header in response.headers]
    return b"".join((STATUS_LINE[response.status], *lines, b"content-length: "))


_OPENINGS: Final = {status: _opening(Response(status, JSON_HEADERS, b"")) for status in (200, 202)}


class Exchange:
    """One request on the short way, in place of uvicorn's cycle. `started`: of the timer; `admitted`: the
    caller may send it."""

    __slots__ = (
        "admitted",
        "body",
        "disconnected",
        "keep_alive",
        "kind",
        "more_body",
        "response_complete",
        "started",
    )

    def __init__(self, kind: EventKind, started: int, body: bytes | bytearray, *, keep_alive: bool) -> None:
        self.kind = kind
        self.started = started
        self.keep_alive = keep_alive
        self.body = body
        self.admitted = False
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
    heads: Heads = _HEADS

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        app: Any = self.app
        if not isinstance(app, HotRoutes):
            raise TypeError(app)
        self.hot = app
        self._asking: set[asyncio.Task[Answer]] = set()
        self._between = True
        self._begun = 0
        self._idle_s: float | None = None

    def data_received(self, data: bytes) -> None:
        """Bytes of the caller: a whole request as it was read before, or whatever else."""
        if not self._between:
            super().data_received(data)
            return
        cycle: Any = self.cycle
        if (cycle is None or cycle.response_complete) and not self.flow.write_paused:
            found = self.heads.find(data)
            if found is not None:
                self._again(*found, data)
                return
        begun = self._begun
        super().data_received(data)
        read: Any = self.cycle
        if (
            self._between
            and self._begun == begun + 1
            and read is not cycle
            and isinstance(read, Exchange)
            and read.keep_alive
            and read.admitted
        ):
            self.heads.keep(data, read.kind, self.headers, len(read.body))

    def _again(self, head: Head, end: int, data: bytes) -> None:
        """A request with a head that was read before; `end`: of the head."""
        self._idle_s = None
        exchange: Any = Exchange(head.kind, self.hot.timer(), data[end:], keep_alive=True)
        self.cycle = exchange
        if not self._admits(exchange, head.headers):
            return
        if len(exchange.body) > self.hot.body_bytes_max:
            self._answer(exchange, self.hot.refuse(too_large()))
        else:
            self._ask(exchange)

    def on_message_begin(self) -> None:
        """A request line follows; its scope is made where somebody needs it."""
        self._between = False
        self._begun += 1
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
        keep_alive = self.parser.should_keep_alive()
        exchange: Any = Exchange(kind, self.hot.timer(), bytearray(), keep_alive=keep_alive)
        self.cycle = exchange
        exchange.admitted = self._admits(exchange, self.headers)

    def _admits(self, exchange: Exchange, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """Whether the caller may send it; who may not is told."""
        try:
            self.hot.admit(headers)
        except REFUSALS as error:
            self._answer(exchange, self.hot.refuse(error))
            return False
        return True

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
        self._between = True
        exchange: Any = self.cycle
        if not isinstance(exchange, Exchange):
            super().on_message_complete()
        elif not exchange.response_complete:
            self._ask(exchange)

    def _ask(self, exchange: Exchange) -> None:
        try:
            inbound = self.hot.open(exchange.kind, exchange.body)
            self.hot.batcher.submit(inbound, _Waiter(self, exchange, inbound))
        except REFUSALS as error:
            self._answer(exchange, self.hot.refuse(error))

    def answered(self, exchange: Exchange, answer: Answer) -> None:
        """The engine's answer is there."""
        self._answer(exchange, self.hot.close(answer))

    def failed(self, exchange: Exchange, error: BaseException | None) -> None:
        """There is none. `error`: why, if that is known."""
        if isinstance(error, REFUSALS):
            self._answer(exchange, self.hot.refuse(error))
            return
        LOG.error("a request failed", exc_info=error)
        exchange.keep_alive = False
        self._answer(exchange, FAILED)

    def ask_again(self, exchange: Exchange, inbound: Inbound) -> None:
        """Another attempt is under way: its answer is waited for."""
        task = self.loop.create_task(self.hot.batcher.decide(inbound))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)
        task.add_done_callback(partial(self._decided, exchange))

    def _decided(self, exchange: Exchange, task: "asyncio.Task[Answer]") -> None:
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            self.failed(exchange, error)
        else:
            self.answered(exchange, task.result())

    def _answer(self, exchange: Exchange, response: Response) -> None:
        exchange.response_complete = True
        self.hot.note(exchange.kind, exchange.started)
        if exchange.disconnected:
            return
        known = _OPENINGS.get(response.status) if response.headers is JSON_HEADERS else None
        opening = _opening(response) if known is None else known
        rest = b"%b%d\r\n\r\n%b" if exchange.keep_alive else b"%b%d\r\nconnection: close\r\n\r\n%b"
        self.transport.write(rest % (opening, len(response.body), response.body))
        if not exchange.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def on_response_complete(self) -> None:
        """As uvicorn's, but for the timer of an idle connection, which runs on from request to request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_s = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._watch(self.timeout_keep_alive)

    def _unset_keepalive_if_required(self) -> None:
        self._idle_s = None

    def _watch(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """Close the connection if it has been idle for so long; if it was not, look again when it may be."""
        self.timeout_keep_alive_task = None
        if self._idle_s is None:
            return
        left_s = self._idle_s + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self._watch(left_s)
        else:
            self.timeout_keep_alive_handler()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, and its timer with it."""
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None


class _Waiter(NamedTuple):
    """Tells a connection at once; whatever goes wrong there is that connection's own affair."""

    protocol: HotProtocol
    exchange: Exchange
    inbound: Inbound

    def done(self) -> bool:
        return False

    def set_result(self, answer: Answer) -> None:
        if isinstance(answer, Pending):
            self._tell(self.protocol.ask_again, self.inbound)
        else:
            self._tell(self.protocol.answered, answer)

    def set_exception(self, error: BaseException) -> None:
        self._tell(self.protocol.failed, error)

    def cancel(self) -> None:
        self._tell(self.protocol.failed, None)

    def _tell(self, tell: Callable[[Exchange, Any], None], what: object) -> None:
        try:
            tell(self.exchange, what)
        except Exception:
            LOG.exception("an answer could not be sent")
            self.protocol.transport.abort()
