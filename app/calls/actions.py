"""Actions of a conversation: values that `Call` performs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from app.agents.dialogue.actions import DialogueAction, GiveUp, Record, RunTool, ToVoice
from app.agents.guardrails.rules import CheckGuardrail
from app.events import EndReason

__all__ = [
    "UNHEARD",
    "Action",
    "AppendAudio",
    "CheckMessages",
    "Clear",
    "ClosingPrompt",
    "Decide",
    "End",
    "Intent",
    "PlayAudio",
    "RenewVoice",
    "TransferCall",
]


@dataclass(frozen=True, slots=True)
class AppendAudio:
    """Caller audio for the model, in the model's format."""

    audio: bytes


@dataclass(frozen=True, slots=True)
class PlayAudio:
    """Agent audio for the caller (may be empty), and a mark behind it, if any."""

    payload: bytes
    mark: str | None


@dataclass(frozen=True, slots=True)
class Clear:
    """Throw away agent audio, both unsent and queued at the carrier."""


@dataclass(frozen=True, slots=True)
class RenewVoice:
    """Open a fresh connection in this quiet moment, before the model's session limit."""


UNHEARD: Final = "goodbye_unheard"
"""Detail of an end whose last words the model has not said: the carrier speaks to the caller."""


@dataclass(frozen=True, slots=True)
class End:
    """The call is over, for this reason."""

    reason: EndReason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Decide:
    """The caller has agreed to a tool by keypad, or not."""

    tool_call_id: str
    approved: bool


@dataclass(frozen=True, slots=True)
class TransferCall:
    """The caller has chosen a destination by keypad."""

    destination: str


@dataclass(frozen=True, slots=True)
class CheckMessages:
    """Find out whether messages can be kept, and report with `on_messages_checked`."""

    run: RunTool


Action = (
    ToVoice
    | RunTool
    | CheckGuardrail
    | Record
    | GiveUp
    | Decide
    | TransferCall
    | CheckMessages
    | AppendAudio
    | PlayAudio
    | Clear
    | RenewVoice
    | End
)


@dataclass(frozen=True, slots=True)
class ClosingPrompt:
    """Say this, and end the call for this reason once it was heard."""

    reason: EndReason
    text: str
    detail: str = ""


# Parts of the conversation ask for these; the conversation makes actions of those that `Call` does
# not know: interruptions, closing prompts, and tools that act on the call.
Intent = DialogueAction | Action | ClosingPrompt
