"""A carrier's queue of agent audio, played in real time, with its marks.

Pure: driven by `now_ms`. `stream` reads and writes the messages, `listening` measures the played
audio. Follows Twilio, voice/media-streams/websocket-messages: audio plays in the order of arrival,
a mark returns when all before it has been played or at once when nothing is queued, `clear`
empties the queue and returns every outstanding mark, and about ten minutes of audio fit.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

__all__ = ["BYTES_PER_MS", "QUEUE_LIMIT_MS", "CallerPlayout", "Heard", "MarkBack", "PlayoutEvent"]

# G.711 at 8 kHz: the one format that Media Streams carry.
BYTES_PER_MS: Final = 8
# Twilio warning 31931: "about ten minutes" of unplayed audio, the rest is discarded.
QUEUE_LIMIT_MS: Final = 600_000


@dataclass(frozen=True, slots=True)
class Heard:
    """Mu-law audio that reached the ear, from `at_byte` on: eighths of a ms since `start_ms`."""

    at_byte: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class MarkBack:
    """A mark to return; `cleared` when its audio was discarded unheard."""

    name: str
    at_ms: int
    cleared: bool


PlayoutEvent = Heard | MarkBack


class CallerPlayout:
    """The queue between a server and the caller's ear.

    Positions count bytes, so that no rounding can drift: byte 0 plays at `start_ms`.
    """

    def __init__(self, start_ms: int, *, limit_ms: int = QUEUE_LIMIT_MS) -> None:
        self._start_ms = start_ms
        self._limit_bytes = limit_ms * BYTES_PER_MS
        self._cursor = 0
        self._head_offset = 0  # of the first entry; slicing a large payload 50 times a second costs
        self._queue: deque[bytes | str] = deque()
        self._queued_bytes = 0

    @property
    def queued_ms(self) -> int:
        """Audio that waits to be heard, in ms, as of the last `advance`; part of a ms counts."""
        return -(-self._queued_bytes // BYTES_PER_MS)

    @property
    def playing(self) -> bool:
        return self._queued_bytes > 0

    @property
    def outstanding_marks(self) -> tuple[str, ...]:
        return tuple(entry for entry in self._queue if isinstance(entry, str))

    @property
    def unheard(self) -> bytes:
        """The audio that still waits to be heard."""
        audio = b"".join(entry for entry in self._queue if isinstance(entry, bytes))
        return audio[self._head_offset :]

    def push(self, payload: bytes, now_ms: int) -> int:
        """Queue audio; returns how many bytes did not fit and were discarded, as Twilio does.

        `advance(now_ms)` must have been called: audio pushed into an empty queue starts now.
        """
        self._settle(now_ms)
        fits = payload[: max(0, self._limit_bytes - self._queued_bytes)]
        if fits:
            self._queue.append(fits)
            self._queued_bytes += len(fits)
        return len(payload) - len(fits)

    def mark(self, name: str, now_ms: int) -> MarkBack | None:
        """Queue a mark, or return it at once when nothing is queued before it."""
        self._settle(now_ms)
        if not self._queue:
            return MarkBack(name, now_ms, cleared=False)
        self._queue.append(name)
        return None

    def clear(self, now_ms: int) -> list[MarkBack]:
        """Discard the unheard audio; every outstanding mark comes back, in order."""
        self._settle(now_ms)
        names = self.outstanding_marks
        self._queue.clear()
        self._head_offset = 0
        self._queued_bytes = 0
        return [MarkBack(name, now_ms, cleared=True) for name in names]

    def advance(self, now_ms: int) -> list[PlayoutEvent]:
        """Play up to `now_ms`; return the audio heard and the marks passed, in order."""
        target = self._position(now_ms)
        events: list[PlayoutEvent] = []
        while self._queue:
            entry = self._queue[0]
            if isinstance(entry, str):
                self._queue.popleft()
                at_ms = self._start_ms + -(-self._cursor // BYTES_PER_MS)
                events.append(MarkBack(entry, at_ms, cleared=False))
                continue
            room = target - self._cursor
            if room <= 0:
                break
            heard = entry[self._head_offset : self._head_offset + room]
            self._head_offset += len(heard)
            if self._head_offset == len(entry):
                self._queue.popleft()
                self._head_offset = 0
            events.append(Heard(self._cursor, heard))
            self._cursor += len(heard)
            self._queued_bytes -= len(heard)
        if not self._queue:
            self._cursor = max(self._cursor, target)
        return events

    def _position(self, now_ms: int) -> int:
        return (now_ms - self._start_ms) * BYTES_PER_MS

    def _settle(self, now_ms: int) -> None:
        """Move the cursor of an empty queue to now: the next byte plays at once.

        Raises:
            ValueError: audio that should have been heard by now is still queued: `advance` was
                not called, and its events would be lost.
        """
        position = self._position(now_ms)
        if self._queue and position > self._cursor:
            raise ValueError("call advance() first: audio is due")
        self._cursor = max(self._cursor, position)
