"""Records of the log as rows of the query store. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from api.case import PREFIX as CASE_PREFIX
from api.query_store import Logged
from api.record import MalformedRecord

Row = tuple[Any, ...]


class _RuleHead(msgspec.Struct):
    id: str
    result: str


class _ReasonHead(msgspec.Struct):
    code: str


class _Decision(msgspec.Struct, tag_field="type", tag="decision"):
    id: str
    time_ms: int
    decided_ms: int
    outcome: str
    score: int | None
    entities: dict[str, str]
    rules: list[_RuleHead] = []
    reasons: list[_ReasonHead] = []


class _Abandoned(_Decision, tag_field="type", tag="abandoned"):
    pass


class _Label(msgspec.Struct, tag_field="type", tag="label"):
    id: str
    transaction_id: str
    time_ms: int
    fraud: bool


class _Event(msgspec.Struct, tag_field="type", tag="event"):
    id: str
    transaction_id: str
    time_ms: int
    kind: str


class _Audit(msgspec.Struct, tag_field="type", tag="audit"):
    id: str
    event: str
    time_ms: int
    case_id: str = ""
    version: int = 0


# Only what becomes a column: a record is mostly its vector, which nobody looks at here.
_HEADS: Final = msgspec.json.Decoder(_Decision | _Abandoned | _Label | _Event | _Audit)


@dataclass(slots=True)
class Rows:
    """What a piece of the log adds. Keys: id of the record; the first of an id counts.

    `decisions`, `labels`, `lifecycle`: rows in the order of their columns. `terms`: by decision.
    `cases`: those that decisions to review open. `again`: further decisions of an id in the
    same piece, where they differ.
    """

    decisions: dict[str, Row] = field(default_factory=dict)
    sources: dict[str, Logged] = field(default_factory=dict)
    terms: dict[str, list[Row]] = field(default_factory=dict)
    labels: dict[str, Row] = field(default_factory=dict)
    lifecycle: dict[str, Row] = field(default_factory=dict)
    cases: dict[str, Row] = field(default_factory=dict)
    case_events: dict[str, Row] = field(default_factory=dict)
    again: list[tuple[str, Logged]] = field(default_factory=list)


def rows_of(records: Sequence[Logged]) -> Rows:
    """Rows of a piece of the log. Raises `MalformedRecord`."""
    found = Rows()
    for logged in records:
        try:
            head = _HEADS.decode(logged.payload)
        except msgspec.DecodeError as error:
            place = f"{logged.topic}, partition {logged.partition}, offset {logged.offset}"
            raise MalformedRecord(f"{place}: {error}") from error
        if isinstance(head, _Label):
            label = (head.id, head.transaction_id, head.time_ms, int(head.fraud), logged.payload)
            found.labels.setdefault(head.id, label)
        elif isinstance(head, _Event):
            event = (head.id, head.transaction_id, head.time_ms, head.kind, logged.payload)
            found.lifecycle.setdefault(head.id, event)
        elif isinstance(head, _Audit):
            if head.event.startswith(CASE_PREFIX):
                told = (head.id, head.case_id, head.version, head.time_ms, logged.payload)
                found.case_events.setdefault(head.id, told)
        else:
            _decision(found, head, logged)
    return found


def _decision(found: Rows, head: _Decision, logged: Logged) -> None:
    id_ = head.id
    if id_ in found.sources:
        if found.sources[id_].payload != logged.payload:
            found.again.append((id_, logged))
        return
    found.sources[id_] = logged
    found.decisions[id_] = (
        id_, head.time_ms, head.decided_ms, head.outcome, head.score, logged.payload, None,
    )  # fmt: skip
    if head.outcome == "review" and not isinstance(head, _Abandoned):
        found.cases[id_] = (id_, head.decided_ms, head.time_ms, head.score)
    found.terms[id_] = [(kind, value, head.decided_ms, id_) for kind, value in _terms(head)]


def _terms(head: _Decision) -> Iterator[tuple[str, str]]:
    for name, pseudonym in head.entities.items():
        yield entity_kind(name), pseudonym
    if head.reasons:
        yield from (("reason", code) for code in {reason.code for reason in head.reasons})
    for rule in head.rules:
        if rule.result == "hit":
            yield "rule", rule.id


def terms_of(payload: bytes) -> list[Row]:
    """Terms of one decision. Raises `MalformedRecord`."""
    (terms,) = rows_of([Logged("", 0, 0, payload)]).terms.values()
    return terms


def entity_kind(entity: str) -> str:
    """Kind of the terms that are an entity's pseudonyms."""
    return f"entity:{entity}"
