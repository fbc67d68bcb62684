"""Speech to text by `POST /v1/audio/transcriptions`: one request for each turn.

Wire: OpenAI API reference, "Create transcription" (openai-python 3.57). The sound travels as a WAV
file, since raw PCM is not taken. Plain JSON, text and server-sent events are told apart by the
answer's Content-Type: Groq, speaches, vLLM, LocalAI and Ollama ignore `stream`.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Sequence
from copy import copy
from typing import Final

from app.engine.base import Heard
from app.engine.stages.base import StageError, StageSpec, language_fields, primary_tags
from app.engine.stages.http_responses import as_json, asked, content_type, whole
from app.http.streaming import StreamingHttp, sse_data
from audio.format import PCM16_16K

__all__ = ["HttpTranscriber", "WholeTurn", "wav_16k"]

_SHORTEST_MS: Final = 200
"""Servers refuse clips of less than about 0.1 s."""
_LONGEST_BYTES: Final = 120 * PCM16_16K.bytes_per_second


def wav_16k(pcm16: bytes) -> bytes:
    """A WAV file of mono int16 PCM at 16 kHz, padded with silence to the shortest that is taken."""
    pcm16 += bytes(max(0, PCM16_16K.ms_to_bytes(_SHORTEST_MS) - len(pcm16)))
    size = len(pcm16)
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 1, 16_000, 32_000, 2, 16, b"data", size),
    ) + pcm16  # fmt: skip


class WholeTurn:
    """A turn that is kept until it is over, and transcribed then."""

    def __init__(self, transcriber: HttpTranscriber) -> None:
        self._transcriber = transcriber
        self._audio = bytearray()
        self._asked_bytes = 0

    def push(self, pcm16: bytes) -> None:
        """Take caller audio: int16 mono, 16 kHz; beyond two minutes it is dropped."""
        self._audio += pcm16[: max(0, _LONGEST_BYTES - len(self._audio))]

    async def so_far(self) -> Heard:
        """Return the words up to now, by a request of its own."""
        return await self.finish()

    def go_on(self) -> None:
        """Nothing: `finish` transcribes all that was pushed."""

    async def finish(self) -> Heard:
        """Return the words.

        Raises:
            StageError: the stage failed.
        """
        repeated_bytes, size = self._asked_bytes, len(self._audio)
        self._asked_bytes += size
        try:
            words = await self._transcriber.transcribe(bytes(self._audio))
        except StageError:
            self._asked_bytes -= size  # which is not billed
            raise
        return Heard(transcript=words, repeated_ms=PCM16_16K.bytes_to_ms(repeated_bytes))

    def abandon(self) -> None:
        """Forget this turn."""
        self._audio.clear()


class HttpTranscriber:
    """A server of `/v1/audio/transcriptions`."""

    def __init__(
        self, spec: StageSpec, http: StreamingHttp, *, language: str = "", prompt: str = ""
    ) -> None:
        self._spec = spec
        self._http = http
        self._prompt = prompt
        self._languages: tuple[str, ...] = (language,) if language else ()

    @property
    def name(self) -> str:
        return self._spec.model

    def in_languages(self, languages: Sequence[str]) -> HttpTranscriber:
        """As `LanguageHints.in_languages`."""
        other = copy(self)
        other._languages = primary_tags(languages)
        return other

    def open(self) -> WholeTurn:
        return WholeTurn(self)

    async def transcribe(self, pcm16: bytes) -> str:
        """Return the words in int16 mono PCM at 16 kHz.

        Raises:
            StageError: the stage failed.
        """
        spec = self._spec
        # A form repeats a field for each value of a list, under a name with brackets.
        hints = language_fields(spec.model, self._languages)
        fields = spec.body(
            {
                "model": spec.model,
                "response_format": "json",
                "language": hints.get("language"),
                "languages[]": hints.get("languages"),
                "prompt": self._prompt or None,
            }
        )
        file = ("turn.wav", wav_16k(pcm16), "audio/wav")
        async with asked(
            self._http, spec, "/audio/transcriptions", fields=fields, file=file
        ) as response:
            kind = content_type(response)
            if spec.parse == "sse" or (spec.parse == "auto" and kind == "text/event-stream"):
                return await _streamed(sse_data(response), spec)
            body = (await whole(response)).decode(errors="replace")
            text = as_json(body).get("text")
            if kind == "text/plain" and not as_json(body):
                text = body  # some call JSON plain text, too
            if not isinstance(text, str):
                raise StageError(f"{spec.model}: no text in the answer", code="stage_invalid")
            return text.strip()


async def _streamed(events: AsyncIterator[str], spec: StageSpec) -> str:
    """The text of an event stream: that of its end, which repeats all of it, else the pieces."""
    pieces: list[str] = []
    async for data in events:
        match as_json(data):
            case {"type": "transcript.text.done", "text": str(text)}:
                return text.strip()
            case {"type": "transcript.text.delta", "delta": str(delta)}:
                pieces.append(delta)
            case {"error": {"message": str(message)}}:
                raise StageError(f"{spec.model}: {message[:200]}", code="stage_failed")
            case {"text": str(text), "type": str(kind)} if kind.endswith("segment"):
                pieces.append(text)  # speaches streams segments
            case {"text": str(text)}:
                pieces.append(text)
        if data.strip() == "[DONE]":
            return "".join(pieces).strip()
    if pieces:
        raise StageError(f"{spec.model}: the transcript was cut off", code="stage_cut")
    raise StageError(f"{spec.model}: no text in the answer", code="stage_invalid")
