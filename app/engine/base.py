"""The three parts that an engine session is made of, as it sees them.

Audio in is mono int16 PCM at 16 kHz (recognizer), audio out mono int16 PCM at 24 kHz
(synthesizer). Nothing here blocks the event loop: parts that burn CPU live in worker processes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

__all__ = [
    "Heard",
    "Hearing",
    "PartialHearing",
    "Recognizer",
    "Reply",
    "Responder",
    "Synthesizer",
    "ToolUse",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """The recognizer's result for one caller turn.

    `transcript` is shown to people and is unverified. `intents` maps each listener (`lm`,
    `grammar`) to the intent that it found, or `None`; the responder acts where they agree.
    `repeated_ms` is sound that was transcribed, and billed, before this: the turn seemed to end.
    """

    transcript: str
    repeated_ms: int = 0
    intents: dict[str, str | None] = field(default_factory=dict)


class Hearing(Protocol):
    """The recognition of one caller turn."""

    def push(self, pcm16: bytes) -> None:
        """Take caller audio: int16 mono, 16 kHz, any amount. Never blocks, never fails."""
        ...

    async def finish(self) -> Heard:
        """No more audio: return what was said.

        Raises:
            VoiceUnavailable: the worker died or took too long.
        """
        ...

    def abandon(self) -> None:
        """Forget this turn; safe at any time."""
        ...


@runtime_checkable
class PartialHearing(Protocol):
    """A hearing that can tell the words before the turn is over."""

    async def so_far(self) -> Heard | None:
        """Return what was said up to now, while more may come; None where that cannot be told.

        Raises:
            VoiceUnavailable: as `finish`.
        """
        ...

    def go_on(self) -> None:
        """The caller goes on: what was told is not all."""
        ...


class Recognizer(Protocol):
    """Speech to text, shared by all sessions of an engine."""

    def listen(self, context: str, languages: Sequence[str] = ()) -> Hearing:
        """Begin a caller turn in the dialogue state `context`, which chooses the grammar.

        `languages`: codes of those that the caller may speak, where they are known.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """A function call that the responder makes through the ordinary protocol events."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The responder's next step: say `text` (may be empty), then call `tools`."""

    text: str = ""
    tools: tuple[ToolUse, ...] = ()


class Responder(Protocol):
    """The dialogue of one session. Holds its state; pure apart from it, and quick."""

    opened: bool
    """The agent has spoken, in the dialogue's words or in the client's; the session sets it."""

    @property
    def context(self) -> str:
        """The dialogue state that the next caller turn is heard in."""
        ...

    @property
    def keeps_audio(self) -> bool:
        """The next caller turn is a message whose audio is to be kept."""
        ...

    def is_message(self, text: str) -> bool:
        """This text, typed now, is the message and no command."""
        ...

    def not_kept(self) -> Reply:
        """Go on after a message that could not be kept."""
        ...

    def offer_tools(self, names: Collection[str]) -> None:
        """These functions may be called from now on."""
        ...

    def open(self) -> Reply:
        """Speak first."""
        ...

    def repeat(self) -> Reply:
        """Say the last words again: they were asked for, and nothing new was said."""
        ...

    def hear(self, heard: Heard) -> Reply:
        """Answer a caller turn."""
        ...

    def read(self, text: str) -> Reply:
        """Answer typed text; `[keypad] 5` means that the caller pressed 5."""
        ...

    def tool_result(self, name: str, output: str) -> Reply:
        """Go on after a tool answered."""
        ...


class Synthesizer(Protocol):
    """Text to speech, shared by all sessions of an engine."""

    def speak(self, text: str, *, voice: str, speed: float) -> AsyncGenerator[bytes, None]:
        """Yield int16 mono PCM at 24 kHz in chunks of at most 200 ms, first chunk at once.

        Closing the generator early stops the work behind it.

        Raises:
            VoiceUnavailable: no synthesizer is installed, or the worker died.
        """
        ...
