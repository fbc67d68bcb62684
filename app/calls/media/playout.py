"""Playout: the one authority on what the caller has heard, for barge-in, truncation and hang-up.

The carrier plays what we send in order and in real time, and returns a mark when everything
before it was played, or at once when its queue was cleared. So every mark carries the generation
that it belongs to, an interruption starts a new generation, and echoes of older ones count for
nothing. Between marks the clock fills in, but not past the next mark: had the caller heard more,
that mark would be back. The clock bounds what marks say on both sides: nothing plays faster than
time, give or take a second, and a mark that is overdue by a second is not waited for. Pure:
`now_ms` is monotonic and an argument.

Facts: Twilio media-streams/websocket-messages (`mark`, `clear`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from audio.format import AudioFormat
from audio.level import peak_dbfs

__all__ = ["AUDIBLE_PEAK_DBFS", "Chunk", "HeardItem", "Interruption", "Playout", "UnheardAudio"]


FRAME_MS: Final = 20
MARK_EVERY_MS: Final = 200
AUDIBLE_PEAK_DBFS: Final = -40.0
"""The peaks of the quietest speech on a phone line are some 15 dB above it; its noise is below."""
MARK_GRACE_MS: Final = 1_000
"""Longest wait past the estimated end for a mark that does not come back; one that comes back by so
much too early is believed."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Audio to send, and the mark to send behind it, if any."""

    payload: bytes
    mark: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeardItem:
    """The part of an item that was sent to the caller, and the part of that which was heard."""

    item_id: str
    content_index: int
    heard_ms: int
    sent_ms: int
    by_mark: bool = False
    """The carrier itself has said that all of it was heard."""

    @property
    def whole(self) -> bool:
        return self.heard_ms >= self.sent_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class UnheardAudio:
    """The audio of an item that was sent and not heard."""

    item_id: str
    content_index: int
    audio: bytes


@dataclass(frozen=True, slots=True)
class Interruption:
    """The items that were not heard to their end, in playing order, and their audio if kept."""

    items: tuple[HeardItem, ...]
    unheard: tuple[UnheardAudio, ...] = ()


@dataclass(slots=True)
class _Span:
    """An item's place in this generation, in bytes; `end` leaves out padding."""

    item_id: str
    content_index: int
    start: int
    end: int
    closed: bool = False


