"""Rows of the tables as the values that they stand for, and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterable
from typing import Any, Final

from sqlalchemy import RowMapping

from app.events import AgentSaid, CallerSaid, Party
from app.json_text import parse_json
from app.store.base import Direction, Outcome, StoredCall, StoredEvent
from app.store.codec import decode
from app.store.search_terms import words_of

__all__ = ["CALL_FIELDS", "SPEECH", "call_of", "call_row", "event_of", "event_row", "lines_of"]

SPEECH: Final[Collection[str]] = ("caller_said", "agent_said")
"""The types of the events that have a line in the transcript."""
CALL_FIELDS: Final = [field.name for field in dataclasses.fields(StoredCall)]

# In ASCII: nothing in it that a database has no place for. `json.dumps` would make it each time.
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode


def call_row(call: StoredCall) -> dict[str, Any]:
    row = {name: getattr(call, name) for name in CALL_FIELDS}
    return {**row, "direction": call.direction.value, "outcome": call.outcome.value}


def call_of(row: RowMapping) -> StoredCall:
    facts = dict(row)
    facts["direction"] = Direction(facts["direction"])
    facts["outcome"] = Outcome(facts["outcome"])
    facts["cost_unknown"] = tuple(facts["cost_unknown"])
    return StoredCall(**facts)


def event_row(record: StoredEvent) -> dict[str, Any]:
    return {
        "call_id": record.call_id,
        "seq": record.seq,
        "at": record.at,
        "at_ms": record.at_ms,
        "type": record.type,
        "body": _encode(record.body),
    }


def event_of(row: RowMapping) -> StoredEvent:
    return StoredEvent(**{**row, "body": parse_json(row["body"])})


def lines_of(records: Iterable[StoredEvent]) -> list[dict[str, Any]]:
    """The lines of the transcript that events are."""
    return [line for record in records if (line := _line_of(record)) is not None]


def _line_of(record: StoredEvent) -> dict[str, Any] | None:
    """The line of an event: of the agent's words those that were heard."""
    if record.type not in SPEECH:
        return None
    match decode(record):
        case CallerSaid(text=said):
            party = Party.CALLER
        case AgentSaid(cut_off=cut_off) as event:
            party, said = Party.AGENT, event.heard_text if cut_off else event.text
        case _:
            return None
    if not said.strip():
        return None
    return {
        "call_id": record.call_id,
        "seq": record.seq,
        "at": record.at,
        "party": party.value,
        "text": said,
        "words": " ".join(words_of(said)),
    }
