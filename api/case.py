"""Review cases: what people did with a decision to review. Pure.

A case is opened by the decision itself and has its id. Everything after that is an audit record with a
version: the case's state follows from all of them, in the order of their versions, so that it can be rebuilt.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

Status = Literal["open", "resolved"]
Resolution = Literal["fraud", "legitimate"]
Step = Literal["assigned", "commented", "resolved"]
OPENED: Final = 1
PREFIX: Final = "case_"


class UnknownCase(Exception):
    """No decision to review has this id, or it was not projected yet."""


class StaleCase(Exception):
    """Somebody was faster: read the case again. `version`: its own."""

    def __init__(self, version: int) -> None:
        super().__init__(f"the case has version {version} by now; read it again")
        self.version = version


@dataclass(frozen=True, slots=True)
class Change:
    """What somebody does to a case. `assignee` `None` with `assigned`: nobody's any more."""

    step: Step
    by: str
    assignee: str | None = None
    text: str = ""
    resolution: Resolution | None = None

    def facts(self, case_id: str, version: int) -> dict[str, Any]:
        """The audit record's own part."""
        facts: dict[str, Any] = {"case_id": case_id, "version": version, "by": self.by}
        if self.step == "assigned":
            facts["assignee"] = self.assignee
        if self.step == "resolved":
            facts["resolution"] = self.resolution
        return {**facts, "text": self.text}

    def is_told_by(self, record: Mapping[str, Any]) -> bool:
        """Whether an audit record is of this very change."""
        told = self.facts(record["case_id"], record["version"])
        return record["event"] == PREFIX + self.step and all(record.get(k) == v for k, v in told.items())


@dataclass(frozen=True, slots=True)
class State:
    """A case as its events left it."""

    status: Status = "open"
    assignee: str | None = None
    resolution: Resolution | None = None
    version: int = OPENED
    updated_ms: int | None = None


def state_of(events: Iterable[Mapping[str, Any]]) -> State:
    """The state after all of a case's audit records, in whatever order they come."""
    state = State()
    for event in sorted(events, key=lambda e: (e["version"], e["time_ms"], e["id"])):
        status, assignee, resolution = state.status, state.assignee, state.resolution
        if event["event"] == "case_assigned":
            assignee = event["assignee"]
        elif event["event"] == "case_resolved":
            status, resolution = "resolved", event["resolution"]
        state = State(status, assignee, resolution, event["version"], event["time_ms"])
    return state


def name_of(case_id: str) -> str:
    """A short name of a case, for ids that contain it: a transaction's id may be as long as an id may be."""
    return hashlib.blake2b(case_id.encode(), digest_size=12).hexdigest()


def label_id(case_id: str, version: int) -> str:
    """Id of the label that a resolution makes."""
    return f"case-{name_of(case_id)}-{version}"