class Playout:
    """The carrier's queue as far as we can know it, in one generation at a time."""

    def __init__(self, audio_format: AudioFormat, *, keep_ms: int = 0) -> None:
        """`keep_ms`: audio that has not been heard is kept up to this, and none beyond it."""
        self._format = audio_format
        self._keep_bytes = audio_format.ms_to_bytes(keep_ms)
        self._bytes_per_ms = audio_format.bytes_per_second // 1000
        self._frame_bytes = audio_format.ms_to_bytes(FRAME_MS)
        self._mark_bytes = audio_format.ms_to_bytes(MARK_EVERY_MS)
        self._remainder = b""
        self._started_ms: int | None = None
        self._generation = 0
        self._mark_seq = 0
        self._audible_ms: int | None = None
        self._begin_generation()

    def _begin_generation(self) -> None:
        self._sent = 0
        self._reached = 0
        self._anchor_ms = 0
        self._ends_ms = 0
        self._spans: list[_Span] = []  # few at a time: a deque would take 700 bytes each
        self._marks: list[tuple[str, int]] = []
        self._loud: list[tuple[int, int]] = []  # parts that one can hear, not heard yet
        self._kept: list[bytes] = []
        self._kept_from = 0

    def start(self, now_ms: int) -> None:
        """The carrier's stream is open: what was pushed before begins to play now."""
        self._started_ms = now_ms
        self._anchor_ms = now_ms
        self._ends_ms = now_ms + self._sent // self._bytes_per_ms

    def stop(self) -> None:
        """The carrier's stream is gone: what is pushed from now on plays on the next one."""
        self._generation += 1
        self._remainder = b""
        self._started_ms = None
        self._begin_generation()

    def push(self, item_id: str, content_index: int, audio: bytes, now_ms: int) -> list[Chunk]:
        """Queue agent audio in the carrier's format; give what to send, in whole 20 ms frames.

        Less than a frame is kept for the item's next audio, or for `finish`.
        """
        span = self._span(item_id, content_index)
        data = self._remainder + audio
        whole = len(data) - len(data) % self._frame_bytes
        self._remainder = data[whole:]
        if not whole:
            return []
        span.end = self._sent + whole
        return self._queue(data[:whole], now_ms, last=False)

    def finish(self, item_id: str, now_ms: int) -> list[Chunk]:
        """The item has no more audio: pad its last frame with silence and mark its end."""
        if not self._spans or self._spans[-1].item_id != item_id or self._spans[-1].closed:
            return []
        return self._close_last(now_ms)

    def finish_all(self, now_ms: int) -> list[Chunk]:
        """No item has more audio: the model is gone."""
        if not self._spans or self._spans[-1].closed:
            return []
        return self._close_last(now_ms)

    def _close_last(self, now_ms: int) -> list[Chunk]:
        span = self._spans[-1]
        span.closed = True
        rest, self._remainder = self._remainder, b""
        if rest:
            span.end = self._sent + len(rest)
            idle = self._format.silence(FRAME_MS)
            return self._queue(rest + idle[len(rest) :], now_ms, last=True)
        if self._marks and self._marks[-1][1] == self._sent:
            return []  # a mark already stands at the end
        if self._sent == self._reached:
            return []
        return [Chunk(b"", self._mark())]

    def _span(self, item_id: str, content_index: int) -> _Span:
        last = self._spans[-1] if self._spans else None
        if last and last.item_id == item_id and last.content_index == content_index:
            return last
        if last:
            # The items of one generation play one after another: a new one ends the last.
            last.closed = True
            last.end = self._sent + len(self._remainder)
        start = self._sent + len(self._remainder)
        span = _Span(item_id, content_index, start, start)
        self._spans.append(span)
        return span

    def _queue(self, data: bytes, now_ms: int, *, last: bool) -> list[Chunk]:
        if self._reached == self._sent:  # the queue was empty: playing begins now
            self._anchor_ms = now_ms
            self._kept.clear()
            self._kept_from = self._sent
        if self._keep_bytes:
            self._kept.append(data)
        self._ends_ms = max(self._ends_ms, now_ms) + len(data) // self._bytes_per_ms
        chunks: list[Chunk] = []
        at = 0
        while at < len(data):
            marked = self._marks[-1][1] if self._marks else self._reached
            room = self._mark_bytes - (self._sent - marked)
            piece = data[at : at + room]
            at += len(piece)
            if peak_dbfs(piece, self._format) > AUDIBLE_PEAK_DBFS:
                self._loud.append((self._sent, self._sent + len(piece)))
            self._sent += len(piece)
            due = len(piece) == room or (last and at == len(data))
            chunks.append(Chunk(piece, self._mark() if due else None))
        if self._sent - self._kept_from > self._keep_bytes:
            self._kept.clear()  # too long: from here to its end, nothing can be given back
        return chunks

    def _mark(self) -> str:
        self._mark_seq += 1
        name = f"{self._generation}:{self._mark_seq}"
        self._marks.append((name, self._sent))
        return name

    def mark_reached(self, name: str, now_ms: int) -> bool:
        """A mark came back; False when it is of an older generation, repeated or unknown."""
        marks = self._marks
        place = 0
        while place < len(marks) and marks[place][0] != name:  # nearly always the first
            place += 1
        if place == len(marks):
            return False
        self._reached = max(self._reached, marks[place][1])
        del marks[: place + 1]
        self._anchor_ms = now_ms
        kept = self._kept
        while kept and self._kept_from + len(kept[0]) <= self._reached:
            self._kept_from += len(kept.pop(0))
        return True

    def _heard(self, now_ms: int) -> int:
        """Bytes of this generation that the caller has heard."""
        if self._started_ms is None:
            return 0
        bound = self._marks[0][1] if self._marks else self._sent
        guess = self._reached + max(0, now_ms - self._anchor_ms) * self._bytes_per_ms
        # Nothing plays faster than time; and marks that do not come back are late by so much only.
        by_clock = self._sent - max(0, self._ends_ms - now_ms) * self._bytes_per_ms
        grace = MARK_GRACE_MS * self._bytes_per_ms
        return max(0, min(max(min(guess, bound), by_clock - grace), by_clock + grace))

    def heard_bytes(self, now_ms: int) -> int:
        """Bytes of what was pushed since the last interruption that the caller has heard."""
        return self._sent if self.drained(now_ms) else self._heard(now_ms)

    def ahead_ms(self, now_ms: int) -> int:
        """Sound that is queued, and not played yet by the clock."""
        return max(0, self._ends_ms - now_ms)

    def last_audible_ms(self, now_ms: int) -> int | None:
        """The time at which the caller has last heard something that one can hear."""
        heard = self.heard_bytes(now_ms)
        while self._loud and self._loud[0][0] < heard:
            _, end = self._loud.pop(0)
            ended_ms = now_ms - max(0, heard - end) // self._bytes_per_ms
            if end == self._sent:  # nothing has followed it
                ended_ms = min(ended_ms, self._ends_ms)
            self._audible_ms = max(self._audible_ms or 0, ended_ms)
            if end > heard:
                self._loud.insert(0, (heard, end))
                break
        return self._audible_ms

    def item_over(self, now_ms: int) -> bool:
        """The first item is closed, and was heard to its end."""
        first = self._spans[0] if self._spans else None
        return first is not None and first.closed and first.end <= self._settled(now_ms)

    def _settled(self, now_ms: int) -> int:
        """Bytes that were heard by the marks that came back, or whose mark is overdue.

        The clock's estimate proves nothing: it may pass the end of an item just before its mark.
        """
        if self.drained(now_ms):
            return self._sent
        overdue_ms = now_ms - MARK_GRACE_MS - self._ends_ms
        return max(self._reached, self._sent + overdue_ms * self._bytes_per_ms)

    def heard_items(self, now_ms: int, *, by_clock: bool = False) -> list[HeardItem]:
        """Items that are over: closed, and heard to their end. Each is given once.

        `by_clock`: the estimate is enough, since what is queued is about to be forgotten.
        """
        heard = self.heard_bytes(now_ms) if by_clock else self._settled(now_ms)
        over: list[HeardItem] = []
        while self._spans and self._spans[0].closed and self._spans[0].end <= heard:
            span = self._spans.pop(0)
            sent_ms = (span.end - span.start) // self._bytes_per_ms
            over.append(
                HeardItem(
                    item_id=span.item_id,
                    content_index=span.content_index,
                    heard_ms=sent_ms,
                    sent_ms=sent_ms,
                    by_mark=span.end <= self._reached,
                )
            )
        return over

    def holds_only(self, item_ids: Collection[str]) -> bool:
        """True when nothing else of this generation is playing, or was left unsettled."""
        return all(span.item_id in item_ids for span in self._spans)

    def interrupt(self, now_ms: int) -> Interruption:
        """Forget what is queued and begin a new generation.

        `audio_end_ms` of a truncation may not exceed what the model has sent (openai-realtime,
        section 6): `heard_ms` is clamped to the item's own audio, padding left out.
        """
        self.last_audible_ms(now_ms)
        heard = self.heard_bytes(now_ms)
        unheard = self._unheard(heard)
        cut: list[HeardItem] = []
        for span in self._spans:
            if span.closed and span.end <= heard:
                continue
            cut.append(
                HeardItem(
                    item_id=span.item_id,
                    content_index=span.content_index,
                    heard_ms=max(0, min(heard, span.end) - span.start) // self._bytes_per_ms,
                    sent_ms=(span.end - span.start) // self._bytes_per_ms,
                )
            )
        self._generation += 1
        self._remainder = b""
        self._begin_generation()
        return Interruption(tuple(cut), unheard)

    def _unheard(self, heard: int) -> tuple[UnheardAudio, ...]:
        """Return the audio that was not heard, by item; none where not all of it was kept."""
        kept = b"".join(self._kept)
        if not kept or self._kept_from + len(kept) < self._sent:
            return ()
        kept += self._remainder
        unheard: list[UnheardAudio] = []
        for span in self._spans:
            end = span.end if span.closed else self._sent + len(self._remainder)
            audio = kept[max(heard, span.start) - self._kept_from : end - self._kept_from]
            if audio and end > heard:
                unheard.append(
                    UnheardAudio(
                        item_id=span.item_id, content_index=span.content_index, audio=audio
                    )
                )
        return tuple(unheard)

    def drained(self, now_ms: int) -> bool:
        """Nothing is playing: the last mark is back in its time, or is overdue by a second."""
        if self._reached == self._sent:
            return now_ms >= self._ends_ms - MARK_GRACE_MS
        return self._started_ms is not None and now_ms >= self._ends_ms + MARK_GRACE_MS

    def plays_on(self, now_ms: int, for_ms: int) -> bool:
        """True when `drained` stays false within this time, unless a mark comes back."""
        until_ms = now_ms + for_ms
        if self._reached == self._sent:
            return until_ms < self._ends_ms - MARK_GRACE_MS
        return self._started_ms is not None and until_ms < self._ends_ms + MARK_GRACE_MS

    @property
    def confirmed(self) -> bool:
        """The carrier itself says that nothing is playing: all marks are back."""
        return self._reached == self._sent
