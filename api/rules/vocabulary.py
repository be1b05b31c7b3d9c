"""The words a rule may use, each with its type: features, fields and entities of a catalogue, the score."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from features.catalogue import Catalogue
from features.feature import Own
from features.rates import EXPONENTS


class Type(StrEnum):
    """Static types. `MONEY` is in minor units of the base currency; `ID` may only be looked up in lists."""

    NUMBER = "a number"
    MONEY = "an amount of money"
    FLAG = "true or false"
    TEXT = "text"
    ID = "an id"


Source = Literal["feature", "field", "entity", "decision"]


@dataclass(frozen=True, slots=True)
class Word:
    """One name: its type and where its value comes from. `choices`: all values a text can have, if known.

    `whole`: it arrives as an integer; `wide`: of up to 64 bits, so that a double may have to round it.
    """

    name: str
    type: Type
    source: Source
    choices: tuple[str, ...] = ()
    whole: bool = False
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """All words of a catalogue. `minor_digits`: digits of the base currency's minor unit."""

    words: Mapping[str, Word]
    minor_digits: int
    names: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(sorted(self.words)))

    def suggest(self, name: str) -> str:
        """` (did you mean …?)`, or nothing when no word is close."""
        return suggestion(name, self.names)


def suggestion(name: str, known: Iterable[str]) -> str:
    """` (did you mean a or b?)` for the closest of `known`, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=2, cutoff=0.6)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


SCORE = Word("score", Type.NUMBER, "decision", whole=True)
PROBABILITY = Word("probability", Type.NUMBER, "decision")
EXPECTED_LOSS = Word("expected_loss", Type.MONEY, "decision", whole=True)

_FIELD_TYPES = {
    "amount": Type.MONEY,
    "integer": Type.NUMBER,
    "number": Type.NUMBER,
    "text": Type.TEXT,
    "category": Type.TEXT,
    "boolean": Type.FLAG,
}


def vocabulary_of(catalogue: Catalogue) -> Vocabulary:
    """The words of a catalogue. A field hides the feature of the same name, an entity hides its field."""
    words = {w.name: w for w in (SCORE, PROBABILITY, EXPECTED_LOSS)}
    for feature in catalogue.features:
        kind = {"money": Type.MONEY, "flag": Type.FLAG}.get(feature.unit, Type.NUMBER)
        if isinstance(feature, Own) and feature.term.kind == "present":
            kind = Type.FLAG
        words[feature.name] = Word(feature.name, kind, "feature")
    hidden = catalogue.schema.hidden
    for spec in catalogue.schema.fields:
        if spec.name not in hidden:
            wide = spec.kind == "integer"
            words[spec.name] = Word(
                spec.name, _FIELD_TYPES[spec.kind], "field", spec.values, wide or spec.kind == "amount", wide
            )
    for entity in catalogue.schema.entities:
        words[entity.name] = Word(entity.name, Type.ID, "entity")
    return Vocabulary(words, EXPONENTS.get(catalogue.schema.base_currency, 2))
