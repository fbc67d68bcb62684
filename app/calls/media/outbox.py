"""Audio on its way to the carrier: sent at once, or queued while the peer is behind.

Nobody waits to put; barge-in purges the queue. `app.agents.dialogue.voice_outbox` is the other
direction.
"""

from __future__ import annotations

from collections.abc import Callable

from app.calls.actions import Clear, PlayAudio
from app.carrier.base import MediaStream
from app.tasks import Event
from audio.format import PCMU_8K, AudioFormat

__all__ = ["CarrierOutbox"]


class CarrierOutbox:
    """Audio, marks and clears for the carrier. `Clear` overtakes the audio that it makes void."""

    def __init__(self, max_ms: int, on_sent: Callable[[PlayAudio | Clear], None]) -> None:
        """`on_sent` is told of each that has left."""
        self._max_ms = max_ms
        self._max_bytes = PCMU_8K.ms_to_bytes(max_ms)
        self._on_sent = on_sent
        self._stream: MediaStream | None = None
        self._queue: list[PlayAudio | Clear] = []
        self._bytes = 0
        self._room = Event()
        self.has_room = True
        """True while there is room for more agent audio."""

    def on_stream(self, carrier_format: AudioFormat) -> None:
        """The stream that takes it is open: its format says how many bytes the limit is."""
        self._max_bytes = carrier_format.ms_to_bytes(self._max_ms)

    def open(self, stream: MediaStream) -> None:
        """Send what has waited for a stream, and from now on what comes."""
        self._stream = stream
        self.on_writable()

    def put(self, action: PlayAudio) -> None:
        """Send agent audio, or queue it; never waits."""
        if not self._queue and self._send(action):
            return
        self._queue.append(action)
        self._bytes += len(action.payload)
        if self._bytes > self._max_bytes:
            self.has_room = False

    def clear(self, action: Clear) -> None:
        """Purge all audio and marks that have not left, and have the carrier do the same."""
        self._purge()
        if not self._send(action):
            self._queue.append(action)

    def forget(self) -> None:
        """The stream is gone: drop what was meant for it."""
        self._stream = None
        self._purge()

    def on_over(self) -> None:
        """Nothing more is sent, and nobody told."""
        self.forget()
        self._on_sent = _ignore

    def on_writable(self) -> None:
        """The stream takes more."""
        queue = self._queue
        while queue and self._send(queue[0]):
            action = queue.pop(0)
            if isinstance(action, PlayAudio):
                self._bytes -= len(action.payload)
                if self._bytes <= self._max_bytes // 2:
                    self._make_room()

    async def room(self) -> None:
        """Wait until there is room for more agent audio."""
        while not self.has_room:
            self._room.clear()
            await self._room.wait()

    def _make_room(self) -> None:
        self.has_room = True
        self._room.set()

    def _purge(self) -> None:
        self._queue.clear()
        self._bytes = 0
        self._make_room()

    def _send(self, action: PlayAudio | Clear) -> bool:
        if self._stream is None:
            return False
        if isinstance(action, PlayAudio):
            sent = self._stream.send_audio(action.payload, action.mark)
        else:
            sent = self._stream.clear()
        if sent:
            self._on_sent(action)
        return sent


def _ignore(_sent: PlayAudio | Clear) -> None:
    pass
