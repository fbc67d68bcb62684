"""Queues in front of sockets: one deque per writer, bounded, with its order kept.

Readers put and never wait; the one writer of the socket takes. Audio may be dropped (caller audio,
oldest first) or purged (agent audio, on barge-in); control messages may not.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from app.calls.actions import Clear, PlayAudio
from app.events import CallCounters
from app.realtime.events import ClientEvent, InputAudioAppend
from audio.format import AudioFormat

__all__ = ["CarrierOutbox", "VoiceOutbox"]


BATCH_CHUNKS: Final = 10
"""Chunks that travel in one append when the socket has fallen behind."""


class VoiceOutbox:
    """Events for the model. Caller audio beyond the bound is dropped, oldest first, and counted."""

    def __init__(self, audio_format: AudioFormat, max_ms: int, counters: CallCounters) -> None:
        self._format = audio_format
        self._max_bytes = audio_format.ms_to_bytes(max_ms)
        self._counters = counters
        self._queue: deque[bytes | ClientEvent] = deque()
        self._audio_bytes = 0
        self._filled = asyncio.Event()
        self._writer_waits = False

    @property
    def idle(self) -> bool:
        """Nothing waits and the writer is not in the middle of a send."""
        return not self._queue and self._writer_waits

    def put_audio(self, audio: bytes) -> None:
        """Queue caller audio; never waits."""
        self._queue.append(audio)
        self._audio_bytes += len(audio)
        if self._audio_bytes > self._max_bytes:
            self._drop_oldest()
        self._filled.set()

    def put(self, event: ClientEvent) -> None:
        """Queue an event behind what waits already; never waits."""
        self._queue.append(event)
        self._filled.set()

    def _drop_oldest(self) -> None:
        """Cut from the front, to the sample: a filled gap may be longer than all that may wait."""
        kept: deque[bytes | ClientEvent] = deque()
        excess = dropped = self._audio_bytes - self._max_bytes
        while excess:
            entry = self._queue.popleft()
            if isinstance(entry, bytes):
                rest = entry[excess:]
                excess -= len(entry) - len(rest)
                if not rest:
                    continue
                entry = rest
            kept.append(entry)
        self._queue.extendleft(reversed(kept))
        self._audio_bytes -= dropped
        self._counters.uplink_dropped_ms += dropped * 1000 // self._format.bytes_per_second

    async def take(self) -> ClientEvent:
        """The next event to send: audio at once, in one append with what has piled up behind it."""
        while not self._queue:
            self._filled.clear()
            self._writer_waits = True
            await self._filled.wait()
        self._writer_waits = False
        entry = self._queue.popleft()
        if not isinstance(entry, bytes):
            return entry
        batch = [entry]
        while (
            self._queue
            and len(batch) < BATCH_CHUNKS
            and isinstance(following := self._queue[0], bytes)
        ):
            batch.append(following)
            self._queue.popleft()
        audio = b"".join(batch)
        self._audio_bytes -= len(audio)
        self._counters.appends_sent += 1
        return InputAudioAppend(audio)

    def forget_events(self) -> None:
        """The connection is gone, and its writer: drop what was meant for it; audio stays."""
        self._writer_waits = False
        self._queue = deque(entry for entry in self._queue if isinstance(entry, bytes))


class CarrierOutbox:
    """Audio, marks and clears for the carrier. `Clear` overtakes the audio that it makes void."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._queue: deque[PlayAudio | Clear] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

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
