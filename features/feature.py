"""The catalogue language: a feature is a value, its name is derived from its definition.

Every feature expands into *terms* (numbers read from state or from the event) and one *formula* over
them; the Flink SQL, the online kernel, the offline builder and the documentation all start from these.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from features.measure import FRAUD, TRANSACTION, WITHDRAWN, Aggregate, Head, Measure, Where
from features.tier import DAY, HOUR, MINUTE, duration

Unit = Literal["count", "money", "seconds", "share", "ratio", "score", "km/h", "flag", "code", "number"]


LAST_PLACE = Head("place")


@dataclass(frozen=True, slots=True)
class TileTerm:
    """Aggregate of one measure of `entity` over a window; as int64 before any division."""

    entity: str
    measure: Measure
    window_ms: int
    delay_ms: int = 0


@dataclass(frozen=True, slots=True)
class GapTerm:
    """Seconds since the head slot's last event; absent if there is none or it lies after `t`."""

    entity: str
    head: Head


@dataclass(frozen=True, slots=True)
class SpeedTerm:
    """km/h since the entity's last event with a place; absent if there is none or it lies after `t`."""

    entity: str
    head: Head = LAST_PLACE


@dataclass(frozen=True, slots=True)
class SeenTerm:
    """`novel`: 1 if the event's own value was not seen since the window's start, else 0.
    `distinct`: number of values last seen since then, the event's own included.
    """

    kind: Literal["novel", "distinct"]
    entity: str
    field: str
    window_ms: int


@dataclass(frozen=True, slots=True)
class FieldTerm:
    """A number of the event itself. `kind` says how it is read:

    `value`: the field (categories as their place in `Field.values`, booleans as 0 and 1);
    `hour`, `weekday` (Monday 0), `time_of_day` (hours with fraction): of the event time plus `offset_ms`;
    `reference`: the field looked up in `table`; `mismatch`: 1 if two fields differ, 0 if equal;
    `present`: 1 if the field is there, else 0.
    """

    kind: Literal["value", "hour", "weekday", "time_of_day", "reference", "mismatch", "present"]
    field: str = ""
    other: str = ""
    offset_ms: int = 0
    table: "ReferenceTable | None" = None


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceTable:
    """Read-only reference data, versioned; an unknown key is absent. Equal if name and version are."""

    name: str
    version: str
    values: Mapping[str, float]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ReferenceTable) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    def __repr__(self) -> str:
        return f"ReferenceTable({self.name}@{self.version})"

    @property
    def identity(self) -> tuple[str, str]:
        """What a fingerprint contains of the table."""
        return self.name, self.version


Term = TileTerm | GapTerm | SpeedTerm | SeenTerm | FieldTerm

Formula = Literal["term", "difference", "mean", "std", "ratio", "zscore"]
"""How a feature is made of its inputs (float64, then rounded to float32):

term(a)                 a
difference(a, b)        max(0, a - b)
mean(sum, n)            sum / n; absent if n = 0
std(sumsq, sum, n)      sqrt(max(0, sumsq / n - (sum / n)^2)); absent if n = 0      (population)
ratio(a, b) * scale     a / b * scale; absent if b = 0
zscore(x, mean, std)    (x - mean) / std; absent if std = 0
"""


@dataclass(frozen=True, slots=True)
class Feature:
    """Base of all features. `inputs` are terms or other features; absent inputs make it absent."""

    @property
    def name(self) -> str:
        """Derived name, unique in a catalogue."""
        raise NotImplementedError

    @property
    def formula(self) -> Formula:
        return "term"

    @property
    def inputs(self) -> tuple["Term | Feature", ...]:
        raise NotImplementedError

    @property
    def scale(self) -> float:
        """Factor of a ratio."""
        return 1.0

    @property
    def unit(self) -> Unit:
        return "number"

    @property
    def entity(self) -> str | None:
        """The entity whose history it reads; `None` for the event's own fields."""
        return None

    @property
    def family(self) -> str:
        """The business idea, for grouping reasons: `velocity`, `spend`, `novelty`, `label` …"""
        return "transaction"

    @property
    def uses_labels(self) -> bool:
        """Whether it is derived from labels."""
        return any(i.uses_labels if isinstance(i, Feature) else _is_label(i) for i in self.inputs)


def _is_label(term: Term) -> bool:
    if isinstance(term, TileTerm):
        return term.measure.source in (FRAUD, WITHDRAWN)
    return isinstance(term, GapTerm | SpeedTerm) and term.head.source in (FRAUD, WITHDRAWN)


