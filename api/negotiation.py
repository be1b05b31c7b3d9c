"""What a reader prefers: `Accept-Language` and `Accept` (RFC 9110, section 12.5), as far as we offer it."""

from collections.abc import Sequence
from typing import Final

from models.reasons import LANGUAGES, Language

JSON: Final = "application/json"
SVG: Final = "image/svg+xml"
ITEMS_MAX: Final = 32


def language_of(header: str | None) -> Language:
    """The preferred one of our languages; English where none is wanted."""
    for tag in _ordered(header or ""):
        found = next((known for known in LANGUAGES if tag.partition("-")[0] == known), None)
        if found is not None:
            return found
    return "en"


def media_of(header: str | None, offered: Sequence[str] = (JSON, SVG)) -> str | None:
    """The preferred one of `offered`, the first of them where anything will do; `None`: nothing fits."""
    if not header or not header.strip():
        return offered[0]
    for wanted in _ordered(header):
        kind, _, rest = wanted.partition("/")
        for media in offered:
            if wanted in (media, "*/*") or (rest == "*" and media.startswith(f"{kind}/")):
                return media
    return None


def _ordered(header: str) -> list[str]:
    """Values by weight, equal ones in their order; those of weight 0 are left out."""
    found = []
    for place, item in enumerate(header.split(",")[:ITEMS_MAX]):
        value, *parameters = [part.strip().lower() for part in item.split(";")]
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = float(parameter[2:])
                except ValueError:
                    weight = 0.0
        if value and weight > 0:
            found.append((-weight, place, value))
    return [value for _, _, value in sorted(found)]
