"""Files that belong to calls: recordings, and messages that callers left. Everything here blocks.

`RECORDINGS/CALL_ID.*` is the sound of a call. A message is `MESSAGES/TIME-CALL_ID.json`, or, of the
offline receptionist, `MESSAGES/TIME-ITEM_ID.wav` or `.txt`: the item is a turn of the call.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["CallFiles", "remove"]

_CALL_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,80}", re.ASCII)


@dataclass(frozen=True, slots=True)
class CallFiles:
    """The folders of a server."""

    recordings: Path
    messages: Path

    def recording(self, call_id: str) -> Path:
        """The place of a call's WAV, whether or not it is there.

        Raises:
            ValueError: no call has such an id.
        """
        if not _CALL_ID.fullmatch(call_id):  # nothing in it leads out of the folder
            raise ValueError("not a call id")
        return self.recordings / f"{call_id}.wav"

    def of(self, call_ids: Collection[str], item_ids: Collection[str] = ()) -> list[Path]:
        """The files of calls, given the items of what was said in them."""
        wanted = {*call_ids}
        found = [path for path in _files(self.recordings) if path.name.partition(".")[0] in wanted]
        named = {*call_ids, *item_ids} - {""}
        return found + [
            path for path in _files(self.messages) if path.stem.partition("-")[2] in named
        ]

    def older_than(self, at_s: float, *, messages: bool) -> list[Path]:
        """Recordings, or messages, that were last written before: seconds since 1970."""
        found = []
        for path in _files(self.messages if messages else self.recordings):
            with contextlib.suppress(OSError):  # removed by somebody else
                if path.stat().st_mtime < at_s:
                    found.append(path)
        return found


def _files(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.glob("*") if path.is_file() and not path.is_symlink())


def remove(paths: Iterable[Path]) -> int:
    """Remove files; returns how many there were.

    Raises:
        OSError: one of them cannot be removed.
    """
    count = 0
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
            count += 1
    return count
