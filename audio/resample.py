"""Streaming rate changes between 8, 16 and 24 kHz by one minimum-phase FIR filter.

Passband (300-3400 Hz; to 6800 Hz between 16 and 24 kHz) flat within 0.04 dB, images and aliases
95 dB down, delay 0.3 ms at 1 kHz and below 1 ms all over the passband: see `docs/audio.md`.

A rate change by `up / down` maps each group of `down` input samples to `up` output samples. The
output of 16 groups, a block, is one row of input samples times one fixed matrix, so a push is
one matrix product whose rows overlap in the input by the length of the filter. All state is the
tail of the input, kept as bytes: the filter's history, then whatever is short of a group (a
split sample included).

The output does not depend on how the input was cut, to the last bit. Taps are whole multiples of
2**-22 and samples are int16, so each sum is a whole multiple of 2**-22 below 2**20: float64 holds
it exactly, whatever order or instruction a linear algebra library sums in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from audio.taps import HALF_BAND, TAP_BITS, THIRD_BAND, Prototype

__all__ = ["PCM16_READER", "BlockFilter", "Resampler", "SampleReader", "round_and_saturate"]

_PROTOTYPES: Final[dict[tuple[int, int], Prototype]] = {
    (3, 1): THIRD_BAND,  # 8 -> 24 kHz
    (1, 3): THIRD_BAND,  # 24 -> 8 kHz
    (3, 2): THIRD_BAND,  # 16 -> 24 kHz
    (2, 3): THIRD_BAND,  # 24 -> 16 kHz
    (2, 1): HALF_BAND,  # 8 -> 16 kHz
    (1, 2): HALF_BAND,  # 16 -> 8 kHz
}

_BLOCK_GROUPS: Final = 16
"""Groups per row: more would multiply by zero more often, fewer repeat more history."""

_PRODUCT_LIMIT: Final = 1 << 17
"""Multiplications per matrix product. OpenBLAS wakes other threads above 2**18, and a call must
not take the core that another call runs on; half of that also keeps the rows in the L2 cache."""

_LOWEST: Final = np.array(-32768.0)  # arrays, not numbers: converting a number costs 0.1 us a call
_HIGHEST: Final = np.array(32767.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleReader:
    """Conversion of bytes to samples: a code's type, the code of silence, codes to float64."""

    dtype: np.dtype[Any]
    idle: bytes
    read: Callable[[NDArray[Any]], NDArray[np.float64]]


