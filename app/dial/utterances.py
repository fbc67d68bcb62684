"""Detection of audible sound in mu-law audio, as spans of time.

Pure. Both sides of a call are measured by the same rule, so that a latency is the difference of
two like values. `measures` interprets the spans.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from app.dial.playout import BYTES_PER_MS, Heard
from audio.g711 import decode_ulaw
from audio.level import level_dbfs

__all__ = ["AUDIBLE_DBFS", "WINDOW_MS", "Span", "UtteranceDetector", "audible_windows"]


# Telephone speech is about -20 dBFS, its weakest fricatives about -45, a quiet room's noise about
# -60.
AUDIBLE_DBFS: Final = -50.0
WINDOW_MS: Final = 10
_WINDOW_BYTES: Final = WINDOW_MS * BYTES_PER_MS
# Shorter silence is a stop consonant or a breath, not an end.
_BRIDGE_MS: Final = 200
# Shorter silence is the pause between two sentences of one answer.
_STRETCH_BRIDGE_MS: Final = 800


@dataclass(frozen=True, slots=True)
class Span:
    """Sound from `start_ms` to `end_ms`, pauses under 200 ms included."""

    start_ms: int
    end_ms: int

    @property
    def duration_ms(self) -> int:
        return self.end_ms - self.start_ms


def audible_windows(ulaw: bytes) -> list[bool]:
    """Measure each 10 ms window of mu-law 8 kHz audio: True where it holds sound."""
    return [
        level_dbfs(decode_ulaw(ulaw[at : at + _WINDOW_BYTES])) > AUDIBLE_DBFS
        for at in range(0, len(ulaw), _WINDOW_BYTES)
    ]


class UtteranceDetector:
    """Collects the audio that was heard and finds the spans in which it was sound."""

    def __init__(self, start_ms: int) -> None:
        self._start_ms = start_ms
        self._spans: list[Span] = []
        self._stretches: list[Span] = []
        self._pending = b""
        self._pending_at = 0

    @property
    def spans(self) -> tuple[Span, ...]:
        """Everything audible so far, in order; the last span may still grow."""
        return tuple(self._spans)

    @property
    def stretches(self) -> tuple[Span, ...]:
        """The same with pauses under 800 ms included: about one for each answer."""
        return tuple(self._stretches)

    @property
    def latest_stretch(self) -> Span | None:
        """The current or last stretch of sound."""
        return self._stretches[-1] if self._stretches else None

    @property
    def last_audible_ms(self) -> int | None:
        """The end of the latest sound; None before the first."""
        return self._spans[-1].end_ms if self._spans else None

    def hear(self, heard: Heard) -> None:
        """Take the next piece; pieces come in the order of their position."""
        if heard.at_byte != self._pending_at + len(self._pending):
            self.flush()
            self._pending_at = heard.at_byte
        self._pending += heard.payload
        whole = len(self._pending) // _WINDOW_BYTES * _WINDOW_BYTES
        self._measure(self._pending[:whole])
        self._pending_at += whole
        self._pending = self._pending[whole:]

    def flush(self) -> None:
        """Measure the part of a window that is left: no more audio follows it directly."""
        self._measure(self._pending)
        self._pending_at += len(self._pending)
        self._pending = b""

    def _measure(self, ulaw: bytes) -> None:
        for index, audible in enumerate(audible_windows(ulaw)):
            if not audible:
                continue
            at_byte = self._pending_at + index * _WINDOW_BYTES
            end_byte = min(at_byte + _WINDOW_BYTES, self._pending_at + len(ulaw))
            span = Span(
                self._start_ms + at_byte // BYTES_PER_MS,
                self._start_ms + -(-end_byte // BYTES_PER_MS),
            )
            _extend(self._spans, span, _BRIDGE_MS)
            _extend(self._stretches, span, _STRETCH_BRIDGE_MS)


def _extend(spans: list[Span], span: Span, bridge_ms: int) -> None:
    if spans and span.start_ms - spans[-1].end_ms < bridge_ms:
        spans[-1] = Span(spans[-1].start_ms, span.end_ms)
    else:
        spans.append(span)
