"""Lists of calls: their filters, their figures, and the cursors of their pages."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    RowMapping,
    Select,
    TextClause,
    and_,
    bindparam,
    func,
    or_,
    select,
    text,
    tuple_,
    type_coerce,
    union,
)

from app.errors import StoreError
from app.store.base import CallFilter, Figures, Outcome, Problem
from app.store.sql.tables import call_tags, calls, events

__all__ = ["counted_calls", "cursor_of", "figures_of", "has_number", "listed_calls"]

_NO_FAILURE: Final = ("answered", "canceled", "unknown")


def listed_calls(wanted: CallFilter, cursor: str | None, limit: int) -> Select[Any]:
    """Calls, the newest first, behind a cursor.

    Raises:
        StoreError: the cursor is none of `cursor_of` (`bad_cursor`).
    """
    conditions = [*_conditions(wanted)]
    if cursor is not None:
        at, call_id = _from_cursor(cursor)
        conditions.append(tuple_(calls.c.started_at, calls.c.call_id) < tuple_(_bound(at), call_id))
    newest = (calls.c.started_at.desc(), calls.c.call_id.desc())
    if wanted.number is not None:
        # Each side by its index: one OR would sort all calls of a number that everybody calls.
        sides = (
            select(calls.c.call_id).where(column == wanted.number, *conditions)
            for column in (calls.c.caller_number, calls.c.called_number)
        )
        found = (select(side.order_by(*newest).limit(limit).subquery()) for side in sides)
        conditions = [calls.c.call_id.in_(union(*found))]
    return select(calls).where(*conditions).order_by(*newest).limit(limit)


def counted_calls(wanted: CallFilter, each: timedelta, ahead: timedelta) -> Select[Any]:
    """Rows for `figures_of`: calls by stretches of time and by outcome; see `CallStore.figures`."""
    size_ms, ahead_ms = (span // timedelta(milliseconds=1) for span in (each, ahead))
    row = calls.c
    began = type_coerce(row.started_at, BigInteger)
    of_number = [] if wanted.number is None else [has_number(wanted.number)]
    return (
        select(
            (began - (began + ahead_ms) % size_ms).label("bucket_ms"),
            row.outcome,
            func.count().label("calls"),
            func.count(row.turn_latency_p50_ms).label("timed"),
            func.sum(row.turn_latency_p50_ms).label("p50"),
            func.sum(row.turn_latency_p95_ms).label("p95"),
            func.sum(row.cost_usd).label("cost"),
            func.sum(row.duration_ms).label("duration"),
        )
        .where(*_conditions(wanted), *of_number)
        .group_by(text("bucket_ms"), row.outcome)
        .order_by(text("bucket_ms"))
    )


def figures_of(rows: Sequence[RowMapping]) -> Sequence[Figures]:
    """The figures of each stretch of time, oldest first."""
    parts: dict[int, list[RowMapping]] = {}
    for row in rows:
        parts.setdefault(int(row["bucket_ms"]), []).append(row)
    return [_figures(at_ms, of) for at_ms, of in parts.items()]


def _conditions(wanted: CallFilter) -> Iterator[ColumnElement[bool] | TextClause]:
    """The conditions on a row, but for that on its numbers."""
    row = calls.c
    if wanted.since is not None:
        yield row.started_at >= wanted.since
    if wanted.until is not None:
        yield row.started_at < wanted.until
    if wanted.outcomes:
        yield row.outcome.in_([one.value for one in wanted.outcomes])
    if wanted.direction is not None:
        yield row.direction == wanted.direction.value
    if wanted.agent is not None:
        yield row.agent == wanted.agent
    if wanted.reason is not None:
        yield row.reason == wanted.reason
    if wanted.tag is not None:
        tagged = select(call_tags.c.call_id).where(call_tags.c.tag == wanted.tag)
        yield row.call_id.in_(tagged)
    if wanted.with_errors or Problem.TOOL_FAILED in wanted.problems:
        yield text("tool_errors + voice_errors > 0")  # as the index has it: a bound 0 is unlike it
    if wanted.over_usd is not None:
        yield row.cost_usd > wanted.over_usd
    for problem in wanted.problems:
        yield _happened(problem)


def _happened(problem: Problem) -> ColumnElement[bool]:
    row = calls.c
    match problem:
        case Problem.WENT_SILENT:
            unheard = and_(row.outcome == Outcome.ANSWERED.value, row.first_sound_ms.is_(None))
            return or_(row.reason == "silence", unheard)
        case Problem.BARGE_IN:
            return row.barge_ins > 0
        case Problem.TOOL_FAILED:
            return row.tool_errors > 0
        case Problem.TRANSFER_FAILED:
            failed = select(events.c.call_id).where(
                text("type = 'transfer_ended'"),  # as the index has it
                *(events.c.body.not_like(f'%"outcome":"{fine}"%') for fine in _NO_FAILURE),
            )
            return row.call_id.in_(failed)


def _figures(at_ms: int, rows: Sequence[RowMapping]) -> Figures:
    def total(name: str) -> float:
        return sum(float(one[name] or 0) for one in rows)

    timed = total("timed")
    return Figures(
        at=datetime.fromtimestamp(at_ms / 1000, UTC),
        calls=int(total("calls")),
        outcomes={str(one["outcome"]): int(one["calls"]) for one in rows},
        turn_latency_p50_ms=round(total("p50") / timed, 1) if timed else None,
        turn_latency_p95_ms=round(total("p95") / timed, 1) if timed else None,
        cost_usd=round(total("cost"), 6),
        duration_ms=int(total("duration")),
    )


def has_number(number: str) -> ColumnElement[bool]:
    """It is the caller's, or was called."""
    return or_(calls.c.caller_number == number, calls.c.called_number == number)


def _bound(at: datetime) -> Any:
    return bindparam(None, at, type_=calls.c.started_at.type)


def cursor_of(at: datetime, call_id: str) -> str:
    """The place in a list behind a call that began then."""
    ms = round(at.timestamp() * 1000)
    return base64.urlsafe_b64encode(f"{ms}:{call_id}".encode()).decode().rstrip("=")


def _from_cursor(cursor: str) -> tuple[datetime, str]:
    try:
        padded = cursor.encode() + b"=" * (-len(cursor) % 4)
        ms, _, call_id = base64.urlsafe_b64decode(padded).decode().partition(":")
        at = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=int(ms))
        return at, call_id
    except (ValueError, OverflowError, binascii.Error):
        raise StoreError("the cursor is none of this list", code="bad_cursor") from None
