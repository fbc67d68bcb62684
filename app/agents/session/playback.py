"""An estimate by the clock of the sound that was heard, where the user of a session plays it.

Sound plays in order and in real time from when it came. Without a player - a chat, a test -
everything is heard as soon as it is made. On the phone, `app.calls.media.playout` measures. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Cut", "Playback"]


@dataclass(frozen=True, slots=True)
class Cut:
    """The part of an item that was heard, of what was made so far."""

    item_id: str
    content_index: int
    heard_ms: int
    sent_ms: int


@dataclass(slots=True)
class _Span:
    """An item on the player's clock."""

    item_id: str
    content_index: int
    starts_ms: int
    sent_ms: int = 0
    complete: bool = False


class Playback:
    """The items of one session that were not heard to their end yet."""

    def __init__(self, *, plays: bool) -> None:
        self._plays = plays
        self._spans: list[_Span] = []
        self._ends_ms = 0

    def push(self, item_id: str, content_index: int, ms: int, now_ms: int) -> None:
        """More of an item's sound has come."""
        self._ends_ms = max(self._ends_ms, now_ms)
        if not self._spans or self._spans[-1].item_id != item_id:
            self._spans.append(_Span(item_id, content_index, self._ends_ms))
        self._spans[-1].sent_ms += ms
        self._ends_ms += ms

    def finish(self, item_id: str) -> None:
        """No more sound comes for an item."""
        for span in self._spans:
            span.complete = span.complete or span.item_id == item_id

    def take_heard(self, now_ms: int) -> list[Cut]:
        """Items that were heard to their end; each is returned once."""
        heard = [s for s in self._spans if s.complete and self._heard(s, now_ms) >= s.sent_ms]
        self._spans = [span for span in self._spans if span not in heard]
        return [Cut(s.item_id, s.content_index, s.sent_ms, s.sent_ms) for s in heard]

    def interrupt(self, now_ms: int, heard_ms: int | None = None) -> list[Cut]:
        """Stop; returns the items that were cut. `heard_ms`: of the first one, if it is known."""
        cuts: list[Cut] = []
        for span in self._spans:
            heard = self._heard(span, now_ms)
            if heard_ms is not None:
                heard, heard_ms = min(max(heard_ms, 0), span.sent_ms), 0
            cuts.append(Cut(span.item_id, span.content_index, heard, span.sent_ms))
        self._spans.clear()
        self._ends_ms = now_ms
        return cuts

    @property
    def drained(self) -> bool:
        """True while nothing plays."""
        return not self._spans

    def _heard(self, span: _Span, now_ms: int) -> int:
        if not self._plays:
            return span.sent_ms
        return min(max(now_ms - span.starts_ms, 0), span.sent_ms)