def _where(where: tuple[Where, ...]) -> list[str]:
    return [w.label for w in where]


@dataclass(frozen=True, slots=True)
class Window(Feature):
    """Count, sum, mean, std or max of an integer field over a window, optionally filtered and delayed.

    `source`: `transaction`, a lifecycle kind (`issuer_declined` …) or `fraud`: labels by their arrival,
    reported less withdrawn, never below 0.
    """

    of: str
    aggregate: Literal["count", "sum", "mean", "std", "max"]
    window_ms: int
    field: str | None = None
    where: tuple[Where, ...] = ()
    source: str = TRANSACTION
    delay_ms: int = 0

    @property
    def name(self) -> str:
        parts = [self.of, *_where(self.where)]
        if self.source != TRANSACTION:
            parts.append(self.source)
        parts += [self.field] if self.field else []
        parts += [self.aggregate, duration(self.window_ms)]
        if self.delay_ms:
            parts.append(f"before_{duration(self.delay_ms)}")
        return "_".join(parts)

    def term(self, aggregate: Aggregate, source: str | None = None) -> TileTerm:
        """The term that aggregates this window's events by `aggregate`."""
        field = None if aggregate == "count" else self.field
        measure = Measure(source or self.source, aggregate, field, self.where)
        return TileTerm(self.of, measure, self.window_ms, self.delay_ms)

    @property
    def formula(self) -> Formula:
        if self.source == FRAUD:
            return "difference"
        return self.aggregate if self.aggregate in ("mean", "std") else "term"

    @property
    def inputs(self) -> tuple[Term | Feature, ...]:
        if self.source == FRAUD:
            return self.term("count"), self.term("count", WITHDRAWN)
        if self.aggregate == "mean":
            return self.term("sum"), self._present()
        if self.aggregate == "std":
            return self.term("sumsq"), self.term("sum"), self._present()
        return (self.term(self.aggregate),)

    def _present(self) -> TileTerm:
        return self.term("count")

    @property
    def unit(self) -> Unit:
        return "count" if self.aggregate == "count" else "money" if self.field == "amount" else "number"

    @property
    def entity(self) -> str | None:
        return self.of

    @property
    def family(self) -> str:
        if self.source == FRAUD:
            return "label"
        if self.source != TRANSACTION:
            return self.source
        return "velocity" if self.aggregate == "count" else "spend"


@dataclass(frozen=True, slots=True)
class Ratio(Feature):
    """One feature over another, times `per`; the name says what it is: `as_name`."""

    as_name: str
    numerator: Feature
    denominator: Feature
    per: float = 1.0
    is_share: bool = False

    @property
    def name(self) -> str:
        return self.as_name

    @property
    def formula(self) -> Formula:
        return "ratio"

    @property
    def inputs(self) -> tuple[Term | Feature, ...]:
        return self.numerator, self.denominator

    @property
    def scale(self) -> float:
        return self.per

    @property
    def unit(self) -> Unit:
        return "share" if self.is_share else "ratio"

    @property
    def entity(self) -> str | None:
        return self.denominator.entity or self.numerator.entity

    @property
    def family(self) -> str:
        return "label" if self.uses_labels else "habit"


@dataclass(frozen=True, slots=True)
class ZScore(Feature):
    """How many standard deviations the event's own field lies above the entity's mean in the window."""

    of: str
    field: str
    window_ms: int

    @property
    def name(self) -> str:
        return f"{self.of}_{self.field}_zscore_{duration(self.window_ms)}"

    @property
    def formula(self) -> Formula:
        return "zscore"

    @property
    def inputs(self) -> tuple[Term | Feature, ...]:
        mean = Window(self.of, "mean", self.window_ms, self.field)
        std = Window(self.of, "std", self.window_ms, self.field)
        return FieldTerm("value", self.field), mean, std

    @property
    def unit(self) -> Unit:
        return "score"

    @property
    def entity(self) -> str | None:
        return self.of

    @property
    def family(self) -> str:
        return "habit"


@dataclass(frozen=True, slots=True)
class Gap(Feature):
    """Seconds since the entity's last event of `source` (before this one)."""

    of: str
    source: str = TRANSACTION
    where: tuple[Where, ...] = ()

    @property
    def name(self) -> str:
        source = [] if self.source == TRANSACTION else [self.source]
        return "_".join([self.of, *_where(self.where), *source, "gap"])

    @property
    def inputs(self) -> tuple[Term | Feature, ...]:
        return (GapTerm(self.of, Head("time", self.source, self.where)),)

    @property
    def unit(self) -> Unit:
        return "seconds"

    @property
    def entity(self) -> str | None:
        return self.of

    @property
    def family(self) -> str:
        return "label" if self.uses_labels else "recency"


