"""Writes recordings: one thread for all calls of a process, so that no disk ever holds up a sound.

The calls put batches into a bounded queue and never wait. The thread wakes a few times a second,
and writes what all of them have put there. Less than four seconds of a call's sound wait in
memory; all else is in its file, whose header is right after each write, so that it opens after a
process was killed. A disk that is full, or fails, ends the recording and not the call. Files are
readable by their owner only.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import queue
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from app.calls.recording.tape import CALLER, Batch
from app.calls.recording.wav_files import FRAME, FRAMES_FORMAT, repair
from app.events import CallId
from app.store.files import CallFiles
from app.threads import in_thread
from audio.wav import ULAW_STEREO_HEADER_BYTES, ulaw_stereo_header

__all__ = ["Recorder", "RecordingWriter"]


logger = logging.getLogger(__name__)

LAG_MS: Final = 600
"""Sound may come so late without being patched into what is on disk already."""
WRITE_EVERY_MS: Final = 500
GATHER_S: Final = 0.25
"""Each time that the thread wakes, it takes the processor from the calls for a moment."""
MAX_WAITING: Final = 500
"""Batches of all calls that may wait for the disk, some 40 kB each: 100 calls for 12 seconds."""
CLOSE_S: Final = 5.0
_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_SILENCE: Final = b"\xff"
_BYTES_PER_MS: Final = 16


class RecordingWriter:
    """The files of one recording. Blocking; belongs to the writer's thread.

    Raises:
        OSError: from any method, when the disk does not take it.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Created with its rights: a file that is made private later was readable until then.
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        self._wav = os.open(path, flags, 0o600)
        self._frames = -1
        self._written_ms = 0
        self._ahead = bytearray()  # pairs of samples from `_written_ms` on
        self._frame_records = bytearray()
        self._closed = False
        try:
            self._frames = os.open(path.with_suffix(".frames"), flags, 0o600)
            _write(self._wav, ulaw_stereo_header(0))
            head = {"format": FRAMES_FORMAT, "record": FRAME.format, **facts}
            _write(self._frames, json.dumps(head).encode("ascii") + b"\n")
        except OSError:
            self.abandon()
            raise

    def add(self, batch: Batch) -> None:
        """Take a part of the recording; it is on disk within a second."""
        for side, at_ms, ulaw in batch.sounds:
            self._place(side, at_ms, ulaw)
        if sys.byteorder == "big":
            batch.frames.byteswap()
        self._frame_records += batch.frames.tobytes()
        if batch.until_ms - LAG_MS - self._written_ms >= WRITE_EVERY_MS:
            self._write_until(batch.until_ms - LAG_MS)

    def finish(self, until_ms: int) -> None:
        """Write what is left, up to the end of the call, and close the files."""
        if not self._closed:
            self._write_until(until_ms)
            self.abandon()

    def abandon(self) -> None:
        """Close the files as they are."""
        if not self._closed:
            self._closed = True
            for handle in (self._wav, self._frames):
                if handle >= 0:
                    os.close(handle)

    def _place(self, side: int, at_ms: int, ulaw: bytes) -> None:
        offset = at_ms - self._written_ms
        if offset < 0:  # it comes late: that part of the file is written already
            late = ulaw[: -offset * 8]
            self._patch(side, at_ms, late)
            ulaw, offset = ulaw[len(late) :], 0
        begin = offset * _BYTES_PER_MS
        missing = begin + 2 * len(ulaw) - len(self._ahead)
        if missing > 0:
            self._ahead += _SILENCE * missing
        self._ahead[begin + side : begin + 2 * len(ulaw) : 2] = ulaw

    def _patch(self, side: int, at_ms: int, ulaw: bytes) -> None:
        where = ULAW_STEREO_HEADER_BYTES + at_ms * _BYTES_PER_MS
        pairs = bytearray(os.pread(self._wav, 2 * len(ulaw), where))
        pairs[side::2] = ulaw[: len(pairs) // 2]
        os.pwrite(self._wav, pairs, where)

    def _write_until(self, until_ms: int) -> None:
        size = max(0, until_ms - self._written_ms) * _BYTES_PER_MS
        with memoryview(self._ahead)[:size] as block:
            _write(self._wav, block)
            self._written_ms += len(block) // _BYTES_PER_MS
        # A caller who is away for an hour leaves an hour of silence: in pieces.
        while self._written_ms < until_ms:
            silent_ms = min(until_ms - self._written_ms, 10_000)
            _write(self._wav, _SILENCE * (silent_ms * _BYTES_PER_MS))
            self._written_ms += silent_ms
        del self._ahead[:size]
        os.pwrite(self._wav, ulaw_stereo_header(self._written_ms * 8), 0)
        _write(self._frames, self._frame_records)
        self._frame_records = bytearray()


def _write(handle: int, data: bytes | bytearray | memoryview) -> None:
    with memoryview(data) as view:
        done = 0
        while done < len(view):
            done += os.write(handle, view[done:])


_Work = tuple["_Live", Batch | Mapping[str, Any] | int]
"""A batch, the facts that a recording begins with, or the time at which it ends."""


class _Live:
    """A recording as the calls' thread and the writer's thread share it."""

    def __init__(self, path: Path, on_ended: Callable[[str], None]) -> None:
        self.path = path
        self.on_ended = on_ended
        self.writer: RecordingWriter | None = None  # of the writer's thread
        self.failed = False  # of the writer's thread


class Recorder:
    """Takes the sound of all calls, and has it written beside them."""

    def __init__(self, files: CallFiles) -> None:
        self._files = files
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._hurry = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Recorder]:
        """Repair what a killed process has left, and write until the context ends."""
        self._loop = asyncio.get_running_loop()
        try:
            repaired = await in_thread(partial(repair, self._files.recordings))
        except OSError as error:  # no reason not to answer calls
            facts = {"folder": str(self._files.recordings), "error": error.strerror}
            logger.warning("recordings cannot be read", extra=facts)
        else:
            if repaired:
                logger.info("recordings were repaired", extra={"recordings": repaired})
        try:
            yield self
        finally:
            await in_thread(self._close)

    def _close(self) -> None:
        if self._thread is None:
            return
        self._queue.put(None)
        self._hurry.set()
        self._thread.join(CLOSE_S)
        self._thread = None

    def begin(
        self, call_id: CallId, facts: Mapping[str, Any], on_ended: Callable[[str], None]
    ) -> LiveRecording:
        """Begin the recording of a call.

        `on_ended` is told once the files are whole and closed, or of the reason why they are not.
        """
        loop = self._loop
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, daemon=True, name="trunkline-recordings"
            )
            self._thread.start()

        def ended(reason: str) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
                if loop is not None:
                    loop.call_soon_threadsafe(on_ended, reason)

        live = _Live(self._files.recording(call_id), ended)
        recording = LiveRecording(self._queue, live, self._hurry)
        recording.put(facts)
        return recording

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            live, what = work
            if self._queue.empty() and not isinstance(what, int):
                self._hurry.wait(GATHER_S)
                self._hurry.clear()
            if live.failed:
                continue
            try:
                _perform(live, what)
            except OSError as error:
                live.failed = True
                if live.writer is not None:
                    live.writer.abandon()
                live.on_ended("disk_full" if error.errno in _FULL else "failed")
                logger.error(
                    "recording failed", extra={"file": str(live.path), "error": error.strerror}
                )
            else:
                if isinstance(what, int):
                    live.on_ended("")


