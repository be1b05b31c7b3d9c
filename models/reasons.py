"""From exact contributions to reasons: one business idea is one reason, in words that a reader understands.

Features are grouped by what they say (entity and family, from their definitions); the contributions of a
group are summed; the groups that push the margin up most are the reasons. The words are data
(`reasons_en.json`); a catalogue that nobody has heard of gets generic ones. A customer's text says what
kind of thing is unusual: never a number, a threshold, or another person's history.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from typing import Any, Final, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

Language = Literal["en", "de"]
LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)
Audience = Literal["analyst", "data_scientist", "customer"]
REASONS_MAX: Final = 4
ROWS_BY_COLUMN: Final = 24


class Described(Protocol):
    """What grouping needs to know of a feature: `features.feature.Feature` has it."""

    @property
    def name(self) -> str: ...

    @property
    def entity(self) -> str | None: ...

    @property
    def family(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Reason:
    """`weight`: what the group adds to the margin (log-odds), above 0. `features`: its members."""

    code: str
    text: str
    weight: float
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """One business idea: the columns whose contributions are one reason, and its words."""

    code: str
    analyst: str
    customer: str
    columns: tuple[int, ...]
    features: tuple[str, ...]

    def text(self, audience: Audience) -> str:
        """The wording for a reader; a data scientist also sees the features."""
        if audience == "customer":
            return self.customer
        return (
            f"{self.analyst} ({', '.join(self.features)})" if audience == "data_scientist" else self.analyst
        )


class ReasonBook:
    """The words of one language. `words` is the content of a `reasons_<language>.json`."""

    def __init__(self, words: Mapping[str, Any]) -> None:
        self.language: str = words["language"]
        self._own: Mapping[str, str] = words["own"]
        self._entities: Mapping[str, str] = words["entities"]
        self._reasons: Mapping[str, Mapping[str, str]] = words["reasons"]
        self.rules: Mapping[str, str] = words["rules"]
        self.policies: Mapping[str, str] = words["policies"]
        self.customer: Mapping[str, str] = words["customer"]
        self.outcomes: Mapping[str, str] = words["outcomes"]
        self.counterfactuals: Mapping[str, Mapping[str, str]] = words["counterfactuals"]
        self._fields: Mapping[str, str] = words["fields"]
        self._decimal: str = words["decimal"]

    def wording(self, feature: Described) -> Mapping[str, str]:
        """Code and texts for a feature: its own entry, else its family's, else generic words."""
        if feature.entity is None:
            idea = self._own.get(feature.name)
            entry = self._reasons.get(f"own/{idea}", self._reasons["own/*"])
        else:
            exact, family = f"{feature.entity}/{feature.family}", f"*/{feature.family}"
            entry = self._reasons.get(exact) or self._reasons.get(family) or self._reasons["*/*"]
        entity = feature.entity or ""
        values = {
            "entity": self.entity(entity),
            "family": feature.family.replace("_", " "),
            "name": feature.name.replace("_", " "),
            "ENTITY": entity.upper(),
            "FAMILY": feature.family.upper(),
            "NAME": feature.name.upper(),
        }
        return {key: text.format(**values) for key, text in entry.items()}

    def entity(self, name: str) -> str:
        """The word for an entity."""
        return self._entities.get(name, name.replace("_", " "))

    def field(self, name: str) -> str:
        """The word for a field of a transaction."""
        return self._fields.get(name, name.replace("_", " "))

    def money(self, minor: int, digits: int, currency: str) -> str:
        """An amount as people write it: `212.00 EUR`."""
        whole, rest = divmod(minor, 10**digits)
        fraction = f"{self._decimal}{rest:0{digits}}" if digits else ""
        return f"{whole}{fraction} {currency}".strip()

    def group(self, features: Sequence[Described]) -> "Reasons":
        """Groups for a vector of `features`, in the order in which they first appear."""
        groups: dict[str, list[int]] = {}
        texts: dict[str, Mapping[str, str]] = {}
        for column, feature in enumerate(features):
            words = self.wording(feature)
            groups.setdefault(words["code"], []).append(column)
            texts.setdefault(words["code"], words)
        return Reasons(
            tuple(
                Group(
                    code,
                    texts[code]["analyst"],
                    texts[code]["customer"],
                    tuple(columns),
                    tuple(features[c].name for c in columns),
                )
                for code, columns in groups.items()
            )
        )


@dataclass(frozen=True)
class Reasons:
    """The groups of one vector, ready to explain rows of contributions."""

    groups: tuple[Group, ...]

    @cached_property
    def width(self) -> int:
        """Number of features."""
        return sum(len(g.columns) for g in self.groups)

    def sums(self, contributions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Contribution of each group, float64 [n, g], from [n, f + 1]; summed in the order of the vector."""
        out = np.zeros((len(contributions), len(self.groups)))
        if len(out) < ROWS_BY_COLUMN:
            # The same sums: for a few rows, what NumPy takes per call is most of its time.
            for row, values in zip(out, contributions.tolist(), strict=True):
                row[:] = self._add(values)
            return out
        for place, group in enumerate(self.groups):
            for column in group.columns:
                out[:, place] += contributions[:, column]
        return out

    def top(
        self, contributions: NDArray[np.float64], *, count: int = REASONS_MAX, audience: Audience = "analyst"
    ) -> list[tuple[Reason, ...]]:
        """For each row the groups that raise its margin most, at most `count`, the strongest first.

        Raises `ValueError` when `contributions` is not [n, f + 1].
        """
        if contributions.ndim != 2 or contributions.shape[1] != self.width + 1:
            raise ValueError(f"expected [n, {self.width + 1}] contributions, got {list(contributions.shape)}")
        if len(contributions) < ROWS_BY_COLUMN:
            return [self._top(self._add(values), count, audience) for values in contributions.tolist()]
        sums = self.sums(contributions)
        order = np.argsort(-sums, axis=1, kind="stable")[:, :count]
        return [
            tuple(self._reason(int(g), float(row[g]), audience) for g in chosen if row[g] > 0)
            for row, chosen in zip(sums, order, strict=True)
        ]

    @cached_property
    def _add(self) -> Callable[[Sequence[float]], tuple[float, ...]]:
        """Sums of each group of one row, in the order of the vector: additions in straight-line code."""
        sums = "".join(f"{'+'.join(f'v[{column}]' for column in group.columns)}, " for group in self.groups)
        add: Callable[[Sequence[float]], tuple[float, ...]] = eval(
            f"lambda v: ({sums})", {"__builtins__": {}}
        )
        return add

    def _top(self, sums: Sequence[float], count: int, audience: Audience) -> tuple[Reason, ...]:
        """`top` of one row; of equal groups the first."""
        raising = [place for place, weight in enumerate(sums) if weight > 0]
        raising.sort(key=sums.__getitem__, reverse=True)
        return tuple([self._reason(place, sums[place], audience) for place in raising[:count]])

    def _reason(self, place: int, weight: float, audience: Audience) -> Reason:
        group = self.groups[place]
        return Reason(group.code, group.text(audience), weight, group.features)


@cache
def load_reasons(language: str = "en") -> ReasonBook:
    """The book of a language, one of `LANGUAGES`. Raises `FileNotFoundError` when there is none."""
    file = resources.files("models").joinpath(f"reasons_{language}.json")
    return ReasonBook(json.loads(file.read_text(encoding="utf-8")))
