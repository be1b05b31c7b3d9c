"""The hot routes as bare ASGI in front of FastAPI: one JSON decode, one queue, one JSON encode.

`POST /v1/decisions`, `/v1/labels`, `/v1/events`. Their documentation is in openapi.py; a test compares.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.access import AccessDenied, Role, require
from api.answer import Accepted, Answer, Decided
from api.batcher import Batcher, QueueFull
from api.gate import Gate, KeysAwaited
from api.metrics import Metrics, count_answer
from api.problem import (
    SECURITY_HEADERS,
    Problem,
    keys_awaited,
    not_allowed,
    of_answer,
    of_denied,
    overloaded,
    too_large,
)
from api.record import answer_of, decode_json, encode_json
from api.work import EventKind, Inbound
from features.event import holds_card_number

KINDS: Final[dict[str, EventKind]] = {
    "/v1/decisions": "transaction",
    "/v1/labels": "label",
    "/v1/events": "event",
}
# Methods of these paths that are not hot.
ALSO: Final[dict[str, tuple[str, ...]]] = {"/v1/decisions": ("GET",)}
# Who may send events. docs/access.md has the table of all routes.
WRITERS: Final[frozenset[Role]] = frozenset(("decide", "analyst", "admin"))
JSON_HEADERS: Final = (
    (b"content-type", b"application/json"),
    *((name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()),
)


REFUSALS: Final = (AccessDenied, KeysAwaited, QueueFull, Problem)


class Response(NamedTuple):
    """Status, headers (without the length) and body of an answer."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes


class HotRoutes:
    """ASGI application: the three event routes here, everything else to `rest`.

    `open` and `close` are the two halves of a request, for whoever speaks HTTP (see hot_protocol.py).
    """

    def __init__(
        self,
        rest: ASGIApp,
        batcher: Batcher,
        gate: Gate,
        metrics: Metrics,
        body_bytes_max: int,
        timer: Callable[[], int],
    ) -> None:
        self.rest = rest
        self.batcher = batcher
        self.body_bytes_max = body_bytes_max
        self.timer = timer
        self._gate = gate
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["path"] not in KINDS:
            await self.rest(scope, receive, send)
            return
        if scope["method"] != "POST":
            if scope["method"] in ALSO.get(scope["path"], ()):
                await self.rest(scope, receive, send)
            else:
                await _send(send, refusal(not_allowed(), ("POST", *ALSO.get(scope["path"], ()))))
            return
        started = self.timer()
        kind = KINDS[scope["path"]]
        try:
            self.admit(scope["headers"])
            inbound = self.open(kind, await _read_body(receive, self.body_bytes_max))
            response = self.close(await self.batcher.decide(inbound))
        except REFUSALS as error:
            response = self.refuse(error)
        await _send(send, response)
        self.note(kind, started)

    def admit(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Whether the caller may send events, and there is room. Raises what `refuse` takes."""
        require(self._gate.caller(headers), WRITERS)
        if self.batcher.full:
            raise QueueFull

    def open(self, kind: EventKind, body: bytes | bytearray) -> Inbound:
        """What is to be decided. Raises `Problem`."""
        return Inbound(kind, _decode(body), "http")

    def close(self, answer: Answer) -> Response:
        """What the caller is told of the engine's answer."""
        count_answer(self._metrics, answer, "http")
        problem = of_answer(answer)
        if problem is not None:
            return refusal(problem)
        status, body = _shown(answer)
        return Response(status, JSON_HEADERS, body)

    def refuse(self, error: BaseException) -> Response:
        """What the caller is told of one of `REFUSALS`."""
        match error:
            case AccessDenied():
                return refusal(of_denied(error))
            case KeysAwaited():
                return refusal(keys_awaited())
            case Problem():
                return refusal(error)
        self._metrics.count("cordon_overload", "queue")
        return refusal(overloaded())

    def note(self, kind: EventKind, started: int) -> None:
        """How long it took; `started`: of the timer."""
        if kind == "transaction":
            self._metrics.observe("cordon_decision_seconds", (self.timer() - started) / 1e9)


def _shown(answer: Answer) -> tuple[int, bytes]:
    """Status and body of an answer that is no problem."""
    if isinstance(answer, Decided):
        return 200, encode_json(answer_of(answer.record, replay=answer.replay))
    if isinstance(answer, Accepted):
        record = answer.record
        shown = {"id": record["id"], "transaction_id": record["transaction_id"], "replay": answer.replay}
        return 200 if answer.replay else 202, encode_json(shown)
    raise TypeError(answer)


def _decode(body: bytes | bytearray) -> Any:
    try:
        return decode_json(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        detail = f"body: {error}"
        if holds_card_number(detail):
            detail = "body: is no JSON"
        raise Problem(422, "malformed", detail, "body") from None


async def _read_body(receive: Receive, limit: int) -> bytes:
    """The whole body. Raises `Problem` 413 beyond `limit` bytes."""
    message: Message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body", False):
        if len(body) > limit:
            raise too_large()
        message = await receive()
        body += message.get("body", b"")
    if len(body) > limit:
        raise too_large()
    if message["type"] == "http.disconnect":
        raise Problem(400, "disconnected", "the client went away")
    return body


def refusal(problem: Problem, allow: tuple[str, ...] = ()) -> Response:
    """A problem on the wire."""
    headers = [(name.encode(), value.encode()) for name, value in problem.headers().items()]
    if allow:
        headers.append((b"allow", ", ".join(allow).encode()))
    return Response(problem.status, headers, problem.body())


async def _send(send: Send, response: Response) -> None:
    headers = [*response.headers, (b"content-length", b"%d" % len(response.body))]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})
