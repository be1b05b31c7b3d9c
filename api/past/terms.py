"""Which decisions have a term: an entity's pseudonym, a rule that hit, a reason.

On PostgreSQL a row of `term` for each. In an SQLite file, which is written a page at a time, such rows fall
all over their tree, six pages for a decision. There SQLite's full-text index (FTS5) keeps them: each commit
adds one sorted piece, and pieces are merged as they become many.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, Protocol

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    column,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    table,
    tuple_,
)
from sqlalchemy.sql.expression import FromClause

from api.past.rows import Row, terms_of
from api.past.schema import DECISION, TERM

if TYPE_CHECKING:
    from api.past.backend import Postgres
    from api.past.search import Place

# A decision's place in an SQLite file: its time in ms, then these bits for those of one millisecond.
SAME_MS_BITS: Final = 20
MS_MAX: Final = (1 << 63 - SAME_MS_BITS) - 2
_MS: Final = 1 << SAME_MS_BITS
_PLACED: Final = table("decision", column("place"), column("id"), column("decided_ms"))
_FOUND: Final = table("found_by", column("rowid"), column("found_by"))
_ADD_DECISION: Final = (
    "INSERT INTO decision (place, id, time_ms, decided_ms, outcome, score, record, fraud)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)

Term = tuple[str, str]
# What `Terms.leading` tells.
Leading = tuple[Select[Any], Sequence[Term]]


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the order, newest first: behind `after`, times in ms from (inclusive) until (exclusive)."""

    after: "Place | None" = None
    from_ms: int | None = None
    until_ms: int | None = None


class Terms(Protocol):
    """Decisions and their terms, on one kind of database."""

    def add(self, connection: Connection, rows: Sequence[Row], terms: Mapping[str, Sequence[Row]]) -> None:
        """Store new decisions, rows in the order of their columns, and their terms, by id."""

    def remove(self, connection: Connection, decisions: Mapping[str, bytes]) -> None:
        """Remove decisions, records by id, with their terms."""

    def leading(self, terms: Sequence[Term], within: Stretch, looks: int) -> Leading:
        """The newest `looks` decisions of a stretch that have the first of the terms, newest first.

        `decided_ms` and `id` of each, and those of the terms that are still to be checked. They may be more,
        where several were decided in one millisecond.
        """

    def last(self, terms: Sequence[Term], within: Stretch, looks: int) -> Select[Any]:
        """The last row of `leading`; none if there are fewer than `looks`."""

    def columns(self) -> Sequence[ColumnElement[Any]]:
        """Columns of decisions that `present` asks for, beside `decided_ms` and `id`."""

    def present(self, term: Term, looked: FromClause) -> ColumnElement[bool]:
        """Condition that rows have a term."""


class TermRows:
    """Rows of the table `term`, in the order of their key."""

    def __init__(self, backend: "Postgres") -> None:
        self._backend = backend

    def add(self, connection: Connection, rows: Sequence[Row], terms: Mapping[str, Sequence[Row]]) -> None:
        """See `Terms.add`."""
        self._backend.add(connection, DECISION, rows)
        self._backend.add(connection, TERM, [term for row in rows for term in terms[row[0]]])

    def remove(self, connection: Connection, decisions: Mapping[str, bytes]) -> None:
        """See `Terms.remove`."""
        self._backend.remove(connection, TERM, [t for record in decisions.values() for t in terms_of(record)])
        self._backend.remove(connection, DECISION, [(id_,) for id_ in decisions])

    def leading(self, terms: Sequence[Term], within: Stretch, looks: int) -> Leading:
        """See `Terms.leading`."""
        return self._ordered(terms[0], within).limit(looks), terms[1:]

    def last(self, terms: Sequence[Term], within: Stretch, looks: int) -> Select[Any]:
        """See `Terms.last`."""
        return self._ordered(terms[0], within).offset(looks - 1).limit(1)

    def columns(self) -> Sequence[ColumnElement[Any]]:
        """See `Terms.columns`."""
        return ()

    def present(self, term: Term, looked: FromClause) -> ColumnElement[bool]:
        """See `Terms.present`."""
        kind, value = term
        return exists().where(
            and_(
                TERM.c.kind == kind, TERM.c.value == value,
                TERM.c.decided_ms == looked.c.decided_ms, TERM.c.id == looked.c.id,
            )
        )  # fmt: skip

    def _ordered(self, term: Term, within: Stretch) -> Select[Any]:
        kind, value = term
        found = select(TERM.c.decided_ms, TERM.c.id).where(TERM.c.kind == kind, TERM.c.value == value)
        return found.where(*behind(TERM, within)).order_by(TERM.c.decided_ms.desc(), TERM.c.id.desc())


