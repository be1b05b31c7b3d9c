"""The first tables, as SQLite files have them that were made before there were versions."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TEXT

revision = "0001"
down_revision = None

_WORD = sa.Text().with_variant(TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Make them."""
    _create(
        "decision",
        _key("id", _WORD), _value("time_ms", sa.BigInteger()), _value("decided_ms", sa.BigInteger()),
        _value("outcome", _WORD), sa.Column("score", sa.Integer()), _value("record", sa.LargeBinary()),
    )  # fmt: skip
    op.create_index("decision_recent", "decision", [sa.text("decided_ms DESC")])
    _create(
        "decision_entity",
        _key("entity", _WORD), _key("pseudonym", _WORD), _key("time_ms", sa.BigInteger()), _key("id", _WORD),
    )  # fmt: skip
    _create(
        "label",
        _key("id", _WORD), _value("transaction_id", _WORD), _value("time_ms", sa.BigInteger()),
        _value("fraud", sa.SmallInteger()), _value("record", sa.LargeBinary()),
    )  # fmt: skip
    op.create_index("label_of", "label", ["transaction_id"])
    _create(
        "lifecycle",
        _key("id", _WORD), _value("transaction_id", _WORD), _value("time_ms", sa.BigInteger()),
        _value("kind", _WORD), _value("record", sa.LargeBinary()),
    )  # fmt: skip
    op.create_index("lifecycle_of", "lifecycle", ["transaction_id"])
    _create(
        "doubled",
        _value("id", _WORD), _key("topic", _WORD), _key("partition", sa.Integer()),
        _key("offset", sa.BigInteger()), _value("record", sa.LargeBinary()),
    )  # fmt: skip
    _create(
        "position",
        _key("topic", _WORD), _key("partition", sa.Integer()), _value("next_offset", sa.BigInteger()),
    )  # fmt: skip


def _create(name: str, *columns: sa.Column[Any]) -> None:
    op.create_table(name, *columns, sqlite_with_rowid=False)


def _key(name: str, kind: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, kind, primary_key=True, autoincrement=False)


def _value(name: str, kind: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)
