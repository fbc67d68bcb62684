"""Events on disk that the store has not taken yet: lines of JSON, in the order they came.

Each process has a file of its own and holds a lock on it, which ends with the process, however that
ends. So the file of a dead process is known by its lock, and the next process sees to its events
and calls. What is put is synced to the disk before `put` returns. Everything here blocks.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from app.events import CallId
from app.store.base import StoredEvent

__all__ = ["Spool", "SpoolFull", "leftovers"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_FLAGS: Final = os.O_RDWR | getattr(os, "O_BINARY", 0)  # Windows would change the ends of lines


class SpoolFull(OSError):
    """The file has reached its limit."""


class Spool:
    """The file of one process, `FOLDER/INSTANCE.jsonl`."""

    def __init__(self, path: Path, file: int, max_bytes: int) -> None:
        """Use `open_spool` and `leftovers`."""
        self.path = path
        self.pending = 0
        """Events that wait; of a file that was found, unknown until it was read."""
        self._file = file
        self._max_bytes = max_bytes
        self._head = 0  # where the first event that waits begins
        self._size = os.fstat(file).st_size

    @classmethod
    def create(cls, folder: Path, instance: str, *, max_bytes: int) -> Spool:
        """Make the file of this process.

        Raises:
            OSError: the folder cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / f"{instance}.jsonl"
        # Under another name until it is locked: `leftovers` of another process would take it.
        # Windows renames no file that is open.
        made = path if os.name == "nt" else path.with_suffix(".new")
        file = os.open(made, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        _lock(file)
        if made != path:
            made.rename(path)
        return cls(path, file, max_bytes)

    @property
    def instance(self) -> str:
        return self.path.stem

    @property
    def empty(self) -> bool:
        return self._head >= self._size

    def put(self, records: Sequence[StoredEvent]) -> None:
        """Keep events: all of them, or none.

        Raises:
            SpoolFull: they are too many.
            OSError: the disk does not take them.
        """
        data = "".join(_line(record) for record in records).encode("ascii")
        if self._size + len(data) > self._max_bytes:
            raise SpoolFull(f"{self.path} holds {self._size} bytes")
        try:
            _write_at(self._file, data, self._size)
            os.fsync(self._file)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise
        self._size += len(data)
        self.pending += len(records)

    def first(self, limit: int) -> tuple[Sequence[StoredEvent], int]:
        """The first events that wait, and the place behind them, for `drop`.

        A line that is not an event is skipped: a process that was killed may have left half of one.
        """
        records: list[StoredEvent] = []
        with open(self._file, "rb", closefd=False) as file:
            file.seek(self._head)
            while len(records) < limit and (line := file.readline()):
                record = _record(line)
                if record is not None:
                    records.append(record)
            return records, file.tell()

    def drop(self, upto: int, count: int) -> None:
        """Forget the first `count` events, which end at `upto`: the store has them."""
        self._head = upto
        self.pending = max(0, self.pending - count)
        if self._head >= self._size:
            os.ftruncate(self._file, 0)
            self._head = self._size = self.pending = 0

    def forget(self, call_ids: Collection[CallId]) -> None:
        """Remove the events of calls, wherever they stand."""
        records, _ = self.first(2**62)
        kept = [record for record in records if record.call_id not in call_ids]
        if len(kept) == len(records) and self._head == 0:
            return
        data = "".join(_line(record) for record in kept).encode("ascii")
        _write_at(self._file, data, 0)
        os.ftruncate(self._file, len(data))
        os.fsync(self._file)
        self._head, self._size, self.pending = 0, len(data), len(kept)

    def close(self) -> None:
        """Let the file go; an empty one is removed."""
        if self.empty and os.name != "nt":
            self.path.unlink(missing_ok=True)
        os.close(self._file)
        if self.empty and os.name == "nt":  # which removes no file that is open
            self.path.unlink(missing_ok=True)


def leftovers(folder: Path, *, max_bytes: int) -> list[Spool]:
    """The files of processes that are gone; they are ours from now on."""
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        with contextlib.suppress(OSError):
            file = os.open(path, _FLAGS)
            if _lock(file):
                found.append(Spool(path, file, max_bytes))
            else:
                os.close(file)
    return found


def _line(record: StoredEvent) -> str:
    facts: dict[str, Any] = asdict(record)
    del facts["position"]
    facts["at"] = (record.at - _EPOCH) // _MILLISECOND
    return json.dumps(facts, separators=(",", ":")) + "\n"


def _record(line: bytes) -> StoredEvent | None:
    try:
        facts = json.loads(line)
        facts["at"] = _EPOCH + facts["at"] * _MILLISECOND
        return StoredEvent(**facts)
    except (ValueError, TypeError, KeyError, OverflowError):
        return None


def _write_at(file: int, data: bytes, at: int) -> None:
    os.lseek(file, at, os.SEEK_SET)
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]


def _lock(file: int) -> bool:
    """Lock a file until it is closed; False when another process has it."""
    try:
        import fcntl
    except ImportError:  # Windows, whose locks are in msvcrt
        import msvcrt

        lock_one_byte: Any = getattr(msvcrt, "locking")  # noqa: B009 - unknown to mypy elsewhere
        try:
            lock_one_byte(file, 2, 1)  # LK_NBLCK
        except OSError:
            return False
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
