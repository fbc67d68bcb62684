"""Audio on its way to the carrier: a bounded queue that barge-in purges.

Readers put and never wait; the one writer of the socket takes. `app.agents.dialogue.voice_outbox`
is the other direction.
"""

from __future__ import annotations

import asyncio
from collections import deque

from app.calls.actions import Clear, PlayAudio
from audio.format import PCMU_8K, AudioFormat

__all__ = ["CarrierOutbox"]


class CarrierOutbox:
    """Audio, marks and clears for the carrier. `Clear` overtakes the audio that it makes void."""

    def __init__(self, max_ms: int) -> None:
        self._max_ms = max_ms
        self._max_bytes = PCMU_8K.ms_to_bytes(max_ms)
        self._queue: deque[PlayAudio | Clear] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def on_stream(self, carrier_format: AudioFormat) -> None:
        """The stream that takes it is open: its format says how many bytes the limit is."""
        self._max_bytes = carrier_format.ms_to_bytes(self._max_ms)

    def put(self, action: PlayAudio) -> None:
        """Queue agent audio; never waits."""
        self._queue.append(action)
        self._bytes += len(action.payload)
        if self._bytes > self._max_bytes:
            self._room.clear()
        self._filled.set()

    def clear(self, action: Clear) -> None:
        """Purge all audio and marks that have not left, and have the carrier do the same."""
        self._queue.clear()
        self._bytes = 0
        self._room.set()
        self._queue.append(action)
        self._filled.set()

    def forget(self) -> None:
        """The stream is gone: drop what was meant for it."""
        self._queue.clear()
        self._bytes = 0
        self._room.set()

    async def room(self) -> None:
        """Wait until there is room for more agent audio."""
        await self._room.wait()

    async def take(self) -> PlayAudio | Clear:
        """The next thing to send."""
        while not self._queue:
            self._filled.clear()
            await self._filled.wait()
        action = self._queue.popleft()
        if isinstance(action, PlayAudio):
            self._bytes -= len(action.payload)
            if self._bytes <= self._max_bytes // 2:
                self._room.set()
        return action
