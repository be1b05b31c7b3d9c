"""What measures, heads and maps read of a history's events, as arrays over its timeline."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.column import Numbers, Words
from features.formula import Ints
from features.history import History
from features.measure import Measure, Where
from features.pseudonym import Pseudonyms

Mask = NDArray[np.bool_]


class Reading:
    """A timeline and what is read of it. `asked`: which events are transactions; `by_time`: the order of
    arrival of a history without running numbers."""

    def __init__(self, history: History, exact: bool, pseudonyms: Pseudonyms | None) -> None:
        self.history = history
        self.exact = exact
        self.pseudonyms = pseudonyms
        self.timeline = history.timeline
        self.asked = self.timeline.source == 0
        self.by_time = self.timeline.by_time()
        self._rows: dict[Any, Any] = {}

    def numbers(self, name: str) -> tuple[Ints, Mask]:
        """A summed field per event, and where it is absent; a lifecycle event has its own amount."""
        column = self.history.fields[name]
        assert isinstance(column, Numbers)
        numbers = column.numbers.astype(np.int64)[self.timeline.row]
        absent = column.absent[self.timeline.row]
        if name == self.history.schema.amount:
            lifecycle = (self.timeline.source > 0) & (self.timeline.source < len(self.timeline.sources) - 2)
            numbers = np.where(lifecycle, self.timeline.amount, numbers)
            absent = np.where(lifecycle, self.timeline.amount < 0, absent)
        return numbers, absent

    def kept(self, source: str, where: tuple[Where, ...]) -> Mask:
        """Which events a measure or head keeps."""
        key = (source, where)
        if key not in self._rows:
            mask = self.timeline.source == self.timeline.sources.index(source)
            for condition in where:
                mask &= self._holds(condition)
            self._rows[key] = mask
        found: Mask = self._rows[key]
        return found

    def _holds(self, where: Where) -> Mask:
        column = self.history.fields[where.field]
        if isinstance(column, Words):
            wanted = np.array([w in where.values for w in column.words] + [False], np.bool_)
            return wanted[column.numbers[self.timeline.row]]
        if where.field == self.history.schema.amount:
            numbers, absent = self.numbers(where.field)
        else:
            numbers, absent = column.numbers[self.timeline.row], column.absent[self.timeline.row]
        wanted_numbers = [v for v in where.values if not isinstance(v, str)]
        return np.isin(numbers, wanted_numbers) & ~absent

    def deltas(self, measure: Measure) -> NDArray[np.uint64]:
        """What each event adds to the measure's slot."""
        kept = self.kept(measure.source, measure.where)
        if measure.aggregate == "count":
            return kept.astype(np.uint64)
        numbers, absent = self.numbers(measure.field or "")
        if measure.aggregate == "max":
            numbers = numbers + 1
        deltas = np.where(kept & ~absent, numbers, 0).astype(np.uint64)
        return deltas * deltas if measure.aggregate == "sumsq" else deltas

    def marks(self, name: str) -> Ints:
        """The remembered value of each transaction, positive; 0 elsewhere."""
        column = self.history.fields[name]
        codes = column.codes()
        if self.pseudonyms is not None:
            words = self._texts(name)
            table = np.array([*(self.pseudonyms.mark(name, w) for w in words), 0], np.int64)
            codes = table[codes] - 1
        return np.where(self.asked, codes[self.timeline.row] + 1, 0)

    def _texts(self, name: str) -> list[str]:
        column = self.history.fields[name]
        if isinstance(column, Words):
            return list(column.words)
        codes = column.codes()
        _, first = np.unique(codes, return_index=True)
        return [repr(column.value(int(row))) for row in first if codes[row] >= 0]

    def places(self) -> Ints:
        """The grid cell of each transaction (`measure.place_of`), 0 elsewhere."""
        schema = self.history.schema
        north, east = self.history.fields[schema.latitude or ""], self.history.fields[schema.longitude or ""]
        assert isinstance(north, Numbers)
        assert isinstance(east, Numbers)
        row = np.clip(((north.numbers + 90.0) * 100.0 + 0.5).astype(np.int64), 0, 18_000)
        column = np.clip(((east.numbers + 180.0) * 100.0 + 0.5).astype(np.int64), 0, 36_000)
        cell = np.where(north.absent | east.absent, 0, row * 36_001 + column + 1)
        return np.where(self.asked, cell[self.timeline.row], 0)
