"""What the online kernel looks up once: where each term's numbers lie in state bytes and in the event."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Final

import numpy as np

from features.catalogue import Catalogue, Node
from features.feature import Feature, FieldTerm, GapTerm, SeenTerm, SpeedTerm, Term, TileTerm
from features.formula import Ints
from features.layout import Layout
from features.measure import TRANSACTION, Scalar, Where
from features.schema import Schema, SchemaError
from features.tier import DAY, HOUR, TIERS, reach_ms

Layouts = Mapping[str, Layout]
Reader = Callable[[Mapping[str, Scalar], int], float]
_AGGREGATES: Final = {"count": 0, "sum": 1, "sumsq": 2, "max": 3}


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A vector's terms as integer tables; `node` is a place among `nodes`.

    A row's integers are, in this order: time (ms), place, per entity (kind, offset, length of its state),
    `numbers`, `filters`, `marks`: `width` in all. Kind 0 is absent, 1 present, 2 present and repeated.
    `sections`: where `numbers`, `filters` and `marks` begin. `shapes[e]`: heads, slots of each tier, maps.
    `windows[w]`: entity, window, delay (ms), first and last + 1 of its `tiles`.
    `tiles[i]`: node, slot in each tier (0 where the window never reads the tier), number (-1 none),
    aggregate, first and last + 1 of its `wheres`, whether the transaction itself counts.
    `heads[i]`: node, entity, head, 1 for speed. `seen[i]`: node, entity, map, 1 for distinct, mark, window.
    `owns`: nodes that the `readers` fill.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]
    entities: tuple[str, ...]
    numbers: tuple[str, ...]
    filters: tuple[Where, ...]
    marks: tuple[str, ...]
    readers: tuple[Reader, ...]
    width: int
    sections: Ints
    shapes: Ints
    windows: Ints
    tiles: Ints
    wheres: Ints
    heads: Ints
    seen: Ints
    owns: Ints


def plan(catalogue: Catalogue, features: tuple[Feature, ...]) -> Plan:
    """The tables for `features` over states of `catalogue`; raises `SchemaError` if it does not keep them."""
    vector = Catalogue(catalogue.name, catalogue.schema, features)
    terms = [(i, node.term) for i, node in enumerate(vector.nodes) if node.term is not None]
    entities = catalogue.entities
    layouts = catalogue.layouts
    tiles = [(i, t) for i, t in terms if isinstance(t, TileTerm)]
    seen = [(i, t) for i, t in terms if isinstance(t, SeenTerm)]
    heads = [(i, t) for i, t in terms if isinstance(t, GapTerm | SpeedTerm)]
    owns = [(i, t) for i, t in terms if isinstance(t, FieldTerm)]
    numbers = tuple(sorted({t.measure.field for _, t in tiles if t.measure.field is not None}))
    filters = tuple(dict.fromkeys(w for _, t in tiles for w in t.measure.where))
    marks = tuple(sorted({t.field for _, t in seen}))
    wheres: list[int] = []
    windows: list[tuple[int, ...]] = []
    rows: list[tuple[int, ...]] = []
    groups = dict.fromkeys((t.entity, t.window_ms, t.delay_ms) for _, t in tiles)
    for entity, window_ms, delay_ms in groups:
        first = len(rows)
        for i, term in tiles:
            if (term.entity, term.window_ms, term.delay_ms) == (entity, window_ms, delay_ms):
                measure, begin = term.measure, len(wheres)
                wheres.extend(filters.index(w) for w in measure.where)
                number = numbers.index(measure.field) if measure.field is not None else -1
                slots = _slots(catalogue, term)
                own = int(measure.source == TRANSACTION)
                rows.append((i, *slots, number, _AGGREGATES[measure.aggregate], begin, len(wheres), own))
        windows.append((entities.index(entity), window_ms, delay_ms, first, len(rows)))
    at_filters = 2 + 3 * len(entities) + len(numbers)
    at_marks = at_filters + len(filters)
    shapes = [(len(x.heads), *(len(t) for t in x.tiers), len(x.maps)) for x in (layouts[e] for e in entities)]
    return Plan(
        nodes=vector.nodes,
        outputs=vector.outputs,
        entities=entities,
        numbers=numbers,
        filters=filters,
        marks=marks,
        readers=tuple(reader(catalogue.schema, t) for _, t in owns),
        width=at_marks + len(marks),
        sections=np.array([2 + 3 * len(entities), at_filters, at_marks], np.int64),
        shapes=_table(shapes, 5),
        windows=_table(windows, 5),
        tiles=_table(rows, 9),
        wheres=np.array(wheres, np.int64),
        heads=_table([_head(layouts, entities, i, t) for i, t in heads], 4),
        seen=_table([_seen(layouts, entities, marks, i, t) for i, t in seen], 6),
        owns=np.array([i for i, _ in owns], np.int64),
    )


def reader(schema: Schema, term: FieldTerm) -> Reader:
    """The number of an event's own fields and time that `term` names; NaN where absent."""
    name, other, offset_ms, table = term.field, term.other, term.offset_ms, term.table
    if term.kind == "hour":
        return lambda values, time_ms: (time_ms + offset_ms) // HOUR % 24
    if term.kind == "weekday":
        return lambda values, time_ms: ((time_ms + offset_ms) // DAY + 3) % 7
    if term.kind == "time_of_day":
        return lambda values, time_ms: (time_ms + offset_ms) % DAY / HOUR
    if term.kind == "present":
        return lambda values, time_ms: values.get(name) is not None
    if term.kind == "mismatch":
        return lambda values, time_ms: _differ(values.get(name), values.get(other))
    if term.kind == "reference":
        known = dict(table.values) if table is not None else {}
        return lambda values, time_ms: known.get(str(values.get(name)), nan)
    if schema.by_name[name].kind == "category":
        codes: dict[Scalar, float] = {v: float(i) for i, v in enumerate(schema.by_name[name].values)}
        return lambda values, time_ms: codes.get(values.get(name), nan)
    return lambda values, time_ms: _number(values.get(name))


def _number(value: Scalar) -> float:
    return nan if value is None else float(value)


def _differ(a: Scalar, b: Scalar) -> float:
    return nan if a is None or b is None else float(a != b)


def _table(rows: Sequence[tuple[int, ...]], width: int) -> Ints:
    return np.array(rows, np.int64).reshape(len(rows), width)


def _missing(term: Term) -> SchemaError:
    return SchemaError(f"the catalogue keeps no state for {term}: it cannot serve this vector")


def _slots(catalogue: Catalogue, term: TileTerm) -> tuple[int, ...]:
    """The measure's slot in each tier; 0 in tiers that the window never reads."""
    layout = catalogue.layouts.get(term.entity)
    if layout is None:
        raise _missing(term)
    found = []
    for tier in TIERS:
        reach = reach_ms(tier, term.window_ms, term.delay_ms)
        kept = [layout.measures[i] for i in layout.tiers[tier.index]]
        if reach is None:
            found.append(0)
        elif term.measure in kept and layout.keep_ms[tier.index] >= reach + catalogue.schema.lateness_ms:
            found.append(kept.index(term.measure))
        else:
            raise _missing(term)
    return tuple(found)


def _head(
    layouts: Layouts, entities: tuple[str, ...], node: int, term: GapTerm | SpeedTerm
) -> tuple[int, ...]:
    layout = layouts.get(term.entity)
    if layout is None or term.head not in layout.heads:
        raise _missing(term)
    speed = int(isinstance(term, SpeedTerm))
    return node, entities.index(term.entity), layout.heads.index(term.head), speed


def _seen(
    layouts: Layouts, entities: tuple[str, ...], marks: tuple[str, ...], node: int, term: SeenTerm
) -> tuple[int, ...]:
    maps = layouts[term.entity].maps if term.entity in layouts else ()
    fields = [m.field for m in maps if m.horizon_ms >= term.window_ms]
    if term.field not in fields:
        raise _missing(term)
    distinct = int(term.kind == "distinct")
    place = entities.index(term.entity), [m.field for m in maps].index(term.field)
    return node, *place, distinct, marks.index(term.field), term.window_ms
