"""Dead letters: what could not be decided, why, where it came from, its bytes with card numbers masked."""

from base64 import b64encode
from dataclasses import dataclass
from typing import Final

from api.answer import Answer, Conflicting, Refused, Unknown
from api.record import encode_json
from features.event import mask_card_numbers

BYTES_MAX: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message stood."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a message is a dead letter. `invalid`: the message itself is bad, whatever came before it."""

    code: str
    field: str
    reason: str
    invalid: bool


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


def letter(fault: Fault, place: Place, original: bytes, at_ms: int) -> bytes:
    """The message for the dead-letter topic."""
    # Latin-1 maps every byte to one character and back: masking leaves all other bytes alone.
    masked = mask_card_numbers(original[:BYTES_MAX].decode("latin-1")).encode("latin-1")
    return encode_json(
        {
            "reason": mask_card_numbers(fault.reason),
            "code": fault.code,
            "field": mask_card_numbers(fault.field),
            "source": {"topic": place.topic, "partition": place.partition, "offset": place.offset},
            "original": b64encode(masked).decode(),
            "at_ms": at_ms,
        }
    )


@dataclass(slots=True)
class BadRun:
    """How many bad messages came one after the other; more than `limit` stop the door."""

    limit: int
    count: int = 0

    def note(self, *, bad: bool) -> bool:
        """Count one message; False when the limit is passed."""
        self.count = self.count + 1 if bad else 0
        return self.count <= self.limit
