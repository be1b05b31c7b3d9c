"""What records say of a set's results, as values and as JSON: made once for each combination of results.

Results are values that a set made ahead, and few of their combinations occur, while the text of thirty rules
is more than half of a record.
"""

from typing import Any, Final, NamedTuple

import msgspec

from api.rules.rule import RuleResult

TOLD_MAX: Final = 2_048
_encode: Final = msgspec.json.Encoder().encode


class Told(NamedTuple):
    """`shown`: of every result, for whoever reads the record in this process; nobody changes it."""

    results: tuple[RuleResult, ...]
    shown: list[Any]
    raw: msgspec.Raw


class Telling:
    """Keeps at most `limit` combinations. Not for use by several threads."""

    def __init__(self, limit: int = TOLD_MAX) -> None:
        self._limit = limit
        self._kept: dict[tuple[int, ...], Told] = {}

    def of(self, results: tuple[RuleResult, ...]) -> Told:
        """What a record says of these results."""
        # By identity, which hashes without looking at them; what is kept keeps them alive.
        key = tuple(map(id, results))
        found = self._kept.get(key)
        if found is None:
            if len(self._kept) >= self._limit:
                self._kept.clear()
            shown = [result.shown for result in results]
            found = self._kept[key] = Told(results, shown, msgspec.Raw(_encode(shown)))
        return found