def _perform(live: _Live, what: Batch | Mapping[str, Any] | int) -> None:
    if isinstance(what, Batch):
        if live.writer is not None:
            live.writer.add(what)
    elif isinstance(what, int):
        if live.writer is not None:
            live.writer.finish(what)
    else:
        live.writer = RecordingWriter(live.path, what)


class LiveRecording:
    """The recording of a call that goes on, as its call sees it."""

    def __init__(
        self, waiting: queue.SimpleQueue[_Work | None], live: _Live, hurry: threading.Event
    ) -> None:
        self._waiting = waiting
        self._live = live
        self._hurry = hurry
        self.lost_ms = 0
        """Sound that the disk was too slow for: it is silence in the file."""

    @property
    def path(self) -> Path:
        return self._live.path

    def put(self, what: Batch | Mapping[str, Any]) -> None:
        """Hand over a part; never waits."""
        if self._waiting.qsize() < MAX_WAITING:
            self._waiting.put((self._live, what))
        elif isinstance(what, Batch):
            caller = [len(ulaw) for side, _, ulaw in what.sounds if side == CALLER]
            self.lost_ms += sum(caller) // 8

    def close(self, until_ms: int) -> None:
        """End the recording at this time of the call; the files are closed soon after."""
        if self._waiting.qsize() < MAX_WAITING:  # its header is right as of the last write
            self._waiting.put((self._live, until_ms))
            self._hurry.set()