class TermTokens:
    """Tokens in an FTS5 table. A decision's number there is its place, which grows with its time."""

    def add(self, connection: Connection, rows: Sequence[Row], terms: Mapping[str, Sequence[Row]]) -> None:
        """See `Terms.add`."""
        if not rows:
            return
        # FTS5 ends a piece where a number is not above the one before.
        placed = self._placed(connection, sorted(rows, key=lambda row: (row[2], row[0])))
        connection.exec_driver_sql(_ADD_DECISION, [(place, *row) for place, row in placed])
        tokens = [(place, _tokens(terms[row[0]])) for place, row in placed]
        connection.exec_driver_sql("INSERT INTO found_by (rowid, tokens) VALUES (?, ?)", tokens)

    def _placed(self, connection: Connection, rows: Sequence[Row]) -> list[tuple[int, Row]]:
        """Places for new rows, which are in order: each behind all of its millisecond."""
        newest = self._last_before(connection, MS_MAX + 1 << SAME_MS_BITS)
        found: list[tuple[int, Row]] = []
        last = -1
        for row in rows:
            first = _first_place(row[2])
            if last < first:
                # Hardly ever is one as old as what is there.
                last = self._last_before(connection, first + _MS) if first <= newest else -1
            last = max(first, last + 1)
            found.append((last, row))
        return found

    def _last_before(self, connection: Connection, place: int) -> int:
        text = "SELECT max(place) FROM decision WHERE place < ?"
        last = connection.exec_driver_sql(text, (place,)).scalar()
        return -1 if last is None else int(last)

    def remove(self, connection: Connection, decisions: Mapping[str, bytes]) -> None:
        """See `Terms.remove`: FTS5 has to be told what it was given, so a record's terms never change."""
        text = "SELECT place, id FROM decision WHERE id IN (SELECT value FROM json_each(?))"
        placed = connection.exec_driver_sql(text, (json.dumps(list(decisions)),)).all()
        if not placed:
            return
        gone = [(place, _tokens(terms_of(decisions[id_]))) for place, id_ in placed]
        text = "INSERT INTO found_by (found_by, rowid, tokens) VALUES ('delete', ?, ?)"
        connection.exec_driver_sql(text, gone)
        connection.exec_driver_sql("DELETE FROM decision WHERE place = ?", [(place,) for place, _ in placed])

    def leading(self, terms: Sequence[Term], within: Stretch, looks: int) -> Leading:
        """See `Terms.leading`: they have all terms, and nobody of the last one's millisecond is missing."""
        start = func.coalesce(_first_of_ms(self._far(terms, within, looks).scalar_subquery()), 0)
        found = _placed_among(_FOUND).where(*_having(terms, within), _FOUND.c.rowid >= start)
        return found.order_by(_PLACED.c.decided_ms.desc(), _PLACED.c.id.desc()), ()

    def last(self, terms: Sequence[Term], within: Stretch, looks: int) -> Select[Any]:
        """See `Terms.last`: of all within that row's millisecond."""
        far = self._far(terms, within, looks).subquery("far")
        first = _first_of_ms(far.c.rowid)
        found = _placed_among(far.join(_FOUND, and_(_FOUND.c.rowid >= first, _FOUND.c.rowid < first + _MS)))
        found = found.where(*_having(terms, within))
        return found.order_by(_PLACED.c.decided_ms, _PLACED.c.id).limit(1)

    def _far(self, terms: Sequence[Term], within: Stretch, looks: int) -> Select[Any]:
        """Number of the row that is so many away; none if there are fewer."""
        found = select(_FOUND.c.rowid).where(*_having(terms, within))
        return found.order_by(_FOUND.c.rowid.desc()).offset(looks - 1).limit(1)

    def columns(self) -> Sequence[ColumnElement[Any]]:
        """See `Terms.columns`."""
        return (literal_column("decision.place").label("place"),)

    def present(self, term: Term, looked: FromClause) -> ColumnElement[bool]:
        """See `Terms.present`: listed as far as the rows reach; to ask for each takes longer."""
        ends = [select(end(looked.c.place)).scalar_subquery() for end in (func.min, func.max)]
        having = select(_FOUND.c.rowid).where(*_having([term], Stretch()))
        return looked.c.place.in_(having.where(_FOUND.c.rowid >= ends[0], _FOUND.c.rowid <= ends[1]))


