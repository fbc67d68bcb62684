"""Tones of the telephone network, made once and kept as bytes.

No I/O and no state. Levels are dBm0: a full-scale sine is +3.17 dBm0 (ITU-T G.711 table 5).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from audio.g711 import encode_ulaw

__all__ = ["dual_tone"]

_FULL_SCALE_DBM0: Final = 3.17


def dual_tone(low_hz: int, high_hz: int, *, ms: int, level_dbm0: float) -> bytes:
    """Two sines of the same level, mono mu-law at 8 kHz."""
    seconds = np.arange(8 * ms) / 8_000
    amplitude = 32_767 * 10 ** ((level_dbm0 - _FULL_SCALE_DBM0) / 20)
    wave = np.sin(2 * np.pi * low_hz * seconds) + np.sin(2 * np.pi * high_hz * seconds)
    return encode_ulaw(np.round(wave * amplitude).astype(np.int16))
