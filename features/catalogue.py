"""A catalogue: a schema and an ordered tuple of features, and everything that follows from them.

Two fingerprints: of the *state* (which slots each entity keeps) and of the *vector* (which features in
which order). Adding a feature that needs no new state changes the second only.
"""

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from features.feature import Feature, FieldTerm, GapTerm, SeenTerm, SpeedTerm, Term, TileTerm
from features.layout import Layout
from features.measure import FRAUD, TRANSACTION, WITHDRAWN, Head, Measure, SeenMap
from features.schema import Schema, SchemaError
from features.tier import MINUTE, TIERS, reach_ms

MAP_BOUND = 32


@dataclass(frozen=True, slots=True)
class Node:
    """One step of the evaluation: a term, or a formula over earlier nodes (by index)."""

    term: Term | None
    formula: str
    operands: tuple[int, ...]
    scale: float


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Features over a schema. Raises `SchemaError` when they contradict each other."""

    name: str
    schema: Schema
    features: tuple[Feature, ...]
    layouts: Mapping[str, Layout] = field(init=False, repr=False, compare=False)
    nodes: tuple[Node, ...] = field(init=False, repr=False, compare=False)
    outputs: tuple[int, ...] = field(init=False, repr=False, compare=False)
    mark_fields: tuple[str, ...] = field(init=False, repr=False, compare=False)
    """Fields whose values are remembered in some map, sorted."""

    def __post_init__(self) -> None:
        names = [f.name for f in self.features]
        twice = {n for n in names if names.count(n) > 1}
        if twice:
            raise SchemaError(f"catalogue {self.name}: defined twice: {', '.join(sorted(twice))}")
        nodes, outputs = _expand(self.features)
        for node in nodes:
            if node.term is not None:
                _check(self.schema, node.term)
        terms = [node.term for node in nodes if node.term is not None]
        layouts = {e.name: _layout(self.schema, e.name, terms) for e in self.schema.entities}
        object.__setattr__(self, "nodes", nodes)
        object.__setattr__(self, "outputs", outputs)
        kept = {name: layout for name, layout in layouts.items() if layout}
        object.__setattr__(self, "layouts", kept)
        marks = {m.field for layout in kept.values() for m in layout.maps}
        object.__setattr__(self, "mark_fields", tuple(sorted(marks)))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features, in the vector's order."""
        return tuple(f.name for f in self.features)

    def feature(self, name: str) -> Feature:
        """The feature called `name`; raises `KeyError`."""
        for candidate in self.features:
            if candidate.name == name:
                return candidate
        raise KeyError(name)

    @property
    def entities(self) -> tuple[str, ...]:
        """Entities that keep state, in the schema's order."""
        return tuple(self.layouts)

    @property
    def sources(self) -> frozenset[str]:
        """Kinds of events that enter some state."""
        measures = {m.source for x in self.layouts.values() for m in x.measures}
        return frozenset(measures | {h.source for x in self.layouts.values() for h in x.heads})

    @property
    def state_fingerprint(self) -> str:
        """12 hexadecimal digits; another one means another stored state."""
        return _fingerprint([self.schema.name, *(repr(layout) for layout in self.layouts.values())])

    @property
    def vector_fingerprint(self) -> str:
        """12 hexadecimal digits; another one means another meaning or order of the vector."""
        return vector_fingerprint(self.schema, self.features)


def vector_fingerprint(schema: Schema, features: tuple[Feature, ...]) -> str:
    """Fingerprint of an ordered list of features (a model binds its own)."""
    values = [repr(schema.by_name[n].values) for n in schema.by_name]
    return _fingerprint([schema.name, *values, *(f"{f.name}={f!r}" for f in features)])


