"""What can go wrong, and what the caller does about it.

CordonError
├── Refused             do not send it again as it is; `problem` says why
│   ├── InvalidRequest  correct it: `problem.field` (400, 413, 415, 422, and any other 4xx)
│   ├── Unauthorized    send a valid credential (401)
│   ├── Forbidden       ask for the role, or the service of your own tenant (403)
│   ├── NotFound        there is no such thing (404)
│   └── Conflict        the id was used before with other content; nothing changed (409)
├── Unavailable         every attempt failed: try later with the same id, it counts once
└── UnexpectedAnswer    it is no decision service, or a much newer one
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """Problem details (RFC 9457). `code`: stable, for programs. `field`: what is wrong, if one is."""

    status: int
    code: str
    title: str
    detail: str
    field: str | None = None


class CordonError(Exception):
    """Anything that this client raises."""


class Refused(CordonError):
    """The service will not do it; sending it again changes nothing."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.status} {problem.code}: {problem.detail}")
        self.problem = problem


class InvalidRequest(Refused):
    """Correct the request: `problem.field` names what is wrong."""


class Unauthorized(Refused):
    """The credential is missing, unknown or expired."""


class Forbidden(Refused):
    """The credential's roles may not do this, or it belongs to another tenant."""


class NotFound(Refused):
    """There is no such decision, entity or route."""


class Conflict(Refused):
    """The id was used before with other content, or what is asked for does not fit the state."""


class Unavailable(CordonError):
    """Nothing answered, or only to say that it cannot: try later, with the same id.

    `problem`: what the service said last, `None` where nothing was heard. `retry_after_s`: when it wants to
    be asked again. Whether the request was carried out may be unknown; repeating it is safe.
    """

    def __init__(
        self, detail: str, problem: Problem | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(detail)
        self.problem = problem
        self.retry_after_s = retry_after_s


class UnexpectedAnswer(CordonError):
    """The answer is not what the service documents: check the address and the versions."""
