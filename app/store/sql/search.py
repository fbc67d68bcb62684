"""The full-text search over transcripts: FTS5 in SQLite, tsvector in PostgreSQL.

Both index the words that `app.store.search_terms` has cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import RowMapping, Select, func, select, text

from app.errors import StoreError
from app.events import CallId
from app.store.base import Page, TranscriptHit
from app.store.search_terms import Term
from app.store.sql.tables import transcript

__all__ = ["MERGE_INDEX", "hits_of", "lines_with"]

MERGE_INDEX: Final = text("INSERT INTO transcript_words(transcript_words) VALUES ('optimize')")
"""For SQLite: removed words stay in the index's segments until these are merged."""


def lines_with(
    terms: Sequence[Term], cursor: str | None, limit: int, *, is_sqlite: bool
) -> Select[Any]:
    """The newest lines that hold all terms, behind a cursor.

    Terms are letters and digits: they need no escape.

    Raises:
        StoreError: the cursor is none of a search (`bad_cursor`).
    """
    before = None if cursor is None else _line_from_cursor(cursor)
    lines = select(transcript).order_by(transcript.c.line.desc()).limit(limit)
    if not is_sqlite:
        if before is not None:
            lines = lines.where(transcript.c.line < before)
        index = func.to_tsvector(text("'simple'"), transcript.c.words)
        wanted = (func.to_tsquery(text("'simple'"), _postgres_term(term)) for term in terms)
        return lines.where(*(index.op("@@")(term) for term in wanted))
    match = " AND ".join(f'"{" ".join(term.words)}"{"*" if term.prefix else ""}' for term in terms)
    # The index gives lines from its end on: of a common word it need not read all.
    found = text(
        "SELECT rowid FROM transcript_words WHERE transcript_words MATCH :match"
        " AND rowid < :before ORDER BY rowid DESC LIMIT :most"
    ).bindparams(match=match, before=2**62 if before is None else before, most=limit)
    return lines.where(transcript.c.line.in_(found))


def hits_of(rows: Sequence[RowMapping], limit: int) -> Page[TranscriptHit]:
    """A page of hits, from one row more than the page may have."""
    hits = [
        TranscriptHit(
            call_id=CallId(row["call_id"]),
            seq=row["seq"],
            at=row["at"],
            party=row["party"],
            text=row["text"],
        )
        for row in rows[:limit]
    ]
    return Page(hits, str(rows[limit - 1]["line"]) if len(rows) > limit else None)


def _postgres_term(term: Term) -> str:
    words = " <-> ".join(term.words)
    return f"{words}:*" if term.prefix else words


def _line_from_cursor(cursor: str) -> int:
    if not cursor.isascii() or not cursor.isdigit() or len(cursor) > 18:
        raise StoreError("the cursor is none of this list", code="bad_cursor")
    return int(cursor)
