"""Events and sound of a session on their way to the model."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from app.realtime.events import ClientEvent, InputAudioAppend

__all__ = ["SessionOutbox"]


OUTBOX_BYTES: Final = 512 * 1024
"""Some ten seconds of PCM16 at 24 kHz: who sends faster than the model takes it waits."""


class SessionOutbox:
    """Events and sound on their way to the model, in order. Sound waits for room."""

    def __init__(self) -> None:
        self._queue: deque[ClientEvent] = deque()
        self._audio_bytes = 0
        self._changed = asyncio.Event()
        self._closed = False

    def put(self, event: ClientEvent) -> None:
        """Queue an event behind what waits already; never waits."""
        self._queue.append(event)
        self._changed.set()

    async def put_audio(self, audio: bytes) -> None:
        """Queue sound, once there is room for it."""
        while self._audio_bytes > OUTBOX_BYTES and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        self._audio_bytes += len(audio)
        self.put(InputAudioAppend(audio))

    async def take(self) -> ClientEvent:
        """The next event to send."""
        while not self._queue:
            self._changed.clear()
            await self._changed.wait()
        event = self._queue.popleft()
        if isinstance(event, InputAudioAppend):
            self._audio_bytes -= len(event.audio)
            self._changed.set()
        return event

    def forget(self) -> None:
        """Drop what was meant for a connection that is gone."""
        self._queue.clear()
        self._audio_bytes = 0
        self._changed.set()

    def close(self) -> None:
        """Nobody takes anything any more: whoever waits for room goes on."""
        self._closed = True
        self._changed.set()
