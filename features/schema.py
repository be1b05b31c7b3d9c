"""What a team's events look like: fields, entities, time, amount, subject, label.

A schema is a value. Decode and validation, SQL, the online layout, training, the request model of the
API and replay all follow from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from features.tier import DAY, HOUR

Kind = Literal["amount", "integer", "number", "text", "category", "boolean"]


class SchemaError(ValueError):
    """The schema or catalogue contradicts itself: fix the file, nothing else helps."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a transaction.

    `amount`: non-negative integer of minor units. `integer`: 64-bit. `number`: finite float.
    `text`: free identifier. `category`: one of `values`, anything else is refused.
    `column`: the name in a history file, where it differs from `name`. `personal`: text about a person;
    beyond the door it travels as a pseudonym, and sealed with the subject's key.
    """

    name: str
    kind: Kind
    required: bool = False
    column: str | None = None
    values: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    length_max: int = 128
    personal: bool = False
    description: str = ""
    example: str | int | float | bool | None = None

    @property
    def source(self) -> str:
        """Column of a history file that carries this field."""
        return self.column or self.name


@dataclass(frozen=True, slots=True)
class Entity:
    """What a history belongs to; several `fields` make a pair (absent if any of them is)."""

    name: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Label:
    """Where a history file says what turned out to be fraud.

    `column`: boolean or 0/1. `time_column`: epoch ms at which the label became known; `None`: the
    delay given at replay or training counts from the transaction. `withdrawn_column`: epoch ms at
    which it was taken back.
    """

    column: str
    time_column: str | None = None
    withdrawn_column: str | None = None


@dataclass(frozen=True, slots=True)
class Schema:
    """The events of one team.

    `primary` names the entity that keys the topics, `subject` the one that erasure is about.
    `amount`, `currency`: fields; amounts are converted to `base_currency` at the door; without a
    currency field amounts already are in it. `lifecycle`: kinds of events that follow a transaction.
    `lateness_ms`: how far behind the newest accepted event an event may be. `amount_max` bounds an
    amount in minor units, so that sums of squares stay far below 2**63.
    """

    name: str
    fields: tuple[Field, ...]
    entities: tuple[Entity, ...]
    primary: str
    subject: str
    amount: str | None = "amount"
    currency: str | None = None
    base_currency: str = "EUR"
    id: str = "transaction_id"
    id_column: str | None = None
    time: str = "time"
    time_column: str | None = None
    amount_scale: int = 1
    latitude: str | None = None
    longitude: str | None = None
    lifecycle: tuple[str, ...] = ()
    label: Label | None = None
    label_delay_ms: int = 7 * DAY
    lateness_ms: int = 2 * HOUR
    future_skew_ms: int = 5 * 60_000
    amount_max: int = 100_000_000
    by_name: Mapping[str, Field] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = [f.name for f in self.fields]
        if len(set(names)) != len(names):
            raise SchemaError(f"schema {self.name}: two fields have one name")
        object.__setattr__(self, "by_name", {f.name: f for f in self.fields})
        for entity in self.entities:
            for name in entity.fields:
                if name not in self.by_name:
                    raise SchemaError(f"entity {entity.name}: no field {name!r}")
        identifying = self.identifying
        for spec in self.fields:
            if spec.personal and spec.kind != "text" and spec.name not in identifying:
                raise SchemaError(
                    f"{spec.name}: a personal field is of kind text, since it travels as a pseudonym; "
                    f"a {spec.kind} cannot, so leave it out or make it coarse enough not to be personal"
                )
        entities = [e.name for e in self.entities]
        for role, name in (("primary", self.primary), ("subject", self.subject)):
            if name not in entities:
                raise SchemaError(f"{role} entity {name!r} is not among {', '.join(entities)}")
        for role, optional in (("amount", self.amount), ("currency", self.currency)):
            if optional is not None and optional not in self.by_name:
                raise SchemaError(f"{role} names the field {optional!r}, which does not exist")

    def entity(self, name: str) -> Entity:
        """The entity called `name`; raises `SchemaError`."""
        for entity in self.entities:
            if entity.name == name:
                return entity
        raise SchemaError(f"no entity {name!r}; there are {', '.join(e.name for e in self.entities)}")

    @property
    def identifying(self) -> frozenset[str]:
        """Fields that carry an id of some entity: they travel as pseudonyms only."""
        return frozenset(name for entity in self.entities for name in entity.fields)

    @property
    def hidden(self) -> tuple[str, ...]:
        """Fields that records show as pseudonyms: ids of entities, and what is personal; in their order."""
        identifying = self.identifying
        return tuple(f.name for f in self.fields if f.personal or f.name in identifying)
