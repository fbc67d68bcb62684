"""Events and audio on their way to the voice model: one bounded queue, in order.

Readers put and never wait; the one writer of the connection takes. Audio beyond the bound is
dropped, oldest first, and counted; a caller who can wait uses `room` before. Other events are kept.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from app.events import CallCounters
from app.realtime.events import ClientEvent, InputAudioAppend
from app.tasks import Event
from audio.format import AudioFormat

__all__ = ["VoiceOutbox"]


BATCH_CHUNKS: Final = 10
"""Chunks in one append when the socket has fallen behind."""


class VoiceOutbox:
    """Events for the model, and at most `max_ms` of audio."""

    def __init__(self, audio_format: AudioFormat, max_ms: int, counters: CallCounters) -> None:
        self._format = audio_format
        self._max_bytes = audio_format.ms_to_bytes(max_ms)
        self._counters = counters
        self._queue: list[bytes | ClientEvent] = []
        self._audio_bytes = 0
        self._filled = Event()
        self._taken = Event()
        self.idle = False
        """True while nothing waits and the writer is not in the middle of a send."""

    async def room(self, size_bytes: int, *, within_s: float | None = None) -> None:
        """Wait until so much more audio fits under the bound, for `within_s` at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._audio_bytes and self._audio_bytes + size_bytes > self._max_bytes:
                    self._taken.clear()
                    await self._taken.wait()

    def put_audio(self, audio: bytes) -> None:
        """Queue audio; never waits."""
        self._queue.append(audio)
        self.idle = False
        self._audio_bytes += len(audio)
        if self._audio_bytes > self._max_bytes:
            self._drop_oldest()
        self._filled.set()

    def put(self, event: ClientEvent) -> None:
        """Queue an event behind what waits already; never waits."""
        self._queue.append(event)
        self.idle = False
        self._filled.set()

    def _drop_oldest(self) -> None:
        """Cut from the front, to the sample: a filled gap may be longer than all that may wait."""
        kept: list[bytes | ClientEvent] = []
        excess = dropped = self._audio_bytes - self._max_bytes
        while excess:
            entry = self._queue.pop(0)
            if isinstance(entry, bytes):
                rest = entry[excess:]
                excess -= len(entry) - len(rest)
                if not rest:
                    continue
                entry = rest
            kept.append(entry)
        self._queue[:0] = kept
        self._audio_bytes -= dropped
        self._counters.uplink_dropped_ms += dropped * 1000 // self._format.bytes_per_second

    async def take(self) -> ClientEvent:
        """The next event to send: audio at once, in one append with what has piled up behind it."""
        while not self._queue:
            self._filled.clear()
            self.idle = True
            await self._filled.wait()
        self.idle = False
        entry = self._queue.pop(0)
        if not isinstance(entry, bytes):
            return entry
        batch = [entry]
        while (
            self._queue
            and len(batch) < BATCH_CHUNKS
            and isinstance(following := self._queue[0], bytes)
        ):
            batch.append(following)
            del self._queue[0]
        audio = b"".join(batch)
        self._audio_bytes -= len(audio)
        self._taken.set()
        self._counters.appends_sent += 1
        return InputAudioAppend(audio)

    def forget_events(self) -> None:
        """The connection is gone, and its writer: drop what was meant for it; audio stays."""
        self.idle = False
        self._queue = [entry for entry in self._queue if isinstance(entry, bytes)]

    def clear(self) -> None:
        """Drop everything, audio too; nobody waits for room any more."""
        self.idle = False
        self._queue.clear()
        self._audio_bytes = 0
        self._taken.set()
