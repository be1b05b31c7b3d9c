"""Messages that no door may accept, made from good ones."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec

from features.schema import Schema
from stream.replay.item import Item
from stream.replay.manifest import Fault

_HOUR_MS = 3_600_000
_FAR_FUTURE_MS = 4_102_444_800_000  # 2100-01-01
_TEST_CARD_NUMBER = "4111111111111111"
_OVERSIZED_BYTES = 200_000


@dataclass(frozen=True, slots=True)
class Material:
    """A good transaction to spoil: its decoded body and its schema."""

    body: dict[str, Any]
    schema: Schema
    random: random.Random

    def with_field(self, name: str, value: Any) -> bytes:
        """The body with one field changed."""
        return msgspec.json.encode({**self.body, name: value})

    def without(self, name: str) -> bytes:
        """The body without one field."""
        return msgspec.json.encode({key: value for key, value in self.body.items() if key != name})


Spoiled = tuple[bytes, str, str]
"""Body, field that is wrong, code of the refusal."""
Spoil = Callable[[Material], Spoiled | None]


def _broken_json(good: Material) -> Spoiled:
    whole = msgspec.json.encode(good.body)
    return whole[: good.random.randrange(1, len(whole) - 1)], "body", "malformed"


def _not_an_object(good: Material) -> Spoiled:
    return msgspec.json.encode([good.body]), "body", "malformed"


def _missing_id(good: Material) -> Spoiled:
    return good.without(good.schema.id), good.schema.id, "missing"


def _empty_id(good: Material) -> Spoiled:
    return good.with_field(good.schema.id, ""), good.schema.id, "missing"


def _missing_time(good: Material) -> Spoiled:
    return good.without(good.schema.time), good.schema.time, "missing"


def _missing_field(good: Material) -> Spoiled | None:
    required = [field.name for field in good.schema.fields if field.required]
    if not required:
        return None
    name = good.random.choice(required)
    return good.without(name), name, "missing"


def _wrong_type(good: Material) -> Spoiled:
    return good.with_field(good.schema.id, 17), good.schema.id, "type"


def _text_amount(good: Material) -> Spoiled | None:
    name = good.schema.amount
    return (good.with_field(name, str(good.body.get(name, 1))), name, "type") if name else None


def _negative_amount(good: Material) -> Spoiled | None:
    name = good.schema.amount
    return (good.with_field(name, -good.random.randrange(1, 10_000)), name, "range") if name else None


def _unknown_currency(good: Material) -> Spoiled | None:
    name = good.schema.currency
    return (good.with_field(name, "ZZZ"), name, "currency") if name else None


def _unknown_value(good: Material) -> Spoiled | None:
    for field in good.schema.fields:
        if field.kind == "category" and field.name != good.schema.currency:
            return good.with_field(field.name, "never_heard_of"), field.name, "unknown_value"
    return None


def _card_number(good: Material) -> Spoiled | None:
    for field in good.schema.fields:
        if field.kind == "text" and field.length_max >= len(_TEST_CARD_NUMBER):
            return good.with_field(field.name, _TEST_CARD_NUMBER), field.name, "card_number"
    return None


def _future(good: Material) -> Spoiled:
    return good.with_field(good.schema.time, _FAR_FUTURE_MS), good.schema.time, "future"


def _too_late(good: Material) -> Spoiled:
    at = good.body[good.schema.time] - good.schema.lateness_ms - 6 * _HOUR_MS
    return good.with_field(good.schema.time, max(at, 1)), good.schema.time, "late"


def _too_long(good: Material) -> Spoiled | None:
    for field in good.schema.fields:
        if field.kind == "text":
            return good.with_field(field.name, "x" * (field.length_max + 1)), field.name, "too_long"
    return None


def _oversized(good: Material) -> Spoiled:
    return good.with_field("padding", "x" * _OVERSIZED_BYTES), "padding", "unknown_field"


def _unknown_field(good: Material) -> Spoiled:
    return good.with_field("favourite_colour", "red"), "favourite_colour", "unknown_field"


def _control_characters(good: Material) -> Spoiled:
    return good.with_field(good.schema.id, "a\u0000b"), good.schema.id, "malformed"


SPOILS: Mapping[str, Spoil] = MappingProxyType(
    {
        "broken_json": _broken_json,
        "not_an_object": _not_an_object,
        "missing_id": _missing_id,
        "empty_id": _empty_id,
        "missing_time": _missing_time,
        "missing_field": _missing_field,
        "wrong_type": _wrong_type,
        "text_amount": _text_amount,
        "negative_amount": _negative_amount,
        "unknown_currency": _unknown_currency,
        "unknown_value": _unknown_value,
        "card_number": _card_number,
        "future": _future,
        "too_late": _too_late,
        "too_long": _too_long,
        "oversized": _oversized,
        "unknown_field": _unknown_field,
        "control_characters": _control_characters,
    }
)
"""Every kind of malformed message. A kind that a schema has no field for gives None."""
_ALWAYS = frozenset(
    {
        "broken_json",
        "not_an_object",
        "missing_id",
        "empty_id",
        "missing_time",
        "wrong_type",
        "future",
        "too_late",
    }
    | {"oversized", "unknown_field", "control_characters"}
)
"""Kinds that need no particular field."""


def spoil(item: Item, schema: Schema, number: int, chance: random.Random) -> tuple[Item, Fault]:
    """The `number`-th malformed message, made from a good transaction; it has an id of its own.

    The kinds that the schema has a field for take turns, so that even a short replay meets most of them.
    """
    body = msgspec.json.decode(item.body)
    body[schema.id] = f"{item.id}~bad{number}"
    material = Material(body, schema, chance)
    kinds = list(SPOILS)
    possible = [kind for kind in kinds if kind in _ALWAYS or SPOILS[kind](material) is not None]
    kind = possible[number % len(possible)]
    made = SPOILS[kind](material)
    assert made is not None, kind
    content, field, code = made
    bad = Item(item.time_ms, "transaction", body[schema.id], body[schema.id], item.key, content)
    return bad._replace(injected=f"malformed:{kind}"), Fault(kind, field, code)
