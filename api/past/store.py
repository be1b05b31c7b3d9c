"""`QueryStore` on either database."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
from sqlalchemy import Connection, Table, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from api.case import Change
from api.engine import QueryStoreUnavailable
from api.past.backend import Backend, backend_of
from api.past.cases import CasePage, CaseSearch, change_case, list_cases, project_cases, read_case
from api.past.migrate import migrate, version_of
from api.past.rows import Row, Rows, rows_of
from api.past.schema import DECISION, DOUBLED, LABEL, LIFECYCLE, MOVED, POSITION, VERSION, WARM_FILE
from api.past.search import (
    LOOKS_FACTOR,
    SCAN,
    Page,
    Place,
    Search,
    first_looks,
    last_of,
    matching,
)
from api.past.warm import WarmMissing, WarmStore
from api.query_store import Logged
from api.record import decode_json

_COUNTED: Final = (DECISION, LABEL, LIFECYCLE, DOUBLED)
_NEWEST_LABEL: Final = """
    UPDATE decision SET fraud = (
        SELECT fraud FROM label WHERE transaction_id = decision.id ORDER BY time_ms DESC, id DESC LIMIT 1)
    WHERE """


class SqlStore:
    """See `QueryStore`. May be used by several threads."""

    def __init__(self, backend: Backend, warm: Path | None = None, scan: int = SCAN) -> None:
        """`warm`: where old decisions went. `scan`: rows that one page of a search looks at, at most."""
        self._backend = backend
        self._warm = None if warm is None else WarmStore(warm)
        self._scan = scan
        self._engine = backend.engine

    @classmethod
    def open(
        cls, address: str, warm: Path | None = None, *, migrating: bool = False, scan: int = SCAN
    ) -> "SqlStore":
        """The store at an address, its schema as this code needs it; `migrating`: made so if it is not.

        A new SQLite file is made by whoever opens it. Raises `QueryStoreUnavailable`, `ValueError`.
        """
        backend = backend_of(address, writes=migrating)
        store = cls(backend, warm, scan)
        try:
            with store.reading() as connection:
                found = version_of(connection)
            if found is None or found < VERSION:
                is_new_file = found is None and backend.engine.dialect.name == "sqlite"
                if not (migrating or is_new_file):
                    raise QueryStoreUnavailable(
                        f"its schema is {found or 'not there'}, this code needs {VERSION}:"
                        " start the projector, or run `cordon store migrate`"
                    )
                with _told():
                    migrate(backend)
        except BaseException:
            store.close()
            raise
        return store

    def record(self, transaction_id: str) -> Mapping[str, Any] | None:
        """See `QueryStore.record`: here, else where it went."""
        if "\0" in transaction_id:
            return None  # no id has one, and PostgreSQL takes none
        with self.reading() as connection:
            here = select(DECISION.c.record).where(DECISION.c.id == transaction_id)
            record = connection.execute(here).scalar()
            name = None if record is not None else self._file_of(connection, transaction_id)
        if name is not None:
            record = self._in_file(name, transaction_id)
        return None if record is None else decode_json(record)

    def _file_of(self, connection: Connection, id_: str) -> str | None:
        joined = select(WARM_FILE.c.name).join(MOVED, MOVED.c.file == WARM_FILE.c.number)
        return connection.execute(joined.where(MOVED.c.id == id_)).scalar()

    def _in_file(self, name: str, id_: str) -> bytes | None:
        if self._warm is None:
            raise QueryStoreUnavailable(f"{id_} went to the warm store: set CORDON_TIER__WARM")
        try:
            return self._warm.find(name, id_)
        except WarmMissing as error:
            raise QueryStoreUnavailable(str(error)) from error

    def search(self, search: Search, after: Place | None, limit: int) -> Page:
        """See `QueryStore.search`."""
        with self.reading() as connection:
            found, last = self._places(connection, search, after, limit)
            if not found:
                return Page([], last)
            query = f"SELECT id, record FROM decision WHERE {self._backend.among('id')}"
            rows = connection.exec_driver_sql(query, self._backend.many([place.id for place in found]))
            records = {id_: decode_json(record) for id_, record in rows}
        # One that was removed between the two statements is in the warm store by now.
        return Page([records[place.id] for place in found if place.id in records], last)

    def _places(
        self, connection: Connection, search: Search, after: Place | None, limit: int
    ) -> tuple[list[Place], Place | None]:
        """Places of a page and where to go on: few rows are looked at first, then more and more."""
        found: list[Place] = []
        terms = self._backend.terms
        left, looks = self._scan, first_looks(search, limit + 1)
        while True:
            looks = min(looks, left)
            rows = connection.execute(matching(terms, search, after, looks, limit + 1 - len(found))).all()
            found += [Place(row.decided_ms, row.id) for row in rows]
            if len(found) > limit:
                return found[:limit], found[limit - 1]
            last = connection.execute(last_of(terms, search, after, looks)).first()
            if last is None:
                return found, None
            after, left, looks = Place(last.decided_ms, last.id), left - looks, looks * LOOKS_FACTOR
            if left == 0:
                return found, after

    def labels_of(self, transaction_id: str) -> list[Mapping[str, Any]]:
        """See `QueryStore.labels_of`."""
        return self._following(LABEL, transaction_id)

    def lifecycle_of(self, transaction_id: str) -> list[Mapping[str, Any]]:
        """See `QueryStore.lifecycle_of`."""
        return self._following(LIFECYCLE, transaction_id)

    def project(self, records: Sequence[Logged], positions: Mapping[tuple[str, int], int]) -> list[str]:
        """See `QueryStore.project`."""
        rows = rows_of(records)
        with self.writing() as connection:
            new, doubled = self._decisions(connection, rows)
            self._labels(connection, rows)
            known = self._known(connection, LIFECYCLE, list(rows.lifecycle))
            self._add(connection, LIFECYCLE, [row for id_, row in rows.lifecycle.items() if id_ not in known])
            cases = [row for id_, row in rows.cases.items() if id_ in new]
            project_cases(self._backend, connection, cases, list(rows.case_events.values()))
            self._move(connection, positions)
        return doubled

    def _decisions(self, connection: Connection, rows: Rows) -> tuple[set[str], list[str]]:
        """Store the new ones and keep those apart that differ from an earlier one; the ids of both."""
        known = self._known(connection, DECISION, list(rows.decisions))
        new = [row for id_, row in rows.decisions.items() if id_ not in known]
        self._backend.terms.add(connection, new, rows.terms)
        again = [*((id_, rows.sources[id_]) for id_ in rows.decisions if id_ in known), *rows.again]
        doubled = self._keep_apart(connection, again) if again else []
        return {row[0] for row in new}, doubled

    def _keep_apart(self, connection: Connection, again: Sequence[tuple[str, Logged]]) -> list[str]:
        held: dict[str, bytes] = {}
        condition = self._backend.among("id")
        found = connection.exec_driver_sql(
            f"SELECT id, record FROM decision WHERE {condition}",
            self._backend.many([id_ for id_, _ in again]),
        )
        held = {id_: bytes(record) for id_, record in found}
        doubled = [(id_, logged) for id_, logged in again if held[id_] != logged.payload]
        for id_, logged in doubled:
            row = (id_, logged.topic, logged.partition, logged.offset, logged.payload)
            values = dict(zip(DOUBLED.c.keys(), row, strict=True))
            connection.execute(_insert(connection, DOUBLED).values(values).on_conflict_do_nothing())
        return [id_ for id_, _ in doubled]

    def _labels(self, connection: Connection, rows: Rows) -> None:
        known = self._known(connection, LABEL, list(rows.labels))
        new = [row for id_, row in rows.labels.items() if id_ not in known]
        self._add(connection, LABEL, new)
        touched = {row[1] for row in new} | self._labelled(connection, list(rows.decisions))
        if touched:
            change = _NEWEST_LABEL + self._backend.among("id")
            connection.exec_driver_sql(change, self._backend.many(sorted(touched)))

    def _labelled(self, connection: Connection, ids: list[str]) -> set[str]:
        """Those of the decisions that have a label already: topics are not read in step."""
        if not ids:
            return set()
        condition = self._backend.among("transaction_id")
        text_ = f"SELECT transaction_id FROM label WHERE {condition}"
        return set(connection.exec_driver_sql(text_, self._backend.many(ids)).scalars())

    def _known(self, connection: Connection, table: Table, ids: list[str]) -> set[str]:
        if not ids:
            return set()
        text_ = f"SELECT id FROM {table.name} WHERE {self._backend.among('id')}"
        return set(connection.exec_driver_sql(text_, self._backend.many(ids)).scalars())

    def _add(self, connection: Connection, table: Table, rows: Sequence[Row]) -> None:
        self._backend.add(connection, table, rows)

    def _move(self, connection: Connection, positions: Mapping[tuple[str, int], int]) -> None:
        if positions:
            moved = _insert(connection, POSITION)
            moved = moved.on_conflict_do_update(
                index_elements=["topic", "partition"], set_={"next_offset": moved.excluded.next_offset}
            )
            values = [
                {"topic": topic, "partition": partition, "next_offset": next_}
                for (topic, partition), next_ in positions.items()
            ]
            connection.execute(moved, values)

    def cases(self, search: CaseSearch, after: Place | None, limit: int) -> CasePage:
        """See `QueryStore.cases`."""
        with self.reading() as connection:
            return list_cases(connection, search, after, limit)

    def case(self, case_id: str) -> Mapping[str, Any] | None:
        """See `QueryStore.case`."""
        with self.reading() as connection:
            return read_case(connection, case_id)

    def change_case(
        self, case_id: str, expected: int, change: Change, record: Callable[[int], tuple[str, int, bytes]]
    ) -> tuple[Mapping[str, Any], bool]:
        """See `QueryStore.change_case`."""
        with self.writing() as connection:
            return change_case(self._backend, connection, case_id, expected, change, record)

    def oldest_ms(self) -> int | None:
        """When the oldest decision that is here was made."""
        with self.reading() as connection:
            return connection.execute(select(func.min(DECISION.c.decided_ms))).scalar()

    def ids_between(self, from_ms: int, until_ms: int, limit: int) -> list[str]:
        """Decisions of a time, exclusive of its end, oldest first."""
        within = select(DECISION.c.id).where(
            DECISION.c.decided_ms >= from_ms, DECISION.c.decided_ms < until_ms
        )
        with self.reading() as connection:
            ordered = within.order_by(DECISION.c.decided_ms, DECISION.c.id).limit(limit)
            return list(connection.execute(ordered).scalars())

    def rows_among(self, ids: Sequence[str]) -> list[Row]:
        """Decisions as the warm store keeps them: id, time, decided, outcome, score, terms, record."""
        text_ = f"SELECT id, record FROM decision WHERE {self._backend.among('id')}"
        with self.reading() as connection:
            found = connection.exec_driver_sql(text_, self._backend.many(ids)).all()
        return [_warm_row(id_, bytes(record)) for id_, record in found]

    def files_of(self, ids: Sequence[str]) -> dict[str, str]:
        """Those of the decisions that went before, and into which files."""
        text_ = (
            "SELECT moved.id, warm_file.name FROM moved JOIN warm_file ON warm_file.number = moved.file"
            f" WHERE {self._backend.among('moved.id')}"
        )
        with self.reading() as connection:
            return {row[0]: row[1] for row in connection.exec_driver_sql(text_, self._backend.many(ids))}

    def adopted_files(self) -> set[str]:
        """Files whose decisions are all known to have moved."""
        with self.reading() as connection:
            return set(connection.execute(select(WARM_FILE.c.name).where(WARM_FILE.c.adopted == 1)).scalars())

    def begin_file(self, name: str) -> int:
        """The number of a file."""
        with self.writing() as connection:
            known = connection.execute(select(WARM_FILE.c.number).where(WARM_FILE.c.name == name)).scalar()
            if known is not None:
                return int(known)
            last = connection.execute(select(func.max(WARM_FILE.c.number))).scalar() or 0
            self._add(connection, WARM_FILE, [(last + 1, name, 0)])
            return int(last) + 1

    def adopt(self, number: int, rows: Sequence[tuple[str, bytes]]) -> tuple[int, int]:
        """Note that these are in a file, and remove those that are here: how many, and how many differed.

        One that differs from what the file holds is a doubled decision: it is kept apart.
        """
        ids = [id_ for id_, _ in rows]
        text_ = f"SELECT id, record FROM decision WHERE {self._backend.among('id')}"
        with self.writing() as connection:
            found = connection.exec_driver_sql(text_, self._backend.many(ids)).all()
            here = {id_: bytes(record) for id_, record in found}
            warm = dict(rows)
            other = [id_ for id_, record in here.items() if record != warm[id_]]
            for id_ in other:
                self._set_apart(connection, id_, number, here[id_])
            self._backend.terms.remove(connection, here)
            known = self._known(connection, MOVED, ids)
            self._add(connection, MOVED, [(id_, number) for id_ in warm if id_ not in known])
        return len(here) - len(other), len(other)

    def _set_apart(self, connection: Connection, id_: str, number: int, record: bytes) -> None:
        # Its place in the log is not known any more: a place of its own, the same at every attempt.
        place = int.from_bytes(hashlib.sha256(record).digest()[:8], "big") >> 1
        row = (id_, "warm", number, place, record)
        values = dict(zip(DOUBLED.c.keys(), row, strict=True))
        connection.execute(_insert(connection, DOUBLED).values(values).on_conflict_do_nothing())

    def end_file(self, number: int) -> None:
        """All of a file's decisions have moved."""
        with self.writing() as connection:
            connection.execute(update(WARM_FILE).where(WARM_FILE.c.number == number).values(adopted=1))

    def positions(self) -> dict[tuple[str, int], int]:
        """See `QueryStore.positions`."""
        with self.reading() as connection:
            rows = connection.execute(select(POSITION)).all()
        return {(topic, partition): next_ for topic, partition, next_ in rows}

    def counts(self) -> dict[str, int]:
        """See `QueryStore.counts`."""
        with self.reading() as connection:
            return {
                table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
                for table in _COUNTED
            }

    def close(self) -> None:
        """See `QueryStore.close`."""
        self._engine.dispose()

    def _following(self, table: Table, transaction_id: str) -> list[Mapping[str, Any]]:
        of = select(table.c.record).where(table.c.transaction_id == transaction_id)
        return self._records(of.order_by(table.c.time_ms, table.c.id))

    def _records(self, query: Any) -> list[Mapping[str, Any]]:
        with self.reading() as connection:
            return [decode_json(row[0]) for row in connection.execute(query)]

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for statements that change nothing. Raises `QueryStoreUnavailable`."""
        with _told(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction beside which nobody else writes. Raises `QueryStoreUnavailable`."""
        with (
            _told(),
            self._engine.connect().execution_options(writes=True) as connection,
            connection.begin(),
        ):
            self._backend.alone(connection)
            yield connection


def migrate_store(address: str) -> tuple[str | None, str]:
    """Bring the schema at an address to this code's version: the version before and now.

    Raises `QueryStoreUnavailable`, `ValueError`.
    """
    backend = backend_of(address, writes=True)
    try:
        with _told():
            return migrate(backend)
    finally:
        backend.engine.dispose()


def _warm_row(id_: str, record: bytes) -> Row:
    head = rows_of([Logged("", 0, 0, record)])
    terms = [f"{kind}={value}" for kind, value, _, _ in head.terms[id_]]
    return (*head.decisions[id_][:5], terms, record)


def _insert(connection: Connection, table: Table) -> Any:
    return (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)


@contextmanager
def _told() -> Iterator[None]:
    """What a database raises as `QueryStoreUnavailable`, without the values of the statement."""
    try:
        yield
    except SQLAlchemyError as error:
        raise QueryStoreUnavailable(str(getattr(error, "orig", None) or error)) from error
    except psycopg.Error as error:
        raise QueryStoreUnavailable(str(error)) from error
