"""What the routes behind FastAPI send: JSON with security headers; problems as the document names them."""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import Response

from api.openapi import answer, problem
from api.problem import SECURITY_HEADERS
from api.record import encode_json

_TEXTS: Final = {
    401: "no credential, or an unknown one",
    403: "the credential's roles may not do this, or it is another tenant's",
    404: "not found",
    406: "neither of the offered forms is accepted",
    409: "it cannot be recomputed here",
    422: "a parameter is invalid",
    503: "a store does not answer; try again",
}


def reply(content: Mapping[str, Any], status: int = 200) -> Response:
    """A JSON answer."""
    headers = dict(SECURITY_HEADERS)
    return Response(encode_json(content), status, headers=headers, media_type="application/json")


def responses(name: str, *statuses: int) -> dict[int | str, dict[str, Any]]:
    """The answer's schema by its name, and the problems beside it, for a route's documentation."""
    problems: dict[int | str, dict[str, Any]] = {status: problem(_TEXTS[status]) for status in statuses}
    return {200: answer(name), **problems}
