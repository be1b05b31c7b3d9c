"""Audit records: the journal's body, the topics' messages, the claims' answers.

A body is `u8 kind | u8 key length | key | JSON`; the publisher routes it by kind and key without reading the
JSON. A receipt is what a claim keeps of a record, and where in the journals the whole record lies. A record's
JSON begins with what its receipt keeps, so that nothing is encoded twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, NamedTuple

import msgspec

VERSION: Final = 1
# Of decisions. In version 1 `rules` had every rule's result (see rules/told.py).
DECISION_VERSION: Final = 2


class Kind(IntEnum):
    """Kinds of records. `ABANDONED`: an attempt that nobody finished, decided by the sweep; `AUDIT`: what was
    done to the installation itself; `ALERT`: what people must look at."""

    DECISION = 1
    ABANDONED = 2
    LABEL = 3
    EVENT = 4
    AUDIT = 5
    ALERT = 16


_RECEIPT_KEYS: Final = (
    "type", "v", "tenant", "id", "transaction_id", "decided_ms", "time_ms", "transaction", "entities",
    "marks", "outcome", "score", "reasons", "versions", "freshness", "degraded",
    "guard",
)  # fmt: skip

encode_json = msgspec.json.Encoder().encode
decode_json = msgspec.json.Decoder().decode


class MalformedRecord(ValueError):
    """A journal body is no record of this format: stop."""


class Location(NamedTuple):
    """Where the batch that a record was written with begins: name of the journal's directory, number of its
    segment, offset in the segment."""

    journal: str
    segment: int
    offset: int


@dataclass(frozen=True, slots=True)
class Envelope:
    """A journal body taken apart. `payload`: JSON, one line."""

    kind: Kind
    key: bytes
    payload: bytes


def pack(kind: Kind, key: str, payload: bytes) -> bytes:
    """A journal body; `key` partitions the topic and has at most 255 bytes."""
    raw = key.encode()
    return b"%c%c%b" % (kind, len(raw), raw) + payload


def unpack(body: bytes) -> Envelope:
    """The parts of a journal body. Raises `MalformedRecord`."""
    try:
        kind, length = Kind(body[0]), body[1]
    except (IndexError, ValueError) as error:
        raise MalformedRecord(f"no record begins with {body[:2].hex()}") from error
    return Envelope(kind, body[2 : 2 + length], body[2 + length :])


def members(values: Mapping[str, Any]) -> bytes:
    """As JSON, without the braces."""
    return encode_json(values)[1:-1]


def compose(record: Mapping[str, Any]) -> tuple[bytes, int]:
    """A record's JSON, and how many bytes of it a receipt keeps."""
    head = encode_json({key: record[key] for key in _RECEIPT_KEYS if key in record})[:-1]
    rest = encode_json({key: value for key, value in record.items() if key not in _RECEIPT_KEYS})
    return b"%b,%b" % (head, rest[1:]), len(head)


def shortened(payload: bytes, kept: int, location: bytes) -> bytes:
    """The receipt of a record whose first `kept` bytes are what it keeps. `location`: as JSON."""
    return b'%b,"receipt":%b}' % (payload[:kept], location)


def receipt(record: Mapping[str, Any], location: Location) -> bytes:
    """What a claim keeps of a record for later replays, labels, lifecycle events and look-ups; JSON."""
    return shortened(*compose(record), encode_json(location))


def answer_of(record: Mapping[str, Any], *, replay: bool) -> dict[str, Any]:
    """What a caller of the decision API is told, from a record or its receipt."""
    return {
        "transaction_id": record["id"],
        "outcome": record["outcome"],
        "score": record["score"],
        "reasons": record["reasons"],
        "decision": {"decided_ms": record["decided_ms"], "versions": record["versions"]},
        "freshness": record["freshness"],
        "degraded": record["degraded"],
        "guard": record.get("guard"),
        "replay": replay,
    }
