"""Calls as JSON, CSV and text, for files that leave the server. Pure."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any, Final

from app.events import (
    AgentSaid,
    CallEnded,
    CallerSaid,
    HandedOff,
    KeyPressed,
    MessageTaken,
    ToolRan,
    TransferEnded,
)
from app.store.base import Note, StoredCall, StoredEvent
from app.store.codec import decode

__all__ = ["CSV_COLUMNS", "as_csv", "as_json", "as_text", "event_json"]

CSV_COLUMNS: Final[Sequence[str]] = [field.name for field in fields(StoredCall)]
# A spreadsheet takes what begins like this for a formula, and names and codes may be a caller's.
_FORMULA: Final = re.compile(r"[=@\t\r]|[+-](?![\d .()-]*$)")


def as_json(
    call: StoredCall,
    events: Sequence[StoredEvent],
    notes: Sequence[Note] = (),
    tags: Sequence[str] = (),
) -> dict[str, Any]:
    """Everything that is kept of a call, as JSON has it: times in ISO 8601, UTC."""
    return {
        **_plain(asdict(call)),
        "tags": list(tags),
        "notes": [_plain(asdict(note)) for note in notes],
        "events": [event_json(event) for event in events],
    }


def event_json(event: StoredEvent) -> dict[str, Any]:
    """An event, as JSON has it."""
    return {
        "seq": event.seq,
        "at": _iso(event.at),
        "at_ms": event.at_ms,
        "type": event.type,
        **event.body,
    }


def as_csv(calls: Iterable[StoredCall], *, header: bool = True) -> str:
    """Rows of calls, one a line, for spreadsheets."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\r\n")  # RFC 4180
    if header:
        rows.writerow(CSV_COLUMNS)
    for call in calls:
        row = _plain(asdict(call))
        rows.writerow([_cell(row[name]) for name in CSV_COLUMNS])
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, dict | tuple):
        value = json.dumps(value) if value else ""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def as_text(call: StoredCall, events: Iterable[StoredEvent]) -> str:
    """A call as people read it: who called, what was said and done, how it ended."""
    lines = [
        f"{_iso(call.started_at)}  {call.caller_number} called {call.called_number}",
        f"call {call.call_id}, {call.outcome.value}" + (f" ({call.reason})" if call.reason else ""),
        "",
    ]
    for record in events:
        text = _line(decode(record))
        if text is not None:
            minutes, seconds = divmod(record.at_ms // 1000, 60)
            lines.append(f"{minutes:02}:{seconds:02}  {text}")
    return "\n".join(lines) + "\n"


def _line(event: object) -> str | None:
    match event:
        case CallerSaid():
            return f"caller: {event.text or '(not understood)'}"
        case AgentSaid(cut_off=True):
            return f"agent: {event.heard_text} (interrupted)"
        case AgentSaid():
            return f"agent: {event.text}"
        case KeyPressed():
            return f"[key {event.digit}]"
        case MessageTaken():
            return f"[message for {event.recipient}: {event.text}]"
        case ToolRan():
            return f"[tool {event.name}{f': {event.error}' if event.error else ''}]"
        case HandedOff():
            return f"[{event.from_agent} handed over to {event.to_agent}]"
        case TransferEnded():
            return f"[transfer to {event.destination}: {event.outcome}]"
        case CallEnded():
            return f"[ended: {event.summary.reason.value}]"
        case _:
            return None


def _plain(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _iso(value) if isinstance(value, datetime) else value for name, value in facts.items()
    }


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
