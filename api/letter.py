"""Dead letters: what could not be decided, why, where it came from; its bytes sealed, card numbers masked.

The bytes are sealed with the key of the data subject whom they name, so that they go with its erasure. Where
they name nobody that can be told, the letter has a key of its own; an erasure looks into those.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from api.answer import Answer, Conflicting, Refused, Unknown
from api.record import decode_json, encode_json
from api.vault.seal import of_letter, of_subject
from api.work import Sealing
from features.event import mask_card_numbers
from features.pseudonym import Pseudonyms
from features.schema import Schema

VERSION: Final = 2
BYTES_MAX: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message stood."""

    topic: str
    partition: int
    offset: int

    @property
    def id(self) -> str:
        """The letter's own id."""
        return f"{self.topic}-{self.partition}-{self.offset}"


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a message is a dead letter. `invalid`: the message itself is bad, whatever came before it."""

    code: str
    field: str
    reason: str
    invalid: bool


class Envelopes:
    """Makes dead letters of one installation."""

    def __init__(self, schema: Schema, pseudonyms: Pseudonyms, sealing: Sealing) -> None:
        self._schema = schema
        self._pseudonyms = pseudonyms
        self._sealing = sealing

    def letter(self, fault: Fault, place: Place, original: bytes, at_ms: int) -> bytes:
        """The message for the dead-letter topic."""
        subject = self._subject(original)
        holder = holder_of(subject, place)
        # Latin-1 maps every byte to one character and back: masking leaves all other bytes alone.
        masked = mask_card_numbers(original[:BYTES_MAX].decode("latin-1")).encode("latin-1")
        # A field that the schema has not may be named by anything.
        known = fault.code != "unknown_field"
        inside = {"field": mask_card_numbers(fault.field), "reason": mask_card_numbers(fault.reason)}
        return encode_json(
            {
                "v": VERSION,
                "code": fault.code,
                "field": inside["field"] if known else None,
                "reason": inside["reason"] if known else "the schema has no such field",
                "source": {"topic": place.topic, "partition": place.partition, "offset": place.offset},
                "subject": subject,
                "sealed": self._sealing.seal(holder, place.id, encode_json(inside) + b"\n" + masked),
                "at_ms": at_ms,
            }
        )

    def _subject(self, original: bytes) -> str | None:
        """Pseudonym of the data subject, where the message is JSON that names one."""
        try:
            payload = decode_json(original)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if not isinstance(payload, dict):
            return None
        parts = [payload.get(name) for name in self._schema.entity(self._schema.subject).fields]
        named = tuple(part for part in parts if isinstance(part, str) and part)
        if len(named) < len(parts):
            return None
        return self._pseudonyms.entity(self._schema.subject, named)


@dataclass(frozen=True, slots=True)
class Opened:
    """What was inside a letter."""

    field: str
    reason: str
    original: bytes


def holder_of(subject: str | None, place: Place) -> str:
    """Whose key a letter is sealed with."""
    if subject is not None:
        return of_subject(subject)
    return of_letter(place.topic, place.partition, place.offset)


def place_of(letter: Mapping[str, Any]) -> Place:
    """Where a letter's message stood."""
    source = letter["source"]
    return Place(source["topic"], source["partition"], source["offset"])


def opened(plain: bytes) -> Opened:
    """From the bytes that were sealed."""
    inside, _, original = plain.partition(b"\n")
    told = decode_json(inside)
    return Opened(told["field"], told["reason"], original)


def fault_of(answer: Answer) -> Fault | None:
    """The fault that an answer is, if it can never become another one."""
    match answer:
        case Refused(error):
            return Fault(error.code, error.field, error.reason, invalid=True)
        case Conflicting(key):
            return Fault("conflict", key.split(":")[0], "the id was used before with other content", False)
        case Unknown():
            return Fault("unknown_transaction", "transaction_id", "no such transaction was decided", False)
    return None


@dataclass(slots=True)
class BadRun:
    """How many bad messages came one after the other; more than `limit` stop the door."""

    limit: int
    count: int = 0

    def note(self, *, bad: bool) -> bool:
        """Count one message; False when the limit is passed."""
        self.count = self.count + 1 if bad else 0
        return self.count <= self.limit
