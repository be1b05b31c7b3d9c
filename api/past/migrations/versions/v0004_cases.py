"""Review cases and what was done with them. Decisions to review that are there get their cases."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TEXT

from api.record import decode_json

revision = "0004"
down_revision = "0003"

PIECE = 2_000
_WORD = sa.Text().with_variant(TEXT(collation="C"), "postgresql")
_DECISION = sa.table("decision", sa.column("id"), sa.column("outcome"), sa.column("record"))


def upgrade() -> None:
    """Make the tables."""
    case = op.create_table(
        "review_case",
        sa.Column("id", _WORD, primary_key=True),
        sa.Column("opened_ms", sa.BigInteger(), nullable=False),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.Column("score", sa.Integer()),
        sa.Column("status", _WORD, nullable=False),
        sa.Column("assignee", _WORD),
        sa.Column("resolution", _WORD),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("updated_ms", sa.BigInteger()),
        sqlite_with_rowid=False,
    )
    op.create_index("review_case_newest", "review_case", ["opened_ms", "id"])
    op.create_index("review_case_status", "review_case", ["status", "opened_ms", "id"])
    op.create_index("review_case_assignee", "review_case", ["assignee", "opened_ms", "id"])
    op.create_table(
        "case_event",
        sa.Column("id", _WORD, primary_key=True),
        sa.Column("case_id", _WORD, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.Column("record", sa.LargeBinary(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("case_event_of", "case_event", ["case_id", "version"])
    _open(case)


def _open(case: sa.Table) -> None:
    connection, last = op.get_bind(), ""
    while True:
        page = sa.select(_DECISION.c.id, _DECISION.c.record).where(
            _DECISION.c.outcome == "review", _DECISION.c.id > last
        )
        found = connection.execute(page.order_by(_DECISION.c.id).limit(PIECE)).all()
        if not found:
            return
        last = found[-1].id
        records = [decode_json(record) for _, record in found]
        rows = [
            {
                "id": r["id"], "opened_ms": r["decided_ms"], "time_ms": r["time_ms"], "score": r["score"],
                "status": "open", "version": 1,
            }
            for r in records
            if r["type"] == "decision"
        ]  # fmt: skip
        if rows:
            op.bulk_insert(case, rows)
