"""Past decisions, labels and lifecycle events: a projection of the log that can be thrown away and rebuilt.

One protocol; SQLite or PostgreSQL behind it (`api.past`). Positions in the topics are stored in the
transaction that stores the records, so that a projector that dies repeats nothing and loses nothing; records
are keyed by id, so that repeating would change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from api.case import Change
    from api.past.cases import CasePage, CaseSearch
    from api.past.search import Page, Place, Search


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

    def search(self, search: Search, after: Place | None, limit: int) -> Page:
        """At most `limit` decisions that match, newest first, behind a place of the order."""

    def cases(self, search: CaseSearch, after: Place | None, limit: int) -> CasePage:
        """At most `limit` review cases, newest first, behind a place of the order."""

    def case(self, case_id: str) -> Mapping[str, Any] | None:
        """A review case with its events."""

    def change_case(
        self, case_id: str, expected: int, change: Change, record: Callable[[int], tuple[str, int, bytes]]
    ) -> tuple[Mapping[str, Any], bool]:
        """Change a case that has the expected version; the case, and whether that was done before.

        `record` makes the change of a version durable and gives its id, time and JSON; what it raises
        prevents the change. Raises `UnknownCase`, `StaleCase`. Others' writing waits meanwhile.
        """

    def labels_of(self, transaction_id: str) -> list[Mapping[str, Any]]:
        """Labels of a transaction, oldest first."""

    def lifecycle_of(self, transaction_id: str) -> list[Mapping[str, Any]]:
        """Lifecycle events of a transaction, oldest first."""

    def project(self, records: Sequence[Logged], positions: Mapping[tuple[str, int], int]) -> list[str]:
        """Store records and positions together; ids that another decision had taken (doubled).

        Raises `MalformedRecord`, `QueryStoreUnavailable`: nothing was stored then.
        """

    def positions(self) -> dict[tuple[str, int], int]:
        """Next offset of every `(topic, partition)`."""

    def counts(self) -> dict[str, int]:
        """Number of decisions, labels, lifecycle events and doubled decisions."""

    def close(self) -> None:
        """Release the database."""


def open_store(url: str, warm: Path | None = None, *, migrating: bool = False) -> QueryStore:
    """The query store at `sqlite:///PATH` or `postgresql://...`, its schema as this code needs it.

    `warm`: directory that old decisions went to. `migrating`: the schema is made so where it is not, which
    may take minutes; only a new SQLite file is made by whoever opens it.
    Raises `QueryStoreUnavailable`, `ValueError` for another address.
    """
    # Imported by those who look back: SQLAlchemy takes a while.
    from api.past.store import SqlStore

    return SqlStore.open(url, warm, migrating=migrating)