def token(kind: str, value: str) -> str:
    """What stands for a term among the tokens: 32 hexadecimal digits (BLAKE2b), whatever is in it."""
    return blake2b(f"{kind}\0{value}".encode(), digest_size=16).hexdigest()


def behind(source: FromClause, within: Stretch) -> list[ColumnElement[bool]]:
    """Conditions that rows with `decided_ms` and `id` are of a stretch."""
    found: list[ColumnElement[bool]] = []
    if within.from_ms is not None:
        found.append(source.c.decided_ms >= within.from_ms)
    if within.until_ms is not None:
        found.append(source.c.decided_ms < within.until_ms)
    if within.after is not None:
        here = tuple_(source.c.decided_ms, source.c.id)
        # The first alone bounds the index on both databases.
        found.append(source.c.decided_ms <= within.after.decided_ms)
        found.append(here < tuple_(literal(within.after.decided_ms), literal(within.after.id)))
    return found


def _having(terms: Sequence[Term], within: Stretch) -> list[ColumnElement[bool]]:
    """Conditions on `found_by`: all of the terms, and of a stretch."""
    found: list[ColumnElement[bool]] = [
        _FOUND.c.found_by.op("MATCH")(" AND ".join(token(*term) for term in terms))
    ]
    if within.from_ms is not None:
        found.append(_FOUND.c.rowid >= _first_place(within.from_ms))
    if within.until_ms is not None:
        found.append(_FOUND.c.rowid < _first_place(within.until_ms))
    if within.after is not None:
        first = _first_place(within.after.decided_ms)
        older = _PLACED.c.decided_ms == within.after.decided_ms, _PLACED.c.id < within.after.id
        found.append(_FOUND.c.rowid < first + _MS)
        found.append(or_(_FOUND.c.rowid < first, _FOUND.c.rowid.in_(select(_PLACED.c.place).where(*older))))
    return found


def _placed_among(numbers: FromClause) -> Select[Any]:
    """`decided_ms` and `id` of the decisions whose numbers are there."""
    columns = _PLACED.c.decided_ms, _PLACED.c.id
    return select(*columns).join_from(numbers, _PLACED, _PLACED.c.place == _FOUND.c.rowid)


def _first_of_ms(place: ColumnElement[Any]) -> ColumnElement[Any]:
    return place.op(">>")(SAME_MS_BITS).op("<<")(SAME_MS_BITS)


def _first_place(time_ms: int) -> int:
    return min(max(time_ms, 0), MS_MAX) << SAME_MS_BITS


def _tokens(terms: Sequence[Row]) -> str:
    return " ".join(token(kind, value) for kind, value, _, _ in terms)
