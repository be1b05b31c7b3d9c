"""The tables of the query store as this code uses them; `migrations` made them so.

    decision   one row per decided transaction; `fraud`: its newest label, NULL without any
    term       what a decision can be found by: its entities, the rules that hit, its reasons;
               in an SQLite file `found_by` instead, and a decision has a `place` (see api/past/terms.py)
    label, lifecycle, doubled, position
    warm_file, moved   where decisions went that are no longer here; `adopted`: all of its rows are moved
    review_case, case_event   decisions to review, and what people did with them (see api/case.py)

Text is compared byte by byte on both databases: cursors rely on one order.
"""

from typing import Any, Final

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, SmallInteger, Table, Text
from sqlalchemy.dialects.postgresql import TEXT
from sqlalchemy.types import TypeEngine

VERSION: Final = "0006"
VERSION_TABLE: Final = "alembic_version"
METADATA: Final = MetaData()
Word: Final[TypeEngine[str]] = Text().with_variant(TEXT(collation="C"), "postgresql")


def _table(name: str, *columns: Column[Any], by_key: bool = True) -> Table:
    """`by_key`: an SQLite file holds the rows in the order of their keys, else in that in which they came."""
    return Table(name, METADATA, *columns, sqlite_with_rowid=not by_key)


def _key(name: str, kind: TypeEngine[Any]) -> Column[Any]:
    return Column(name, kind, primary_key=True, autoincrement=False)


def _value(name: str, kind: TypeEngine[Any], *, nullable: bool = False) -> Column[Any]:
    return Column(name, kind, nullable=nullable)


DECISION: Final = _table(
    "decision",
    _key("id", Word),
    _value("time_ms", BigInteger()),
    _value("decided_ms", BigInteger()),
    _value("outcome", Word),
    _value("score", Integer(), nullable=True),
    _value("record", LargeBinary()),
    _value("fraud", SmallInteger(), nullable=True),
    by_key=False,
)
# Everything that a search may filter by stands in the index: what does not match is never fetched.
Index(
    "decision_newest",
    DECISION.c.decided_ms, DECISION.c.id, DECISION.c.outcome, DECISION.c.score, DECISION.c.time_ms,
    DECISION.c.fraud,
)  # fmt: skip
Index(
    "decision_labelled",
    DECISION.c.fraud, DECISION.c.decided_ms, DECISION.c.id,
    sqlite_where=DECISION.c.fraud.is_not(None), postgresql_where=DECISION.c.fraud.is_not(None),
)  # fmt: skip
TERM: Final = _table(
    "term", _key("kind", Word), _key("value", Word), _key("decided_ms", BigInteger()), _key("id", Word)
)
LABEL: Final = _table(
    "label",
    _key("id", Word),
    _value("transaction_id", Word),
    _value("time_ms", BigInteger()),
    _value("fraud", SmallInteger()),
    _value("record", LargeBinary()),
)
Index("label_of", LABEL.c.transaction_id)
LIFECYCLE: Final = _table(
    "lifecycle",
    _key("id", Word),
    _value("transaction_id", Word),
    _value("time_ms", BigInteger()),
    _value("kind", Word),
    _value("record", LargeBinary()),
)
Index("lifecycle_of", LIFECYCLE.c.transaction_id)
DOUBLED: Final = _table(
    "doubled",
    _value("id", Word),
    _key("topic", Word),
    _key("partition", Integer()),
    _key("offset", BigInteger()),
    _value("record", LargeBinary()),
)
POSITION: Final = _table(
    "position", _key("topic", Word), _key("partition", Integer()), _value("next_offset", BigInteger())
)
WARM_FILE: Final = _table(
    "warm_file", _key("number", Integer()), _value("name", Word), _value("adopted", SmallInteger())
)
Index("warm_file_name", WARM_FILE.c.name, unique=True)
MOVED: Final = _table("moved", _key("id", Word), _value("file", Integer()))
REVIEW_CASE: Final = _table(
    "review_case",
    _key("id", Word),
    _value("opened_ms", BigInteger()),
    _value("time_ms", BigInteger()),
    _value("score", Integer(), nullable=True),
    _value("status", Word),
    _value("assignee", Word, nullable=True),
    _value("resolution", Word, nullable=True),
    _value("version", Integer()),
    _value("updated_ms", BigInteger(), nullable=True),
)
CASE_EVENT: Final = _table(
    "case_event",
    _key("id", Word),
    _value("case_id", Word),
    _value("version", Integer()),
    _value("time_ms", BigInteger()),
    _value("record", LargeBinary()),
)
