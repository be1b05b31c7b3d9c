"""What a replay did, so that a test can compare exactly."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Fault:
    """One malformed message: its kind, the field that is wrong, the code a door should answer with."""

    kind: str
    field: str
    code: str


@dataclass(slots=True)
class Manifest:
    """Running counters of one replay.

    `sent`: first deliveries by kind (transaction, event, label). `duplicates` and `conflicts`: repeats with
    the same and with other content, by kind. `disordered`: transactions sent later than their event time,
    `held`: events and labels that waited for one of these. `malformed`: messages that no door may accept.
    `answers`: HTTP status codes (or `delivered` by Kafka) by kind.
    """

    sent: Counter[str] = field(default_factory=Counter)
    duplicates: Counter[str] = field(default_factory=Counter)
    conflicts: Counter[str] = field(default_factory=Counter)
    disordered: int = 0
    held: int = 0
    malformed: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    batches: int = 0
    first_event_ms: int | None = None
    last_event_ms: int | None = None
    seconds: float = 0.0
    behind_ms_max: float = 0.0

    @property
    def messages(self) -> int:
        """Everything that went out, repeats and malformed ones included."""
        parts = (self.sent, self.duplicates, self.conflicts, self.malformed)
        return sum(counter.total() for counter in parts)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "sent": dict(self.sent),
            "duplicates": dict(self.duplicates),
            "conflicts": dict(self.conflicts),
            "disordered": self.disordered,
            "held": self.held,
            "malformed": dict(self.malformed),
            "messages": self.messages,
            "answers": dict(self.answers),
            "retries": self.retries,
            "batches": self.batches,
            "first_event_ms": self.first_event_ms,
            "last_event_ms": self.last_event_ms,
            "seconds": round(self.seconds, 3),
            "transactions_per_s": round(self.sent["transaction"] / self.seconds, 1) if self.seconds else None,
            "behind_ms_max": round(self.behind_ms_max, 1),
        }
