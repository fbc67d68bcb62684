"""Tones through a rate change, before rounding, and what comes out at any frequency.

Every stretch lasts one second and every frequency is whole, so each tone, image and alias is one
bin of the discrete Fourier transform and no window is needed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from audio.resample import PCM16_READER, BlockFilter

__all__ = ["RATIOS", "Ratio", "amplitudes", "filtered_tone", "tone"]


class Ratio(NamedTuple):
    """A rate change and the edges of its figures: sound below, images and aliases above."""

    up: int
    down: int
    source_hz: int
    pass_hz: int
    stop_hz: int

    @property
    def target_hz(self) -> int:
        return self.source_hz * self.up // self.down


RATIOS = (
    Ratio(3, 1, 8_000, 3_400, 4_300),
    Ratio(1, 3, 24_000, 3_400, 4_300),
    Ratio(2, 1, 8_000, 3_400, 4_300),
    Ratio(1, 2, 16_000, 3_400, 4_300),
    Ratio(3, 2, 16_000, 6_800, 8_600),
    Ratio(2, 3, 24_000, 6_800, 8_600),
)


def tone(freq_hz: int, rate_hz: int, *, amplitude: float, seconds: int = 1) -> NDArray[np.int16]:
    """A sine as int16; the rounding noise of whole samples is in it."""
    phase = 2 * np.pi * freq_hz * np.arange(seconds * rate_hz) / rate_hz
    return np.rint(amplitude * np.sin(phase)).astype(np.int16)


def filtered_tone(ratio: Ratio, freq_hz: int) -> NDArray[np.float64]:
    """One second of a loud tone after the filter, settled and not rounded."""
    sound = tone(freq_hz, ratio.source_hz, amplitude=30_000, seconds=2)
    block_filter = BlockFilter(ratio.up, ratio.down, PCM16_READER)
    return block_filter.push(sound.astype("<i2").tobytes())[ratio.target_hz :]


def amplitudes(second: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Complex amplitude by frequency in Hz, relative to the loud tone; one second of sound."""
    return np.fft.rfft(second) / (len(second) / 2) / 30_000
