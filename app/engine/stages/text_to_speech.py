"""Text to speech by `POST /v1/audio/speech`, streamed.

Wire: OpenAI API reference, "Create speech" (openai-python 3.57); raw PCM is 24 kHz there. How an
answer is read is decided by its Content-Type and its first bytes, not by what was asked:
compatible servers ignore `response_format` and `stream_format` (Groq answers WAV at 48 kHz, Kokoro
raw PCM, OpenAI with `sse` events). Pieces may split a sample; a streamed WAV has no true length.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final

import httpx2
import numpy as np

from app.engine.stages.base import StageError, StageSpec
from app.engine.stages.http_responses import as_json, asked, content_type, whole
from app.engine.stages.rate_conversion import RateConverter, resampler
from app.http.streaming import StreamingHttp, sse_data

__all__ = ["HttpVoice", "PcmReader"]

_RATE_HZ: Final = 24_000
_CHUNK_BYTES: Final = 9_600
"""200 ms: a long piece is cut, so that an interrupted sentence stops soon."""
_MAX_HEADER: Final = 4_096
_CODED: Final = frozenset(
    f"audio/{kind}"
    for kind in ("mpeg", "mp3", "mp4", "ogg", "opus", "webm", "aac", "flac", "basic", "mulaw",
                 "x-mulaw", "pcmu", "pcma", "x-alaw")
)  # fmt: skip


class HttpVoice:
    """A server of `/v1/audio/speech`."""

    def __init__(
        self, spec: StageSpec, http: StreamingHttp, *, voice: str = "", instructions: str = ""
    ) -> None:
        """`voice` stands in for that of the session: servers have names of their own."""
        self._spec = spec
        self._http = http
        self._voice = voice
        self._instructions = instructions
        self._form = "wav" if spec.parse == "wav" else "pcm"

    @property
    def name(self) -> str:
        return self._spec.model

    async def speak(self, text: str, *, voice: str, speed: float) -> AsyncGenerator[bytes, None]:
        """Yield int16 mono PCM at 24 kHz, at most 200 ms at a time.

        Raises:
            StageError: the stage failed; sound that came before it stands.
        """
        while True:
            form = self._form
            try:
                async with aclosing(self._speak(text, voice, speed, form)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                return
            except StageError as error:
                # Groq takes `wav` alone. A refusal comes before any sound.
                if "response_format" not in error.fields or form == "wav":
                    raise
                self._form = "wav"

    async def _speak(
        self, text: str, voice: str, speed: float, form: str
    ) -> AsyncGenerator[bytes, None]:
        spec = self._spec
        body = {
            "model": spec.model,
            "input": text,
            "voice": self._voice or voice,
            "response_format": form,
            "instructions": self._instructions or None,
            "speed": None if speed == 1.0 else speed,
            "stream_format": "sse" if spec.parse == "sse" else None,
        }
        async with asked(self._http, spec, "/audio/speech", json=spec.body(body)) as response:
            reader = PcmReader(spec, self._rate_of(response))
            async with aclosing(_sound(response, spec)) as pieces:
                async for piece in pieces:
                    for chunk in _cut(reader.push(piece)):
                        yield chunk
            for chunk in _cut(reader.flush()):
                yield chunk
            if not reader.begun:
                raise StageError(f"{spec.model}: no sound in the answer", code="stage_invalid")

    def _rate_of(self, response: httpx2.Response) -> int:
        """The rate that the Content-Type names (`audio/pcm;rate=16000`), else the set one."""
        named = re.search(r"rate=(\d{4,6})", response.headers.get("content-type", ""))
        return int(named[1]) if named else self._spec.sample_rate


async def _sound(response: httpx2.Response, spec: StageSpec) -> AsyncGenerator[bytes, None]:
    kind = content_type(response)
    if kind == "application/json":  # an error with status 200
        detail = as_json((await whole(response)).decode(errors="replace"))
        raise StageError(f"{spec.model}: {str(detail)[:200]}", code="stage_failed")
    if kind == "text/event-stream" or (spec.parse == "sse" and not kind.startswith("audio/")):
        async with aclosing(_speech_events(sse_data(response), spec)) as pieces:
            async for piece in pieces:
                yield piece
        return
    # An MPEG frame's first bytes may also be loud samples, so here the header's word counts.
    if kind in _CODED and spec.parse == "auto":
        raise _coded(spec)
    if kind.startswith("text/") and spec.parse == "auto":  # a proxy's page, played as samples
        message = f"{spec.model}: {kind} came where sound was asked for (check base_url)"
        raise StageError(message, code="stage_invalid")
    async for piece in response.aiter_bytes():
        yield piece


async def _speech_events(
    events: AsyncIterator[str], spec: StageSpec
) -> AsyncGenerator[bytes, None]:
    async for data in events:
        event = as_json(data)
        match event:
            case {"audio": str(audio)} | {"data": str(audio)} | {"delta": str(audio)}:
                try:
                    yield base64.b64decode(audio, validate=True)
                except binascii.Error:
                    raise StageError(f"{spec.model}: broken sound", code="stage_invalid") from None
            case {"error": error} if error:
                raise StageError(f"{spec.model}: {str(error)[:200]}", code="stage_failed")
            case {"type": "speech.audio.done"}:
                return
        if data.strip() == "[DONE]":
            return
    raise StageError(f"{spec.model}: the speech was cut off", code="stage_cut")


def _cut(pcm16: bytes) -> list[bytes]:
    return [pcm16[at : at + _CHUNK_BYTES] for at in range(0, len(pcm16), _CHUNK_BYTES)]


class PcmReader:
    """Raw PCM or a WAV, in pieces of any size, as int16 mono at 24 kHz."""

    def __init__(self, spec: StageSpec, rate_hz: int) -> None:
        self.begun = False
        self._spec = spec
        self._rest = b""
        self._format: tuple[int, int] | None = None  # rate and channels, once known
        self._raw_rate_hz = rate_hz
        self._left_bytes: int | None = None
        self._resampler: RateConverter | None = None

    def push(self, piece: bytes) -> bytes:
        """More bytes of the answer; the sound that they complete.

        Raises:
            StageError: sound that is neither raw 16-bit PCM nor a WAV of it.
        """
        data = self._rest + piece
        if self._format is None:
            start = self._find_format(data)
            if start is None:
                self._rest = data
                return b""
            data = data[start:]
        return self._samples(data)

    def flush(self) -> bytes:
        """The end: what the filter holds back. Half a sample is dropped."""
        sound = b""
        headed = self._spec.parse == "wav" or self._rest[:4] == b"RIFF"
        if self._format is None and self._rest and not headed:
            data, self._rest = self._rest, b""  # too short to tell: raw
            self._set(self._raw_rate_hz, 1)
            sound = self._samples(data)
        if self._resampler is not None:
            sound += self._resampler.flush().astype("<i2").tobytes()
        return sound

    def _find_format(self, data: bytes) -> int | None:
        """The start of the samples; `None` while that is unknown."""
        if self._spec.parse == "raw":
            self._set(self._raw_rate_hz, 1)
            return 0
        if len(data) < 12:
            return None
        if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
            return self._wav_header(data)
        if data[:3] == b"ID3" or data[:4] in (b"OggS", b"fLaC"):
            raise _coded(self._spec)
        self._set(self._raw_rate_hz, 1)
        return 0

    def _wav_header(self, data: bytes) -> int | None:
        at, shape = 12, None
        while at + 8 <= len(data):
            name, size = struct.unpack_from("<4sI", data, at)
            if name == b"data":
                if shape is None:
                    break
                self._set(*shape)
                # Zero or all ones: written by a program that did not know how long it would be.
                self._left_bytes = None if size in (0, 0xFFFFFFFF) or size > 2**30 else size
                return at + 8
            if name == b"fmt " and at + 24 <= len(data):
                tag, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", data, at + 8)
                if tag not in (1, 0xFFFE) or bits != 16 or channels not in (1, 2):
                    break
                shape = rate_hz, channels
            at += 8 + size + size % 2
        else:
            if len(data) < _MAX_HEADER:
                return None
        raise StageError(
            f"{self._spec.model}: a WAV without 16-bit PCM", code="stage_invalid", retryable=False
        )

    def _set(self, rate_hz: int, channels: int) -> None:
        self._format = rate_hz, channels
        if rate_hz != _RATE_HZ:
            self._resampler = resampler(rate_hz, self._spec.model)

    def _samples(self, data: bytes) -> bytes:
        assert self._format is not None
        if self._left_bytes is not None:  # chunks behind the samples are not sound
            data = data[: self._left_bytes]
        channels = self._format[1]
        whole_bytes = len(data) - len(data) % (2 * channels)
        self._rest = data[whole_bytes:]
        if self._left_bytes is not None:
            self._left_bytes -= whole_bytes
        if not whole_bytes:
            return b""
        self.begun = True
        if channels == 1 and self._resampler is None:
            return data[:whole_bytes]
        samples = np.frombuffer(data[:whole_bytes], "<i2")
        if channels == 2:
            wide = samples.astype(np.int32)
            samples = ((wide[0::2] + wide[1::2]) >> 1).astype(np.int16)
        if self._resampler is not None:
            samples = self._resampler.push(samples.astype(np.int16))
        return samples.astype("<i2").tobytes()


def _coded(spec: StageSpec) -> StageError:
    """Coded sound played as PCM would be a burst of noise in the caller's ear."""
    message = f"{spec.model}: coded sound came where PCM was asked for"
    return StageError(message, code="stage_invalid", retryable=False)
