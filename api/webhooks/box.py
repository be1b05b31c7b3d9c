"""Subscriptions, positions and deliveries, durable in one SQLite file that service and dispatcher share.

What is read from the log becomes deliveries in the transaction that moves the positions, keyed by
subscription and event: nothing is missed, and an event that is read twice becomes one delivery. It is made
again only where nobody heard the receiver's answer. What was delivered is remembered for an hour; what is
dead stays until it is tried again, or too many came after it.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from api.webhooks.event import Event, wanted
from api.webhooks.signature import Key

SUBSCRIPTIONS_MAX: Final = 100
KEPT_MS: Final = 3_600_000
DEAD_MAX: Final = 10_000
PENDING_MAX: Final = 100_000
BUSY_S: Final = 5.0
_COLUMNS: Final = "number, subscription, event, type, body, attempts, error"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS subscription (
    id TEXT PRIMARY KEY, url TEXT NOT NULL, events TEXT NOT NULL, keys TEXT NOT NULL,
    made_ms INTEGER NOT NULL, made_by TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS position (
    topic TEXT, part INTEGER, next INTEGER NOT NULL, PRIMARY KEY (topic, part));
CREATE TABLE IF NOT EXISTS delivery (
    number INTEGER PRIMARY KEY AUTOINCREMENT, subscription TEXT NOT NULL, event TEXT NOT NULL,
    type TEXT NOT NULL, body BLOB NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL,
    next_ms INTEGER NOT NULL, error TEXT NOT NULL, UNIQUE (subscription, event));
CREATE INDEX IF NOT EXISTS due ON delivery (state, subscription, number);
"""


class BoxUnavailable(Exception):
    """The file cannot be read or written now: try again."""


class TooManySubscriptions(Exception):
    """Delete one first."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """Who is told what. `keys`: the newest first."""

    id: str
    url: str
    events: tuple[str, ...]
    keys: tuple[Key, ...]
    made_ms: int
    made_by: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one subscription."""

    number: int
    subscription: str
    event: str
    type: str
    body: bytes
    attempts: int
    error: str


