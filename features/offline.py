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
from features.feature import Feature, FieldTerm, GapTerm, SeenTerm, SpeedTerm, Term, TileTerm
from features.formula import CODES, Floats, Ints, apply_column
from features.history import History
from features.own import field_term
from features.pseudonym import Pseudonyms
from features.reading import Reading


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
    source = Reading(history, exact, pseudonyms)
    settled = _Settled(vector.nodes, vector.outputs)
    terms = {node.term: i for i, node in enumerate(vector.nodes) if node.term is not None}
    own = {i: field_term(history, t) for t, i in terms.items() if isinstance(t, FieldTerm)}
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


class _Entity:
    """All events of one kind of entity, grouped, in order of arrival."""

    def __init__(self, source: Reading, entity: str, order: Arrivals | None) -> None:
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
