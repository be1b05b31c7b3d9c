"""Instants and durations as people type them: `2024-02-25`, an ISO 8601 time, epoch ms; `7d`, `90m`."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from cordon.failure import Failure
from features.tier import DAY, HOUR, MINUTE, SECOND

UNITS_MS = {"d": DAY, "h": HOUR, "m": MINUTE, "s": SECOND, "ms": 1}


def instant_ms(text: str) -> int:
    """Epoch ms of a date (its midnight, UTC), an ISO 8601 time (UTC without an offset) or epoch ms."""
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise Failure(f"{text!r} is no time: write 2024-02-25, 2024-02-25T12:00:00Z or epoch ms") from error
    return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


def duration_ms(text: str) -> int:
    """Milliseconds of `7d`, `36h`, `90m`, `45s`, `500ms`."""
    found = re.fullmatch(r"(\d+)(ms|[dhms])", text)
    if found is None:
        raise Failure(f"{text!r} is no duration: write a number and d, h, m, s or ms, such as 7d")
    return int(found[1]) * UNITS_MS[found[2]]
