"""What the engine answers to each inbound event; the doors turn it into HTTP or into offsets and letters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from features.event import InvalidEvent


class Decided(NamedTuple):
    """A transaction was decided and recorded, now or (`replay`) before. `record`: what `answer_of` asks for,
    at least; with `rules`, what hit, where it was decided now."""

    record: Mapping[str, Any]
    replay: bool


class Accepted(NamedTuple):
    """A label or lifecycle event was observed and recorded, now or (`replay`) before."""

    record: Mapping[str, Any]
    replay: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """The event can never be accepted: 422, or a dead letter."""

    error: InvalidEvent


@dataclass(frozen=True, slots=True)
class Conflicting:
    """The id was used before with other content: 409, or a dead letter; nothing changed."""

    key: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """A label or lifecycle event of a transaction that was never decided: 404, or a dead letter."""

    transaction_id: str


@dataclass(frozen=True, slots=True)
class Pending:
    """Another attempt is at it: ask again shortly."""

    key: str


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Nothing was recorded: 503 with Retry-After, or try again later. `part`: what is missing."""

    part: Literal["journal", "backlog", "store", "query_store", "time"]


Answer = Decided | Accepted | Refused | Conflicting | Unknown | Pending | Unavailable
