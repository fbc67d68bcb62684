"""The sound of one call as it was: what was heard of the caller, and what was heard of the agent.

Everything stands on the clock of the call, in ms since its admission. A frame of the caller stands
where its timestamp puts it, counted from the moment when its stream opened. The agent's sound
stands where the carrier plays it: behind what was sent before, and no sooner than it was sent; it
is given out once `Playout` knows that it was heard, and what an interruption has cut off never is.
A carrier that plays later than that is noticed by its marks, and what follows is moved.

Pure, and it writes nothing: `take` hands over what has come since, and the tape forgets it. Only
sound of the agent that is still to be heard is kept, up to `MAX_UNHEARD_MS`.
"""

from __future__ import annotations

import struct
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from app.calls.recording.notice import RecordingNotice
from audio.format import PCMU_8K, AudioFormat
from audio.transcoder import Transcoder

__all__ = ["AGENT", "CALLER", "NO_PLACE", "Batch", "Tape"]


CALLER: Final = 0
AGENT: Final = 1
"""The sides, in the order of the channels of the file."""

NO_PLACE: Final = 0xFFFFFFFF
"""In place of a time: nothing of it was kept."""
_UINT32: Final = 0xFFFFFFFF

MAX_UNHEARD_MS: Final = 600_000
"""Of more than this, the rest is recorded as silence: no model talks for so long at a time."""
LATE_MS: Final = 100
"""A mark that is later than the quickest one by more than this: the carrier plays later."""
_EARLIEST_MS: Final = 10_000
_LATEST_MS: Final = 1_000
"""A frame whose timestamp puts it further from now than this begins the stream's time anew."""
_KEY_BEFORE_MS: Final = 400
_KEY_AFTER_MS: Final = 300
"""The tone of a key lies around the message that names it (a key is held for 50 to 500 ms)."""
_FRAME_MS: Final = 20
_PLACED: Final = struct.Struct("=IIII")
"""A frame as `Batch` has it."""


@dataclass(slots=True)
class Batch:
    """The part of a recording between two looks at its tape.

    `sounds` are a side, a time in ms and mu-law at 8 kHz; what comes later in the list replaces
    what stands there already. `frames` are the caller's, four numbers for each: when it arrived,
    its timestamp, its place in the recording (`NO_PLACE` where it has none), all in ms, and its
    length in bytes. Nothing before `until_ms` is still to come, but for what is late.
    """

    until_ms: int
    sounds: list[tuple[int, int, bytes]] = field(default_factory=list)
    frames: array[int] = field(default_factory=lambda: array("I"))


class _Run:
    """Sound of one side without a gap: most frames only make it longer."""

    __slots__ = ("begin_ms", "end_ms", "pieces")

    def __init__(self) -> None:
        self.begin_ms = self.end_ms = 0
        self.pieces: list[bytes] = []


@dataclass(slots=True)
class _Queued:
    """Sound at the carrier; `tone`: it was not sent through `Playout`."""

    at_ms: int
    audio: bytes
    tone: bool


