"""Events at the door: decode, validate, name the field that is wrong.

What can go wrong, and what the caller does about it:

* `InvalidEvent`   refuse it (HTTP 422, dead-letter topic), never retry
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Literal, NamedTuple

from features.catalogue import Catalogue
from features.measure import Scalar, place_of
from features.pseudonym import Pseudonyms
from features.rates import Rates, UnknownCurrency
from features.schema import Field, Schema

Code = Literal[
    "malformed", "missing", "type", "range", "unknown_value", "unknown_field", "currency", "card_number",
    "late", "future", "too_long",
]  # fmt: skip
TIME_MS_MAX = 253_402_300_800_000
ID_LENGTH_MAX = 128
_RUN = re.compile(r"(?:\d[ -]?){12,18}\d")
_CARD_PREFIX = re.compile(
    r"4|5[1-5]|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)|3[47]|3(?:0[0-5]|[68])|6(?:011|4[4-9]|5)|35|62"
)
_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f]+")


class InvalidEvent(ValueError):
    """The event can never be accepted as it is: `field` and `code` say why."""

    def __init__(self, field: str, code: Code, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.code = code
        self.reason = reason


class Transaction(NamedTuple):
    """A validated transaction. `values`: the schema's fields, absent ones missing; the amount field is in
    minor units of the base currency, `original_amount` in those of the event's currency."""

    id: str
    time_ms: int
    values: Mapping[str, Scalar]
    original_amount: int | None = None


@dataclass(frozen=True, slots=True)
class LabelEvent:
    """What a transaction turned out to be: fraud, or (taken back) not."""

    id: str
    transaction_id: str
    time_ms: int
    fraud: bool


@dataclass(frozen=True, slots=True)
class LifecycleEvent:
    """What became of an earlier transaction; `amount` in minor units of the transaction's base currency."""

    id: str
    transaction_id: str
    time_ms: int
    kind: str
    amount: int | None = None


class Identity(NamedTuple):
    """An event beyond the door: pseudonyms of its entities (absent ones missing) and of remembered values.
    `marks` may hold `place`, a grid cell."""

    entities: Mapping[str, str]
    marks: Mapping[str, int]


def parse_transaction(schema: Schema, rates: Rates, payload: object) -> Transaction:
    """Validate a decoded JSON object against the schema. Raises `InvalidEvent`."""
    body = _object(payload)
    event_id = _identifier(body, schema.id)
    time_ms = _time(body, schema.time)
    known = schema.by_name
    values: dict[str, Scalar] = {}
    for name, value in body.items():
        spec = known.get(name)
        if spec is not None and value is not None:
            values[name] = _field(spec, value, schema)
        elif spec is None and name not in (schema.id, schema.time, "type"):
            raise InvalidEvent(name[:64], "unknown_field", "the schema has no such field")
    for spec in schema.fields:
        if spec.required and spec.name not in values:
            raise InvalidEvent(spec.name, "missing", "required")
    original = None
    if schema.amount and schema.currency and schema.amount in values:
        original = values[schema.amount]
        values[schema.amount] = _convert(schema, rates, values)
    return Transaction(event_id, time_ms, values, original if isinstance(original, int) else None)


def parse_label(payload: object) -> LabelEvent:
    """Validate a label. Raises `InvalidEvent`."""
    body = _object(payload)
    _only(body, {"type", "label_id", "transaction_id", "time", "fraud"})
    fraud = body.get("fraud")
    if not isinstance(fraud, bool):
        raise InvalidEvent("fraud", "missing" if fraud is None else "type", "must be true or false")
    return LabelEvent(
        _identifier(body, "label_id"), _identifier(body, "transaction_id"), _time(body, "time"), fraud
    )


def parse_lifecycle(schema: Schema, payload: object) -> LifecycleEvent:
    """Validate a lifecycle event. Raises `InvalidEvent`."""
    body = _object(payload)
    _only(body, {"type", "event_id", "transaction_id", "time", "kind", "amount"})
    kind = body.get("kind")
    if not isinstance(kind, str) or kind not in schema.lifecycle:
        allowed = ", ".join(schema.lifecycle) or "none in this schema"
        raise InvalidEvent(
            "kind", "missing" if kind is None else "unknown_value", f"must be one of: {allowed}"
        )
    amount = body.get("amount")
    if amount is not None:
        amount = _integer("amount", amount, 0, schema.amount_max)
    ids = _identifier(body, "event_id"), _identifier(body, "transaction_id")
    return LifecycleEvent(*ids, _time(body, "time"), kind, amount)


def check_time(schema: Schema, time_ms: int, *, newest_ms: int, now_ms: int) -> None:
    """Refuse what is later than the wall clock allows or older than retention. Raises `InvalidEvent`.

    `newest_ms`: event time of the newest accepted event, 0 if none. `now_ms`: wall clock.
    """
    if time_ms > now_ms + schema.future_skew_ms:
        raise InvalidEvent(schema.time, "future", f"{time_ms - now_ms} ms ahead of the clock")
    if time_ms < newest_ms - schema.lateness_ms:
        late_ms = newest_ms - time_ms
        raise InvalidEvent(
            schema.time, "late", f"{late_ms} ms behind the newest event, {schema.lateness_ms} allowed"
        )


