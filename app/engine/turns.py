"""Caller audio of a session: the input buffer, its clock, and where turns begin and end.

Pure. The clock counts samples, not time: every `..._ms` here is a position in the audio that the
client has appended (as `audio_start_ms` in OpenAI's events), so the same audio gives the same
turns however fast it arrives. Audio is int16 mono at 16 kHz. Bounded: an open turn ends by itself
at `max_turn_ms`; without turn detection the last `max_turn_ms` wait for a commit; between turns
only what a turn may reach back for is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from app.engine.refusal import Refusal
from app.realtime.events import ServerVad
from audio.format import PCM16_16K

__all__ = ["CallerInput", "Edge", "TurnAudio", "TurnClosed", "TurnOpened", "TurnStep"]

MIN_COMMIT_MS: Final = 100
"""OpenAI refuses to commit less ("buffer too small. Expected at least 100ms")."""
LOOK_BACK_MS: Final = 1_000
"""Kept between turns beside the padding: how late a detector may report that speech began."""


class Edge(Protocol):
    """A change of voice activity, in milliseconds since the detector was made.

    A start lies before the first sound by the padding, an end after the silence that proved it.
    """

    @property
    def started(self) -> bool: ...
    @property
    def at_ms(self) -> int: ...


@dataclass(frozen=True, slots=True)
class TurnOpened:
    """A caller turn has begun; `start_ms` includes the padding before it."""

    start_ms: int


@dataclass(frozen=True, slots=True)
class TurnAudio:
    """More audio of the open turn."""

    pcm16: bytes


@dataclass(frozen=True, slots=True)
class TurnClosed:
    """The open turn is over; `pcm16` is all of it. `forced`: it met the length limit."""

    end_ms: int
    pcm16: bytes
    forced: bool = False


TurnStep = TurnOpened | TurnAudio | TurnClosed


class CallerInput:
    """The input buffer and the turn that is open in it, if any."""

    def __init__(self, *, max_turn_ms: int) -> None:
        self._max_turn_ms = max_turn_ms
        self._vad: ServerVad | None = None
        self._origin_ms = 0
        self._buffer = bytearray()
        self._dropped_bytes = 0
        self._turn_start: int | None = None
        self._fed_bytes = 0

    @property
    def clock_ms(self) -> int:
        """All audio appended so far."""
        return PCM16_16K.bytes_to_ms(self._end_bytes)

    @property
    def buffered_ms(self) -> int:
        """Audio that a commit would take now."""
        return PCM16_16K.bytes_to_ms(self._end_bytes - self._commit_start)

    def detect(self, vad: ServerVad | None) -> None:
        """A new detector starts here, with these settings; an open turn goes back to the buffer."""
        self._vad = vad
        self._origin_ms = self.clock_ms
        self._turn_start = None

    def append(self, pcm16: bytes, edges: Iterable[Edge]) -> list[TurnStep]:
        """Take audio and the edges that the detector found when it heard it."""
        self._buffer += pcm16
        steps: list[TurnStep] = []
        for edge in edges:
            at = PCM16_16K.ms_to_bytes(self._origin_ms + edge.at_ms)
            if edge.started and self._turn_start is None:
                steps.append(self._open(at))
            elif not edge.started and self._turn_start is not None:
                steps += self._close(at)
        if self._turn_start is not None:
            steps += self._feed(self._end_bytes)
            limit = self._turn_start + PCM16_16K.ms_to_bytes(self._max_turn_ms)
            if self._end_bytes >= limit:
                steps += self._close(self._end_bytes, forced=True)
        self._trim()
        return steps

    def commit(self) -> bytes:
        """Take the buffered audio as a turn of its own.

        Raises:
            Refusal: there is next to nothing in the buffer.
        """
        if self.buffered_ms < MIN_COMMIT_MS:
            raise Refusal(
                "input_audio_buffer_commit_empty",
                f"The buffer holds {self.buffered_ms}ms of audio; a turn takes {MIN_COMMIT_MS}ms.",
            )
        audio = self._slice(self._commit_start, self._end_bytes)
        self.clear()
        return audio

    def clear(self) -> None:
        """Forget the buffered audio and the open turn. The clock goes on."""
        self._turn_start = None
        self._drop_until(self._end_bytes)

    @property
    def _end_bytes(self) -> int:
        return self._dropped_bytes + len(self._buffer)

    @property
    def _commit_start(self) -> int:
        return self._dropped_bytes if self._turn_start is None else self._turn_start

    def _open(self, at: int) -> TurnOpened:
        start = min(max(at, self._dropped_bytes), self._end_bytes)
        self._turn_start = self._fed_bytes = start
        return TurnOpened(PCM16_16K.bytes_to_ms(start))

    def _feed(self, until: int) -> list[TurnStep]:
        audio = self._slice(self._fed_bytes, until)
        self._fed_bytes = max(self._fed_bytes, until)
        return [TurnAudio(audio)] if audio else []

    def _close(self, at: int, *, forced: bool = False) -> list[TurnStep]:
        assert self._turn_start is not None
        end = min(max(at, self._turn_start), self._end_bytes)
        steps = self._feed(end)
        whole = self._slice(self._turn_start, end)
        self._turn_start = None
        self._drop_until(end)
        return [*steps, TurnClosed(PCM16_16K.bytes_to_ms(end), whole, forced)]

    def _trim(self) -> None:
        if self._turn_start is not None:
            kept_from = self._turn_start
        else:
            keep_ms = (
                self._max_turn_ms
                if self._vad is None
                else self._vad.prefix_padding_ms + LOOK_BACK_MS
            )
            kept_from = self._end_bytes - PCM16_16K.ms_to_bytes(keep_ms)
        self._drop_until(kept_from)

    def _drop_until(self, position: int) -> None:
        count = position - self._dropped_bytes
        if count > 0:
            del self._buffer[:count]
            self._dropped_bytes = position

    def _slice(self, start: int, end: int) -> bytes:
        return bytes(self._buffer[start - self._dropped_bytes : max(end - self._dropped_bytes, 0)])
