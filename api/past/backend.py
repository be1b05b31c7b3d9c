"""What differs between SQLite and PostgreSQL: connecting, writing alone, many rows at once.

Reading is plain SQLAlchemy. Neither backend ever shows a statement's parameters in an error.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import psycopg
from sqlalchemy import Connection, Engine, Table, create_engine, event, insert
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from api.engine import QueryStoreUnavailable
from api.past.rows import Row
from api.past.terms import TermRows, Terms, TermTokens

ADVICE: Final = "write sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE"
CONNECT_S: Final = 3
POOL: Final = 5
# Of one statement: a reader gives up early, a projection or a migration takes its time.
READ_MS: Final = 5_000
WRITE_MS: Final = 600_000
# Of the advisory lock that writers of one database hold, one after the other.
WRITERS: Final = 0x434F52444F4E
# Of an SQLite file, for whoever writes much: what a commit touches lies all over its trees, and with SQLite's
# own 2 MB a page is read again for nearly every row. Memory is taken as it is needed.
PAGES_KIB: Final = 65_536
MAPPED: Final = 1 << 30
_FORMATS: Final = {"BIGINT": "int8", "INTEGER": "int4", "SMALLINT": "int2", "TEXT": "text", "BYTEA": "bytea"}


class Backend(Protocol):
    """One kind of database."""

    engine: Engine
    terms: Terms

    def alone(self, connection: Connection) -> None:
        """Begin of a writing transaction: until its end there is no other. May block."""

    def among(self, column: str) -> str:
        """Condition that a column is among many values, one parameter: see `many`."""

    def many(self, values: Sequence[str]) -> tuple[Any, ...]:
        """The parameter of `among`."""

    def add(self, connection: Connection, table: Table, rows: Sequence[Row]) -> None:
        """Rows that are new, in the order of the table's columns."""


class Sqlite:
    """One file, write-ahead logged: any number of readers beside one writer."""

    def __init__(self, url: URL, *, writes: bool) -> None:
        """`writes`: it writes much. Raises `QueryStoreUnavailable` where the directory cannot be made."""
        path = Path(url.database or "")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise QueryStoreUnavailable(f"{path}: {error.strerror}") from error
        self.engine = create_engine(
            url.set(drivername="sqlite+pysqlite"),
            connect_args={"timeout": 5.0},
            pool_size=POOL,
            hide_parameters=True,
        )
        self.terms: Terms = TermTokens()
        self._inserts: dict[str, str] = {}

        @event.listens_for(self.engine, "connect")
        def connected(connection: Any, _: Any) -> None:
            connection.isolation_level = None
            connection.execute("PRAGMA journal_mode=WAL")
            # The log is the truth: after a power cut the projector repeats what is missing here.
            connection.execute("PRAGMA synchronous=NORMAL")
            if writes:
                connection.execute(f"PRAGMA cache_size=-{PAGES_KIB}")
                connection.execute(f"PRAGMA mmap_size={MAPPED}")

        @event.listens_for(self.engine, "begin")
        def began(connection: Connection) -> None:
            writes = connection.get_execution_options().get("writes")
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    def alone(self, connection: Connection) -> None:
        """See `Backend.alone`: it began with the only writer's lock."""

    def among(self, column: str) -> str:
        """See `Backend.among`."""
        return f"{column} IN (SELECT value FROM json_each(?))"

    def many(self, values: Sequence[str]) -> tuple[Any, ...]:
        """See `Backend.many`."""
        return (json.dumps(list(values), ensure_ascii=False),)

    def add(self, connection: Connection, table: Table, rows: Sequence[Row]) -> None:
        """See `Backend.add`."""
        if not rows:
            return
        text = self._inserts.get(table.name)
        if text is None:
            text = self._inserts[table.name] = str(insert(table).compile(dialect=sqlite.dialect()))
        connection.exec_driver_sql(text, list(rows))


class Postgres:
    """A server. Writers wait for each other by an advisory lock, so that what is new can be copied in."""

    def __init__(self, url: URL, *, writes: bool) -> None:
        options = f"-c statement_timeout={WRITE_MS if writes else READ_MS} -c application_name=cordon"
        self.engine = create_engine(
            url.set(drivername="postgresql+psycopg"),
            connect_args={"connect_timeout": CONNECT_S, "options": options},
            pool_size=POOL,
            pool_timeout=CONNECT_S,
            pool_pre_ping=True,
            hide_parameters=True,
        )
        self.terms: Terms = TermRows(self)

    def alone(self, connection: Connection) -> None:
        """See `Backend.alone`."""
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (WRITERS,))

    def among(self, column: str) -> str:
        """See `Backend.among`."""
        return f"{column} = ANY(%s)"

    def many(self, values: Sequence[str]) -> tuple[Any, ...]:
        """See `Backend.many`."""
        return (list(values),)

    def add(self, connection: Connection, table: Table, rows: Sequence[Row]) -> None:
        """See `Backend.add`: one COPY."""
        if not rows:
            return
        driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
        dialect = connection.dialect
        names = ", ".join(f'"{column.name}"' for column in table.columns)
        kinds = [_FORMATS[column.type.compile(dialect).split(" ")[0]] for column in table.columns]
        with (
            driver.cursor() as cursor,
            cursor.copy(f"COPY {table.name} ({names}) FROM STDIN (FORMAT BINARY)") as copy,
        ):
            copy.set_types(kinds)
            for row in rows:
                copy.write_row(row)

    def remove(self, connection: Connection, table: Table, keys: Sequence[Row]) -> None:
        """Rows by their primary keys, in the order of its columns: one statement."""
        if not keys:
            return
        columns = list(table.primary_key)
        lists = ", ".join(f"%s::{c.type.compile(connection.dialect).split(' ')[0]}[]" for c in columns)
        names = ", ".join(f'"{c.name}"' for c in columns)
        same = " AND ".join(f'{table.name}."{c.name}" = gone."{c.name}"' for c in columns)
        text = f"DELETE FROM {table.name} USING unnest({lists}) AS gone({names}) WHERE {same}"
        connection.exec_driver_sql(text, tuple(list(values) for values in zip(*keys, strict=True)))


def backend_of(address: str, *, writes: bool = False) -> Backend:
    """The backend of an address; nothing is sent yet. `writes`: its statements may take long.

    Raises `QueryStoreUnavailable`, `ValueError` for another address.
    """
    try:
        url = make_url(address)
    except ArgumentError:
        raise ValueError(f"the query store's address is none: {ADVICE}") from None
    name = url.get_backend_name()
    if name == "sqlite" and url.database and url.host is None:
        return Sqlite(url, writes=writes)
    if name == "postgresql":
        return Postgres(url, writes=writes)
    raise ValueError(f"{url.render_as_string(hide_password=True)}: {ADVICE}")
