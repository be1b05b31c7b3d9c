"""Alerts: what people must look at. A closed set; each has a severity and a page in docs/alerts.md.

An alert is a record like any other: it is journalled, or follows from a journalled record, and the publisher
ships it to the topic of alerts in the transaction of what caused it. `id` names what happened: whoever sees
one twice has seen the same thing twice.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from api.record import VERSION, Envelope, Kind, decode_json, encode_json, pack

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


_REVIEWED: Final = b'"outcome":"review"'


def derived(envelope: Envelope, review_amount_min: int | None) -> Alert | None:
    """The alert that follows from a record of the journal. `review_amount_min`: minor units of the base
    currency, `None`: reviews alarm nobody."""
    if envelope.kind is Kind.ABANDONED:
        record = decode_json(envelope.payload)
        detail = "nobody took the attempt up; it was decided and recorded a minute later"
        about = {"transaction_id": record["id"], "outcome": record["outcome"]}
        return Alert("abandoned_attempt", f"abandoned-{record['id']}", record["decided_ms"], detail, about)
    # Most records are no reviews: those are told apart without decoding them.
    if review_amount_min is None or envelope.kind is not Kind.DECISION or _REVIEWED not in envelope.payload:
        return None
    record = decode_json(envelope.payload)
    amount = record["transaction"].get("amount")
    if record["outcome"] != "review" or not isinstance(amount, int) or amount < review_amount_min:
        return None
    about = {"transaction_id": record["id"], "amount": amount, "winner": record["winner"]["id"]}
    detail = f"a review of at least {review_amount_min} minor units"
    return Alert(
        "large_review", f"review-{record['id']}-{record['decided_ms']}", record["decided_ms"], detail, about
    )


def doubled(transaction_id: str, at_ms: int) -> Alert:
    """A transaction was decided twice; both decisions are kept."""
    detail = "decided twice, without a claim; both decisions are kept"
    about = {"transaction_id": transaction_id}
    return Alert("doubled_decision", f"doubled-{transaction_id}-{at_ms}", at_ms, detail, about)


def damaged(detail: str, at_ms: int) -> Alert:
    """A journal is damaged. The same damage has the same id, however often it is met."""
    mark = hashlib.sha256(detail.encode()).hexdigest()[:16]
    return Alert("damaged_journal", f"damaged-{mark}", at_ms, detail, {})
