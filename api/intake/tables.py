"""What the compiled stages are told of a schema and a catalogue: arguments of the types in intake.h.

A schema with something that they do not know raises `NotBuilt`: Python then takes all of its events.
"""

from collections.abc import Iterable
from fractions import Fraction
from math import ceil, floor, inf, isfinite
from typing import Any, Final

from api.intake.stages import Identified, Reference
from api.record import encode_json
from features.catalogue import Catalogue
from features.event import ID_LENGTH_MAX, TIME_MS_MAX, Identity, InvalidEvent, Transaction, parse_text
from features.library import entity_number
from features.measure import TRANSACTION, Where
from features.rates import Rates
from features.schema import Field, Schema
from features.store import Target
from models.kernel.errors import NotBuilt

_TEXT, _CATEGORY, _BOOLEAN, _WHOLE, _NUMBER = range(5)
_AGGREGATES: Final = ("count", "sum", "sumsq", "max")
_HEADS: Final = ("time", "place")
_INTEGER_MAX: Final = 2**53
_INT64_MAX: Final = 2**63 - 1
_FIELDS_MAX: Final = 256
_LAYOUTS_MAX: Final = 255
PLACE: Final = "place"


def parser(schema: Schema, rates: Rates) -> tuple[Any, ...]:
    """Arguments of `Parser`. Raises `NotBuilt`."""
    if len(schema.fields) > _FIELDS_MAX:
        raise NotBuilt(f"{len(schema.fields)} fields, at most {_FIELDS_MAX} are compiled")
    converts = bool(schema.amount and schema.currency)
    if converts and not _converts(schema):
        raise NotBuilt("amounts are converted that are no integers, or by a currency that is no text")
    ratios = {c: ratio for c, ratio in rates.ratios.items() if 0 <= ratio[0] <= _INT64_MAX >= ratio[1]}
    return (
        schema.id,
        schema.time,
        frozenset((schema.id, schema.time, "type")),
        {spec.name: place for place, spec in enumerate(schema.fields)},
        tuple(_field(spec, schema) for spec in schema.fields),
        schema.amount if converts else None,
        schema.currency if converts else None,
        ratios,
        Transaction,
        ID_LENGTH_MAX,
        TIME_MS_MAX,
        _within(schema.amount_max),
    )


def identifier(reference: Reference) -> tuple[Any, ...]:
    """Arguments of `Identifier`. Raises `NotBuilt`."""
    catalogue, pseudonyms = reference.catalogue, reference.pseudonyms
    schema, tenant = catalogue.schema, pseudonyms.tenant
    if not 1 <= len(pseudonyms.secret) <= 64:
        raise NotBuilt("the secret of the pseudonyms has no bytes")
    if any(not entity.fields for entity in schema.entities):
        raise NotBuilt("an entity without fields")
    return (
        tuple((e.name, tuple(e.fields), f"{tenant}\x1f{e.name}".encode()) for e in schema.entities),
        tuple((name, f"{tenant}\x1f{name}\x1f".encode()) for name in catalogue.mark_fields),
        schema.latitude or None,
        schema.longitude or None,
        PLACE,
        tuple(
            (name, reference.alone.get(name), f"{tenant}\x1f{name}\x1f".encode()) for name in reference.hidden
        ),
        tuple((name, b"[%b," % encode_json(name)) for name in sorted(schema.by_name)),
        tuple((name, b"%b:" % encode_json(name)) for name in reference.hidden),
        pseudonyms.secret,
        encode_json,
        Identity,
        Identified,
    )


def observer(catalogue: Catalogue, source: str) -> tuple[Any, ...]:
    """Arguments of `Observer`. Raises `NotBuilt`."""
    layouts = catalogue.layouts.values()
    measures = list(dict.fromkeys(m for x in layouts for m in x.measures if m.source == source))
    heads = list(dict.fromkeys(h for x in layouts for h in x.heads if h.source == source))
    wheres = list(
        dict.fromkeys(w for each in [m.where for m in measures] + [h.where for h in heads] for w in each)
    )
    for where in wheres:
        _check_values(where.field, where.values)
    if any(None in where.values for where in wheres) or any(m.field == "" for m in measures):
        raise NotBuilt("a condition that holds for what is absent")
    if len(layouts) > _LAYOUTS_MAX:
        raise NotBuilt(f"{len(layouts)} entities, at most {_LAYOUTS_MAX} are compiled")

    def places(needed: Iterable[Where]) -> tuple[int, ...]:
        return tuple(wheres.index(where) for where in needed)

    def slots(known: list[Any], wanted: Iterable[Any]) -> tuple[int, ...]:
        return tuple(known.index(each) + 1 if each in known else 0 for each in wanted)

    return (
        tuple((where.field, frozenset(where.values)) for where in wheres),
        tuple((_AGGREGATES.index(m.aggregate), m.field or "", places(m.where)) for m in measures),
        tuple((_HEADS.index(h.kind), places(h.where)) for h in heads),
        tuple(
            (
                x.entity,
                entity_number(catalogue, x.entity),
                slots(measures, x.measures),
                slots(heads, x.heads),
                # No field is called "": what follows a transaction marks nothing.
                tuple(m.field if source == TRANSACTION else "" for m in x.maps),
            )
            for x in layouts
        ),
        Target,
        PLACE,
        source == TRANSACTION,
    )


def _kind(spec: Field) -> int:
    kinds = {"text": _TEXT, "category": _CATEGORY, "boolean": _BOOLEAN, "amount": _WHOLE, "integer": _WHOLE}
    return kinds.get(spec.kind, _NUMBER)


def _converts(schema: Schema) -> bool:
    amount, currency = schema.by_name[schema.amount or ""], schema.by_name[schema.currency or ""]
    return _kind(amount) == _WHOLE and _kind(currency) in (_TEXT, _CATEGORY)


def _field(spec: Field, schema: Schema) -> tuple[Any, ...]:
    """`(kind, required, length, accepted, low, high, least, most)`."""
    low, high = -_INTEGER_MAX, _INTEGER_MAX
    if spec.kind == "amount":
        low, high = 0, schema.amount_max
    elif spec.kind == "integer":
        low = _whole(spec.minimum, low, ceil)
        high = _whole(spec.maximum, high, floor)
    least, most = -inf, inf
    if spec.kind == "number":
        least, most = _real(spec.minimum, least), _real(spec.maximum, most)
    _check_values(spec.name, spec.values)
    accepted = frozenset(value for value in spec.values if _is_text(spec, value))
    return (
        _kind(spec), spec.required, spec.length_max, accepted, _within(low), _within(high), least, most,
    )  # fmt: skip


def _check_values(name: str, values: object) -> None:
    """A catalogue's file is not type-checked, and a text is a container too: of its parts."""
    if not isinstance(values, tuple):
        raise NotBuilt(f"{name}: values that are no tuple")


def _whole(bound: float | None, otherwise: int, rounded: Any) -> int:
    if bound is None:
        return otherwise
    if not isfinite(bound):
        raise NotBuilt("bounds that are not finite")
    return int(rounded(Fraction(bound)))


def _real(bound: float | None, otherwise: float) -> float:
    if bound is None:
        return otherwise
    if abs(bound) > 2**1023 or float(bound) != bound:
        raise NotBuilt("bounds that no float has")
    return float(bound)


def _within(bound: int) -> int:
    if abs(bound) > _INT64_MAX:
        raise NotBuilt(f"a bound of {bound}")
    return bound


def _is_text(spec: Field, value: str) -> bool:
    try:
        return parse_text(spec.name, value, spec.length_max) == value
    except InvalidEvent:
        return False
