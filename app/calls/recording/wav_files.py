"""The files of recordings: `<call id>.wav`, and `<call id>.frames` beside it.

The WAV has mu-law at 8 kHz in two channels, the caller left and the agent right, as the telephone
carried it. The frames file begins with one line of JSON and goes on with `FRAME` records, one for
each frame that the carrier sent: docs/recording-and-cost.md describes both. Blocking.
"""

from __future__ import annotations

import os
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from audio.wav import ULAW_STEREO_HEADER_BYTES, ulaw_stereo_header

__all__ = ["FRAME", "FRAMES_FORMAT", "repair"]


FRAME: Final = struct.Struct("<IIII")
"""The arrival of a frame, its timestamp and its place (ms, 0xFFFFFFFF for none), its bytes."""
FRAMES_FORMAT: Final = "trunkline-frames-1"
_REPAIRED_S: Final = 7 * 86_400
"""Recordings that are older than this are not looked at again."""


def repair(folder: Path) -> int:
    """Complete the headers that a killed process has left; return how many there were.

    Raises:
        OSError: the folder cannot be read.
    """
    repaired = 0
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                if entry.name.endswith(".wav") and _is_fresh(entry):
                    repaired += _repair(Path(entry.path))
    return repaired


def _is_fresh(entry: os.DirEntry[str]) -> bool:
    return time.time() - entry.stat().st_mtime < _REPAIRED_S


def _repair(path: Path) -> bool:
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        header = ulaw_stereo_header(max(0, size - ULAW_STEREO_HEADER_BYTES) // 2)
        file.seek(0)
        if file.read(len(header)) == header:
            return False
        file.seek(0)
        file.write(header)
        return True
