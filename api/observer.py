"""What one event does to the state of each entity, with every measure computed once.

Equal to `Layout.observation` of each layout (a test compares): entities share most of their measures, so
that computing them per entity costs several times as much.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import itemgetter

from features.catalogue import Catalogue
from features.layout import Layout, Observation
from features.measure import TRANSACTION, Head, Measure, Scalar

Pick = Callable[[list[int]], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class _Plan:
    """For one source: distinct measures and heads, and where each layout's slots find theirs."""

    measures: tuple[Measure, ...]
    heads: tuple[Head, ...]
    layouts: tuple[tuple[str, Pick, Pick, tuple[str, ...]], ...]


class Observer:
    """Observations of a catalogue's entities."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._layouts = tuple(catalogue.layouts.values())
        self._plans: dict[str, _Plan] = {}

    def observations(
        self,
        event: int,
        source: str,
        time_ms: int,
        values: Mapping[str, Scalar],
        marks: Mapping[str, int],
    ) -> list[tuple[str, Observation]]:
        """`(entity, observation)` of every entity that keeps state, in the catalogue's order."""
        plan = self._plans.get(source)
        if plan is None:
            plan = self._plans[source] = _plan(self._layouts, source)
        place = marks.get("place", 0)
        deltas = [0, *(m.delta(source, values) for m in plan.measures)]
        heads = [0, *(h.value(source, time_ms, place, values) for h in plan.heads)]
        known = marks.get
        return [
            (
                entity,
                Observation(event, time_ms, slots(deltas), tops(heads), tuple([known(f, 0) for f in seen])),
            )
            for entity, slots, tops, seen in plan.layouts
        ]


def _plan(layouts: tuple[Layout, ...], source: str) -> _Plan:
    measures = tuple(dict.fromkeys(m for x in layouts for m in x.measures if m.source == source))
    heads = tuple(dict.fromkeys(h for x in layouts for h in x.heads if h.source == source))
    places = {m: i for i, m in enumerate(measures, 1)}
    tops = {h: i for i, h in enumerate(heads, 1)}
    found = []
    for layout in layouts:
        seen = tuple(m.field for m in layout.maps) if source == TRANSACTION else ("",) * len(layout.maps)
        slots = _pick(tuple(places.get(m, 0) for m in layout.measures))
        found.append((layout.entity, slots, _pick(tuple(tops.get(h, 0) for h in layout.heads)), seen))
    return _Plan(measures, heads, tuple(found))


def _pick(indices: tuple[int, ...]) -> Pick:
    """Values at `indices`; index 0 holds 0: another source's slot."""
    if len(indices) > 1:
        return itemgetter(*indices)
    return lambda values: tuple([values[i] for i in indices])
