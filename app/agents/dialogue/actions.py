"""Actions of a dialogue: values that a shell performs."""

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

    `agent` names the agent who made the call, and whose tools may run.
    """

    tool_call_id: str
    name: str
    arguments: str
    agent: str = ""


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Stop the agent's audio wherever it plays; what was not heard is cut off."""


@dataclass(frozen=True, slots=True)
class Record:
    """Record an event for logs, metrics and transcripts."""

    event: CallEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """The model cannot go on. `retryable`: a fresh connection may help; `passes`: waiting may."""

    code: str
    retryable: bool
    passes: bool = False


DialogueAction = ToVoice | RunTool | CheckGuardrail | Interrupt | Record | GiveUp
