"""The picture of an explanation as an answer, and its place in the API's document."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from api.explain import NotExplainable
from api.negotiation import SVG
from api.problem import SECURITY_HEADERS
from api.waterfall import svg
from models.reasons import Language


def picture(found: Mapping[str, Any], language: Language) -> Response:
    """The waterfall of an explanation. Raises `NotExplainable` where it has no model's part."""
    if "model" not in found:
        raise NotExplainable("no model took part, or this audience is shown none: there is no picture")
    headers = {**SECURITY_HEADERS, "vary": "Accept, Accept-Language"}
    return Response(svg(found, language), headers=headers, media_type=SVG)


def pictured(responses: dict[int | str, dict[str, Any]]) -> dict[int | str, dict[str, Any]]:
    """The same answers, of which the first may be a picture."""
    found = responses[200]
    content = {**found["content"], SVG: {"schema": {"type": "string"}}}
    return {**responses, 200: {**found, "content": content}}