class Tape:
    """The sound of one call. Times are ms of the call's clock."""

    def __init__(self, notice: RecordingNotice) -> None:
        self.notice = notice
        self.paused = False
        """Somebody has asked that nothing is recorded for now."""
        self.private: Callable[[], bool] = lambda: False
        """Asked for each sound: True while the caller keys digits that nobody may know."""
        self._format = PCMU_8K
        self._bytes_per_ms = 8
        self._started_ms: int | None = None
        self._offset_ms: int | None = None
        self._queue: deque[_Queued] = deque()
        self._queued_ms = 0
        self._played = 0  # bytes of this generation of the playout that were given out
        self._ends_ms = 0
        self._quickest_ms: int | None = None
        self._hidden_until_ms = 0
        self._came: list[int | bytes] = []  # four of a frame: flat, as nothing else is as quick
        self._runs = (_Run(), _Run())
        self._sounds: list[tuple[int, int, bytes]] = []
        self._frames = bytearray()

    def silenced(self) -> bool:
        """Nothing is kept of what is heard now, of either side."""
        return self.paused or self.private()

    def on_stream(self, audio_format: AudioFormat, now_ms: int) -> None:
        """A media stream is open: what waits for it begins to play now."""
        self._place_frames()
        self._format = PCMU_8K if audio_format == PCMU_8K else audio_format
        self._bytes_per_ms = audio_format.bytes_per_second // 1000
        self._started_ms, self._offset_ms = now_ms, None
        self._ends_ms = now_ms
        for queued in self._queue:
            queued.at_ms = self._ends_ms
            self._ends_ms += len(queued.audio) // self._bytes_per_ms

    # The caller ---------------------------------------------------------------------------------

    def on_caller(self, audio: bytes, timestamp_ms: int, now_ms: int) -> None:
        """A frame of the caller has come. Fifty times a second: many are placed together."""
        kept = now_ms >= self._hidden_until_ms and self.notice.permits
        kept = kept and not self.paused and not self.private()
        self._came += (now_ms, timestamp_ms, audio if kept else b"", len(audio))

    def _place_frames(self) -> None:
        came: Iterator[Any] = iter(self._came)
        self._came = []
        pieces: list[bytes] = []  # of sound without a gap
        begin_ms, end_ms = 0, NO_PLACE
        for now_ms, timestamp_ms, audio, size in zip(came, came, came, came, strict=True):
            at_ms = self._place(timestamp_ms, now_ms - size // self._bytes_per_ms)
            if not audio or at_ms < 0:
                at_ms = NO_PLACE
            if at_ms != end_ms:
                self._emit(CALLER, begin_ms, b"".join(pieces))
                pieces, begin_ms, end_ms = [], at_ms, at_ms
            if at_ms != NO_PLACE:
                pieces.append(audio)
                end_ms += size // self._bytes_per_ms
            self._frames += _PLACED.pack(now_ms, timestamp_ms & _UINT32, at_ms, size)
        self._emit(CALLER, begin_ms, b"".join(pieces))

    def _place(self, timestamp_ms: int, first_ms: int) -> int:
        """The place of a frame that can have begun at `first_ms` at the latest."""
        if self._offset_ms is not None:
            at_ms = self._offset_ms + timestamp_ms
            if first_ms - _EARLIEST_MS <= at_ms <= first_ms + _LATEST_MS:
                return at_ms
        self._offset_ms = first_ms - timestamp_ms
        held_up_ms = self._offset_ms - (self._started_ms or 0)
        if self._started_ms is not None and 0 < held_up_ms <= _LATEST_MS:
            self._offset_ms = self._started_ms  # its stream was not, when it began
        return self._offset_ms + timestamp_ms

    def on_secret_key(self, now_ms: int) -> None:
        """The caller has pressed a key that nobody may know: its tone is taken out."""
        self._place_frames()
        self._hidden_until_ms = now_ms + _KEY_AFTER_MS
        begin_ms = max(0, now_ms - _KEY_BEFORE_MS)
        self._emit(CALLER, begin_ms, self._format.silence(now_ms - begin_ms))

    # The agent ----------------------------------------------------------------------------------

    def on_agent(self, audio: bytes, now_ms: int, *, tone: bool = False) -> None:
        """Sound of the agent was sent, in whole frames; `tone`: past the playout."""
        lasts_ms = len(audio) // self._bytes_per_ms
        begin_ms = max(self._ends_ms, now_ms)
        self._ends_ms = begin_ms + lasts_ms
        self._queued_ms += lasts_ms
        if self._queued_ms > MAX_UNHEARD_MS:
            audio = self._format.silence(_FRAME_MS) * (lasts_ms // _FRAME_MS)
        self._queue.append(_Queued(begin_ms, audio, tone))

    def on_heard(self, heard_bytes: int, now_ms: int) -> None:
        """So much of the playout's generation was heard by now."""
        queue = self._queue
        while queue:
            first = queue[0]
            size = len(first.audio)
            if first.tone:
                due = size if now_ms >= first.at_ms + size // self._bytes_per_ms else 0
            else:
                due = min(size, heard_bytes - self._played)
                due -= due % self._bytes_per_ms
            if due <= 0:
                return
            if not self.silenced():
                self._emit(AGENT, first.at_ms, first.audio[:due])
            lasts_ms = due // self._bytes_per_ms
            self._queued_ms -= lasts_ms
            self._played += 0 if first.tone else due
            if due == size:
                queue.popleft()
            else:
                first.audio = first.audio[due:]
                first.at_ms += lasts_ms

    def on_mark(self, heard_bytes: int, now_ms: int) -> None:
        """A mark came back: the carrier itself says how much was heard."""
        self.on_heard(heard_bytes, now_ms)
        if not self._queue:
            return
        late_ms = now_ms - self._queue[0].at_ms  # the mark stands right before it
        if late_ms < 0:
            return
        self._quickest_ms = min(self._quickest_ms or late_ms, late_ms)
        later_ms = late_ms - self._quickest_ms
        if later_ms > LATE_MS:
            self._ends_ms += later_ms
            for queued in self._queue:
                queued.at_ms += later_ms

    def on_cut(self, heard_bytes: int, now_ms: int) -> None:
        """The carrier was told to play no more, when so much was heard."""
        self.on_heard(heard_bytes, now_ms)
        first = self._queue[0] if self._queue else None
        if first is not None and first.tone and first.at_ms < now_ms and not self.silenced():
            heard = first.audio[: (now_ms - first.at_ms) * self._bytes_per_ms]
            self._emit(AGENT, first.at_ms, heard)
        self._queue.clear()
        self._queued_ms = self._played = 0
        self._ends_ms = now_ms

    # The recording ------------------------------------------------------------------------------

    def take(self, now_ms: int) -> Batch:
        """Hand over what has come since the last look."""
        self._place_frames()
        for side in (CALLER, AGENT):
            self._end_run(side)
        batch = Batch(now_ms, self._sounds)
        batch.frames.frombytes(self._frames)
        self._sounds, self._frames = [], bytearray()
        return batch

    def _emit(self, side: int, at_ms: int, audio: bytes) -> None:
        if not audio:
            return
        if self._format is not PCMU_8K:
            audio = self._ulaw(audio)
        run = self._runs[side]
        if run.end_ms != at_ms:
            self._end_run(side)
            run.begin_ms = at_ms
        run.pieces.append(audio)
        run.end_ms = at_ms + len(audio) // 8

    def _end_run(self, side: int) -> None:
        run = self._runs[side]
        if run.pieces:
            self._sounds.append((side, run.begin_ms, b"".join(run.pieces)))
            run.pieces = []
        run.begin_ms = run.end_ms

    def _ulaw(self, audio: bytes) -> bytes:
        converted = Transcoder(self._format, PCMU_8K)
        return converted.push(audio) + converted.flush()
