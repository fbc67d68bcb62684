"""The offline engine's recognizer and synthesizer as stages, beside remote ones.

The recognizer knows the words of the offline dialogue only, so it serves demos and commands, not
open talk. The synthesizer speaks any text.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

from app.engine.base import Hearing, Recognizer, Synthesizer
from app.engine.stages.base import StageError
from app.errors import VoiceUnavailable

__all__ = ["LocalTranscriber", "LocalVoice"]

_PIECE_BYTES: Final = 3_200


class LocalTranscriber:
    """The offline recognizer, listening in one state of its dialogue."""

    name = "offline recognizer"

    def __init__(self, recognizer: Recognizer, context: str) -> None:
        self._recognizer = recognizer
        self._context = context

    def open(self) -> Hearing:
        """Begin an utterance."""
        return self._recognizer.listen(self._context)

    async def transcribe(self, pcm16: bytes) -> str:
        """Return the words in int16 mono PCM at 16 kHz.

        Raises:
            VoiceUnavailable: the worker died or took too long.
        """
        hearing = self.open()
        try:
            for at in range(0, len(pcm16), _PIECE_BYTES):
                hearing.push(pcm16[at : at + _PIECE_BYTES])
            return (await hearing.finish()).transcript
        finally:
            hearing.abandon()


class LocalVoice:
    """The offline synthesizer."""

    name = "offline synthesizer"

    def __init__(self, synthesizer: Synthesizer, *, voice: str = "") -> None:
        self._synthesizer = synthesizer
        self._voice = voice

    async def speak(self, text: str, *, voice: str, speed: float) -> AsyncGenerator[bytes, None]:
        """As `TextToSpeech.speak`."""
        speech = self._synthesizer.speak(text, voice=self._voice or voice, speed=speed)
        try:
            async for chunk in speech:
                yield chunk
        except StageError:
            raise
        except VoiceUnavailable as error:
            raise StageError(error.message, code=error.code) from error
        finally:
            await speech.aclose()
