"""What records say of a set's results, in three parts: `rules`, what hit; `no_hit`, ids of what did not;
`not_evaluated`, by their ids what the others were missing.

Nearly all rules do not hit, and a record is written, hashed, shipped and stored several times. Results are
values that a set made ahead, and few of their combinations occur: values and JSON are made once for each.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from api.record import members
from api.rules.rule import RuleResult

TOLD_MAX: Final = 2_048


class Told(NamedTuple):
    """The parts as JSON without the braces, and what hit as values, which nobody changes."""

    results: tuple[RuleResult, ...]
    hits: Sequence[Mapping[str, Any]]
    members: bytes


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
            parts = told(results)
            found = self._kept[key] = Told(results, parts["rules"], members(parts))
        return found


def told(results: Sequence[RuleResult]) -> dict[str, Any]:
    """The parts, each in the order of the set."""
    return {
        "rules": [result.shown for result in results if result.result == "hit"],
        "no_hit": [result.id for result in results if result.result == "no_hit"],
        "not_evaluated": {r.id: list(r.missing) for r in results if r.result == "not_evaluated"},
    }


def results_of(record: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Every rule's result by its id: mode and action of what hit only.

    Records of version 1 have all results among their `rules`.
    """
    found: list[Mapping[str, Any]] = [
        result
        if result["result"] == "hit"
        else {key: value for key, value in result.items() if key not in ("mode", "action")}
        for result in record["rules"]
    ]
    for id_, missing in record.get("not_evaluated", {}).items():
        found.append({"id": id_, "result": "not_evaluated", **({"missing": missing} if missing else {})})
    found += [{"id": id_, "result": "no_hit"} for id_ in record.get("no_hit", ())]
    return {result["id"]: result for result in found}
