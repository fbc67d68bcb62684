"""G.711 mu-law and A-law by table.

Decoding follows `audioop`, which agrees with ITU-T G.711. Encoding follows the reference code
of ITU-T G.191 (STL, module G711), which measures a negative sample by its one's complement:
`audioop` negates it instead and picks another mu-law code for 508 negative inputs, all at a
decision level; in A-law the two agree. Samples are linear int16, mono; the rate does not matter.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

with warnings.catch_warnings():
    # In the standard library up to Python 3.12, deprecated there; `audioop-lts` from 3.13 on.
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

__all__ = ["ALAW", "ULAW", "Law", "decode_alaw", "decode_ulaw", "encode_alaw", "encode_ulaw"]

_EVERY_CODE: Final = bytes(range(256))
_EVERY_SAMPLE: Final = np.arange(-32768, 32768, dtype=np.int32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """One companding law as tables, for code that works on them directly.

    `levels[code]` is the sample that a code stands for. `codes[sample + 32768]` is the code of a
    sample; an index beyond either end, taken with `mode="clip"`, saturates.
    """

    levels: NDArray[np.int16]
    codes: NDArray[np.uint8]
    idle: bytes

    def decode(self, data: bytes) -> NDArray[np.int16]:
        """Linear samples, shape `(len(data),)`."""
        return self.levels.take(np.frombuffer(data, np.uint8))

    def encode(self, samples: NDArray[np.int16]) -> bytes:
        """One code per sample.

        Raises:
            TypeError: samples of another type, which would have to wrap or be guessed at.
        """
        if samples.dtype != np.int16:
            raise TypeError(f"G.711 encodes int16 samples, not {samples.dtype}")
        return self.codes.take(samples.astype(np.intp) + 32768).tobytes()


def _bit_length(values: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.frexp(values)[1]


def _signed(code: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.where(_EVERY_SAMPLE < 0, code, code | 0x80)


def _ulaw_codes() -> NDArray[np.uint8]:
    """G.191 `ulaw_compress` for every int16, from -32768 up."""
    magnitude = np.where(_EVERY_SAMPLE < 0, ~_EVERY_SAMPLE, _EVERY_SAMPLE) >> 2
    biased = np.minimum(magnitude + 33, 0x1FFF)  # 33 moves every segment edge to a power of two
    segment = _bit_length(biased) - 5
    code = (8 - segment) << 4 | (15 - (biased >> segment & 15))
    return _signed(code).astype(np.uint8)


def _alaw_codes() -> NDArray[np.uint8]:
    """G.191 `alaw_compress` for every int16, from -32768 up."""
    magnitude = np.where(_EVERY_SAMPLE < 0, ~_EVERY_SAMPLE, _EVERY_SAMPLE) >> 4
    segment = np.maximum(_bit_length(magnitude) - 4, 0)
    mantissa = (magnitude >> np.maximum(segment - 1, 0)) & 15
    code = segment << 4 | mantissa
    return (_signed(code) ^ 0x55).astype(np.uint8)  # every other bit is inverted on the line


def _levels(linear: bytes) -> NDArray[np.int16]:
    return np.frombuffer(linear, np.int16)  # audioop writes in the byte order of the machine


ULAW: Final = Law(
    levels=_levels(audioop.ulaw2lin(_EVERY_CODE, 2)), codes=_ulaw_codes(), idle=b"\xff"
)
ALAW: Final = Law(
    levels=_levels(audioop.alaw2lin(_EVERY_CODE, 2)), codes=_alaw_codes(), idle=b"\xd5"
)


def decode_ulaw(data: bytes) -> NDArray[np.int16]:
    """Linear samples of mu-law `data`; the loudest code is 32124."""
    return ULAW.decode(data)


def encode_ulaw(samples: NDArray[np.int16]) -> bytes:
    """Mu-law codes of int16 `samples`; zero becomes 0xFF.

    Raises:
        TypeError: samples that are not int16.
    """
    return ULAW.encode(samples)


def decode_alaw(data: bytes) -> NDArray[np.int16]:
    """Linear samples of A-law `data`; the loudest code is 32256, and no code is zero."""
    return ALAW.decode(data)


def encode_alaw(samples: NDArray[np.int16]) -> bytes:
    """A-law codes of int16 `samples`; zero becomes 0xD5.

    Raises:
        TypeError: samples that are not int16.
    """
    return ALAW.encode(samples)
