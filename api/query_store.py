"""Past decisions, labels and lifecycle events: a projection of the log that can be thrown away and rebuilt.

One protocol; SQLite behind it. Positions in the topics are stored in the transaction that stores the
records, so that a projector that dies repeats nothing and loses nothing; records are keyed by id, so that
repeating would change nothing.
"""

import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from api.engine import QueryStoreUnavailable
from api.record import decode_json

SCHEMA = """
CREATE TABLE IF NOT EXISTS decision (
    id TEXT PRIMARY KEY, time_ms INTEGER NOT NULL, decided_ms INTEGER NOT NULL, outcome TEXT NOT NULL,
    score INTEGER, record BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS decision_recent ON decision (decided_ms DESC);
CREATE TABLE IF NOT EXISTS decision_entity (
    entity TEXT NOT NULL, pseudonym TEXT NOT NULL, time_ms INTEGER NOT NULL, id TEXT NOT NULL,
    PRIMARY KEY (entity, pseudonym, time_ms, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS label (
    id TEXT PRIMARY KEY, transaction_id TEXT NOT NULL, time_ms INTEGER NOT NULL, fraud INTEGER NOT NULL,
    record BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS label_of ON label (transaction_id);
CREATE TABLE IF NOT EXISTS lifecycle (
    id TEXT PRIMARY KEY, transaction_id TEXT NOT NULL, time_ms INTEGER NOT NULL, kind TEXT NOT NULL,
    record BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS lifecycle_of ON lifecycle (transaction_id);
CREATE TABLE IF NOT EXISTS doubled (
    id TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, "offset" INTEGER NOT NULL,
    record BLOB NOT NULL, PRIMARY KEY (topic, partition, "offset")) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS position (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Logged:
    """One record of the log with its place. `payload`: its JSON."""

    topic: str
    partition: int
    offset: int
    payload: bytes


class QueryStore(Protocol):
    """Look-ups of what was decided, and the projection behind them."""

    def record(self, transaction_id: str) -> Mapping[str, Any] | None:
        """The decision's record. Raises `QueryStoreUnavailable`."""

    def recent(self, limit: int) -> list[Mapping[str, Any]]:
        """The newest decisions, newest first."""

    def of_entity(self, entity: str, pseudonym: str, limit: int) -> list[Mapping[str, Any]]:
        """An entity's newest decisions by event time, newest first."""

    def labels_of(self, transaction_id: str) -> list[Mapping[str, Any]]:
        """Labels of a transaction, oldest first."""

    def lifecycle_of(self, transaction_id: str) -> list[Mapping[str, Any]]:
        """Lifecycle events of a transaction, oldest first."""

    def project(self, records: Sequence[Logged], positions: Mapping[tuple[str, int], int]) -> list[str]:
        """Store records and positions together; ids that another decision had taken (doubled)."""

    def positions(self) -> dict[tuple[str, int], int]:
        """Next offset of every `(topic, partition)`."""

    def counts(self) -> dict[str, int]:
        """Number of decisions, labels, lifecycle events and doubled decisions."""

    def close(self) -> None:
        """Release the database."""