PCM16_READER: Final = SampleReader(
    dtype=np.dtype("<i2"), idle=b"\0\0", read=lambda codes: codes.astype(np.float64)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kernel:
    """The filter of one ratio as a matrix from a row of input samples to a block of output."""

    up: int
    down: int
    history: int  # samples before a block that its output depends on
    matrix: NDArray[np.float64]


@cache
def _kernel(up: int, down: int) -> _Kernel:
    """The kernel of a ratio, made once per process.

    Output sample `o` of a block lies `o * down` steps of the common rate (`up` times the input
    rate) after the block's first input sample. It is read `down - 1` steps late, which is what
    makes it depend on all of its group and on nothing after it.

    Raises:
        ValueError: a ratio that no prototype serves.
    """
    prototype = _PROTOTYPES.get((up, down))
    if prototype is None:
        raise ValueError(f"no filter for a rate change by {up}/{down}")
    taps = np.array(prototype.taps, np.float64) * up / 2.0**TAP_BITS  # exact: `up` is whole
    history = (len(taps) - down) // up
    row = np.arange(history + _BLOCK_GROUPS * down)[:, None] - history
    column = np.arange(_BLOCK_GROUPS * up)[None, :]
    lag = column * down + down - 1 - row * up
    inside = (lag >= 0) & (lag < len(taps))
    matrix = np.where(inside, taps[np.where(inside, lag, 0)], 0.0)
    return _Kernel(up=up, down=down, history=history, matrix=np.ascontiguousarray(matrix))


class BlockFilter:
    """Bytes of one encoding in, samples at `up / down` of their rate out, not yet rounded.

    For those who round by a table of their own (`audio.transcoder`); all others want `Resampler`.
    """

    # The hottest path of the server: what `push` needs is looked up here once, not per frame.
    __slots__ = (
        "_group_bytes",
        "_history_bytes",
        "_kernel",
        "_matrix",
        "_reader",
        "_row_limit",
        "_row_samples",
        "_strides",
        "_tail",
    )

    def __init__(self, up: int, down: int, reader: SampleReader) -> None:
        """Starts from silence.

        Raises:
            ValueError: a ratio that no prototype serves.
        """
        sample_bytes = reader.dtype.itemsize
        self._kernel = _kernel(up, down)
        self._reader = reader
        self._matrix = self._kernel.matrix
        self._row_samples = len(self._matrix)
        self._row_limit = _PRODUCT_LIMIT // self._matrix.size
        self._group_bytes = down * sample_bytes
        self._history_bytes = self._kernel.history * sample_bytes
        self._strides = (_BLOCK_GROUPS * self._group_bytes, sample_bytes)
        self._tail = reader.idle * self._kernel.history

    def push(self, data: bytes) -> NDArray[np.float64]:
        """The output of every group that `data` completes: on the int16 scale, perhaps beyond."""
        joined = self._tail + data
        groups = (len(joined) - self._history_bytes) // self._group_bytes
        self._tail = joined[groups * self._group_bytes :]
        blocks, odd = divmod(groups, _BLOCK_GROUPS)
        if not odd:
            return self._filter(joined, blocks)
        # Any filling does for the rest of the last block: its output is cut off.
        padded = joined + bytes(self._strides[0])
        return self._filter(padded, blocks + 1)[: groups * self._kernel.up]

    def flush(self) -> NDArray[np.float64]:
        """The output still due for samples short of a group; the next push starts afresh.

        In all, `n` samples give `ceil(n * up / down)`. Half of a split sample is dropped.
        """
        kernel, idle = self._kernel, self._reader.idle
        samples = (len(self._tail) - self._history_bytes) // len(idle)
        due = -(-samples * kernel.up // kernel.down)
        whole = self._tail[: self._history_bytes + samples * len(idle)]
        self._tail = idle * kernel.history
        return self._filter(whole + idle * (_BLOCK_GROUPS * kernel.down), 1)[:due]

    def _filter(self, joined: bytes, blocks: int) -> NDArray[np.float64]:
        reader = self._reader
        rows: NDArray[Any] = np.ndarray(
            (blocks, self._row_samples), reader.dtype, joined, 0, self._strides
        )
        output: NDArray[np.float64]
        if blocks <= self._row_limit:
            output = reader.read(rows).dot(self._matrix)  # `np.dot` first asks who else could
        else:
            output = np.empty((blocks, self._matrix.shape[1]))
            for first in range(0, blocks, self._row_limit):
                part = slice(first, first + self._row_limit)
                reader.read(rows[part]).dot(self._matrix, out=output[part])
        return output.ravel()


def round_and_saturate(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """`levels` as whole numbers (ties to even) in the range of int16, in place."""
    np.rint(levels, out=levels)
    np.maximum(levels, _LOWEST, out=levels)  # `clip` is a function of Python around these
    np.minimum(levels, _HIGHEST, out=levels)
    return levels


class Resampler:
    """A stream of mono int16 samples, shape `(n,)`, at `up / down` times its rate.

    Ratios: 3/1, 1/3, 2/1, 1/2, 3/2, 2/3. Nothing is held back from a push of whole groups of
    `down` samples; otherwise at most `down - 1` samples wait for the next one.
    """

    __slots__ = ("_filter",)

    def __init__(self, up: int, down: int) -> None:
        """Starts from silence.

        Raises:
            ValueError: another ratio.
        """
        self._filter = BlockFilter(up, down, PCM16_READER)

    def push(self, samples: NDArray[np.int16]) -> NDArray[np.int16]:
        """The output that `samples` complete.

        Raises:
            TypeError: samples that are not int16.
        """
        if samples.dtype != np.int16:
            raise TypeError(f"resampling takes int16 samples, not {samples.dtype}")
        data = samples.astype("<i2", copy=False).tobytes()
        return round_and_saturate(self._filter.push(data)).astype(np.int16)

    def flush(self) -> NDArray[np.int16]:
        """The rest: `ceil(n * up / down)` samples in all for `n` pushed. Ends the stream."""
        return round_and_saturate(self._filter.flush()).astype(np.int16)
