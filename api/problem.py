"""Problem details (RFC 9457): the one place that turns what went wrong into HTTP."""

from collections.abc import Mapping
from typing import Any, Final

from api.access import AccessDenied
from api.answer import Answer, Conflicting, Pending, Refused, Unavailable, Unknown
from api.record import encode_json
from features.event import InvalidEvent, mask_card_numbers

MEDIA_TYPE: Final = "application/problem+json"
SECURITY_HEADERS: Final[Mapping[str, str]] = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
}
TITLES: Final[Mapping[int, str]] = {
    400: "Bad request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    410: "Gone",
    413: "Content too large",
    415: "Unsupported media type",
    422: "Invalid event",
    429: "Too many requests",
    503: "Unavailable",
}


class Problem(Exception):
    """A refusal as it goes over the wire. `code`: stable, for programs. `retry_after_s`: a header."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        field: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.field = field
        self.retry_after_s = retry_after_s

    def body(self) -> bytes:
        """The JSON document; digits that look like a card number never leave in it."""
        document: dict[str, Any] = {
            "type": f"urn:cordon:problem:{self.code}",
            "title": TITLES.get(self.status, "Problem"),
            "status": self.status,
            "code": self.code,
            "detail": mask_card_numbers(self.detail),
        }
        if self.field is not None:
            document["field"] = mask_card_numbers(self.field)
        return encode_json(document)

    def headers(self) -> dict[str, str]:
        """Headers that belong to it."""
        found = {"content-type": MEDIA_TYPE, **SECURITY_HEADERS}
        if self.retry_after_s is not None:
            found["retry-after"] = f"{self.retry_after_s:g}"
        if self.status == 401:
            found["www-authenticate"] = "Bearer"
        return found


def of_invalid(error: InvalidEvent) -> Problem:
    """422, naming the field."""
    return Problem(422, error.code, f"{error.field}: {error.reason}", error.field)


def of_denied(error: AccessDenied) -> Problem:
    """401 or 403."""
    return Problem(error.status, "unauthorized" if error.status == 401 else "forbidden", error.detail)


def of_answer(answer: Answer) -> Problem | None:
    """The problem that an answer is, if it is one."""
    match answer:
        case Refused(error):
            return of_invalid(error)
        case Conflicting(key):
            return Problem(409, "conflict", f"{key} was used before with other content; nothing changed")
        case Unknown(transaction_id):
            return Problem(404, "unknown_transaction", f"no decision {transaction_id}", "transaction_id")
        case Pending(key):
            return Problem(503, "pending", f"{key} is being decided by another attempt", retry_after_s=1)
        case Unavailable(part):
            return Problem(503, f"unavailable_{part}", _UNAVAILABLE[part], retry_after_s=1)
    return None


_UNAVAILABLE: Final = {
    "journal": "the journal cannot be written; nothing is decided without a record",
    "backlog": "too many records wait to be shipped to Kafka",
    "store": "the online store does not answer; labels and events wait for it",
    "query_store": "the query store does not answer",
    "time": "the decision took too long and was given up",
}


def too_large() -> Problem:
    """413."""
    return Problem(413, "too_large", "the body is larger than allowed")


def overloaded() -> Problem:
    """503: turned away before latency explodes."""
    return Problem(503, "overloaded", "too many decisions are waiting", retry_after_s=1)


def keys_awaited() -> Problem:
    """503: an outage of the tokens' issuer is no refusal."""
    return Problem(503, "unavailable_keys", "the issuer's keys have not been read yet", retry_after_s=1)


def not_allowed() -> Problem:
    """405; the `Allow` header says what is."""
    return Problem(405, "method_not_allowed", "the route has no such method")
