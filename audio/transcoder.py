"""Sound between any two of the wire formats, as a stream of bytes.

Equal formats cost nothing, mu-law to A-law is a table of 256 bytes, other codings at one rate are
a look-up of each sample. Everything else is `audio.resample` between the two codecs: codes are
looked up straight into the rows of the filter, and its output is rounded, saturated and companded
by one look-up. Base64, messages and time are left to others.
"""

from __future__ import annotations

from collections.abc import Callable
from math import gcd
from typing import Final

import numpy as np
from numpy.typing import NDArray

from audio.format import PCM16_8K, PCM16_16K, PCM16_24K, PCMA_8K, PCMU_8K, AudioFormat, Encoding
from audio.g711 import ALAW, ULAW, Law
from audio.resample import PCM16_READER, BlockFilter, SampleReader, round_and_saturate

__all__ = ["Transcoder"]

_FORMATS: Final = frozenset({PCMU_8K, PCMA_8K, PCM16_8K, PCM16_16K, PCM16_24K})

_ZERO_LEVEL: Final = np.array(32768.0)  # index of sample zero in `Law.codes`


def _law_reader(law: Law) -> SampleReader:
    return SampleReader(
        dtype=np.dtype(np.uint8), idle=law.idle, read=law.levels.astype(np.float64).take
    )


def _law_writer(law: Law) -> Callable[[NDArray[np.float64]], bytes]:
    def write(levels: NDArray[np.float64]) -> bytes:
        np.rint(levels, out=levels)
        np.add(levels, _ZERO_LEVEL, out=levels)
        return law.codes.take(levels.astype(np.intp), mode="clip").tobytes()

    return write


def _write_pcm16(levels: NDArray[np.float64]) -> bytes:
    return round_and_saturate(levels).astype(PCM16_READER.dtype).tobytes()


_READERS: Final = {
    Encoding.PCMU: _law_reader(ULAW),
    Encoding.PCMA: _law_reader(ALAW),
    Encoding.PCM16: PCM16_READER,
}
_WRITERS: Final = {
    Encoding.PCMU: _law_writer(ULAW),
    Encoding.PCMA: _law_writer(ALAW),
    Encoding.PCM16: _write_pcm16,
}
_EVERY_CODE: Final = bytes(range(256))
_RECODE: Final = {
    Encoding.PCMU: ALAW.encode(ULAW.decode(_EVERY_CODE)),
    Encoding.PCMA: ULAW.encode(ALAW.decode(_EVERY_CODE)),
}


class Transcoder:
    """A stream of `src` bytes as `dst` bytes, however it is cut, split samples included.

    `n` samples in give `ceil(n * dst.rate_hz / src.rate_hz)` out after `flush`. Nothing
    is held back at whole milliseconds; otherwise a split sample, and at most two whole ones of 16
    or 24 kHz.
    """

    __slots__ = ("_filter", "_half", "_reader", "_recode", "_write", "dst", "src")

    def __init__(self, src: AudioFormat, dst: AudioFormat) -> None:
        """Starts from silence.

        Raises:
            ValueError: a format that is not one of those in `audio.format`.
        """
        for given in (src, dst):
            if given not in _FORMATS:
                raise ValueError(f"no transcoder for {given.encoding} at {given.rate_hz} Hz")
        self.src = src
        self.dst = dst
        self._filter: BlockFilter | None = None
        self._recode: bytes | None = None
        self._half = b""
        self._reader = _READERS[src.encoding]
        self._write = _WRITERS[dst.encoding]
        if src.rate_hz != dst.rate_hz:
            common = gcd(src.rate_hz, dst.rate_hz)
            up, down = dst.rate_hz // common, src.rate_hz // common
            self._filter = BlockFilter(up, down, self._reader)
        elif Encoding.PCM16 not in (src.encoding, dst.encoding) and src != dst:
            self._recode = _RECODE[src.encoding]

    def push(self, data: bytes) -> bytes:
        """Convert what `data` completes; return `data` itself where the formats agree."""
        if self._filter is not None:
            return self._write(self._filter.push(data))
        if self._recode is not None:
            return data.translate(self._recode)
        return data if self.src == self.dst else self._write(self._samples(data))

    def flush(self) -> bytes:
        """Return the rest; half of a split sample is dropped. The next push starts afresh."""
        self._half = b""
        return b"" if self._filter is None else self._write(self._filter.flush())

    def _samples(self, data: bytes) -> NDArray[np.float64]:
        data = self._half + data
        whole = len(data) - len(data) % self.src.bytes_per_sample
        self._half = data[whole:]
        return self._reader.read(np.frombuffer(data[:whole], self._reader.dtype))
