"""What a rule set consists of, by content: a digest of each rule and each list, and the version over all.

Two files that say the same have the same version, whatever their layout and comments; a set that was changed
behind its version names the rule or the list that differs.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from typing import Any, Final, Self

DIGITS: Final = 12


@dataclass(frozen=True, slots=True)
class Manifest:
    """Digests in the order of the file: at equal severity the first rule wins, so the order belongs to it."""

    name: str
    rules: tuple[tuple[str, str], ...] = ()
    lists: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(
        cls, name: str, rules: Sequence[Mapping[str, Any]], lists: Mapping[str, Mapping[str, Any]]
    ) -> Self:
        """The manifest of parsed entries; every rule has an id."""
        return cls(
            name,
            tuple((str(rule["id"]), digest(rule)) for rule in rules),
            tuple((listed, digest(entry)) for listed, entry in sorted(lists.items())),
        )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Back from `to_json`. Raises `KeyError`, `TypeError`, `ValueError`."""
        return cls(
            str(value["name"]),
            tuple((str(i), str(d)) for i, d in value["rules"]),
            tuple((str(n), str(d)) for n, d in value["lists"]),
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {"name": self.name, "rules": list(self.rules), "lists": list(self.lists)}

    @property
    def version(self) -> str:
        """Name and digest of the whole set."""
        return f"{self.name}-{digest([self.rules, self.lists])}"

    @property
    def lists_version(self) -> str:
        """Digest of the lists alone."""
        return digest(self.lists)


@dataclass(frozen=True, slots=True)
class Changes:
    """Names that two sets do not share, or share with other content."""

    rules: tuple[str, ...]
    lists: tuple[str, ...]
    reordered: bool = False

    def __bool__(self) -> bool:
        return bool(self.rules or self.lists or self.reordered)


def changes(before: Manifest, after: Manifest) -> Changes:
    """What differs between two sets."""
    rules = tuple(sorted({i for i, _ in set(before.rules) ^ set(after.rules)}))
    lists = tuple(sorted({n for n, _ in set(before.lists) ^ set(after.lists)}))
    return Changes(rules, lists, not rules and before.rules != after.rules)


def digest(value: object) -> str:
    """Of parsed TOML or JSON, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def _plain(value: object) -> str:
    if isinstance(value, date | time):
        return value.isoformat()
    raise TypeError(type(value).__name__)
