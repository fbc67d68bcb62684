"""Speech of test callers: recorded phrases, tones and silence, as mu-law 8 kHz."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from app.dial.speech import parse_wav
from audio.format import PCMU_8K
from audio.g711 import encode_ulaw

__all__ = ["PHRASES", "phrase", "phrase_path", "silence", "tone"]

PHRASES: Final = Path(__file__).parent.parent / "data" / "caller"


def phrase_path(name: str) -> Path:
    """The WAV file of a phrase; `tests/data/caller/LICENSE.md` lists them with their words."""
    return PHRASES / f"{name}.wav"


@cache
def phrase(name: str) -> bytes:
    """A recorded phrase, such as `hours` or `goodbye`."""
    path = phrase_path(name)
    return parse_wav(path.read_bytes(), path.name)


@cache
def tone(ms: int, *, hz: int = 440, peak: float = 0.25) -> bytes:
    """A sine; sound to a level meter, though not speech to a voice activity detector."""
    at_s = np.arange(PCMU_8K.ms_to_bytes(ms)) / PCMU_8K.rate_hz
    wave = np.sin(2 * np.pi * hz * at_s) * peak * 32767
    return encode_ulaw(wave.astype(np.int16))


def silence(ms: int) -> bytes:
    return PCMU_8K.silence(ms)
