"""Design of the low-pass prototypes in `audio.taps`: equiripple, minimum phase, numpy only.

Run when the table is made or checked, never on a call. The power response |H|^2 of a filter of
N taps is a cosine polynomial of degree N - 1. It is fitted in the Chebyshev sense (Lawson's
iteration: least squares whose weights grow where the error is large), and the filter of least
delay that has this power response is its spectral factor, taken through the cepstrum
(Oppenheim and Schafer, "Discrete-Time Signal Processing", chapter 13).

Edges are in cycles per sample of the rate that the filter runs at.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from audio.taps import TAP_BITS

__all__ = ["design_lowpass"]

_GRID_PER_TAP: Final = 10  # points on [0, 0.5] per tap: the error between them is negligible
_LAWSON_STEPS: Final = 30
_FFT_SIZE: Final = 1 << 18  # long enough that the cepstrum does not fold back on itself
_LIFT: Final = 1e-12  # keeps the logarithm finite where the fit touches zero


def design_lowpass(
    taps: int, *, pass_edge: float, stop_edge: float, ripple_db: float, stop_db: float
) -> NDArray[np.int64]:
    """Taps of a minimum-phase low-pass filter of unit gain, in units of 2**-TAP_BITS.

    `ripple_db` (plus or minus) and `stop_db` set how the error is shared between the bands.
    Whether they are met is decided by `taps`: measure the result.
    """
    power = _fit_power(taps, pass_edge, stop_edge, ripple_db, stop_db)
    return np.rint(_minimum_phase(power) * 2.0**TAP_BITS).astype(np.int64)


def _fit_power(
    taps: int, pass_edge: float, stop_edge: float, ripple_db: float, stop_db: float
) -> NDArray[np.float64]:
    """Coefficients of cos(k w), k = 0 .. taps - 1, of the power response."""
    density = 2 * _GRID_PER_TAP * taps
    passband = np.linspace(0, pass_edge, int(density * pass_edge) + 1)
    stopband = np.linspace(stop_edge, 0.5, int(density * (0.5 - stop_edge)) + 1)
    grid = np.concatenate([passband, stopband])
    leak = 10 ** (-stop_db / 10)  # the power that may remain in the stop band
    wanted = np.where(grid <= pass_edge, 1.0, leak / 2)  # so that power never falls below zero
    allowed = np.where(grid <= pass_edge, 2 * (10 ** (ripple_db / 20) - 1), leak / 2)
    basis = np.cos(2 * np.pi * np.outer(grid, np.arange(taps)))
    weight = np.full(len(grid), 1 / len(grid))
    power = np.zeros(taps)
    for _ in range(_LAWSON_STEPS):
        scale = np.sqrt(weight) / allowed
        q, r = np.linalg.qr(basis * scale[:, None])  # lstsq would take an SVD: five times slower
        power = np.linalg.solve(r, q.T @ (wanted * scale))
        weight = np.maximum(weight * np.abs(basis @ power - wanted) / allowed, 1e-300)
        weight /= weight.sum()
    return power


def _minimum_phase(power: NDArray[np.float64]) -> NDArray[np.float64]:
    """The causal filter of least delay whose power response has these cosine coefficients."""
    autocorrelation = np.zeros(_FFT_SIZE)
    autocorrelation[: len(power)] = power
    autocorrelation[1 : len(power)] /= 2
    autocorrelation[-len(power) + 1 :] = autocorrelation[len(power) - 1 : 0 : -1]
    spectrum = np.fft.rfft(autocorrelation).real
    spectrum += _LIFT + max(0.0, -float(spectrum.min()))
    cepstrum = np.fft.irfft(np.log(spectrum) / 2)
    cepstrum[1 : _FFT_SIZE // 2] *= 2  # fold the part before time zero onto the part after it
    cepstrum[_FFT_SIZE // 2 + 1 :] = 0
    return np.fft.irfft(np.exp(np.fft.rfft(cepstrum)))[: len(power)]
