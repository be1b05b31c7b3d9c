"""Named lists that rules look ids up in: `card in @stolen_cards`."""

from collections.abc import Mapping
from dataclasses import dataclass

FOREVER_MS = 2**62


@dataclass(frozen=True, slots=True)
class Entry:
    """One listed value as people give it: an id before it becomes a pseudonym, or a text."""

    value: str
    reason: str
    author: str
    expires_ms: int | None = None


@dataclass(frozen=True, slots=True)
class WatchList:
    """A list as rules see it. `of`: the word it lists; `until_ms`: value (ids as pseudonyms) -> expiry."""

    name: str
    of: str
    until_ms: Mapping[str, int]
