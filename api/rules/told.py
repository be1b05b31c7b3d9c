"""What records say of a set's results: `rules` has those that hit or could not tell, `no_hit` other ids.

Nearly all rules do not hit, and a record is written, hashed, shipped and stored several times. Results are
values that a set made ahead, and few of their combinations occur: values and JSON are made once for each.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from api.rules.rule import RuleResult

TOLD_MAX: Final = 2_048
_encode: Final = msgspec.json.Encoder().encode


class Told(NamedTuple):
    """Two parts of a record, encoded and as values for who reads it in this process; nobody changes them."""

    results: tuple[RuleResult, ...]
    rules: list[Any]
    no_hit: list[str]
    rules_raw: msgspec.Raw
    no_hit_raw: msgspec.Raw


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
            rules, no_hit = told(results)
            encoded = msgspec.Raw(_encode(rules)), msgspec.Raw(_encode(no_hit))
            found = self._kept[key] = Told(results, rules, no_hit, *encoded)
        return found


def told(results: Sequence[RuleResult]) -> tuple[list[Any], list[str]]:
    """`rules` and `no_hit` of a record, each in the order of the set."""
    rules = [result.shown for result in results if result.result != "no_hit"]
    return rules, [result.id for result in results if result.result == "no_hit"]


def results_of(record: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Every rule's result by its id: of one that did not hit only that it did not.

    Records of version 1 have all of them among their `rules`.
    """
    found = {result["id"]: result for result in record["rules"]}
    quiet = [id_ for id_, result in found.items() if result["result"] == "no_hit"]
    return found | {id_: {"id": id_, "result": "no_hit"} for id_ in (*quiet, *record.get("no_hit", ()))}
