"""The events of all live calls for those who follow them: bounded, and continued after a break.

Every event gets the next number of its feed. A follower that comes back with the number of the last
event it has seen gets what it missed, as long as that is kept; if it is not, or comes of another
process, the follower is told so. Nobody is waited for: a follower that is slower than what is kept
misses the oldest, and is told that too.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from app.carrier.base import CarrierCallId
from app.events import CallEvent
from app.store.codec import type_of

__all__ = ["CALL_EVENTS", "KEPT_EVENTS", "FeedEntry", "FeedReader", "LiveFeed", "plain"]

CALL_EVENTS: Final = "call_events"
"""The topic of the bus under which every process tells the events of its calls."""
KEPT_EVENTS: Final = 2_000
_ADMITTED: Final = "call_admitted"
_ENDED: Final = "call_ended"
_LOOK_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class FeedEntry:
    """One event as plain values, with its place in the feed; `None`: some were missed before."""

    id: str
    place: int
    event: Mapping[str, Any] | None


class LiveFeed:
    """The last events of all calls."""

    def __init__(self, kept: int = KEPT_EVENTS) -> None:
        self._events: deque[Mapping[str, Any]] = deque(maxlen=kept)
        self._count = 0
        self._name = secrets.token_hex(4)
        self._news = asyncio.Event()
        self.closed = False

    def put(self, event: Mapping[str, Any]) -> None:
        """Keep an event and wake the followers; never waits."""
        self._events.append(event)
        self._count += 1
        self._news.set()

    def close(self) -> None:
        """End all readers: the server stops."""
        self.closed = True
        self._news.set()

    def reader(self, last_id: str | None) -> FeedReader:
        """Read events behind `last_id`, or from now on."""
        return FeedReader(self, self._count if last_id is None else self._place(last_id))

    def take(self, seen: int) -> FeedEntry | None:
        """The entry behind a number; `None` where there is none yet."""
        oldest = self._count - len(self._events)
        if seen < oldest:
            return FeedEntry(self._id(oldest), oldest, None)
        if seen == self._count:
            return None
        return FeedEntry(self._id(seen + 1), seen + 1, self._events[seen - oldest])

    def follow(self, carrier_call_id: CarrierCallId) -> AsyncIterator[Mapping[str, Any]]:
        """The events of a call, whichever process has it, from its beginning to its end.

        Raises:
            KeyError: no call of this id is known, or its beginning is kept no longer.
        """
        oldest = self._count - len(self._events)
        for place, event in enumerate(self._events, oldest):
            if event.get("carrier_call_id") == carrier_call_id and event["type"] == _ADMITTED:
                return self._follow(event["call_id"], FeedReader(self, place))
        raise KeyError(carrier_call_id)

    async def _follow(self, call_id: str, reader: FeedReader) -> AsyncIterator[Mapping[str, Any]]:
        while not reader.over:
            entry = await reader.next(_LOOK_S)
            if entry is None or entry.event is None or entry.event.get("call_id") != call_id:
                continue
            yield entry.event
            if entry.event["type"] == _ENDED:
                return

    async def news(self) -> None:
        """Wait for an event that comes after this."""
        if not self.closed:
            self._news.clear()
            await self._news.wait()

    def newest(self) -> FeedEntry:
        """A note that something was missed, at the end of the feed."""
        return FeedEntry(self._id(self._count), self._count, None)

    def _id(self, place: int) -> str:
        return f"{self._name}-{place}"

    def _place(self, last_id: str) -> int | None:
        """The number in an id of this feed; None for any other."""
        name, _, number = last_id.partition("-")
        if name != self._name or not number.isascii() or not number.isdigit() or len(number) > 18:
            return None
        return int(number) if int(number) <= self._count else None


def plain(event: CallEvent) -> dict[str, Any]:
    """An event as plain values: `type`, the time, and its fields."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    fields: dict[str, Any] = msgspec.to_builtins(event)
    return {"type": type_of(event), "at": at, "at_ms": 0, **fields}


class FeedReader:
    """One follower's place in a feed."""

    def __init__(self, feed: LiveFeed, seen: int | None) -> None:
        self._feed = feed
        self._seen = seen

    @property
    def over(self) -> bool:
        """True once nothing more will come."""
        return self._feed.closed

    async def next(self, within_s: float) -> FeedEntry | None:
        """The next entry, or `None` where none comes within a time, or the feed has ended."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not self._feed.closed:
                    entry = (
                        self._feed.newest() if self._seen is None else self._feed.take(self._seen)
                    )
                    if entry is not None:
                        self._seen = entry.place
                        return entry
                    await self._feed.news()
        return None
