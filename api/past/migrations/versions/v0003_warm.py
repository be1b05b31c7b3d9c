"""Where decisions went that are no longer here: files of the warm store, and the file of each id."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TEXT

revision = "0003"
down_revision = "0002"

_WORD = sa.Text().with_variant(TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the two tables."""
    op.create_table(
        "warm_file",
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("name", _WORD, nullable=False),
        sa.Column("adopted", sa.SmallInteger(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("warm_file_name", "warm_file", ["name"], unique=True)
    op.create_table(
        "moved",
        sa.Column("id", _WORD, primary_key=True),
        sa.Column("file", sa.Integer(), nullable=False),
        sqlite_with_rowid=False,
    )
