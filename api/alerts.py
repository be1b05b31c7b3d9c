"""Alerts: what people must look at. A closed set; each has a severity and a page in docs/alerts.md.

An alert is a record like any other: it is journalled, or follows from a journalled record, and the publisher
ships it to the topic of alerts in the transaction of what caused it. `id` names what happened: whoever sees
one twice has seen the same thing twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from api.record import VERSION, Kind, encode_json, pack

Severity = Literal["info", "warning", "critical"]
Code = Literal[
    "rule_tripped",
    "rule_reset",
    "guard_entered",
    "guard_left",
    "abandoned_attempt",
    "large_review",
    "doubled_decision",
    "damaged_journal",
    "batch_finished",
]
SEVERITY: Final[Mapping[Code, Severity]] = {
    "rule_tripped": "critical",
    "rule_reset": "info",
    "guard_entered": "critical",
    "guard_left": "info",
    "abandoned_attempt": "warning",
    "large_review": "info",
    "doubled_decision": "critical",
    "damaged_journal": "critical",
    "batch_finished": "info",
}
CODES: Final = get_args(Code)
KEY: Final = "alerts"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. `about`: what it is about, as names and numbers; no personal data."""

    code: Code
    id: str
    time_ms: int
    detail: str
    about: Mapping[str, Any]

    def to_json(self, tenant: str) -> dict[str, Any]:
        """The record."""
        return {
            "type": "alert",
            "v": VERSION,
            "tenant": tenant,
            "id": self.id,
            "time_ms": self.time_ms,
            "code": self.code,
            "severity": SEVERITY[self.code],
            "detail": self.detail,
            "about": dict(self.about),
        }

    def body(self, tenant: str) -> bytes:
        """The journal's body."""
        return pack(Kind.ALERT, KEY, encode_json(self.to_json(tenant)))
