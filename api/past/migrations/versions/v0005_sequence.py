"""Decisions of an SQLite file in the order in which they came.

By their ids, which come in no order, each was written into the middle of the file, and none filled its pages.
PostgreSQL keeps rows so by itself.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Copy them over, as long as that takes."""
    if op.get_bind().dialect.name != "sqlite":
        return
    op.create_table(
        "decision_in_order",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.Column("decided_ms", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("score", sa.Integer()),
        sa.Column("record", sa.LargeBinary(), nullable=False),
        sa.Column("fraud", sa.SmallInteger()),
    )
    op.execute(
        "INSERT INTO decision_in_order SELECT id, time_ms, decided_ms, outcome, score, record, fraud"
        " FROM decision ORDER BY decided_ms, id"
    )
    op.drop_table("decision")
    op.rename_table("decision_in_order", "decision")
    op.create_index(
        "decision_newest", "decision", ["decided_ms", "id", "outcome", "score", "time_ms", "fraud"]
    )
    op.create_index(
        "decision_labelled", "decision", ["fraud", "decided_ms", "id"],
        sqlite_where=sa.text("fraud IS NOT NULL"),
    )  # fmt: skip
