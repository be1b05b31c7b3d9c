"""Offline: a history -> a training matrix, with the meaning that the online evaluator has.

An entity's events are taken in their order of arrival: by default event time with ties in file order
(transactions, lifecycle events, reports, withdrawals), or the order that the decisions recorded. A value is
made of what arrived before the transaction, and the transaction itself. `exact=True` gives windows of exact
seconds, open on the left, for references that were published that way.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features import sweep
from features.catalogue import MAP_BOUND, Catalogue, Node
from features.column import Numbers, Words
from features.feature import Feature, FieldTerm, GapTerm, SeenTerm, SpeedTerm, Term, TileTerm
from features.formula import CODES, Floats, Ints, apply_column
from features.history import History
from features.measure import Measure, Where
from features.pseudonym import Pseudonyms
from features.tier import DAY, HOUR

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Arrivals:
    """In which order the events of a `Timeline` were observed, where that was not event time.

    `ranks[i]`: global order. `entities[e][i]`: order within entity `e`, which wins over `ranks`. Smaller is
    earlier, ties as numbered; a negative rank was never observed by that entity.
    """

    ranks: Ints | None = None
    entities: Mapping[str, Ints] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """`values[n, f]`: float32, NaN where absent; rows as in the history, columns as in `names`."""

    names: tuple[str, ...]
    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.values)


def build(
    catalogue: Catalogue,
    history: History,
    *,
    exact: bool = False,
    order: Arrivals | None = None,
    features: tuple[Feature, ...] | None = None,
    pseudonyms: Pseudonyms | None = None,
    workers: int = 1,
) -> Matrix:
    """The matrix of `features` (default: the catalogue's) for all transactions of `history`.

    `pseudonyms`: which of several values seen last in one millisecond a full map drops; without them the
    order of first appearance decides, which differs from a live store only there. `workers`: threads.
    """
    wanted = catalogue.features if features is None else features
    values = np.empty((len(history), len(wanted)), np.float32)
    made = columns(
        catalogue, history, exact=exact, order=order, features=wanted, pseudonyms=pseudonyms, workers=workers
    )
    for index, column in made:
        values[:, index] = column
    return Matrix(tuple(f.name for f in wanted), values)


def columns(
    catalogue: Catalogue,
    history: History,
    *,
    exact: bool = False,
    order: Arrivals | None = None,
    features: tuple[Feature, ...] | None = None,
    pseudonyms: Pseudonyms | None = None,
    workers: int = 1,
) -> Iterator[tuple[int, Floats]]:
    """The features one by one, as `(place in the vector, float64 column)`, in no particular order."""
    wanted = catalogue.features if features is None else features
    vector = Catalogue(catalogue.name, catalogue.schema, wanted)
    source = _Source(history, exact, pseudonyms)
    settled = _Settled(vector.nodes, vector.outputs)
    terms = {node.term: i for i, node in enumerate(vector.nodes) if node.term is not None}
    own = {i: _field_term(history, t) for t, i in terms.items() if isinstance(t, FieldTerm)}
    yield from settled.add(own)
    entities = {e: {t: i for t, i in terms.items() if getattr(t, "entity", "") == e} for e in vector.entities}

    def answer(entity: str) -> dict[int, Floats]:
        return _Entity(source, entity, order).terms(entities[entity])

    if workers == 1:
        for entity in vector.entities:
            yield from settled.add(answer(entity))
        return
    with ThreadPoolExecutor(workers) as pool:
        for found in pool.map(answer, vector.entities):
            yield from settled.add(found)


class _Settled:
    """Columns of nodes, kept as long as something is still to be made of them."""

    def __init__(self, nodes: tuple[Node, ...], outputs: tuple[int, ...]) -> None:
        self.nodes = nodes
        self.outputs = outputs
        self.columns: dict[int, Floats] = {}
        self.open = {i for i, node in enumerate(nodes) if node.term is None}
        self.uses = Counter(o for node in nodes for o in node.operands)

    def add(self, terms: Mapping[int, Floats]) -> Iterator[tuple[int, Floats]]:
        """Enter the columns of some terms; everything that can now be given out."""
        self.columns.update(terms)
        yield from self._give(terms)
        for i in sorted(self.open):
            operands = self.nodes[i].operands
            if not all(o in self.columns for o in operands):
                continue
            self.open.discard(i)
            self.columns[i] = self._formula(self.nodes[i])
            yield from self._give([i])
            for operand in operands:
                self.uses[operand] -= 1
        for i in [i for i in self.columns if self.uses[i] == 0]:
            del self.columns[i]

    def _give(self, nodes: Any) -> Iterator[tuple[int, Floats]]:
        for i in nodes:
            for place, output in enumerate(self.outputs):
                if output == i:
                    yield place, self.columns[i]

    def _formula(self, node: Node) -> Floats:
        a, b, c = ([self.columns[o] for o in node.operands] * 3)[:3]
        out = np.empty_like(a)
        apply_column(CODES[node.formula], a, b, c, node.scale, out)
        return out


class _Source:
    """A history's timeline with what measures read of it, computed once."""

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


class _Entity:
    """All events of one kind of entity, grouped, in order of arrival."""

    def __init__(self, source: _Source, entity: str, order: Arrivals | None) -> None:
        self.source = source
        codes = source.history.entity(entity)
        groups = int(codes.max(initial=-1)) + 1
        touched = codes[source.timeline.row]
        arrival = source.by_time
        ranks = None if order is None else order.entities.get(entity, order.ranks)
        if ranks is not None:
            if len(ranks) != len(source.timeline):
                raise ValueError(f"{entity}: {len(ranks)} ranks for {len(source.timeline)} events")
            arrival = np.argsort(ranks, kind="stable")
            touched = np.where(ranks < 0, -1, touched)
        self.events, self.starts = sweep.group(touched, arrival, groups)
        self.times = source.timeline.time_ms[self.events]
        self.asked = source.asked[self.events]
        self.rows = source.timeline.row[self.events][self.asked]
        self.ordered = sweep.in_order(self.times, self.starts)
        self.ranks, self.by_rank = sweep.rank(self.times, self.starts, self.ordered)

    def terms(self, wanted: Mapping[Term, int]) -> dict[int, Floats]:
        """The columns of this entity's terms, by node."""
        found = self._tiles({t: i for t, i in wanted.items() if isinstance(t, TileTerm)})
        found |= self._seen({t: i for t, i in wanted.items() if isinstance(t, SeenTerm)})
        for term, node in wanted.items():
            if isinstance(term, GapTerm):
                heads = np.where(
                    self.source.kept(term.head.source, term.head.where)[self.events], self.times, 0
                )
                sweep.gaps(self.times, heads, self.starts, self.asked, out := self._blank())
                found[node] = out
            elif isinstance(term, SpeedTerm):
                found[node] = self._speed(term)
        return {node: self._spread(column) for node, column in found.items()}

    def _tiles(self, wanted: Mapping[TileTerm, int]) -> dict[int, Floats]:
        windows = {
            key: sweep.slices(
                self.times, self.by_rank, self.starts, self.ordered, self.asked, *key, self.source.exact
            )
            for key in dict.fromkeys((t.window_ms, t.delay_ms) for t in wanted)
        }
        found = {}
        for measure in dict.fromkeys(t.measure for t in wanted):
            deltas = self.source.deltas(measure)[self.events]
            largest = measure.aggregate == "max"
            for term, node in wanted.items():
                if term.measure == measure:
                    slices = windows[term.window_ms, term.delay_ms]
                    found[node] = self._window(deltas, slices, largest)
        return found

    def _window(self, deltas: NDArray[np.uint64], slices: tuple[Ints, Ints], largest: bool) -> Floats:
        out = self._blank()
        fast = sweep.maxima if largest else sweep.sums
        fast(deltas, self.starts, self.ordered, self.asked, *slices, out)
        if not self.ordered.all():
            sweep.trees(deltas, self.ranks, self.starts, self.ordered, self.asked, *slices, largest, out)
        return out

    def _seen(self, wanted: Mapping[SeenTerm, int]) -> dict[int, Floats]:
        found = {}
        for name in dict.fromkeys(t.field for t in wanted):
            chosen = [t for t in wanted if t.field == name]
            out = np.empty((len(chosen), len(self.rows)), np.float64)
            sweep.seen(
                self.times,
                self.source.marks(name)[self.events],
                self.starts,
                self.asked,
                np.array([t.window_ms for t in chosen], np.int64),
                np.array([t.kind == "distinct" for t in chosen], np.bool_),
                MAP_BOUND,
                self.source.exact,
                out,
            )
            found.update({wanted[t]: out[i] for i, t in enumerate(chosen)})
        return found

    def _speed(self, term: SpeedTerm) -> Floats:
        places = self.source.places()[self.events]
        kept = self.source.kept(term.head.source, term.head.where)[self.events] & (places > 0)
        heads = np.where(kept, (self.times // 1000 << 31) | places, 0)
        out = self._blank()
        sweep.speeds(self.times, heads, places, self.starts, self.asked, out)
        return out

    def _blank(self) -> Floats:
        return np.empty(len(self.rows), np.float64)

    def _spread(self, column: Floats) -> Floats:
        """From the asked events to the rows of the history; NaN where the entity is absent."""
        out = np.full(len(self.source.history), np.nan)
        out[self.rows] = column
        return out


def _field_term(history: History, term: FieldTerm) -> Floats:
    """A number of the event itself, per row; NaN where absent."""
    local_ms = history.time_ms + term.offset_ms
    if term.kind == "hour":
        return (local_ms // HOUR % 24).astype(np.float64)
    if term.kind == "weekday":
        return ((local_ms // DAY + 3) % 7).astype(np.float64)
    if term.kind == "time_of_day":
        return local_ms % DAY / HOUR
    column = history.fields[term.field]
    absent = column.codes() < 0 if isinstance(column, Words) else column.absent
    if term.kind == "present":
        return (~absent).astype(np.float64)
    if term.kind == "reference":
        known = dict(term.table.values) if term.table is not None else {}
        return _look_up(column, known)
    if term.kind == "mismatch":
        return _mismatch(column, history.fields[term.other])
    if isinstance(column, Words):
        values = history.schema.by_name[term.field].values
        return _look_up(column, {w: float(i) for i, w in enumerate(values)})
    return np.where(absent, np.nan, column.numbers.astype(np.float64))


def _look_up(column: Words | Numbers, known: Mapping[str, float]) -> Floats:
    codes = column.codes()
    if isinstance(column, Words):
        words = list(column.words)
    else:
        _, first = np.unique(codes, return_index=True)
        words = [str(column.value(int(row))) for row in first if codes[row] >= 0]
    table = np.array([*(known.get(w, np.nan) for w in words), np.nan], np.float64)
    return table[codes]


def _mismatch(a: Words | Numbers, b: Words | Numbers) -> Floats:
    if isinstance(a, Words) and isinstance(b, Words):
        places = {word: i for i, word in enumerate(a.words)}
        other = np.array([*(places.get(w, -2) for w in b.words), -1], np.int64)[b.numbers]
        absent = (a.numbers < 0) | (b.numbers < 0)
        return np.where(absent, np.nan, (a.numbers != other).astype(np.float64))
    if isinstance(a, Numbers) and isinstance(b, Numbers):
        return np.where(a.absent | b.absent, np.nan, (a.numbers != b.numbers).astype(np.float64))
    absent = (a.codes() < 0) | (b.codes() < 0)
    return np.where(absent, np.nan, 1.0)