class Box:
    """The file. Not for several threads at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: sqlite3.Connection | None = None

    def subscriptions(self) -> list[Subscription]:
        """All of them, the oldest first. Raises `BoxUnavailable`, as does everything here."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT id, url, events, keys, made_ms, made_by FROM subscription ORDER BY made_ms, id"
            ).fetchall()
        return [_subscription(row) for row in rows]

    def put(self, subscription: Subscription) -> None:
        """Add or replace one. Raises `TooManySubscriptions`."""
        with self._transaction() as db:
            others = db.execute("SELECT count(*) FROM subscription WHERE id <> ?", [subscription.id])
            if others.fetchone()[0] >= SUBSCRIPTIONS_MAX:
                raise TooManySubscriptions(f"at most {SUBSCRIPTIONS_MAX}")
            keys = json.dumps([asdict(key) for key in subscription.keys])
            row = (subscription.id, subscription.url, json.dumps(subscription.events), keys)
            made = (subscription.made_ms, subscription.made_by)
            db.execute("INSERT OR REPLACE INTO subscription VALUES (?, ?, ?, ?, ?, ?)", [*row, *made])

    def delete(self, id_: str) -> bool:
        """Remove one and what it waits for; whether it was there."""
        with self._transaction() as db:
            db.execute("DELETE FROM delivery WHERE subscription = ?", [id_])
            return db.execute("DELETE FROM subscription WHERE id = ?", [id_]).rowcount > 0

    def positions(self) -> dict[tuple[str, int], int]:
        """Where to read on."""
        with self._transaction() as db:
            return {(t, p): n for t, p, n in db.execute("SELECT topic, part, next FROM position")}

    def take_in(self, events: Sequence[Event], positions: Mapping[tuple[str, int], int], now_ms: int) -> int:
        """Deliveries of what was read, and the positions behind it, at once; how many are new. A subscription
        with too many waiting gets further ones dead: they can be tried again later."""
        with self._transaction() as db:
            told = db.execute("SELECT id, events FROM subscription").fetchall()
            waiting = dict(
                db.execute(
                    "SELECT subscription, count(*) FROM delivery WHERE state = 'waits' GROUP BY subscription"
                ).fetchall()
            )
            states = {id_: "dead" if waiting.get(id_, 0) >= PENDING_MAX else "waits" for id_, _ in told}
            rows = [
                (id_, event.id, event.type, json.dumps(event.to_json()).encode(), states[id_], now_ms)
                for event in events
                for id_, patterns in told
                if wanted(json.loads(patterns), event.type)
            ]
            before = db.total_changes
            db.executemany(
                "INSERT OR IGNORE INTO delivery"
                " (subscription, event, type, body, state, attempts, next_ms, error)"
                " VALUES (?, ?, ?, ?, ?, 0, ?, '')",
                rows,
            )
            made = db.total_changes - before
            db.executemany(
                "INSERT OR REPLACE INTO position VALUES (?, ?, ?)",
                [(topic, part, next_) for (topic, part), next_ in positions.items()],
            )
            return made

    def due(self, subscription: str, now_ms: int, limit: int, without: Sequence[int]) -> list[Delivery]:
        """Deliveries that may be tried now, the oldest first, but those under way."""
        marks = ",".join("?" * len(without))
        with self._transaction() as db:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM delivery"
                f" WHERE subscription = ? AND state = 'waits' AND next_ms <= ? AND number NOT IN ({marks})"
                " ORDER BY number LIMIT ?",
                [subscription, now_ms, *without, limit],
            ).fetchall()
        return [Delivery(*row) for row in rows]

    def delivered(self, number: int, now_ms: int) -> None:
        """The receiver has it; the body is not kept."""
        done = "UPDATE delivery SET state = 'done', body = x'', next_ms = ? WHERE number = ?"
        self._note(done, now_ms, number)

    def failed(self, number: int, error: str, next_ms: int | None, now_ms: int) -> None:
        """Try again at `next_ms`; `None`: it is dead."""
        state = "dead" if next_ms is None else "waits"
        self._note(
            "UPDATE delivery SET attempts = attempts + 1, error = ?, state = ?, next_ms = ? WHERE number = ?",
            error[:300], state, now_ms if next_ms is None else next_ms, number,
        )  # fmt: skip

    def dead(self, subscription: str, limit: int) -> list[Delivery]:
        """Deliveries that were given up, the newest first."""
        with self._transaction() as db:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM delivery"
                " WHERE subscription = ? AND state = 'dead' ORDER BY number DESC LIMIT ?",
                [subscription, limit],
            ).fetchall()
        return [Delivery(*row) for row in rows]

    def redeliver(self, subscription: str, now_ms: int) -> int:
        """Let the dead ones be tried again, from the beginning; how many."""
        with self._transaction() as db:
            return db.execute(
                "UPDATE delivery SET state = 'waits', attempts = 0, next_ms = ?"
                " WHERE subscription = ? AND state = 'dead'",
                [now_ms, subscription],
            ).rowcount

    def counts(self) -> dict[tuple[str, str], int]:
        """Deliveries by subscription and state."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT subscription, state, count(*) FROM delivery"
                " WHERE state IN ('waits', 'dead') GROUP BY 1, 2"
            ).fetchall()
        return {(id_, state): n for id_, state, n in rows}

    def tidy(self, now_ms: int) -> None:
        """Forget what was delivered for long, and the oldest dead ones of too many."""
        with self._transaction() as db:
            db.execute("DELETE FROM delivery WHERE state = 'done' AND next_ms < ?", [now_ms - KEPT_MS])
            db.execute(
                "DELETE FROM delivery WHERE state = 'dead' AND number NOT IN"
                " (SELECT number FROM delivery WHERE state = 'dead' ORDER BY number DESC LIMIT ?)",
                [DEAD_MAX],
            )

    def close(self) -> None:
        """Close the file."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _note(self, statement: str, *values: Any) -> None:
        with self._transaction() as db:
            db.execute(statement, values)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            db = self._connected()
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.rollback()
                raise
            db.commit()
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise BoxUnavailable(f"{self._path}: {error}") from error

    def _connected(self) -> sqlite3.Connection:
        if self._open is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # It holds the secrets of the signatures.
            self._path.touch(mode=0o600)
            db = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.executescript(_SCHEMA)
            self._open = db
        return self._open


def _subscription(row: Sequence[Any]) -> Subscription:
    id_, url, events, keys, made_ms, made_by = row
    made = tuple(Key(**key) for key in json.loads(keys))
    return Subscription(id_, url, tuple(json.loads(events)), made, made_ms, made_by)
