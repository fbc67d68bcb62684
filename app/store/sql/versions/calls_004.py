"""Indexes of transfers, and of the beginnings of words in SQLite."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["branch_labels", "depends_on", "down_revision", "revision", "upgrade"]

revision = "calls_004"
down_revision = "calls_003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    transfers = sa.text("type = 'transfer_ended'")
    op.create_index(
        "events_of_transfers",
        "events",
        ["call_id"],
        sqlite_where=transfers,
        postgresql_where=transfers,
    )
    if op.get_bind().dialect.name == "sqlite":
        for statement in _WORDS:
            op.execute(sa.text(statement))


# https://sqlite.org/fts5.html#prefix_indexes: a table has them from its beginning or not at all.
_WORDS = (
    "DROP TABLE transcript_words",
    """CREATE VIRTUAL TABLE transcript_words USING fts5(
        words, content='transcript', content_rowid='line',
        tokenize="unicode61 remove_diacritics 0", prefix='1 2 3')""",
    "INSERT INTO transcript_words(transcript_words) VALUES ('rebuild')",
)
