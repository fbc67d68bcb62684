"""WAV files: the recording of a call, and speech to play into one.

RIFF/WAVE with 16-bit PCM or mu-law ("Multimedia Programming Interface and Data Specifications 1.0",
and WAVE_FORMAT_EXTENSIBLE in its PCM form when reading). Opening, naming and closing files is
left to the caller.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from audio.g711 import decode_ulaw

__all__ = ["ULAW_STEREO_HEADER_BYTES", "StereoRecorder", "read_wav", "ulaw_stereo_header"]

_SAMPLE: Final = np.dtype("<i2")
_SAMPLE_BYTES: Final = 2
_FRAME_BYTES: Final = 2 * _SAMPLE_BYTES
_HEADER: Final = struct.Struct("<4sI4s4sIHHIIHH4sI")
_FORMAT_PCM: Final = 0x0001
_FORMAT_ULAW: Final = 0x0007
_ULAW_HEADER: Final = struct.Struct("<4sI4s4sIHHIIHHH4sII4sI")
ULAW_STEREO_HEADER_BYTES: Final = _ULAW_HEADER.size
_FORMAT_EXTENSIBLE: Final = 0xFFFE
_PCM_SUBFORMAT: Final = bytes.fromhex("0100000000001000800000aa00389b71")
_MAX_DATA_BYTES: Final = 0xFFFFFFFF - _HEADER.size - 1  # sizes are 32 bits; whole frames below it
_TO_THE_END: Final = 0xFFFFFFFF
_MAX_PIECE_FRAMES: Final = 1 << 14  # memory used for one write, however long it is


def ulaw_stereo_header(frames: int, rate_hz: int = 8_000) -> bytes:
    """The header of a WAV with mu-law in two channels, in front of `frames` pairs of bytes.

    A format that is not PCM has a `fact` chunk (RIFFNEW, "New Multimedia Data Types", 1994).
    """
    return _ULAW_HEADER.pack(
        *(b"RIFF", _ULAW_HEADER.size - 8 + 2 * frames, b"WAVE"),
        *(b"fmt ", 18, _FORMAT_ULAW, 2, rate_hz, 2 * rate_hz, 2, 8, 0),
        *(b"fact", 4, frames),
        *(b"data", 2 * frames),
    )


class StereoRecorder:
    """A stereo WAV file, caller left, agent right, written side by side as the call goes on.

    Each side is written at absolute positions (samples since the start of the recording), in any
    order. Time that a side never wrote is silence; where it writes twice, the later one stays.
    Nothing is kept in memory: the other side's samples are read back from the file, and a gap costs
    neither time nor memory. The file is a valid WAV from the start, its length as of the last
    `flush` or `close`.
    """

    __slots__ = ("_closed", "_file", "_frames", "_rate_hz", "_start")

    def __init__(self, file: BinaryIO, rate_hz: int) -> None:
        """Writes the header at the file's position, and cuts off what the file held beyond.

        Raises:
            ValueError: a file that cannot be read, written and sought (open it with "w+b").
        """
        if not (file.readable() and file.writable() and file.seekable()):
            raise ValueError('a recording needs a file opened with "w+b"')
        self._file = file
        self._rate_hz = rate_hz
        self._frames = 0
        self._start = file.tell()
        self._closed = False
        file.truncate()  # so that time not written is a hole in the file, which reads as zeros
        self.flush()

    @property
    def duration_ms(self) -> int:
        """Length of the recording so far, rounded down."""
        return self._frames * 1000 // self._rate_hz

    def write_left(self, at_sample: int, samples: NDArray[np.int16]) -> None:
        """Puts caller audio at a position.

        Raises:
            TypeError: samples that are not int16.
            ValueError: a position before the start or beyond 4 GiB, or a closed recorder.
        """
        self._write(0, at_sample, samples)

    def write_right(self, at_sample: int, samples: NDArray[np.int16]) -> None:
        """Puts agent audio at a position.

        Raises:
            TypeError: samples that are not int16.
            ValueError: a position before the start or beyond 4 GiB, or a closed recorder.
        """
        self._write(1, at_sample, samples)

    def flush(self) -> None:
        """Brings the header up to date and hands everything to the operating system."""
        data_bytes = self._frames * _FRAME_BYTES
        header = _HEADER.pack(
            b"RIFF",
            _HEADER.size - 8 + data_bytes,
            b"WAVE",
            b"fmt ",
            16,
            _FORMAT_PCM,
            2,
            self._rate_hz,
            self._rate_hz * _FRAME_BYTES,
            _FRAME_BYTES,
            8 * _SAMPLE_BYTES,
            b"data",
            data_bytes,
        )
        self._file.seek(self._start)
        self._file.write(header)
        self._file.flush()

    def close(self) -> None:
        """Finishes the recording; the file itself stays open. Closing twice is harmless."""
        if not self._closed:
            self.flush()
            self._closed = True

    def _write(self, side: int, at_sample: int, samples: NDArray[np.int16]) -> None:
        if self._closed:
            raise ValueError("the recording is closed")
        if samples.dtype != np.int16:
            raise TypeError(f"a recording takes int16 samples, not {samples.dtype}")
        if at_sample < 0:
            raise ValueError(f"a recording has no sample {at_sample}")
        if (at_sample + len(samples)) * _FRAME_BYTES > _MAX_DATA_BYTES:
            raise ValueError("a WAV file cannot be longer than 4 GiB")
        for first in range(0, len(samples), _MAX_PIECE_FRAMES):
            self._write_piece(side, at_sample + first, samples[first : first + _MAX_PIECE_FRAMES])

    def _write_piece(self, side: int, at_sample: int, samples: NDArray[np.int16]) -> None:
        frames = np.zeros((len(samples), 2), _SAMPLE)
        overlap = min(self._frames - at_sample, len(samples))
        if overlap > 0:
            self._seek(at_sample)
            known = self._file.read(overlap * _FRAME_BYTES)
            frames[:overlap] = np.frombuffer(known, _SAMPLE).reshape(-1, 2)
        frames[:, side] = samples
        self._seek(at_sample)
        self._file.write(frames.tobytes())
        self._frames = max(self._frames, at_sample + len(samples))

    def _seek(self, frame: int) -> None:
        self._file.seek(self._start + _HEADER.size + frame * _FRAME_BYTES)


def read_wav(file: BinaryIO) -> tuple[int, NDArray[np.int16]]:
    """Rate and samples of a WAV with 16-bit PCM or mu-law; two channels are averaged into one.

    Chunks other than `fmt ` and `data` are skipped. A length of samples that is zero or beyond the
    end of the file, as programs leave it that write into a pipe, means up to the end.

    Raises:
        ValueError: not a WAV file, or neither 16-bit PCM nor mu-law with one or two channels.
    """
    riff = file.read(12)
    if len(riff) < 12 or riff[:4] != b"RIFF" or riff[8:] != b"WAVE":
        raise ValueError("not a WAV file: no RIFF/WAVE header")
    shape: tuple[int, int, bool] | None = None
    pad = b""
    while len(head := pad + file.read(8 - len(pad))) == 8:
        name, size = struct.unpack("<4sI", head)
        if name == b"data":
            if shape is None:
                raise ValueError("not a WAV file: samples before their format")
            data = _read_up_to(file, size or _TO_THE_END)
            return shape[0], _mono(data, channels=shape[1], ulaw=shape[2])
        body = _read_up_to(file, size)
        # Chunks start at even positions. Some programs forget the zero that sees to it: what
        # follows is then the first letter of the next name.
        pad = file.read(size % 2).strip(b"\0")
        if name == b"fmt ":
            shape = _parse_format(body)
    raise ValueError("not a WAV file: no samples in it")


def _read_up_to(file: BinaryIO, size: int) -> bytes:
    """At most `size` bytes, without reserving memory for a size that the file only claims."""
    pieces = []
    while size > 0 and (piece := file.read(min(size, 1 << 20))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _parse_format(body: bytes) -> tuple[int, int, bool]:
    """Rate and channels of a `fmt ` chunk, and True for mu-law."""
    if len(body) < 16:
        raise ValueError("not a WAV file: its format is cut short")
    tag, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", body)
    pcm = tag == _FORMAT_PCM or (tag == _FORMAT_EXTENSIBLE and body[24:40] == _PCM_SUBFORMAT)
    ulaw = tag == _FORMAT_ULAW and bits == 8
    if not (ulaw or (pcm and bits == 16)):
        wanted = "only 16-bit PCM and mu-law are read"
        raise ValueError(f"{wanted}, not format {tag:#06x} with {bits} bits")
    if channels not in (1, 2):
        raise ValueError(f"only mono and stereo are read, not {channels} channels")
    if rate_hz == 0:
        raise ValueError("not a WAV file: its rate is zero")
    return rate_hz, channels, ulaw


def _mono(data: bytes, *, channels: int, ulaw: bool) -> NDArray[np.int16]:
    size = 1 if ulaw else _SAMPLE_BYTES
    whole = len(data) // (size * channels) * channels
    if ulaw:
        samples = decode_ulaw(data[:whole])
    else:
        samples = np.frombuffer(data, _SAMPLE, whole).astype(np.int16)
    if channels == 1:
        return samples
    left, right = samples[0::2].astype(np.int32), samples[1::2].astype(np.int32)
    return ((left + right) >> 1).astype(np.int16)
