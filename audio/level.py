"""Level, clipping and silence of a piece of sound.

The scale is that of RFC 6465: 0 dB is the overload point (a square wave of full scale), and -127
stands for digital silence. Samples are mono int16 of any rate. What counts as speech is left to
a voice activity detector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from audio.format import AudioFormat, Encoding
from audio.g711 import decode_alaw, decode_ulaw

__all__ = ["SILENCE_DBFS", "level_dbfs", "peak_dbfs"]

SILENCE_DBFS: Final = -127.0
"""RFC 6465, section 3: the lowest level on the scale, digital silence included."""

_FULL_SCALE_POWER: Final = 32768.0**2
_EVERY_CODE: Final = bytes(range(256))


def _dbfs(peak: int) -> float:
    return float(20 * np.log10(peak / 32768)) if peak else SILENCE_DBFS


def _ranked(decode: Callable[[bytes], NDArray[np.int16]]) -> tuple[bytes, list[float]]:
    """The rank of each code by its magnitude, and the level of each rank."""
    magnitudes = np.abs(decode(_EVERY_CODE).astype(np.int32))
    levels, ranks = np.unique(magnitudes, return_inverse=True)
    return ranks.astype(np.uint8).tobytes(), [_dbfs(int(level)) for level in levels]


_LAWS: Final[Mapping[Encoding, tuple[bytes, list[float]]]] = {
    Encoding.PCMU: _ranked(decode_ulaw),
    Encoding.PCMA: _ranked(decode_alaw),
}


def level_dbfs(samples: NDArray[np.int16]) -> float:
    """RMS level, from -127 (nothing, or no samples) to 0; a sine of full scale is -3.01."""
    if not len(samples):
        return SILENCE_DBFS
    wide = samples.astype(np.float64)
    power = float(wide @ wide) / len(wide) / _FULL_SCALE_POWER
    if power == 0:
        return SILENCE_DBFS
    return max(SILENCE_DBFS, float(10 * np.log10(power)))


def peak_dbfs(data: bytes, wire: AudioFormat) -> float:
    """The loudest sample of whole samples in a wire format, on the same scale: -127 for none."""
    law = _LAWS.get(wire.encoding)
    if law is not None:
        ranks, levels = law
        if not data:
            return SILENCE_DBFS
        return levels[int(np.maximum.reduce(np.frombuffer(data.translate(ranks), np.uint8)))]
    samples = np.frombuffer(data, dtype="<i2")
    return _dbfs(int(np.abs(samples.astype(np.int32)).max(initial=0)))
