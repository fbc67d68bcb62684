"""Subscriptions to a session's events, each with a bounded queue of its own.

A subscriber who falls behind loses the oldest events, and gets an `EventsDropped` in their place.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable

from app.agents.session.events import EventsDropped, SessionEvent

__all__ = ["Subscription", "Subscriptions"]


DEFAULT_LIMIT = 1_000


class Subscription:
    """One subscriber's events, to be iterated by one task. Ends with the session."""

    def __init__(self, limit: int) -> None:
        self._events: deque[SessionEvent] = deque()
        self._limit = limit
        self._dropped = 0
        self._changed = asyncio.Event()
        self._ended = False

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> SessionEvent:
        while not self._events:
            if self._ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        if self._dropped:
            count, self._dropped = self._dropped, 0
            return EventsDropped(count=count)
        return self._events.popleft()

    @property
    def unread(self) -> int:
        """The number of events that wait to be read."""
        return len(self._events)

    def put(self, event: SessionEvent) -> None:
        """Keep an event; never waits."""
        if len(self._events) >= self._limit:
            self._events.popleft()
            self._dropped += 1
        self._events.append(event)
        self._changed.set()

    def clear(self) -> None:
        """Forget the events that wait to be read."""
        self._events.clear()

    def end(self) -> None:
        """No more events; those that wait can still be read."""
        self._ended = True
        self._changed.set()


class Subscriptions:
    """The subscribers of one session, each under a key of its own."""

    def __init__(self) -> None:
        self._by_key: dict[Hashable, Subscription] = {}
        self.ended = False

    def subscribe(self, key: Hashable, limit: int = DEFAULT_LIMIT) -> Subscription:
        """The subscription under this key, which is made if there is none."""
        known = self._by_key.get(key)
        if known is not None:
            return known
        made = self._by_key[key] = Subscription(limit)
        if self.ended:
            made.end()
        return made

    def unsubscribe(self, key: Hashable) -> None:
        """End a subscription, if there is one under this key."""
        known = self._by_key.pop(key, None)
        if known is not None:
            known.end()

    def publish(self, event: SessionEvent) -> None:
        for subscription in self._by_key.values():
            subscription.put(event)

    def end(self) -> None:
        """The session is over."""
        self.ended = True
        for subscription in self._by_key.values():
            subscription.end()
