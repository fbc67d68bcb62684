"""One call's events for those who follow it: bounded, never on the media path.

A follower gets what was kept from before, then what happens, until the call has ended. A call keeps
its last events only, and a follower who is slower than that misses the oldest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from app.events import CallEnded, CallEvent

__all__ = ["Feed"]


KEPT_EVENTS: Final = 500


class Feed:
    """The events of one call."""

    def __init__(self) -> None:
        self._events: list[CallEvent] = []
        self._count = 0
        self._news: asyncio.Event | None = None

    def put(self, event: CallEvent) -> None:
        """Keep an event and wake the followers; never waits."""
        self._events.append(event)
        del self._events[:-KEPT_EVENTS]
        self._count += 1
        if self._news is not None:
            self._news.set()
            self._news = None

    def forget(self) -> None:
        """Keep nothing but the last event."""
        del self._events[:-1]

    async def follow(self) -> AsyncIterator[CallEvent]:
        """Yield events from the oldest that is kept until the call's end."""
        seen = 0
        while True:
            oldest = self._count - len(self._events)
            seen = max(seen, oldest)
            while seen < self._count:
                event = self._events[seen - (self._count - len(self._events))]
                seen += 1
                yield event
                if isinstance(event, CallEnded):
                    return
                seen = max(seen, self._count - len(self._events))
            if self._news is None:
                self._news = asyncio.Event()
            await self._news.wait()
