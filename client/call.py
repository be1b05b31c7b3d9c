"""Requests as values, and answers from bytes: what both clients share. Nothing here does any I/O."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal
from urllib.parse import quote

import msgspec

from client.answers import (
    Accepted,
    Answer,
    Batch,
    BatchResults,
    CustomerExplanation,
    Entity,
    Explanation,
    Outcome,
    Record,
    Records,
    Replayed,
)
from client.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    Problem,
    Refused,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
)
from client.retry import RETRIED, retry_after_s

Event = Mapping[str, Any]
"""A transaction, label or event, as the service's schema has it."""
Insider = Literal["analyst", "data_scientist"]
"""Who may see numbers and rules."""
Language = Literal["en", "de"]
"""Of an explanation's words."""
_REFUSALS: Final[Mapping[int, type[Refused]]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
}
_SHOWN_BYTES: Final = 200


@dataclass(frozen=True, slots=True)
class Search:
    """Filters that all have to hold; times are epoch milliseconds, from inclusive, until exclusive.

    `entity` and `id` go together: `Search(entity="card", id="cd_a")`. `rule`: that hit, live or shadow.
    `label`: the newest one.
    """

    entity: str | None = None
    id: str | None = None
    outcome: Outcome | None = None
    rule: str | None = None
    reason: str | None = None
    score_min: int | None = None
    score_max: int | None = None
    time_from: int | None = None
    time_until: int | None = None
    decided_from: int | None = None
    decided_until: int | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Call[T]:
    """One request and the type of its answer."""

    method: Literal["GET", "POST"]
    path: str
    answer: type[T]
    params: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    content_type: str = "application/json"


def decide(transaction: Event) -> Call[Answer]:
    """Decide a transaction."""
    return _post("/v1/decisions", transaction, Answer)


def label(report: Event) -> Call[Accepted]:
    """What a transaction turned out to be."""
    return _post("/v1/labels", report, Accepted)


def event(report: Event) -> Call[Accepted]:
    """What became of a transaction."""
    return _post("/v1/events", report, Accepted)


def decision(id: str) -> Call[Record]:
    """A decision's record."""
    return Call("GET", f"/v1/decisions/{_part(id)}", Record)


def search(query: Search, limit: int, cursor: str | None) -> Call[Records]:
    """A page of past decisions."""
    given = {**asdict(query), "limit": limit, "cursor": cursor}
    return Call("GET", "/v1/decisions", Records, {k: str(v) for k, v in given.items() if v is not None})


def explanation(id: str, audience: Insider, language: Language | None) -> Call[Explanation]:
    """Why it was decided so."""
    return Call("GET", *_explained(id, Explanation, audience, language))


def customer_explanation(id: str, language: Language | None) -> Call[CustomerExplanation]:
    """What the customer may be told."""
    return Call("GET", *_explained(id, CustomerExplanation, "customer", language))


def replay(id: str, as_: Literal["stored", "current"]) -> Call[Replayed]:
    """Decide again; nothing is recorded."""
    return Call("POST", f"/v1/decisions/{_part(id)}/replay", Replayed, {"as": as_})


def submit(transactions: Iterable[Event]) -> Call[Batch]:
    """Decide many, later."""
    content = b"\n".join(msgspec.json.encode(each) for each in transactions)
    return Call("POST", "/v1/decisions/batch", Batch, content=content, content_type="application/x-ndjson")


def batch(id: str) -> Call[Batch]:
    """How far a batch is."""
    return Call("GET", f"/v1/batches/{_part(id)}", Batch)


def results(id: str, cursor: int, limit: int) -> Call[BatchResults]:
    """A page of a batch's results."""
    params = {"cursor": str(cursor), "limit": str(limit)}
    return Call("GET", f"/v1/batches/{_part(id)}/results", BatchResults, params)


def entity(type: str, id: str, at_ms: int | None) -> Call[Entity]:
    """An entity's features."""
    params = {} if at_ms is None else {"at_ms": str(at_ms)}
    return Call("GET", f"/v1/entities/{_part(type)}/{_part(id)}", Entity, params)


def answer_of[T](call: Call[T], status: int, headers: Mapping[str, str], body: bytes) -> T:
    """The typed answer. `headers`: lower-case keys.

    Raises `Refused` and those below it, `Unavailable` where trying again may help, `UnexpectedAnswer`.
    """
    if 200 <= status < 300:
        try:
            return msgspec.json.decode(body, type=call.answer)
        except msgspec.DecodeError as error:
            raise UnexpectedAnswer(f"{call.method} {call.path}: {error}") from error
    problem = _problem(status, body)
    if status in RETRIED:
        raise Unavailable(f"{status} {problem.code}: {problem.detail}", problem, retry_after_s(headers))
    if 400 <= status < 500:
        raise _REFUSALS.get(status, InvalidRequest)(problem)
    raise UnexpectedAnswer(f"{call.method} {call.path}: {status} {problem.detail}")


def _problem(status: int, body: bytes) -> Problem:
    """Problem details; what a proxy says instead is shown as it is."""
    try:
        found = msgspec.json.decode(body, type=dict[str, Any])
        return Problem(
            status, str(found["code"]), str(found["title"]), str(found["detail"]), found.get("field")
        )
    except (msgspec.DecodeError, KeyError, UnicodeDecodeError):
        return Problem(status, "http", "no problem details", repr(body[:_SHOWN_BYTES]))


def _post[T](path: str, body: Event, answer: type[T]) -> Call[T]:
    return Call("POST", path, answer, content=msgspec.json.encode(body))


def _explained[T](
    id: str, answer: type[T], audience: str, language: Language | None
) -> tuple[str, type[T], dict[str, str]]:
    params = {"audience": audience} | ({} if language is None else {"lang": language})
    return f"/v1/decisions/{_part(id)}/explanation", answer, params


def _part(id: str) -> str:
    return quote(id, safe="")
