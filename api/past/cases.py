"""Review cases in the query store: opened by what is projected, changed one version at a time.

A change is written where it was asked for, in the transaction that checked its version and made it durable in
a journal; the same record comes again through the log and changes nothing then.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import Connection, select, tuple_, update

from api.case import OPENED, Change, StaleCase, State, Status, UnknownCase, state_of
from api.past.backend import Backend
from api.past.rows import Row
from api.past.schema import CASE_EVENT, REVIEW_CASE
from api.past.search import Place, digest_of
from api.record import decode_json

EVENTS_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class CaseSearch:
    """Which cases; what is given has to hold."""

    status: Status | None = None
    assignee: str | None = None

    def digest(self) -> int:
        """What tells a cursor of this search from one of another."""
        return digest_of(self)


@dataclass(frozen=True, slots=True)
class CasePage:
    """Cases, newest first, and from where to go on: `None` where nothing is left."""

    cases: list[dict[str, Any]]
    after: Place | None


def project_cases(
    backend: Backend, connection: Connection, opened: Sequence[Row], events: Sequence[Row]
) -> None:
    """Open cases and store events that are new; a case's state follows from all of its events."""
    touched = {row[0] for row in opened} | {row[1] for row in events}
    if not touched:
        return
    known = _known(backend, connection, "review_case", [row[0] for row in opened])
    fresh = [row for row in opened if row[0] not in known]
    backend.add(connection, REVIEW_CASE, [(*row, "open", None, None, OPENED, None) for row in fresh])
    held = _known(backend, connection, "case_event", [row[0] for row in events])
    backend.add(connection, CASE_EVENT, [row for row in events if row[0] not in held])
    query = f"SELECT case_id, record FROM case_event WHERE {backend.among('case_id')}"
    told: dict[str, list[Mapping[str, Any]]] = {}
    for case_id, record in connection.exec_driver_sql(query, backend.many(sorted(touched))):
        told.setdefault(case_id, []).append(decode_json(record))
    for case_id, records in told.items():
        _keep(connection, case_id, state_of(records))


def list_cases(connection: Connection, search: CaseSearch, after: Place | None, limit: int) -> CasePage:
    """At most `limit` cases behind a place of the order."""
    query = select(REVIEW_CASE)
    if search.status is not None:
        query = query.where(REVIEW_CASE.c.status == search.status)
    if search.assignee is not None:
        query = query.where(REVIEW_CASE.c.assignee == search.assignee)
    if after is not None:
        here = tuple_(REVIEW_CASE.c.opened_ms, REVIEW_CASE.c.id)
        query = query.where(REVIEW_CASE.c.opened_ms <= after.decided_ms)
        query = query.where(here < tuple_(after.decided_ms, after.id))
    query = query.order_by(REVIEW_CASE.c.opened_ms.desc(), REVIEW_CASE.c.id.desc()).limit(limit + 1)
    found = [dict(row) for row in connection.execute(query).mappings()]
    last = found[limit - 1] if len(found) > limit else None
    return CasePage(found[:limit], None if last is None else Place(last["opened_ms"], last["id"]))


def read_case(connection: Connection, case_id: str) -> dict[str, Any] | None:
    """A case with its events, oldest first."""
    found = connection.execute(select(REVIEW_CASE).where(REVIEW_CASE.c.id == case_id)).mappings().first()
    return None if found is None else {**found, "events": _events(connection, case_id)}


def change_case(
    backend: Backend,
    connection: Connection,
    case_id: str,
    expected: int,
    change: Change,
    record: Callable[[int], tuple[str, int, bytes]],
) -> tuple[dict[str, Any], bool]:
    """Change a case that has the expected version; the case, and whether this very change was there before.

    `record` makes the change of a version durable and gives its id, time and JSON; what it raises prevents
    the change. Raises `UnknownCase`, `StaleCase`.
    """
    case = read_case(connection, case_id)
    if case is None:
        raise UnknownCase(case_id)
    if case["version"] == expected + 1 and change.is_told_by(case["events"][-1]):
        return case, True
    if case["version"] != expected or len(case["events"]) >= EVENTS_MAX:
        raise StaleCase(case["version"])
    version = expected + 1
    id_, time_ms, payload = record(version)
    backend.add(connection, CASE_EVENT, [(id_, case_id, version, time_ms, payload)])
    _keep(connection, case_id, state_of([*case["events"], decode_json(payload)]))
    changed = read_case(connection, case_id)
    assert changed is not None
    return changed, False


def _events(connection: Connection, case_id: str) -> list[dict[str, Any]]:
    of = select(CASE_EVENT.c.record).where(CASE_EVENT.c.case_id == case_id)
    ordered = of.order_by(CASE_EVENT.c.version, CASE_EVENT.c.time_ms, CASE_EVENT.c.id)
    return [decode_json(record) for record in connection.execute(ordered).scalars()]


def _keep(connection: Connection, case_id: str, state: State) -> None:
    connection.execute(update(REVIEW_CASE).where(REVIEW_CASE.c.id == case_id).values(asdict(state)))


def _known(backend: Backend, connection: Connection, table: str, ids: Sequence[str]) -> set[str]:
    if not ids:
        return set()
    query = f"SELECT id FROM {table} WHERE {backend.among('id')}"
    return set(connection.exec_driver_sql(query, backend.many(ids)).scalars())
