"""The frames on the pipes between the engine and its worker processes.

A frame is a kind (one byte), the number of the piece of work (four bytes), the length of its body
(four bytes), all little-endian, and the body. Used on both sides, so it imports nothing heavy.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import BinaryIO, Final

__all__ = ["HEADER_BYTES", "Frame", "Kind", "pack", "read_frame", "unpack_header"]


_HEADER: Final = struct.Struct("<BII")
HEADER_BYTES: Final = _HEADER.size
_MAX_BODY_BYTES: Final = 16 * 1024 * 1024
"""More than any set-up or sentence needs: a larger length means that the pipe is out of step."""


class Kind(IntEnum):
    """The kind of a frame. The first row goes to a worker, the second comes from one."""

    SETUP, BEGIN, AUDIO, FINISH, ABANDON = 1, 2, 3, 4, 5
    READY, REFUSED, RESULT, SOUND, DONE, FAILED = 16, 17, 18, 19, 20, 21


@dataclass(frozen=True, slots=True)
class Frame:
    """One message on a worker's pipe."""

    kind: Kind
    number: int
    body: bytes


def pack(kind: Kind, number: int = 0, body: bytes = b"") -> bytes:
    """A frame as bytes."""
    return _HEADER.pack(kind, number, len(body)) + body


def unpack_header(header: bytes) -> tuple[Kind, int, int]:
    """Kind, number and body length.

    Raises:
        ValueError: not a valid header.
    """
    kind, number, length = _HEADER.unpack(header)
    if length > _MAX_BODY_BYTES:
        raise ValueError(f"a frame of {length} bytes")
    return Kind(kind), number, length


def read_frame(stream: BinaryIO) -> Frame | None:
    """The next frame, or `None` at the end of the stream (also in the middle of a frame)."""
    header = stream.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        return None
    kind, number, length = unpack_header(header)
    body = stream.read(length)
    return Frame(kind, number, body) if len(body) == length else None
