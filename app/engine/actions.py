"""The actions that an engine session asks its shell to perform, as values.

The session decides, `app.engine.host` sends, listens, speaks and writes. Actions are performed in
order. Every one that starts work names the item or response that the work belongs to, so that late
results can be told apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from app.engine.stages.base import TextRequest
from app.realtime.events import ServerEvent, ServerVad

__all__ = [
    "AbandonHearing",
    "Action",
    "FeedTurn",
    "FinishHearing",
    "Generate",
    "KeepAudio",
    "KeepText",
    "Listen",
    "Note",
    "NoteKind",
    "Prepare",
    "ResetVad",
    "Send",
    "Speak",
    "StopSpeaking",
    "TakeAudio",
]


class NoteKind(StrEnum):
    """Remarks for the operator, logged once per session at DEBUG."""

    INSTRUCTIONS_IGNORED = "instructions_ignored"
    TOOL_NOT_OFFERED = "tool_not_offered"


@dataclass(frozen=True, slots=True)
class Send:
    """Send this event to the client."""

    event: ServerEvent


@dataclass(frozen=True, slots=True)
class TakeAudio:
    """Convert client audio to PCM16 at 16 kHz, look for speech in it, call `on_audio`."""

    audio: bytes


@dataclass(frozen=True, slots=True)
class ResetVad:
    """Restart voice activity detection; `None` leaves turns to the client."""

    settings: ServerVad | None


@dataclass(frozen=True, slots=True)
class Listen:
    """Begin to recognize the caller turn `item_id` in the dialogue state `context`.

    `languages`: codes of those that the session expects, where it names any.
    """

    item_id: str
    context: str
    languages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FeedTurn:
    """More audio of a turn: int16 mono, 16 kHz."""

    item_id: str
    pcm16: bytes


@dataclass(frozen=True, slots=True)
class FinishHearing:
    """The turn is complete: report what was heard with `on_heard` or `on_hearing_failed`."""

    item_id: str


@dataclass(frozen=True, slots=True)
class AbandonHearing:
    """Forget a turn that was never committed."""

    item_id: str


@dataclass(frozen=True, slots=True)
class Speak:
    """Make speech of `text`: report with `on_speech`, then `on_speech_end` or `_failed`."""

    response_id: str
    text: str
    voice: str
    speed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Generate:
    """Ask the text model, and speak its words sentence by sentence where `speaks`.

    Report with `on_words`, `on_speech`, then `on_generated` or `on_speech_failed`.
    """

    response_id: str
    request: TextRequest
    speaks: bool
    voice: str
    speed: float


@dataclass(frozen=True, slots=True)
class Prepare:
    """Begin the reply that will be asked for if the caller's turn is over; report nothing yet."""

    generate: Generate


@dataclass(frozen=True, slots=True)
class StopSpeaking:
    """Stop the words and the speech of this response, if any are being made."""

    response_id: str


@dataclass(frozen=True, slots=True)
class KeepAudio:
    """Keep a caller's message (int16 mono, 16 kHz, the whole turn): report with `on_kept`."""

    item_id: str
    pcm16: bytes


@dataclass(frozen=True, slots=True)
class KeepText:
    """Keep a message that was typed: report with `on_kept`."""

    item_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Note:
    """Log a notice."""

    kind: NoteKind


Action = (
    Send
    | TakeAudio
    | ResetVad
    | Listen
    | FeedTurn
    | FinishHearing
    | AbandonHearing
    | Speak
    | Generate
    | Prepare
    | StopSpeaking
    | KeepAudio
    | KeepText
    | Note
)
