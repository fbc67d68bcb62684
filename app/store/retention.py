"""Retention of the history of calls by kind, and events without the words in them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from app.store.base import StoredEvent

__all__ = ["MESSAGES", "WORDS", "Retention", "without"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Days after which a kind is removed; 0 keeps it."""

    calls_days: int = 0
    transcripts_days: int = 0
    recordings_days: int = 0
    messages_days: int = 0


# Words and what was made of them, by the type of the event: each field and what it becomes.
WORDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "caller_said": {"text": ""},
    "agent_said": {"text": "", "heard_text": ""},
    "guardrail_tripped": {"reason": ""},
    "tool_approval_required": {"arguments": ""},
    "turn_analyzed": {"analysis": {}},
    "task_started": {
        "task": {
            "key": "",
            "call_id": "",
            "text": "",
            "intent": "",
            "entities": {},
            "summary": "",
        }
    },
    "model_told": {"text": ""},
    "operator_acted": {"text": ""},
    "task_answered": {"answer": ""},
    "call_reviewed": {"review": {}},
    "answer_judged": {"evidence": []},
    "opted_out": {"words": ""},
    # The text that had to be said stays: it is the operator's own, and the proof.
    "disclosure_heard": {"spoken": ""},
}
MESSAGES: Final[Mapping[str, Mapping[str, Any]]] = {"message_taken": {"text": ""}}


def without(record: StoredEvent, fields: Mapping[str, Mapping[str, Any]]) -> StoredEvent:
    """The event without what `fields` names of its type."""
    return replace(record, body={**record.body, **fields.get(record.type, {})})
