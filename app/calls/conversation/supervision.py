"""A supervisor in a call, who whispers to the agent or speaks in its place. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from app.agents.dialogue.actions import ToVoice
from app.agents.dialogue.dialogue import Dialogue
from audio.format import PCMU_8K, AudioFormat
from audio.transcoder import Transcoder

__all__ = ["Supervision"]


WHISPERED: Final = (
    "A supervisor of yours tells you this. The caller does not hear it, and is not to be told that "
    "there is a supervisor: "
)
HANDED_BACK: Final = (
    "For the last {seconds} seconds a person of our team has talked with the caller in your "
    "place. You have heard the caller's words, and not the person's. The person has handed the "
    "call back to you: say in one short sentence that you are there again, and go on."
)


class Supervision:
    """The person who may speak in the agent's place, and what the agent is told of it."""

    def __init__(self, dialogue: Dialogue) -> None:
        self._dialogue = dialogue
        self._since_ms: int | None = None
        self._transcoder: Transcoder | None = None

    @property
    def taken_over(self) -> bool:
        """A person speaks to the caller."""
        return self._since_ms is not None

    def whisper(self, text: str) -> Sequence[ToVoice]:
        """Tell the agent something that the caller does not hear."""
        return self._dialogue.tell(WHISPERED + text, keep=True)

    def take_over(self, now_ms: int) -> Sequence[ToVoice]:
        """Have the agent listen only."""
        self._since_ms = now_ms
        return self._listen_only(True)

    def hand_back(self, now_ms: int) -> Sequence[ToVoice]:
        """Have the agent speak again, and tell it what it has missed; nothing unless it has."""
        if self._since_ms is None:
            return []
        told = HANDED_BACK.format(seconds=round((now_ms - self._since_ms) / 1000))
        self._since_ms = self._transcoder = None
        return [*self._listen_only(False), *self._dialogue.prompt(told, now_ms)]

    def _listen_only(self, on: bool) -> Sequence[ToVoice]:
        update = self._dialogue.active.listen_only(on)
        return [] if update is None else [update]

    def sound(self, audio: bytes, carrier_format: AudioFormat) -> bytes:
        """The person's voice, mu-law at 8 kHz, as the carrier takes it."""
        if carrier_format == PCMU_8K:
            return audio
        if self._transcoder is None:
            self._transcoder = Transcoder(PCMU_8K, carrier_format)
        return self._transcoder.push(audio)
