"""What a dialogue wants done: values that a shell performs."""

from __future__ import annotations

from dataclasses import dataclass

from app.agents.guardrails.rules import CheckGuardrail
from app.events import CallEvent
from app.realtime.events import ClientEvent

__all__ = ["DialogueAction", "GiveUp", "Interrupt", "Record", "RunTool", "ToVoice"]


@dataclass(frozen=True, slots=True)
class ToVoice:
    """Send an event to the voice model, after everything that waits there."""

    event: ClientEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTool:
    """Run a function call of the model and report with `on_tool_done`.

    `agent` is the one whose tools count: the one that spoke when the call was made.
    """

    tool_call_id: str
    name: str
    arguments: str
    agent: str = ""


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Stop what the agent says, wherever it plays; what was not heard is cut off."""


@dataclass(frozen=True, slots=True)
class Record:
    """Something happened that logs, metrics and transcripts want to know."""

    event: CallEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """The model cannot go on. `retryable`: a fresh connection may help."""

    code: str
    retryable: bool


DialogueAction = ToVoice | RunTool | CheckGuardrail | Interrupt | Record | GiveUp
