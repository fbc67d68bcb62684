"""Sound of any rate at 24 kHz: voices speak at 22.05 or 44.1 kHz too, which telephony does not.

The rates of telephony have exact filters in `audio.resample`; any other is a windowed sinc (Kaiser,
24 input samples to each side), as a stream.
"""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from app.engine.stages.base import StageError
from audio.resample import Resampler

__all__ = ["RateConverter", "resampler"]

_TARGET_HZ: Final = 24_000
_SIDE: Final = 24
_BETA: Final = 8.0
_EXACT: Final = {8_000: (3, 1), 16_000: (3, 2), 12_000: (2, 1), 48_000: (1, 2), 72_000: (1, 3)}
_RATES: Final = range(4_000, 192_001)


class RateConverter(Protocol):
    """A stream of int16 samples at another rate."""

    def push(self, samples: NDArray[np.int16]) -> NDArray[np.int16]: ...
    def flush(self) -> NDArray[np.int16]: ...


def resampler(rate_hz: int, what: str) -> RateConverter:
    """From a rate to 24 kHz.

    Raises:
        StageError: a rate that no voice has.
    """
    if rate_hz in _EXACT:
        return Resampler(*_EXACT[rate_hz])
    if rate_hz not in _RATES:
        raise StageError(f"{what}: sound at {rate_hz} Hz", code="stage_invalid", retryable=False)
    return _Sinc(rate_hz)


class _Sinc:
    """A windowed sinc whose cutoff is the lower of the two Nyquist frequencies."""

    def __init__(self, rate_hz: int) -> None:
        self._step = rate_hz / _TARGET_HZ
        self._cutoff = min(1.0, _TARGET_HZ / rate_hz)
        self._side = int(np.ceil(_SIDE / self._cutoff))
        self._samples = np.zeros(self._side)
        self._first = -self._side  # the input position of `_samples[0]`
        self._made = 0

    def push(self, samples: NDArray[np.int16]) -> NDArray[np.int16]:
        """The output that `samples` complete."""
        self._samples = np.concatenate([self._samples, samples.astype(np.float64)])
        known = self._first + len(self._samples) - self._side
        count = max(0, int(np.floor((known - 1) / self._step)) + 1 - self._made)
        return self._make(count)

    def flush(self) -> NDArray[np.int16]:
        """The rest."""
        return self.push(np.zeros(self._side, np.int16))

    def _make(self, count: int) -> NDArray[np.int16]:
        if count <= 0:
            return np.zeros(0, np.int16)
        at = (self._made + np.arange(count)) * self._step
        base = np.floor(at).astype(np.int64)
        offsets = np.arange(-self._side + 1, self._side + 1)
        distance = (at - base)[:, None] - offsets[None, :]
        window = np.i0(_BETA * np.sqrt(np.clip(1 - (distance / self._side) ** 2, 0, None))) / np.i0(
            _BETA
        )
        taps = self._cutoff * np.sinc(distance * self._cutoff) * window
        rows = self._samples[(base - self._first)[:, None] + offsets[None, :]]
        sums = (rows * taps).sum(axis=1)
        made: NDArray[np.int16] = np.clip(np.rint(sums), -32768, 32767).astype(np.int16)
        self._made += count
        keep = int(np.floor(self._made * self._step)) - self._side - self._first
        if keep > 0:
            self._samples = self._samples[keep:]
            self._first += keep
        return made
