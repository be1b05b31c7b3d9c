"""What one slot of online state holds. Every slot only grows, so that merging is the maximum per slot."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Aggregate = Literal["count", "sum", "sumsq", "max"]
Scalar = str | int | float | bool | None
TRANSACTION = "transaction"
FRAUD = "fraud"
WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True, order=True)
class Where:
    """Keeps an event when `field` is one of `values` (absent never matches)."""

    field: str
    values: tuple[str | int | bool, ...]

    def holds(self, values: Mapping[str, Scalar]) -> bool:
        """Whether the event with these fields is kept."""
        return values.get(self.field) in self.values

    @property
    def label(self) -> str:
        """Part of a feature's name."""
        return "_".join(str(v).lower() for v in self.values)


@dataclass(frozen=True, slots=True)
class Measure:
    """One slot of a tile.

    `source`: `transaction`, a lifecycle kind, `fraud` (a label reported) or `withdrawn`.
    `max` is stored as value + 1, so that 0 means "no event".
    """

    source: str
    aggregate: Aggregate
    field: str | None = None
    where: tuple[Where, ...] = ()

    def delta(self, source: str, values: Mapping[str, Scalar]) -> int:
        """What one event adds to the slot (for `max`: what it is compared with); 0 is nothing."""
        if source != self.source or not all(w.holds(values) for w in self.where):
            return 0
        if self.aggregate == "count":
            return 1
        value = values.get(self.field or "")
        if value is None:
            return 0
        number = int(value)
        if self.aggregate == "sum":
            return number
        return number * number if self.aggregate == "sumsq" else number + 1

    @property
    def grows_by(self) -> Literal["add", "max"]:
        """How an observation enters the slot; merging two lanes is always the maximum."""
        return "max" if self.aggregate == "max" else "add"


@dataclass(frozen=True, slots=True)
class Head:
    """One slot outside of tiles: the last time of an event (ms), or the last packed (time, place)."""

    kind: Literal["time", "place"]
    source: str = TRANSACTION
    where: tuple[Where, ...] = ()

    def value(self, source: str, time_ms: int, place: int, values: Mapping[str, Scalar]) -> int:
        """What one event is compared with; 0 is nothing."""
        if source != self.source or not all(w.holds(values) for w in self.where):
            return 0
        return time_ms if self.kind == "time" else pack_place(time_ms, place)


@dataclass(frozen=True, slots=True)
class SeenMap:
    """The last time of each of the `bound` most recent distinct values of `field`."""

    field: str
    bound: int
    horizon_ms: int


PLACE_BITS = 31


def place_of(latitude: float | None, longitude: float | None) -> int:
    """A place on a grid of 0.01 degrees as a positive integer below 2**30; 0 where there is none."""
    if latitude is None or longitude is None:
        return 0
    row = min(18_000, max(0, int((latitude + 90.0) * 100.0 + 0.5)))
    column = min(36_000, max(0, int((longitude + 180.0) * 100.0 + 0.5)))
    return row * 36_001 + column + 1


def pack_place(time_ms: int, place: int) -> int:
    """`(time in seconds, place)` in one integer below 2**63 whose order is that of time; 0 if no place."""
    return (time_ms // 1_000 << PLACE_BITS) | place if place else 0