def identify(catalogue: Catalogue, pseudonyms: Pseudonyms, values: Mapping[str, Scalar]) -> Identity:
    """Pseudonyms of the entities and remembered values of one transaction."""
    schema = catalogue.schema
    entities = {}
    known = values.get
    for entity in schema.entities:
        parts = [known(name) for name in entity.fields]
        if None not in parts:
            entities[entity.name] = pseudonyms.entity(entity.name, tuple([_text(part) for part in parts]))
    marks = {
        name: pseudonyms.mark(name, _text(value))
        for name in catalogue.mark_fields
        if (value := known(name)) is not None
    }
    if schema.latitude and schema.longitude:
        place = place_of(_float(values.get(schema.latitude)), _float(values.get(schema.longitude)))
        if place:
            marks["place"] = place
    return Identity(entities, marks)


def holds_card_number(text: str) -> bool:
    """Whether the text has a run of 13 to 19 digits with a known issuer prefix and a valid Luhn sum."""
    return _RUN.search(text) is not None and any(_is_card_number(m.group()) for m in _RUN.finditer(text))


def mask_card_numbers(text: str) -> str:
    """The text with every card-number-like run of digits replaced by its length in stars."""
    return _RUN.sub(lambda m: "*" * len(m.group()) if _prefix_of(m.group()) else m.group(), text)


def _prefix_of(run: str) -> bool:
    return _CARD_PREFIX.match(re.sub(r"\D", "", run)) is not None


def _is_card_number(run: str) -> bool:
    digits = [int(c) for c in run if c.isdigit()]
    doubled = [sum(divmod(2 * d, 10)) for d in digits[-2::-2]]
    return _prefix_of(run) and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _object(payload: object) -> Mapping[str, object]:
    if not isinstance(payload, dict):
        raise InvalidEvent("body", "malformed", "must be a JSON object")
    return payload


def _only(body: Mapping[str, object], known: set[str]) -> None:
    for name in body:
        if name not in known:
            raise InvalidEvent(
                str(name)[:64], "unknown_field", f"must be one of: {', '.join(sorted(known - {'type'}))}"
            )


def _identifier(body: Mapping[str, object], name: str) -> str:
    value = body.get(name)
    if value is None:
        raise InvalidEvent(name, "missing", "required")
    return parse_text(name, value, ID_LENGTH_MAX)


def parse_text(name: str, value: object, length_max: int) -> str:
    """The value of the field called `name`, if it is text that may be kept. Raises `InvalidEvent`."""
    if not isinstance(value, str):
        raise InvalidEvent(name, "type", "must be a string")
    if not value:
        raise InvalidEvent(name, "missing", "is empty; leave an absent field out")
    if len(value) > length_max:
        raise InvalidEvent(name, "too_long", f"{len(value)} characters, at most {length_max}")
    if not (value.isprintable() or _PRINTABLE.fullmatch(value)):
        raise InvalidEvent(name, "malformed", "has control characters")
    if len(value) >= 13 and holds_card_number(value):
        raise InvalidEvent(name, "card_number", "looks like a card number; send a token")
    return value


def _time(body: Mapping[str, object], name: str) -> int:
    value = body.get(name)
    if value is None:
        raise InvalidEvent(name, "missing", "required")
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidEvent(
                name, "type", "must be epoch milliseconds or ISO 8601 with an offset"
            ) from None
        if moment.tzinfo is None:
            raise InvalidEvent(name, "type", "has no UTC offset")
        value = round(moment.timestamp() * 1000)
    return _integer(name, value, 1, TIME_MS_MAX)


def _integer(name: str, value: object, minimum: float, maximum: float) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidEvent(name, "type", "must be an integer")
    if not minimum <= value <= maximum:
        raise InvalidEvent(name, "range", f"must be from {minimum:g} to {maximum:g}")
    return value


def _field(spec: Field, value: object, schema: Schema) -> Scalar:
    if spec.kind == "text":
        return parse_text(spec.name, value, spec.length_max)
    if spec.kind == "category":
        text = parse_text(spec.name, value, spec.length_max)
        if text not in spec.values:
            code: Code = "currency" if spec.name == schema.currency else "unknown_value"
            raise InvalidEvent(spec.name, code, f"must be one of: {', '.join(spec.values)}")
        return text
    if spec.kind == "boolean":
        if not isinstance(value, bool):
            raise InvalidEvent(spec.name, "type", "must be true or false")
        return value
    if spec.kind == "amount":
        return _integer(spec.name, value, 0, schema.amount_max)
    if spec.kind == "integer":
        low = spec.minimum if spec.minimum is not None else -(2**53)
        return _integer(spec.name, value, low, spec.maximum if spec.maximum is not None else 2**53)
    return _number(spec, value)


def _number(spec: Field, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidEvent(spec.name, "type", "must be a number")
    if not isfinite(value) or abs(value) > 1e15:
        raise InvalidEvent(spec.name, "range", "must be finite")
    if (spec.minimum is not None and value < spec.minimum) or (
        spec.maximum is not None and value > spec.maximum
    ):
        raise InvalidEvent(spec.name, "range", f"must be from {spec.minimum} to {spec.maximum}")
    return float(value)


def _convert(schema: Schema, rates: Rates, values: Mapping[str, Scalar]) -> int:
    currency = values.get(schema.currency or "")
    if currency is None:
        raise InvalidEvent(schema.currency or "", "missing", "an amount needs its currency")
    try:
        base = rates.convert(int(values[schema.amount or ""] or 0), str(currency))
    except UnknownCurrency as error:
        raise InvalidEvent(schema.currency or "", "currency", str(error)) from None
    return _integer(schema.amount or "", base, 0, schema.amount_max)


def _text(value: Scalar) -> str:
    return value if isinstance(value, str) else repr(value)


def _float(value: Scalar) -> float | None:
    return float(value) if isinstance(value, int | float) else None