@dataclass(frozen=True, slots=True)
class Speed(Feature):
    """km/h between this event's place and the entity's last one that had a place.

    Great-circle distance (haversine, radius 6,371 km) between places on a grid of 0.01 degrees;
    times in whole seconds, at least one.
    """

    of: str

    @property
    def name(self) -> str:
        return f"{self.of}_speed"

    @property
    def inputs(self) -> tuple[Term | Feature, ...]:
        return (SpeedTerm(self.of),)

    @property
    def unit(self) -> Unit:
        return "km/h"

    @property
    def entity(self) -> str | None:
        return self.of

    @property
    def family(self) -> str:
        return "movement"


@dataclass(frozen=True, slots=True)
class Novelty(Feature):
    """1 if the entity has not met this value of `field` in the window, else 0; absent without a value."""

    of: str
    field: str
    window_ms: int

    @property
    def name(self) -> str:
        return f"{self.of}_{self.field}_new_{duration(self.window_ms)}"

    @property
    def inputs(self) -> tuple[Term | Feature, ...]:
        return (SeenTerm("novel", self.of, self.field, self.window_ms),)

    @property
    def unit(self) -> Unit:
        return "flag"

    @property
    def entity(self) -> str | None:
        return self.of

    @property
    def family(self) -> str:
        return "novelty"


@dataclass(frozen=True, slots=True)
class Distinct(Feature):
    """Number of distinct values of `field` that the entity met in the window, at most the map's bound + 1."""

    of: str
    field: str
    window_ms: int

    @property
    def name(self) -> str:
        return f"{self.of}_{self.field}_distinct_{duration(self.window_ms)}"

    @property
    def inputs(self) -> tuple[Term | Feature, ...]:
        return (SeenTerm("distinct", self.of, self.field, self.window_ms),)

    @property
    def unit(self) -> Unit:
        return "count"

    @property
    def entity(self) -> str | None:
        return self.of

    @property
    def family(self) -> str:
        return "spread"


@dataclass(frozen=True, slots=True)
class Own(Feature):
    """A number of the event itself: no history."""

    term: FieldTerm
    as_name: str | None = None
    as_unit: Unit = "number"

    @property
    def name(self) -> str:
        if self.as_name:
            return self.as_name
        return self.term.kind if self.term.kind in ("hour", "weekday", "time_of_day") else self.term.field

    @property
    def inputs(self) -> tuple[Term | Feature, ...]:
        return (self.term,)

    @property
    def unit(self) -> Unit:
        return self.as_unit


def value(field: str, unit: Unit = "number") -> Own:
    """The field itself; a category as its place in the schema's list."""
    return Own(FieldTerm("value", field), as_unit=unit)


def hour(offset_ms: int = 0) -> Own:
    """Hour of the day, 0 to 23, of UTC plus `offset_ms`."""
    return Own(FieldTerm("hour", offset_ms=offset_ms), as_unit="code")


def weekday(offset_ms: int = 0) -> Own:
    """Day of the week, Monday 0."""
    return Own(FieldTerm("weekday", offset_ms=offset_ms), as_unit="code")


def time_of_day(offset_ms: int = 0) -> Own:
    """Hours since midnight with fraction, of UTC plus `offset_ms`."""
    return Own(FieldTerm("time_of_day", offset_ms=offset_ms))


def reference(field: str, table: ReferenceTable, unit: Unit = "number") -> Own:
    """The field looked up in a reference table."""
    return Own(FieldTerm("reference", field, table=table), f"{field}_{table.name}", unit)


def mismatch(field: str, other: str) -> Own:
    """1 if two fields of the event differ, 0 if they are equal, absent if one is."""
    return Own(FieldTerm("mismatch", field, other), f"{field}_{other}_mismatch", "flag")


def present(field: str) -> Own:
    """1 if the event has the field, else 0."""
    return Own(FieldTerm("present", field), f"{field}_present", "flag")


__all__ = [
    "DAY",
    "HOUR",
    "MINUTE",
    "Distinct",
    "Feature",
    "FieldTerm",
    "Gap",
    "Novelty",
    "Own",
    "Ratio",
    "ReferenceTable",
    "Speed",
    "Where",
    "Window",
    "ZScore",
    "hour",
    "mismatch",
    "present",
    "reference",
    "time_of_day",
    "value",
    "weekday",
]
