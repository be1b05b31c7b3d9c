"""Terms of an SQLite file in its full-text index, and places of decisions for it to refer to.

As rows, terms fell all over their tree: three quarters of what was written for a decision. PostgreSQL keeps
rows. Processes of an older version that search by an entity, a rule or a reason are told that the table is
not there.
"""

import sqlalchemy as sa
from alembic import op

from api.engine import QueryStoreUnavailable
from api.past.terms import MS_MAX, SAME_MS_BITS, token

revision = "0006"
down_revision = "0005"

INDEX = (
    "CREATE VIRTUAL TABLE found_by"
    " USING fts5(tokens, content='', detail=none, columnsize=0, tokenize='ascii')"
)


def upgrade() -> None:
    """Copy them over, as long as that takes."""
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        return
    make_index(connection)
    op.create_table(
        "decision_placed",
        sa.Column("place", sa.Integer(), primary_key=True),
        sa.Column("id", sa.Text(), nullable=False, unique=True),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.Column("decided_ms", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("score", sa.Integer()),
        sa.Column("record", sa.LargeBinary(), nullable=False),
        sa.Column("fraud", sa.SmallInteger()),
    )
    time_ms = f"min(max(decided_ms, 0), {MS_MAX})"
    op.execute(
        f"INSERT INTO decision_placed SELECT ({time_ms} << {SAME_MS_BITS})"
        f" + row_number() OVER (PARTITION BY {time_ms} ORDER BY decided_ms, id) - 1,"
        " id, time_ms, decided_ms, outcome, score, record, fraud FROM decision ORDER BY decided_ms, id"
    )
    op.drop_table("decision")
    op.rename_table("decision_placed", "decision")
    connection.connection.driver_connection.create_function("token", 2, token)  # type: ignore[union-attr]
    op.execute(
        "INSERT INTO found_by (rowid, tokens) SELECT decision.place, group_concat(token(kind, value), ' ')"
        " FROM term JOIN decision ON decision.id = term.id GROUP BY decision.place ORDER BY decision.place"
    )
    op.drop_table("term")
    op.create_index(
        "decision_newest", "decision", ["decided_ms", "id", "outcome", "score", "time_ms", "fraud"]
    )
    op.create_index(
        "decision_labelled", "decision", ["fraud", "decided_ms", "id"],
        sqlite_where=sa.text("fraud IS NOT NULL"),
    )  # fmt: skip


def make_index(connection: sa.Connection, text: str = INDEX) -> None:
    """The full-text index. Raises `QueryStoreUnavailable` where SQLite has none."""
    try:
        connection.exec_driver_sql(text)
    except sa.exc.OperationalError as error:
        if "no such module" not in str(error.orig):
            raise
        raise QueryStoreUnavailable(
            "SQLite was built without FTS5 here: use a Python whose SQLite has it, as Debian's, or PostgreSQL"
        ) from error
