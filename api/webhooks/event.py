"""From a record of the log to what a receiver is told. Pure. The set of events is closed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from api.alerts import CODES
from api.outcome import Outcome

DECISIONS: Final = tuple(f"decision.{outcome.word}" for outcome in Outcome)
BATCH: Final = "batch.finished"
ALERTS: Final = tuple(f"alert.{code}" for code in CODES if code != "batch_finished")
# A case opens with each decision that is a review; what people did with it is in audit records.
AUDITED: Final[Mapping[str, str]] = {"case_resolved": "case.resolved"}
TOLD: Final = ("case_id", "resolution", "version", "by")
"""Facts of an audit record that are told: no notes, which may name people."""
EVENTS: Final = (*DECISIONS, *ALERTS, BATCH, *AUDITED.values())


@dataclass(frozen=True, slots=True)
class Event:
    """`id`: the same for the same thing, however often it is read. `data`: no personal data."""

    id: str
    type: str
    time_ms: int
    tenant: str
    data: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The body of a delivery."""
        return {
            "id": self.id,
            "type": self.type,
            "tenant": self.tenant,
            "time_ms": self.time_ms,
            "data": dict(self.data),
        }


def event_of(record: Mapping[str, Any]) -> Event | None:
    """The event of a record; `None`: nobody is told of such a record."""
    kind = record.get("type")
    tenant = str(record.get("tenant", ""))
    if kind in ("decision", "abandoned"):
        data = {
            "transaction_id": record["id"],
            "outcome": record["outcome"],
            "score": record["score"],
            "reasons": [reason["code"] for reason in record["reasons"]],
            "degraded": record["degraded"],
            "guard": record.get("guard"),
            "versions": record["versions"],
        }
        name = f"{kind}-{record['id']}-{record['decided_ms']}"
        return Event(name, f"decision.{record['outcome']}", record["decided_ms"], tenant, data)
    if kind == "alert":
        told = {key: record[key] for key in ("code", "severity", "detail", "about")}
        type_ = BATCH if record["code"] == "batch_finished" else f"alert.{record['code']}"
        return Event(str(record["id"]), type_, record["time_ms"], tenant, told)
    if kind == "audit" and record.get("event") in AUDITED:
        facts = {key: record[key] for key in TOLD if key in record}
        return Event(str(record["id"]), AUDITED[record["event"]], record["time_ms"], tenant, facts)
    return None


def wanted(patterns: Sequence[str], type_: str) -> bool:
    """Whether a subscription wants an event: `decision.decline`, `decision.*`, `*`."""
    group = type_.partition(".")[0]
    return any(pattern in ("*", type_, f"{group}.*") for pattern in patterns)


def unknown(patterns: Sequence[str]) -> list[str]:
    """Patterns that no event has."""
    groups = {f"{name.partition('.')[0]}.*" for name in EVENTS}
    return [p for p in patterns if p != "*" and p not in EVENTS and p not in groups]
