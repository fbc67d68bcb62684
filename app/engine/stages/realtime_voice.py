"""A Realtime session as a voice: it reads sentences aloud, out of band, one response each.

OpenAI switches its HTTP speech endpoint off on 2027-01-06 and names its Realtime models in its
place. Such a model rewords now and then, so its transcript is compared with the text: differences
are counted and logged, without the words. For text that must be exact, use another voice.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import chain
from typing import Final

from app.engine.stages.base import StageError
from app.errors import VoiceError
from app.realtime.connection import VoiceConnection, VoiceModel
from app.realtime.events import (
    SAY_METADATA_KEY,
    UNSET,
    AudioDelta,
    AudioTranscriptDone,
    ErrorEvent,
    ResponseConfig,
    ResponseCreate,
    ResponseDone,
    ResponseStatus,
    SessionConfig,
)
from app.realtime.faults import FaultClass, classify
from audio.format import PCM16_24K

__all__ = ["RealtimeVoice", "same_words"]

logger = logging.getLogger(__name__)

_IDLE_CONNECTIONS: Final = 8
_REASONING: Final = "gpt-realtime-2"
"""Models that take a reasoning effort; others refuse the field (openai-python 3.57)."""
_READ: Final = (
    "You are a text-to-speech engine. Read the text between the marks aloud, word for word, in its"
    " own language. Add nothing, leave nothing out, answer nothing.\n<<<{text}>>>"
)


_VoiceAndSpeed = tuple[str, float]
"""Voice and speed: a session keeps those of its first sound."""


class RealtimeVoice:
    """A voice model that reads; connections are kept for the next sentence."""

    def __init__(self, model: VoiceModel, *, voice: str = "") -> None:
        self.name = model.name
        self.differences = 0
        """Sentences whose transcript had other words than the text."""
        self._model = model
        self._voice = voice
        self._idle: dict[_VoiceAndSpeed, list[VoiceConnection]] = {}

    async def start(self) -> None:
        """Nothing: the first sentence connects."""

    async def close(self) -> None:
        """Close the connections."""
        idle, self._idle = self._idle, {}
        for connection in chain.from_iterable(idle.values()):
            await connection.close()

    async def speak(self, text: str, *, voice: str, speed: float) -> AsyncGenerator[bytes, None]:
        """As `TextToSpeech.speak`."""
        voice_and_speed = self._voice or voice, speed
        while True:
            idle = self._idle.get(voice_and_speed)
            kept = idle.pop() if idle else None
            begun = False
            try:
                connection = kept or await self._connect(*voice_and_speed)
                async with aclosing(self._read(connection, text, voice_and_speed)) as sounds:
                    async for sound in sounds:
                        begun = True
                        yield sound
                return
            except VoiceError as error:
                # One that was kept may have ended since its last sentence: sessions last an hour.
                if kept is not None and not begun:
                    continue
                if isinstance(error, StageError):
                    raise
                raise StageError(f"{self.name}: {error.message}", code=error.code) from error

    async def _read(
        self, connection: VoiceConnection, text: str, voice_and_speed: _VoiceAndSpeed
    ) -> AsyncGenerator[bytes, None]:
        """Read a text over a connection, which is kept if it may be used again.

        Raises:
            VoiceError: it was not read, or not to its end.
        """
        begun = finished = False
        try:
            await connection.send(_request(text))
            async for event in connection:
                match event:
                    case AudioDelta(audio=audio):
                        begun = True
                        yield audio
                    case AudioTranscriptDone(transcript=said):
                        self._compare(text, said)
                    case ErrorEvent(error=error):
                        fatal = classify(error) is FaultClass.FATAL
                        refused = (error.code if fatal else None) or "stage_refused"
                        raise StageError(f"{self.name}: {error.message}", code=refused)
                    case ResponseDone(response=response):
                        if response.status is not ResponseStatus.COMPLETED or not begun:
                            code = response.error.code if response.error else None
                            raise StageError(
                                f"{self.name}: read nothing", code=code or "stage_failed"
                            )
                        finished = True
                        return
            raise StageError(f"{self.name}: the connection ended", code="stage_cut")
        finally:
            # A response that was cut goes on at the server: its connection is not used again.
            if finished and sum(map(len, self._idle.values())) < _IDLE_CONNECTIONS:
                self._idle.setdefault(voice_and_speed, []).append(connection)
            else:
                await connection.close()

    async def _connect(self, voice: str, speed: float) -> VoiceConnection:
        return await self._model.connect(
            SessionConfig(
                output_modalities=("audio",),
                output_format=PCM16_24K,
                voice=voice,
                speed=speed,
                turn_detection=None,
                # To read aloud takes no thought, and the caller waits.
                reasoning_effort="minimal" if self.name.startswith(_REASONING) else UNSET,
            )
        )

    def _compare(self, text: str, said: str) -> None:
        if not same_words(text, said):
            self.differences += 1
            logger.warning(
                "voice read other words", extra={"model": self.name, "count": self.differences}
            )


def same_words(text: str, said: str) -> bool:
    """True if two texts have the same words, whatever their case and punctuation."""
    return re.findall(r"\w+", text.lower()) == re.findall(r"\w+", said.lower())


def _request(text: str) -> ResponseCreate:
    return ResponseCreate(
        ResponseConfig(
            conversation="none",
            input=(),
            instructions=_READ.format(text=text),
            output_modalities=("audio",),
            metadata={SAY_METADATA_KEY: text[:500]},
        )
    )
