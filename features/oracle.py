"""The oracle: what every feature means, in the plainest words that compute it.

It is the specification by which the other executions are judged: loops over the events that were
observed, nothing shared with them but the definitions of features. Slow on purpose.
"""

import math
import struct
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from features.feature import Distinct, Feature, FieldTerm, Gap, Novelty, Own, Ratio, Speed, Window, ZScore
from features.measure import FRAUD, TRANSACTION, WITHDRAWN, Scalar, Where
from features.schema import Schema

MAP_BOUND = 32
EARTH_RADIUS_KM = 6371.0
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


@dataclass(frozen=True, slots=True, eq=False)
class Happening:
    """One observed event. `values`: its transaction's fields (a lifecycle event has its own amount)."""

    source: str
    time_ms: int
    values: Mapping[str, Scalar]


class Oracle:
    """Histories of all entities in the order in which they were observed."""

    def __init__(self, schema: Schema, mark: Callable[[str, str], int] | None = None) -> None:
        """`mark`: pseudonyms of remembered values, which decide ties at a map's bound."""
        self.schema = schema
        self.mark = mark or (lambda field, value: hash((field, value)))
        self.histories: dict[tuple[str, Hashable], list[Happening]] = defaultdict(list)

    def keys(self, values: Mapping[str, Scalar]) -> dict[str, Hashable]:
        """The entities that a transaction with these fields touches."""
        found: dict[str, Hashable] = {}
        for entity in self.schema.entities:
            parts = tuple(values.get(name) for name in entity.fields)
            if all(part is not None for part in parts):
                found[entity.name] = parts
        return found

    def observe(self, event: Happening, keys: Mapping[str, Hashable]) -> dict[str, int]:
        """Append the event; for each entity, how many events came before it."""
        before = {}
        for entity, key in keys.items():
            history = self.histories[entity, key]
            before[entity] = len(history)
            history.append(event)
        return before

    def vector(
        self,
        features: Sequence[Feature],
        event: Happening,
        keys: Mapping[str, Hashable],
        before: Mapping[str, int],
    ) -> list[float | None]:
        """Each feature as float32, `None` where absent. `before`: as `observe` returned it."""
        seen = {entity: self.histories[entity, key][: before[entity]] for entity, key in keys.items()}
        return [_float32(self.value(feature, event, seen)) for feature in features]

    def value(self, feature: Feature, now: Happening, seen: Mapping[str, list[Happening]]) -> float | None:
        """One feature. `seen`: what each present entity had observed before."""
        if isinstance(feature, Own):
            return self._own(feature.term, now)
        if isinstance(feature, Ratio):
            a = self.value(feature.numerator, now, seen)
            b = self.value(feature.denominator, now, seen)
            return None if a is None or b is None or b == 0 else a / b * feature.per
        history = seen.get(feature.entity or "")
        if history is None:
            return None
        if isinstance(feature, Window):
            return self._window(feature, now, history)
        if isinstance(feature, ZScore):
            return self._zscore(feature, now, history)
        if isinstance(feature, Gap):
            times = [e.time_ms for e in history if e.source == feature.source and _kept(feature.where, e)]
            last = max(times, default=None)
            return None if last is None or last > now.time_ms else (now.time_ms - last) / 1000
        if isinstance(feature, Speed):
            return self._speed(now, history)
        if isinstance(feature, Novelty | Distinct):
            return self._seen(feature, now, history)
        raise TypeError(f"no meaning for {feature!r}")

    def _window(self, feature: Window, now: Happening, history: list[Happening]) -> float | None:
        start, end = window_bounds(now.time_ms, feature.window_ms, feature.delay_ms)
        events = [e for e in [*history, now] if start <= e.time_ms < end]
        events = [e for e in events if _kept(feature.where, e)]
        if feature.source == FRAUD:
            reported = sum(e.source == FRAUD for e in events)
            return float(max(0, reported - sum(e.source == WITHDRAWN for e in events)))
        events = [e for e in events if e.source == feature.source]
        if feature.aggregate == "count":
            return float(len(events))
        numbers = [int(v) for e in events if (v := e.values.get(feature.field or "")) is not None]
        if feature.aggregate == "sum":
            return float(sum(numbers))
        if feature.aggregate == "max":
            return float(max(numbers)) if numbers else None
        if not events:
            return None
        mean = float(sum(numbers)) / len(events)
        if feature.aggregate == "mean":
            return mean
        return math.sqrt(max(0.0, float(sum(x * x for x in numbers)) / len(events) - mean * mean))

    def _zscore(self, feature: ZScore, now: Happening, history: list[Happening]) -> float | None:
        own = now.values.get(feature.field)
        mean = self._window(Window(feature.of, "mean", feature.window_ms, feature.field), now, history)
        std = self._window(Window(feature.of, "std", feature.window_ms, feature.field), now, history)
        return None if own is None or mean is None or not std else (float(own) - mean) / std

    def _speed(self, now: Happening, history: list[Happening]) -> float | None:
        here = self._cell(now)
        cells = [(e.time_ms // 1000, self._cell(e)) for e in history if e.source == TRANSACTION]
        placed = [(second, cell) for second, cell in cells if cell is not None]
        if here is None or not placed:
            return None
        last_second, there = max(placed)
        seconds = now.time_ms // 1000 - last_second
        if seconds < 0:
            return None
        return kilometres(there, here) / (max(seconds, 1) / 3600.0)

    def _cell(self, event: Happening) -> tuple[int, int] | None:
        latitude = event.values.get(self.schema.latitude or "")
        longitude = event.values.get(self.schema.longitude or "")
        if latitude is None or longitude is None:
            return None
        return int((float(latitude) + 90.0) * 100.0 + 0.5), int((float(longitude) + 180.0) * 100.0 + 0.5)

    def _seen(self, feature: Novelty | Distinct, now: Happening, history: list[Happening]) -> float | None:
        start, _ = window_bounds(now.time_ms, feature.window_ms, 0)
        last: dict[str, int] = {}
        for event in history:
            value = event.values.get(feature.field)
            if event.source == TRANSACTION and value is not None:
                last[str(value)] = max(last.get(str(value), 0), event.time_ms)
        newest = sorted((t, self.mark(feature.field, v), v) for v, t in last.items())[-MAP_BOUND:]
        known = {v for t, _, v in newest if t >= start}
        own = now.values.get(feature.field)
        if isinstance(feature, Novelty):
            return None if own is None else float(str(own) not in known)
        return float(len(known | ({str(own)} if own is not None else set())))

    def _own(self, term: FieldTerm, now: Happening) -> float | None:
        local_ms = now.time_ms + term.offset_ms
        if term.kind == "hour":
            return float(local_ms % DAY // HOUR)
        if term.kind == "weekday":
            return float((local_ms // DAY + 3) % 7)
        if term.kind == "time_of_day":
            return local_ms % DAY / HOUR
        value = now.values.get(term.field)
        if term.kind == "present":
            return float(value is not None)
        if value is None:
            return None
        if term.kind == "mismatch":
            other = now.values.get(term.other)
            return None if other is None else float(value != other)
        if term.kind == "reference":
            assert term.table is not None
            found = term.table.values.get(str(value))
            return None if found is None else float(found)
        values = self.schema.by_name[term.field].values
        return float(values.index(str(value))) if values else float(value)


def window_bounds(time_ms: int, window_ms: int, delay_ms: int) -> tuple[int, int]:
    """Section 4 of the contract: steps of the largest tile of at most a sixth of the window."""
    step = DAY if window_ms >= 6 * DAY else HOUR if window_ms >= 6 * HOUR else MINUTE
    start = (time_ms - delay_ms - window_ms) // step * step
    return start, (time_ms - delay_ms) // MINUTE * MINUTE + MINUTE


def kilometres(a: tuple[int, int], b: tuple[int, int]) -> float:
    """Great-circle distance between two cells of 0.01 degrees (haversine)."""
    phi_a, phi_b = (math.radians(cell[0] / 100.0 - 90.0) for cell in (a, b))
    lambda_a, lambda_b = (math.radians(cell[1] / 100.0 - 180.0) for cell in (a, b))
    half = math.sin((phi_b - phi_a) / 2) ** 2
    half += math.cos(phi_a) * math.cos(phi_b) * math.sin((lambda_b - lambda_a) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(min(1.0, math.sqrt(half)))


def _kept(where: tuple[Where, ...], event: Happening) -> bool:
    return all(event.values.get(w.field) in w.values for w in where)


def _float32(value: float | None) -> float | None:
    return None if value is None else float(struct.unpack("<f", struct.pack("<f", value))[0])
