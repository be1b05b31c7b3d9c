"""What a search needs: the newest label beside the decision, terms in the order of deciding.

Rows that are there get their terms from their own records, piece by piece.
"""

from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TEXT

from api.record import decode_json

revision = "0002"
down_revision = "0001"

PIECE = 5_000
_WORD = sa.Text().with_variant(TEXT(collation="C"), "postgresql")
_DECISION = sa.table("decision", sa.column("id"), sa.column("record"))
_NEWEST = """
    UPDATE decision SET fraud = (
        SELECT fraud FROM label WHERE transaction_id = decision.id ORDER BY time_ms DESC, id DESC LIMIT 1)
    WHERE id IN (SELECT transaction_id FROM label)
"""


def upgrade() -> None:
    """Add them, and drop what they replace."""
    op.add_column("decision", sa.Column("fraud", sa.SmallInteger()))
    op.execute(_NEWEST)
    term = op.create_table(
        "term",
        *(
            sa.Column(name, kind, primary_key=True, autoincrement=False)
            for name, kind in (
                ("kind", _WORD), ("value", _WORD), ("decided_ms", sa.BigInteger()), ("id", _WORD),
            )
        ),
        sqlite_with_rowid=False,
    )  # fmt: skip
    for rows in _terms(op.get_bind()):
        op.bulk_insert(term, rows)
    op.drop_table("decision_entity")
    op.drop_index("decision_recent", "decision")
    op.create_index(
        "decision_newest", "decision", ["decided_ms", "id", "outcome", "score", "time_ms", "fraud"]
    )
    labelled = sa.text("fraud IS NOT NULL")
    op.create_index(
        "decision_labelled", "decision", ["fraud", "decided_ms", "id"],
        sqlite_where=labelled, postgresql_where=labelled,
    )  # fmt: skip


def _terms(connection: sa.Connection) -> Iterator[list[dict[str, object]]]:
    last = ""
    while True:
        page = sa.select(_DECISION).where(_DECISION.c.id > last).order_by(_DECISION.c.id).limit(PIECE)
        found = connection.execute(page).all()
        if not found:
            return
        last = found[-1].id
        rows = []
        for id_, payload in found:
            record = decode_json(payload)
            pairs = {(f"entity:{name}", value) for name, value in record["entities"].items()}
            pairs |= {("rule", r["id"]) for r in record.get("rules", ()) if r["result"] == "hit"}
            pairs |= {("reason", r["code"]) for r in record.get("reasons", ())}
            rows += [
                {"kind": kind, "value": value, "decided_ms": record["decided_ms"], "id": id_}
                for kind, value in sorted(pairs)
            ]
        if rows:
            yield rows