class SqliteStore:
    """`QueryStore` in one file, write-ahead logged: any number of readers beside one projector.

    May be used by several threads, one at a time.
    """

    def __init__(self, path: Path) -> None:
        """Open or create. Raises `QueryStoreUnavailable`."""
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode=WAL")
            # The log is the truth: after a power cut the projector repeats what is missing here.
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.executescript(SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise QueryStoreUnavailable(f"{path}: {error}") from error

    def record(self, transaction_id: str) -> Mapping[str, Any] | None:
        """See `QueryStore.record`."""
        found = self._rows("SELECT record FROM decision WHERE id = ?", (transaction_id,))
        return found[0] if found else None

    def recent(self, limit: int) -> list[Mapping[str, Any]]:
        """See `QueryStore.recent`."""
        return self._rows("SELECT record FROM decision ORDER BY decided_ms DESC LIMIT ?", (limit,))

    def of_entity(self, entity: str, pseudonym: str, limit: int) -> list[Mapping[str, Any]]:
        """See `QueryStore.of_entity`."""
        return self._rows(
            "SELECT d.record FROM decision_entity e JOIN decision d ON d.id = e.id"
            " WHERE e.entity = ? AND e.pseudonym = ? ORDER BY e.time_ms DESC, e.id DESC LIMIT ?",
            (entity, pseudonym, limit),
        )

    def labels_of(self, transaction_id: str) -> list[Mapping[str, Any]]:
        """See `QueryStore.labels_of`."""
        return self._rows(
            "SELECT record FROM label WHERE transaction_id = ? ORDER BY time_ms, id", (transaction_id,)
        )

    def lifecycle_of(self, transaction_id: str) -> list[Mapping[str, Any]]:
        """See `QueryStore.lifecycle_of`."""
        return self._rows(
            "SELECT record FROM lifecycle WHERE transaction_id = ? ORDER BY time_ms, id", (transaction_id,)
        )

    def project(self, records: Sequence[Logged], positions: Mapping[tuple[str, int], int]) -> list[str]:
        """See `QueryStore.project`. Raises `QueryStoreUnavailable`; nothing was stored then."""
        doubled: list[str] = []
        with self._lock:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    for logged in records:
                        doubled += self._store(logged, decode_json(logged.payload))
                    self._database.executemany(
                        "INSERT INTO position VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
                        " SET next_offset = excluded.next_offset",
                        [(topic, partition, next_) for (topic, partition), next_ in positions.items()],
                    )
                    self._database.execute("COMMIT")
                except BaseException:
                    self._database.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise QueryStoreUnavailable(str(error)) from error
        return doubled

    def _store(self, logged: Logged, record: Mapping[str, Any]) -> list[str]:
        """Store one record; its id if it doubles an earlier decision of other offset."""
        kind, id_ = record["type"], record["id"]
        if kind == "label":
            row = (id_, record["transaction_id"], record["time_ms"], record["fraud"], logged.payload)
            self._database.execute("INSERT OR IGNORE INTO label VALUES (?, ?, ?, ?, ?)", row)
            return []
        if kind == "event":
            row = (id_, record["transaction_id"], record["time_ms"], record["kind"], logged.payload)
            self._database.execute("INSERT OR IGNORE INTO lifecycle VALUES (?, ?, ?, ?, ?)", row)
            return []
        values = (
            id_, record["time_ms"], record["decided_ms"], record["outcome"], record["score"], logged.payload,
        )  # fmt: skip
        done = self._database.execute("INSERT OR IGNORE INTO decision VALUES (?, ?, ?, ?, ?, ?)", values)
        if done.rowcount:
            entities = [(e, p, record["time_ms"], id_) for e, p in record["entities"].items()]
            self._database.executemany("INSERT OR IGNORE INTO decision_entity VALUES (?, ?, ?, ?)", entities)
            return []
        held = self._database.execute("SELECT record FROM decision WHERE id = ?", (id_,)).fetchone()
        if held[0] == logged.payload:
            return []
        place = (id_, logged.topic, logged.partition, logged.offset, logged.payload)
        self._database.execute("INSERT OR IGNORE INTO doubled VALUES (?, ?, ?, ?, ?)", place)
        return [id_]

    def positions(self) -> dict[tuple[str, int], int]:
        """See `QueryStore.positions`."""
        rows = self._select("SELECT topic, partition, next_offset FROM position", ())
        return {(topic, partition): next_ for topic, partition, next_ in rows}

    def counts(self) -> dict[str, int]:
        """See `QueryStore.counts`."""
        tables = ("decision", "label", "lifecycle", "doubled")
        return {table: self._select(f"SELECT count(*) FROM {table}", ())[0][0] for table in tables}

    def close(self) -> None:
        """See `QueryStore.close`."""
        with self._lock:
            self._database.close()

    def _rows(self, query: str, values: tuple[Any, ...]) -> list[Mapping[str, Any]]:
        return [decode_json(row[0]) for row in self._select(query, values)]

    def _select(self, query: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._database.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise QueryStoreUnavailable(str(error)) from error


class AbsentStore:
    """Stands in while the query store cannot be opened: every look-up says so."""

    def __init__(self, url: str) -> None:
        self._url = url

    def record(self, transaction_id: str) -> Mapping[str, Any] | None:
        """Raises `QueryStoreUnavailable`."""
        raise QueryStoreUnavailable(f"{self._url} cannot be opened (looking for {transaction_id})")


def open_store(url: str) -> QueryStore:
    """The query store at `sqlite:///path`. Raises `QueryStoreUnavailable`, `ValueError` for another URL."""
    if not url.startswith("sqlite:///"):
        raise ValueError(f"{url}: write sqlite:///PATH")
    return SqliteStore(Path(url.removeprefix("sqlite:///")))
