"""Has each call reviewed once it is over: an observer of all calls of a process.

It keeps what is said in calls that go on, and hands it to the `Reviewer` with their last event.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from app.agents.analysis import TranscriptLine
from app.agents.brain import Reviewer
from app.events import (
    AgentSaid,
    Analysis,
    CallAdmitted,
    CallEnded,
    CallerSaid,
    CallEvent,
    CallId,
    MessageTaken,
    Party,
    TurnAnalyzed,
)

__all__ = ["CallReviews"]


@dataclass(slots=True)
class _Notes:
    """What is known of a call that goes on."""

    admitted: CallAdmitted
    lines: list[TranscriptLine] = field(default_factory=list)
    messages: list[dict[str, str]] = field(default_factory=list)
    analysis: Analysis | None = None


class CallReviews:
    """Follows calls for a reviewer; `observe` is fed with every event of every call."""

    def __init__(self, reviewer: Reviewer) -> None:
        self._reviewer = reviewer
        self._live: dict[CallId, _Notes] = {}

    def observe(self, event: CallEvent) -> None:
        """Note an event; never waits."""
        if isinstance(event, CallAdmitted):
            self._live[event.call_id] = _Notes(event)
            return
        notes = self._live.get(event.call_id)
        if notes is None:
            return
        match event:
            case CallerSaid() if event.text:
                notes.lines.append(TranscriptLine(party=Party.CALLER, text=event.text))
            case AgentSaid() if event.heard_text:
                notes.lines.append(TranscriptLine(party=Party.AGENT, text=event.heard_text))
            case TurnAnalyzed():
                notes.analysis = event.analysis
            case MessageTaken():
                notes.messages.append({"recipient": event.recipient, "text": event.text})
            case CallEnded():
                del self._live[event.call_id]
                self._reviewer.on_call_over(event.call_id, notes.lines, _facts(notes, event))
            case _:
                pass


def _facts(notes: _Notes, ended: CallEnded) -> dict[str, Any]:
    """What goes along with a review: about the call, and not out of it."""
    admitted, summary, analysis = notes.admitted, ended.summary, notes.analysis
    return {
        "carrier_call_id": admitted.carrier_call_id,
        "caller_number": admitted.caller_number,
        "called_number": admitted.called_number,
        "agent": summary.agent,
        "reason": summary.reason.value,
        "duration_ms": summary.duration_ms,
        "cost_usd": summary.cost_usd,
        "intent": "" if analysis is None else analysis.intent,
        "entities": {} if analysis is None else dict(analysis.entities),
        "messages": notes.messages,
    }
