"""The files of recordings: `<call id>.wav`, and `<call id>.frames` beside it.

The WAV has mu-law at 8 kHz in two channels, the caller left and the agent right, as the telephone
carried it. The frames file begins with one line of JSON and goes on with `FRAME` records, one for
each frame that the carrier sent: docs/recording-and-cost.md describes both.
"""

from __future__ import annotations

import os
import re
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from app.events import CallId
from audio.wav import ULAW_STEREO_HEADER_BYTES, ulaw_stereo_header

__all__ = ["FRAME", "FRAMES_FORMAT", "RecordingFile", "Recordings"]


FRAME: Final = struct.Struct("<IIII")
"""The arrival of a frame, its timestamp and its place (ms, 0xFFFFFFFF for none), its bytes."""
FRAMES_FORMAT: Final = "trunkline-frames-1"
_CALL_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,80}", re.ASCII)
_REPAIRED_S: Final = 7 * 86_400
"""Recordings that are older than this are not looked at again."""


@dataclass(frozen=True, slots=True)
class RecordingFile:
    """A recording on disk."""

    call_id: CallId
    path: Path
    size_bytes: int
    changed_at: float
    """Unix time."""

    @property
    def frames_path(self) -> Path:
        return self.path.with_suffix(".frames")

    @property
    def duration_ms(self) -> int:
        return max(0, self.size_bytes - ULAW_STEREO_HEADER_BYTES) // 16


class Recordings:
    """The folder of recordings, made when there is one. Blocking: not for an event loop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, call_id: str) -> Path:
        """The place of a call's WAV, whether or not it is there.

        Raises:
            ValueError: no call has such an id.
        """
        if not _CALL_ID.fullmatch(call_id):
            raise ValueError("not a call id")
        return self.folder / f"{call_id}.wav"

    def find(self, call_id: str) -> RecordingFile | None:
        """The recording of a call, also of one that goes on."""
        with suppress(ValueError):
            return _file(self.path(call_id))
        return None

    def open(self, call_id: str) -> BinaryIO:
        """The WAV of a call, open for reading.

        Raises:
            FileNotFoundError: there is none.
        """
        found = self.find(call_id)
        if found is None:
            raise FileNotFoundError(f"no recording of {call_id[:80]}")
        return found.path.open("rb")

    def all(self) -> Iterator[RecordingFile]:
        """Every recording, in no order."""
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.endswith(".wav") and (found := _file(Path(entry.path))):
                    yield found

    def erase(self, call_id: str) -> bool:
        """Remove everything that was recorded of a call; False when there was nothing.

        Of a call that goes on, what is recorded from here on is not kept either.
        """
        try:
            path = self.path(call_id)
        except ValueError:
            return False
        erased = False
        for one in (path, path.with_suffix(".frames")):
            with suppress(FileNotFoundError):
                one.unlink()
                erased = True
        return erased

    def repair(self) -> int:
        """Complete the headers that a killed process has left; return how many there were."""
        repaired = 0
        for one in self.all():
            if time.time() - one.changed_at < _REPAIRED_S:
                with suppress(OSError):
                    repaired += _repair(one.path)
        return repaired


def _file(path: Path) -> RecordingFile | None:
    try:
        facts = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return RecordingFile(CallId(path.stem), path, facts.st_size, facts.st_mtime)


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
