"""The two low-pass prototypes behind every rate change, as whole multiples of 2**-22.

Stored, not computed at start-up, so that every machine filters with the same bits. A test
designs them again with `audio.design.design_lowpass` and compares (the last bit depends on the
linear algebra library); `docs/audio.md` says how to make new ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["HALF_BAND", "TAP_BITS", "THIRD_BAND", "Prototype"]

TAP_BITS: Final = 22
"""Taps are whole multiples of 2**-TAP_BITS; `audio.resample` says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prototype:
    """A minimum-phase low-pass filter of unit gain; edges in cycles per sample."""

    pass_edge: float
    stop_edge: float
    ripple_db: float
    stop_db: float
    taps: tuple[int, ...]


# fmt: off
_THIRD_BAND_TAPS: Final = (
    2316, 14847, 54555, 145823, 309383, 542458, 799940, 993075, 1018208, 810943, 398831, -84980,
    -450078, -544585, -346008, 14146, 318888, 393583, 213302, -84205, -293347, -281019, -74771,
    164033, 261879, 159302, -51785, -205128, -189617, -30461, 138546, 185474, 83155, -76209,
    -161886, -111319, 24349, 129230, 120921, 15095, -94271, -117471, -42415, 61193, 105596, 59008,
    -32377, -88967, -66733, 8977, 70389, 67572, 8699, -51901, -63420, -20886, 34911, 55993, 28183,
    -20290, -46749, -31382, 8491, 36886, 31371, 382, -27313, -29037, -6466, 18678, 25211, 10085,
    -11380, -20616, -11660, 5612, 15848, 11674, -1386, -11352, -10598, -1410, 7438, 8876, 2986,
    -4272, -6879, -3597, 1915, 4912, 3525, -329, -3193, -3056, -601, 1879, 2529, 1169, -985, -2513,
    -2777, -2067, -1088, -379, -49,
)
_HALF_BAND_TAPS: Final = (
    16470, 119468, 427483, 966823, 1473058, 1452998, 673187, -383455, -821791, -308706, 448557,
    515697, -90733, -475108, -141129, 344177, 258091, -200266, -294466, 75724, 281210, 19178,
    -241007, -84188, 189107, 123132, -135225, -141148, 85193, 143408, -42218, -134595, 7727, 118696,
    18019, -98969, -35531, 77959, 45782, -57567, -50010, 39104, 49545, -23390, -45712, 10811, 39722,
    -1426, -32636, -4971, 25311, 8755, -18400, -10413, 12342, 10469, -7391, -9439, 3630, 7785,
    -1020, -5905, -582, 4109, 1385, -2657, -1748, 1781, 3100, 1837, 427, -19,
)
# fmt: on

THIRD_BAND: Final = Prototype(
    pass_edge=3_480 / 24_000,
    stop_edge=4_300 / 24_000,
    ripple_db=0.02,
    stop_db=96.0,
    taps=_THIRD_BAND_TAPS,
)
"""8 <-> 24 kHz, run at 24 kHz; and 16 <-> 24 kHz, run at 48 kHz, where all edges double."""

HALF_BAND: Final = Prototype(
    pass_edge=3_480 / 16_000,
    stop_edge=4_300 / 16_000,
    ripple_db=0.02,
    stop_db=96.0,
    taps=_HALF_BAND_TAPS,
)
"""8 <-> 16 kHz, run at 16 kHz."""
