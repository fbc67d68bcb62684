"""Sound given to a pipeline: whole, or as it comes. Everything becomes int16 mono at 16 kHz."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.engine.stages.rate_conversion import resampler
from app.errors import ConfigError
from audio.resample import Resampler
from audio.wav import read_wav

__all__ = ["AudioInput", "StreamedAudioInput"]

_DEFAULT_HZ: Final = 24_000
_BUFFERS: Final = 500
"""Buffers that may wait; beyond them `add_audio` waits in its turn."""

_CHANNELS: Final = 8

Samples = NDArray[Any]


@dataclass(frozen=True, slots=True)
class AudioInput:
    """A whole utterance: `buffer` holds int16, or float32 from -1 to 1, of shape (n,) or (n, c)."""

    buffer: Samples
    frame_rate: int = _DEFAULT_HZ

    @classmethod
    def from_wav(cls, content: bytes) -> AudioInput:
        """A WAV file of 16-bit PCM or mu-law.

        Raises:
            ConfigError: it is none.
        """
        try:
            rate_hz, samples = read_wav(io.BytesIO(content))
        except ValueError as error:
            raise ConfigError(f"the sound cannot be read: {error}") from None
        return cls(samples, rate_hz)

    def pcm16_16k(self) -> bytes:
        """The sound as int16 mono PCM at 16 kHz."""
        change = To16k(self.frame_rate)
        return change.push(self.buffer) + change.flush()


class StreamedAudioInput:
    """Sound that comes while it is answered; its turns are found by voice activity."""

    def __init__(self, frame_rate: int = _DEFAULT_HZ) -> None:
        self.frame_rate = frame_rate
        self._buffers: asyncio.Queue[Samples | None] = asyncio.Queue(_BUFFERS)
        self._ended = False

    async def add_audio(self, audio: Samples | None) -> None:
        """Give more sound, of any length; `None` ends the input, and a turn that is open.

        Raises:
            ConfigError: the input has ended before.
        """
        if self._ended:
            raise ConfigError("the input has ended: no more sound can be added")
        self._ended = audio is None
        await self._buffers.put(audio)

    async def pcm16_16k(self) -> AsyncGenerator[bytes, None]:
        """The sound as int16 mono PCM at 16 kHz, until the input ends."""
        change = To16k(self.frame_rate)
        while (buffer := await self._buffers.get()) is not None:
            yield change.push(buffer)
        yield change.flush()


class To16k:
    """Arrays of one rate as a stream of int16 mono PCM at 16 kHz."""

    def __init__(self, rate_hz: int) -> None:
        self._to_24k = None if rate_hz in (16_000, _DEFAULT_HZ) else resampler(rate_hz, "input")
        self._to_16k = None if rate_hz == 16_000 else Resampler(2, 3)

    def push(self, buffer: Samples) -> bytes:
        samples = _mono_int16(buffer)
        if self._to_24k is not None:
            samples = self._to_24k.push(samples)
        if self._to_16k is not None:
            samples = self._to_16k.push(samples)
        return samples.astype("<i2").tobytes()

    def flush(self) -> bytes:
        samples = np.zeros(0, np.int16) if self._to_24k is None else self._to_24k.flush()
        if self._to_16k is not None:
            samples = np.concatenate([self._to_16k.push(samples), self._to_16k.flush()])
        return samples.astype("<i2").tobytes()


def _mono_int16(buffer: Samples) -> NDArray[np.int16]:
    if not isinstance(buffer, np.ndarray):
        kind = type(buffer).__name__
        raise ConfigError(f"sound is a numpy array, not {kind}: np.frombuffer(sound, np.int16)")
    if buffer.ndim == 2 and buffer.shape[1] <= max(_CHANNELS, buffer.shape[0]):
        buffer = buffer.mean(axis=1).astype(buffer.dtype)
    if buffer.ndim != 1:
        # (channels, n), as some libraries have it, would be taken for a few samples of many.
        raise ConfigError(
            f"sound is an array of shape (n,) or (n, channels), not {buffer.shape}: transpose it"
        )
    if buffer.dtype.newbyteorder("=") == np.int16:
        return buffer.astype(np.int16, copy=False)
    if buffer.dtype.kind == "f":
        full = np.nan_to_num(buffer, posinf=1.0, neginf=-1.0) * 32767
        samples: NDArray[np.int16] = np.clip(np.rint(full), -32768, 32767).astype(np.int16)
        return samples
    raise ConfigError(f"sound is int16 or float32, not {buffer.dtype}: convert it")
