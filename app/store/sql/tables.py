"""The tables of the call history, and the types of their columns.

`calls` and `transcript` are made of `events` and can be made anew. Times are integers: milliseconds
since 1970, UTC, which both databases sort and index alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    false,
    text,
)

from app.json_text import whole_text

__all__ = [
    "Instant",
    "JsonText",
    "PlainText",
    "Serial",
    "call_tags",
    "calls",
    "erasures",
    "events",
    "instances",
    "metadata",
    "notes",
    "open_calls",
    "retention_marks",
    "transcript",
]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


class Instant(TypeDecorator[datetime]):
    """A moment, as milliseconds since 1970."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else (value - _EPOCH) // _MILLISECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else _EPOCH + value * _MILLISECOND


class PlainText(TypeDecorator[str]):
    """Text without what PostgreSQL or UTF-8 has no place for: NUL and lone surrogates."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        return whole_text(value.replace("\0", ""))

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        return value


class JsonText(TypeDecorator[Any]):
    """A list or an object, as JSON in ASCII."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return (
            None
            if value is None
            else json.dumps(dict(value) if isinstance(value, Mapping) else value)
        )

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


# SQLite numbers its rows by itself in INTEGER keys only.
Serial = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData()

events = Table(
    "events",
    metadata,
    Column("position", Serial, primary_key=True, autoincrement=True),
    Column("call_id", PlainText, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("at", Instant, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("type", String(64), nullable=False),
    Column("body", Text, nullable=False),
    Index("events_of_call", "call_id", "seq", unique=True),
    Index(
        "events_of_transfers",
        "call_id",
        postgresql_where=text("type = 'transfer_ended'"),
        sqlite_where=text("type = 'transfer_ended'"),
    ),
    # A position that was given once is never given again, also after the newest were erased.
    sqlite_autoincrement=True,
)

calls = Table(
    "calls",
    metadata,
    Column("call_id", PlainText, primary_key=True),
    Column("direction", String(16), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("reason", PlainText, nullable=False),
    Column("carrier_call_id", PlainText, nullable=False),
    Column("caller_number", PlainText, nullable=False),
    Column("called_number", PlainText, nullable=False),
    Column("agent", PlainText, nullable=False),
    Column("model", PlainText, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("answered_at", Instant),
    Column("ended_at", Instant),
    Column("duration_ms", BigInteger),
    Column("first_sound_ms", BigInteger),
    Column("turn_latency_p50_ms", BigInteger),
    Column("turn_latency_p95_ms", BigInteger),
    Column("turns", BigInteger, nullable=False),
    Column("barge_ins", BigInteger, nullable=False),
    Column("tool_calls", BigInteger, nullable=False),
    Column("tool_errors", BigInteger, nullable=False),
    Column("voice_errors", BigInteger, nullable=False),
    Column("transferred_to", PlainText, nullable=False),
    Column("messages", BigInteger, nullable=False),
    Column("cost_usd", Float),
    Column("costs", JsonText, nullable=False, server_default="{}"),
    Column("cost_unknown", JsonText, nullable=False, server_default="[]"),
    Column("cost_estimated", Boolean, nullable=False, server_default=false()),
    Column("recording_file", PlainText, nullable=False, server_default=""),
    Column("recording_end", PlainText, nullable=False, server_default=""),
    Column("configuration", PlainText, nullable=False, server_default=""),
    Column("last_seq", BigInteger, nullable=False),
    # A list of what hardly any call has walks through the index, and not through the rows.
    Index("calls_by_time", "started_at", "call_id", "cost_usd", "barge_ins"),
    Index("calls_by_reason", "reason", "started_at", "call_id"),
    Index("calls_by_direction", "direction", "started_at", "call_id"),
    Index("calls_by_outcome", "outcome", "started_at", "call_id"),
    Index("calls_by_agent", "agent", "started_at", "call_id"),
    Index("calls_by_caller", "caller_number", "started_at"),
    Index("calls_by_called", "called_number", "started_at"),
    Index(
        "calls_with_errors",
        "started_at",
        "call_id",
        postgresql_where=text("tool_errors + voice_errors > 0"),
        sqlite_where=text("tool_errors + voice_errors > 0"),
    ),
)

# The words of calls, as they are searched for; `words` is what the full-text index holds.
transcript = Table(
    "transcript",
    metadata,
    Column("line", Serial, primary_key=True, autoincrement=True),
    Column("call_id", PlainText, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("at", Instant, nullable=False),
    Column("party", String(16), nullable=False),
    Column("text", PlainText, nullable=False),
    Column("words", PlainText, nullable=False),
    Index("transcript_of_call", "call_id", "seq", unique=True),
)

# Calls that a process holds: those of one that is gone are closed as lost.
open_calls = Table(
    "open_calls",
    metadata,
    Column("call_id", PlainText, primary_key=True),
    Column("instance", PlainText, nullable=False),
)

instances = Table(
    "instances",
    metadata,
    Column("instance", PlainText, primary_key=True),
    Column("seen_at", Instant, nullable=False),
)

# Events of these calls are refused: of a spool that is read later, or of a review that comes late.
erasures = Table(
    "erasures",
    metadata,
    Column("call_id", PlainText, primary_key=True),
    Column("at", Instant, nullable=False),
)

# Times before which retention has removed a kind of data already.
retention_marks = Table(
    "retention_marks",
    metadata,
    Column("kind", String(32), primary_key=True),
    Column("until", Instant, nullable=False),
)

notes = Table(
    "notes",
    metadata,
    Column("note_id", Serial, primary_key=True, autoincrement=True),
    Column("call_id", PlainText, nullable=False),
    Column("at", Instant, nullable=False),
    Column("author", PlainText, nullable=False),
    Column("text", PlainText, nullable=False),
    Index("notes_of_call", "call_id"),
)

call_tags = Table(
    "call_tags",
    metadata,
    Column("call_id", PlainText, primary_key=True),
    Column("tag", PlainText, primary_key=True),
    Index("calls_of_tag", "tag", "call_id"),
)
