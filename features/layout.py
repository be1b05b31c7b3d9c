"""Which slots the state of one kind of entity has. Derived from the catalogue, never written by hand."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from features.measure import TRANSACTION, Head, Measure, Scalar, SeenMap
from features.tier import TIERS


@dataclass(frozen=True, slots=True)
class Layout:
    """Slots of an entity's state.

    `measures`: every measure of the entity. `tiers[i]`: the measures (by index) that tier `i` keeps,
    empty if the tier is not kept. `keep_ms[i]`: how long behind the newest event a tile of tier `i`
    stays (reach of the windows plus the allowed lateness).
    """

    entity: str
    measures: tuple[Measure, ...] = ()
    tiers: tuple[tuple[int, ...], ...] = ((), (), ())
    keep_ms: tuple[int, ...] = (0, 0, 0)
    heads: tuple[Head, ...] = ()
    maps: tuple[SeenMap, ...] = ()

    def observation(
        self,
        event: int,
        source: str,
        time_ms: int,
        values: Mapping[str, Scalar],
        marks: Mapping[str, int],
    ) -> "Observation":
        """What one event does to this entity's state."""
        place = marks.get("place", 0)
        return Observation(
            event,
            time_ms,
            tuple(m.delta(source, values) for m in self.measures),
            tuple(h.value(source, time_ms, place, values) for h in self.heads),
            tuple(marks.get(m.field, 0) if source == TRANSACTION else 0 for m in self.maps),
        )

    def oldest(self, tier: int, newest_ms: int) -> int:
        """The first tile of `tier` that is still kept once `newest_ms` was seen."""
        return max(0, (newest_ms - self.keep_ms[tier]) // TIERS[tier].length_ms)


class Observation(NamedTuple):
    """One event as one entity's state sees it.

    `event`: keyed number of the event's id. `deltas`, `heads`, `marks`: aligned with the layout's
    `measures`, `heads` and `maps`; 0 means nothing. All are non-negative and below 2**63.
    """

    event: int
    time_ms: int
    deltas: tuple[int, ...]
    heads: tuple[int, ...] = ()
    marks: tuple[int, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether the event leaves no trace but the running number."""
        return not (any(self.deltas) or any(self.heads) or any(self.marks))
