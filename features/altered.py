"""A vector as it would have been: with another amount, with something known, with fewer payments before.

Only the vector is at hand, not the states behind it. What follows from one another moves together: a sum by
the difference, a mean by the difference over the count, a deviation by its sum of squares, a ratio by its
parts.
Where the vector does not say enough, nothing is guessed: `Undetermined` names the feature.

A greatest amount that this transaction itself is may hide a second one, of any size up to it: there are two
vectors then, one for each end, and whoever asks must look at both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import sqrt
from typing import Final, Literal

from features.catalogue import Catalogue
from features.feature import Distinct, Feature, Gap, Novelty, Own, Ratio, Window, ZScore
from features.measure import TRANSACTION, Scalar

Vector = Mapping[str, float | None]
End = Literal["low", "high"]
ENDS: Final[tuple[End, ...]] = ("low", "high")
EXACT_MAX: Final = 4e6
"""Integers up to this are recovered from a mean in single precision and its count."""
CLEAR: Final = 2e-4
"""Share of a variance that rounding leaves clear."""


class Undetermined(ValueError):
    """The vector does not say what this feature would be."""


@dataclass(frozen=True, slots=True)
class Past:
    """A decided transaction. `vector`: by name, absent values `None`; `values`: its fields."""

    catalogue: Catalogue
    vector: Vector
    values: Mapping[str, Scalar]

    @property
    def amount(self) -> int:
        """Minor units of the base currency; 0 where the schema has none."""
        name = self.catalogue.schema.amount
        found = self.values.get(name) if name is not None else None
        return found if isinstance(found, int) else 0

    def own(self, entity: str) -> bool:
        """Whether an entity belongs to the customer: its fields are personal."""
        schema = self.catalogue.schema
        fields = next((e.fields for e in schema.entities if e.name == entity), ())
        return bool(fields) and all(schema.by_name[name].personal for name in fields)


def with_amount(past: Past, amount: int, end: End) -> dict[str, float | None]:
    """The vector of the same transaction over another amount. Raises `Undetermined`."""
    return _Amount(past, amount, end).vector()


def with_known(past: Past, field: str) -> dict[str, float | None]:
    """With a value of `field` that its entities have met before: novelty ends, one distinct value less."""
    changed = dict(past.vector)
    for feature in past.catalogue.features:
        if isinstance(feature, Novelty) and feature.field == field and changed[feature.name] == 1:
            changed[feature.name] = 0.0
        elif isinstance(feature, Distinct) and feature.field == field and past.own(feature.of):
            seen = changed[feature.name]
            changed[feature.name] = None if seen is None else max(1.0, seen - 1)
    return changed


def with_fewer(past: Past, entity: str, fewer: int) -> dict[str, float | None]:
    """With `fewer` earlier payments of an entity, the youngest ones left out, of average amounts."""
    shares: dict[int, float] = {}
    changed = dict(past.vector)
    for feature in past.catalogue.features:
        if _counts(feature, entity) and not feature.where:  # type: ignore[attr-defined]
            before = past.vector[feature.name]
            if before is not None:
                after = max(1.0, before - fewer)
                changed[feature.name] = after
                shares[feature.window_ms] = (after - 1) / (before - 1) if before > 1 else 1.0  # type: ignore[attr-defined]
    for feature in past.catalogue.features:
        if not isinstance(feature, Window) or feature.of != entity or feature.source != TRANSACTION:
            continue
        value, share = past.vector[feature.name], shares.get(feature.window_ms)
        if value is None or share is None or feature.delay_ms:
            continue
        mine = all(w.holds(past.values) for w in feature.where)
        if feature.aggregate == "sum":
            own = float(past.amount) if mine else 0.0
            changed[feature.name] = own + (value - own) * share
        elif feature.aggregate == "count" and feature.where:
            changed[feature.name] = float(mine) + round((value - float(mine)) * share)
    return _ratios(past, changed)


def without_failures(past: Past, entity: str, source: str) -> dict[str, float | None]:
    """Without the earlier events of a kind (declines of the issuer, failed challenges) of an entity."""
    changed = dict(past.vector)
    for feature in past.catalogue.features:
        if getattr(feature, "of", None) != entity or getattr(feature, "source", None) != source:
            continue
        if isinstance(feature, Window) and changed[feature.name] is not None:
            changed[feature.name] = 0.0 if feature.aggregate in ("count", "sum") else None
        elif isinstance(feature, Gap):
            changed[feature.name] = None
    return changed


def with_field(past: Past, field: str, value: Scalar) -> tuple[dict[str, float | None], dict[str, Scalar]]:
    """Vector and fields with another value of a field, one that the entities know; the event's own features
    follow. Raises `Undetermined`."""
    values = {**past.values, field: value}
    changed = with_known(past, field)
    for feature in past.catalogue.features:
        if not isinstance(feature, Own) or field not in (feature.term.field, feature.term.other):
            continue
        term = feature.term
        if term.kind == "mismatch":
            one, other = values.get(term.field), values.get(term.other)
            changed[feature.name] = None if one is None or other is None else float(one != other)
        elif term.kind == "reference" and term.table is not None:
            found = term.table.values.get(str(value))
            changed[feature.name] = None if found is None else float(found)
        elif term.kind == "present":
            changed[feature.name] = float(value is not None)
        else:
            raise Undetermined(feature.name)
    return changed, values


def _counts(feature: Feature, entity: str) -> bool:
    return (
        isinstance(feature, Window)
        and feature.of == entity
        and feature.aggregate == "count"
        and feature.source == TRANSACTION
        and not feature.delay_ms
    )


def _ratios(past: Past, changed: dict[str, float | None]) -> dict[str, float | None]:
    """Ratios whose both parts are in the vector, made of their new parts."""
    for feature in past.catalogue.features:
        if not isinstance(feature, Ratio) or past.vector[feature.name] is None:
            continue
        top, bottom = feature.numerator.name, feature.denominator.name
        if (changed.get(top), changed.get(bottom)) != (past.vector.get(top), past.vector.get(bottom)):
            above, below = changed.get(top), changed.get(bottom)
            changed[feature.name] = None if above is None or not below else above / below * feature.per
    return changed


class _Amount:
    """One change of the amount."""

    def __init__(self, past: Past, amount: int, end: End) -> None:
        self._past = past
        self._before = float(past.amount)
        self._after = float(amount)
        self._end = end
        self._field = past.catalogue.schema.amount
        self._anchors = self._found_by_ratio()

    def vector(self) -> dict[str, float | None]:
        """Every feature of the catalogue."""
        return {feature.name: self._one(feature) for feature in self._past.catalogue.features}

    def _one(self, feature: Feature) -> float | None:
        known = self._past.vector[feature.name]
        if not self._moves(feature) or (known is None and not isinstance(feature, Ratio | ZScore)):
            return known
        try:
            return self._new(feature)
        except Undetermined:
            # What had no spread and no denominator may have one now; what has no history stays absent.
            if known is None:
                return None
            raise

    def _moves(self, feature: Feature) -> bool:
        if isinstance(feature, Own):
            return feature.term.kind == "value" and feature.term.field == self._field
        if isinstance(feature, Window):
            mine = feature.source == TRANSACTION and not feature.delay_ms
            return mine and feature.field == self._field and self._matches(feature)
        if isinstance(feature, ZScore):
            return feature.field == self._field
        if isinstance(feature, Ratio):
            return self._moves(feature.numerator) or self._moves(feature.denominator)
        return False

    def _matches(self, window: Window) -> bool:
        return all(w.holds(self._past.values) for w in window.where)

    def _new(self, feature: Feature) -> float | None:
        if not self._moves(feature):
            return self._old(feature)
        if isinstance(feature, Window):
            return self._window(feature)
        if isinstance(feature, ZScore):
            mean = Window(feature.of, "mean", feature.window_ms, feature.field)
            std = replace(mean, aggregate="std")
            spread, middle = self._new(std), self._new(mean)
            return None if not spread or middle is None else (self._after - middle) / spread
        if isinstance(feature, Ratio):
            above, below = self._new(feature.numerator), self._new(feature.denominator)
            return None if above is None or not below else above / below * feature.per
        return self._after

    def _window(self, feature: Window) -> float:
        old, change = self._old(feature), self._after - self._before
        if feature.aggregate == "sum":
            return old + change
        if feature.aggregate == "max":
            return self._greatest(feature, old)
        count = self._old(replace(feature, aggregate="count", field=None))
        if feature.aggregate == "mean":
            return old + change / count
        return self._spread(feature, old, count)

    def _spread(self, feature: Window, old: float, count: float) -> float:
        """A deviation by its sum of squares. A vector is in single precision: what a subtraction leaves of a
        large spread is not known."""
        if count == 1:
            return 0.0
        mean = self._old(replace(feature, aggregate="mean"))
        total = mean * count
        is_exact = total < EXACT_MAX
        mean = round(total) / count if is_exact else mean
        middle = mean + (self._after - self._before) / count
        squares = (old * old + mean * mean) * count - self._before**2 + self._after**2
        variance = squares / count - middle * middle
        if variance < CLEAR * (old * old + (0.0 if is_exact else mean * mean)):
            raise Undetermined(feature.name)
        return sqrt(max(0.0, variance))

    def _greatest(self, feature: Window, old: float) -> float:
        if self._after >= old or old > self._before:
            return max(old, self._after)
        try:
            alone = self._old(replace(feature, aggregate="count", field=None)) == 1
        except Undetermined:
            alone = False
        return self._after if alone or self._end == "low" else self._before

    def _old(self, feature: Feature) -> float:
        """A feature's value, of the vector or of what it says between the lines. Raises `Undetermined`."""
        found = self._past.vector.get(feature.name)
        found = self._anchors.get(feature.name) if found is None else found
        if found is None and isinstance(feature, Window) and feature.aggregate == "count":
            total = self._past.vector.get(replace(feature, aggregate="sum", field=self._field).name)
            mean = self._past.vector.get(replace(feature, aggregate="mean", field=self._field).name)
            found = float(round(total / mean)) if total is not None and mean else None
        if found is None and isinstance(feature, Own) and self._moves(feature):
            return self._before
        if found is None:
            raise Undetermined(feature.name)
        return found

    def _found_by_ratio(self) -> dict[str, float]:
        """Denominators that only a ratio to the amount tells."""
        found = {}
        for feature in self._past.catalogue.features:
            if isinstance(feature, Ratio) and self._is_amount(feature.numerator):
                value = self._past.vector[feature.name]
                if value:
                    found[feature.denominator.name] = self._before * feature.per / value
        return found

    def _is_amount(self, feature: Feature) -> bool:
        return isinstance(feature, Own) and self._moves(feature)
