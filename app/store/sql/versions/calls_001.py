"""The call history: events, the rows made of them, notes, tags, and who holds which call.

A revision is never changed once it was released: the next one changes the tables.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["branch_labels", "depends_on", "down_revision", "revision", "upgrade"]

revision = "calls_001"
down_revision = None
branch_labels = ("calls",)
depends_on = None

_serial = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "events",
        sa.Column("position", _serial, primary_key=True, autoincrement=True),
        sa.Column("call_id", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("events_of_call", "events", ["call_id", "seq"], unique=True)
    op.create_table(
        "calls",
        sa.Column("call_id", sa.Text, primary_key=True),
        sa.Column("direction", sa.String(16), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("carrier_call_id", sa.Text, nullable=False),
        sa.Column("caller_number", sa.Text, nullable=False),
        sa.Column("called_number", sa.Text, nullable=False),
        sa.Column("agent", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("answered_at", sa.BigInteger),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("duration_ms", sa.BigInteger),
        sa.Column("first_sound_ms", sa.BigInteger),
        sa.Column("turn_latency_p50_ms", sa.BigInteger),
        sa.Column("turn_latency_p95_ms", sa.BigInteger),
        sa.Column("turns", sa.BigInteger, nullable=False),
        sa.Column("barge_ins", sa.BigInteger, nullable=False),
        sa.Column("tool_calls", sa.BigInteger, nullable=False),
        sa.Column("tool_errors", sa.BigInteger, nullable=False),
        sa.Column("voice_errors", sa.BigInteger, nullable=False),
        sa.Column("transferred_to", sa.Text, nullable=False),
        sa.Column("messages", sa.BigInteger, nullable=False),
        sa.Column("cost_usd", sa.Float),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
    )
    op.create_index("calls_by_time", "calls", ["started_at", "call_id"])
    op.create_index("calls_by_outcome", "calls", ["outcome", "started_at", "call_id"])
    op.create_index("calls_by_agent", "calls", ["agent", "started_at", "call_id"])
    op.create_index("calls_by_caller", "calls", ["caller_number", "started_at"])
    op.create_index("calls_by_called", "calls", ["called_number", "started_at"])
    op.create_table(
        "transcript",
        sa.Column("line", _serial, primary_key=True, autoincrement=True),
        sa.Column("call_id", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("party", sa.String(16), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("words", sa.Text, nullable=False),
    )
    op.create_index("transcript_of_call", "transcript", ["call_id", "seq"], unique=True)
    op.create_table(
        "open_calls",
        sa.Column("call_id", sa.Text, primary_key=True),
        sa.Column("instance", sa.Text, nullable=False),
    )
    op.create_table(
        "instances",
        sa.Column("instance", sa.Text, primary_key=True),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "erasures",
        sa.Column("call_id", sa.Text, primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "retention_marks",
        sa.Column("kind", sa.String(32), primary_key=True),
        sa.Column("until", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "notes",
        sa.Column("note_id", _serial, primary_key=True, autoincrement=True),
        sa.Column("call_id", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.create_index("notes_of_call", "notes", ["call_id"])
    op.create_table(
        "call_tags",
        sa.Column("call_id", sa.Text, primary_key=True),
        sa.Column("tag", sa.Text, primary_key=True),
    )
    op.create_index("calls_of_tag", "call_tags", ["tag", "call_id"])
    for statement in _FULL_TEXT[op.get_bind().dialect.name]:
        op.execute(sa.text(statement))


# Words come cut and folded by `app.store.search_terms`: neither database does more than separate
# them.
_FULL_TEXT = {
    "postgresql": [
        "CREATE INDEX transcript_words ON transcript USING gin (to_tsvector('simple', words))",
    ],
    # https://sqlite.org/fts5.html#external_content_tables
    "sqlite": [
        """CREATE VIRTUAL TABLE transcript_words USING fts5(
            words, content='transcript', content_rowid='line',
            tokenize="unicode61 remove_diacritics 0")""",
        """CREATE TRIGGER transcript_added AFTER INSERT ON transcript BEGIN
            INSERT INTO transcript_words(rowid, words) VALUES (new.line, new.words); END""",
        """CREATE TRIGGER transcript_removed AFTER DELETE ON transcript BEGIN
            INSERT INTO transcript_words(transcript_words, rowid, words)
            VALUES ('delete', old.line, old.words); END""",
    ],
}
