"""The hot routes as bare ASGI in front of FastAPI: one JSON decode, one queue, one JSON encode.

`POST /v1/decisions`, `/v1/labels`, `/v1/events`. Their documentation is in openapi.py; a test compares.
"""

from collections.abc import Callable
from typing import Any, Final

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
_JSON_HEADERS: Final = [
    (b"content-type", b"application/json"),
    *((name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()),
]


class HotRoutes:
    """ASGI application: the three event routes here, everything else to `rest`."""

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
        self._batcher = batcher
        self._gate = gate
        self._metrics = metrics
        self._body_bytes_max = body_bytes_max
        self._timer = timer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["path"] not in KINDS:
            await self.rest(scope, receive, send)
            return
        if scope["method"] != "POST":
            if scope["method"] in ALSO.get(scope["path"], ()):
                await self.rest(scope, receive, send)
            else:
                await _refuse(send, not_allowed(), allow=("POST", *ALSO.get(scope["path"], ())))
            return
        started = self._timer()
        kind = KINDS[scope["path"]]
        try:
            require(self._gate.caller(scope["headers"]), WRITERS)
            if self._batcher.full:
                raise QueueFull
            payload = _decode(await _read_body(receive, self._body_bytes_max))
            answer = await self._batcher.decide(Inbound(kind, payload, "http"))
            self._count(answer)
            status, body = _shown(answer)
        except AccessDenied as error:
            await _refuse(send, of_denied(error))
        except KeysAwaited:
            await _refuse(send, keys_awaited())
        except QueueFull:
            self._metrics.count("cordon_overload", "queue")
            await _refuse(send, overloaded())
        except Problem as problem:
            await _refuse(send, problem)
        else:
            headers = [*_JSON_HEADERS, (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        if kind == "transaction":
            self._metrics.observe("cordon_decision_seconds", (self._timer() - started) / 1e9)

    def _count(self, answer: Answer) -> None:
        count_answer(self._metrics, answer, "http")
        problem = of_answer(answer)
        if problem is not None:
            raise problem


def _shown(answer: Answer) -> tuple[int, bytes]:
    """Status and body of an answer that is no problem."""
    if isinstance(answer, Decided):
        return 200, encode_json(answer_of(answer.record, replay=answer.replay))
    if isinstance(answer, Accepted):
        record = answer.record
        shown = {"id": record["id"], "transaction_id": record["transaction_id"], "replay": answer.replay}
        return 200 if answer.replay else 202, encode_json(shown)
    raise TypeError(answer)


def _decode(body: bytes) -> Any:
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


async def _refuse(send: Send, problem: Problem, allow: tuple[str, ...] = ()) -> None:
    body = problem.body()
    headers = [(name.encode(), value.encode()) for name, value in problem.headers().items()]
    headers.append((b"content-length", str(len(body)).encode()))
    if allow:
        headers.append((b"allow", ", ".join(allow).encode()))
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