def load(name_or_path: str) -> Catalogue:
    """The built-in catalogue of that name, or `CATALOGUE` of a Python file.

    Raises `SchemaError` with what to do when there is none.
    """
    if not name_or_path.endswith(".py"):
        if name_or_path not in ("payments", "handbook"):
            raise SchemaError(f"no catalogue {name_or_path!r}: use payments, handbook or a FILE.py")
        module = importlib.import_module(f"features.{name_or_path}")
        found = module.CATALOGUE
    else:
        path = Path(name_or_path)
        if not path.is_file():
            raise SchemaError(f"catalogue file {name_or_path} does not exist")
        spec = importlib.util.spec_from_file_location(f"cordon_catalogue_{path.stem}", path)
        if spec is None or spec.loader is None:
            raise SchemaError(f"{name_or_path} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found = getattr(module, "CATALOGUE", None)
    if not isinstance(found, Catalogue):
        raise SchemaError(f"{name_or_path} must define CATALOGUE = Catalogue(name, schema, features)")
    return found


def _fingerprint(parts: list[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _expand(features: tuple[Feature, ...]) -> tuple[tuple[Node, ...], tuple[int, ...]]:
    nodes: list[Node] = []
    known: dict[Node, int] = {}

    def place(node: Node) -> int:
        if node not in known:
            known[node] = len(nodes)
            nodes.append(node)
        return known[node]

    def visit(item: Term | Feature) -> int:
        if not isinstance(item, Feature):
            return place(Node(item, "term", (), 1.0))
        operands = tuple(visit(i) for i in item.inputs)
        return (
            operands[0] if item.formula == "term" else place(Node(None, item.formula, operands, item.scale))
        )

    outputs = tuple(visit(f) for f in features)
    return tuple(nodes), outputs


def _check(schema: Schema, term: Term) -> None:
    if isinstance(term, FieldTerm):
        _check_field_term(schema, term)
        return
    entity = schema.entity(term.entity)
    if isinstance(term, TileTerm):
        known = {TRANSACTION, FRAUD, WITHDRAWN, *schema.lifecycle}
        if term.measure.source not in known:
            raise SchemaError(f"{entity.name}: no event {term.measure.source!r}; there are {sorted(known)}")
        if term.measure.aggregate != "count":
            _check_summable(schema, term.measure)
        if term.window_ms < MINUTE or term.window_ms % MINUTE or (0 < term.delay_ms < MINUTE):
            raise SchemaError(f"{entity.name}: windows and delays are whole minutes, at least one")
        for where in term.measure.where:
            _known(schema, where.field)
    if isinstance(term, SeenTerm):
        _known(schema, term.field)
    if isinstance(term, SpeedTerm) and (schema.latitude is None or schema.longitude is None):
        raise SchemaError(f"{entity.name}: speed needs the schema's latitude and longitude")


def _check_field_term(schema: Schema, term: FieldTerm) -> None:
    if term.kind in ("hour", "weekday", "time_of_day"):
        return
    _known(schema, term.field)
    if term.kind == "mismatch":
        _known(schema, term.other)
    if term.kind == "value" and schema.by_name[term.field].kind == "text":
        raise SchemaError(
            f"field {term.field!r} is text and has no number; use reference, present or an entity"
        )


def _check_summable(schema: Schema, measure: Measure) -> None:
    _known(schema, measure.field or "")
    summed = schema.by_name[measure.field or ""]
    signed = summed.kind == "integer" and (summed.minimum is None or summed.minimum < 0)
    if summed.kind not in ("amount", "integer") or signed:
        raise SchemaError(f"{summed.name}: only amounts and integers with minimum >= 0 are summed")


def _known(schema: Schema, name: str) -> None:
    if name not in schema.by_name:
        raise SchemaError(f"no field {name!r}; there are {', '.join(schema.by_name)}")


def _layout(schema: Schema, entity: str, terms: list[Term]) -> Layout | None:
    tiles = [t for t in terms if isinstance(t, TileTerm) and t.entity == entity]
    measures = tuple(dict.fromkeys(t.measure for t in tiles))
    tiers, keep_ms = [], []
    for tier in TIERS:
        needed = [(t.measure, reach_ms(tier, t.window_ms, t.delay_ms)) for t in tiles]
        reaches = [(m, reach) for m, reach in needed if reach is not None]
        tiers.append(tuple(i for i, m in enumerate(measures) if any(m == needed for needed, _ in reaches)))
        keep_ms.append(max(r for _, r in reaches) + schema.lateness_ms if reaches else 0)
    heads = tuple(
        dict.fromkeys(t.head for t in terms if isinstance(t, GapTerm | SpeedTerm) and t.entity == entity)
    )
    maps = _maps(schema, [t for t in terms if isinstance(t, SeenTerm) and t.entity == entity])
    if not (measures or heads or maps):
        return None
    return Layout(entity, measures, tuple(tiers), (keep_ms[0], keep_ms[1], keep_ms[2]), _heads(heads), maps)


def _heads(heads: tuple[Head, ...]) -> tuple[Head, ...]:
    return tuple(sorted(heads, key=repr))


def _maps(schema: Schema, terms: list[SeenTerm]) -> tuple[SeenMap, ...]:
    fields = sorted({t.field for t in terms})
    longest = {f: max(t.window_ms for t in terms if t.field == f) for f in fields}
    return tuple(SeenMap(f, MAP_BOUND, longest[f] + TIERS[2].length_ms + schema.lateness_ms) for f in fields)
