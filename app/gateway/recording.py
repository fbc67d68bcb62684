"""The recording of one session: a client's sound as it was sent, the model's as it would be played.

The gateway does not hear what a client plays. It is taken to play what comes at once, in order, and
to fall silent where the caller begins to speak.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable
from typing import Any, Final

from app.calls.recording.call_recording import CallRecording
from app.calls.recording.notice import RecordingNotice
from app.calls.recording.recorder import Recorder
from app.calls.recording.tape import Tape
from app.events import CallEvent, CallId
from app.gateway.conversion import format_of
from app.gateway.wire import parse
from audio.format import PCM16_24K, PCMU_8K, AudioFormat
from audio.transcoder import Transcoder

__all__ = ["SessionRecording"]

FRAME_BYTES: Final = 160


class SessionRecording:
    """Takes the sound of one session from the events that carry it."""

    def __init__(
        self,
        session_id: CallId,
        recorder: Recorder,
        *,
        record: Callable[[CallEvent], None],
        now_ms: Callable[[], int],
    ) -> None:
        """`record` takes the events of the recording; `now_ms` is the session's clock."""
        self._now_ms = now_ms
        self._tape = Tape(RecordingNotice(""))  # whom to tell is the client's to know
        self._heard = _Track(PCM16_24K)
        self._said = _Track(PCM16_24K)
        self._heard_ms = 0
        self._kept = CallRecording(
            session_id,
            self._tape,
            recorder,
            facts={"admitted_at": time.time()},
            record=record,
            now_ms=now_ms,
        )

    @property
    def file(self) -> str:
        return self._kept.file

    @property
    def end(self) -> str:
        """The reason why it ended."""
        return self._kept.end

    def begin(self) -> None:
        """Both sockets are open."""
        self._tape.on_stream(PCMU_8K, self._now_ms())
        self._kept.begin()

    def on_session(self, session: Any) -> None:
        """Take the formats that the upstream has confirmed, in either dialect."""
        self._heard.become(format_of(session, "input"))
        self._said.become(format_of(session, "output"))

    def sound_in(self, text: bytes) -> None:
        """An append of the client."""
        sound = self._heard.push(text, "audio")
        if sound:
            self._tape.on_caller(sound, self._heard_ms, self._now_ms())
            self._heard_ms += len(sound) // 8
        self._kept.on_tick()

    def sound_out(self, text: str | bytes) -> None:
        """A delta of the model."""
        now_ms = self._now_ms()
        # Not sent through a playout: it is heard by the clock.
        self._tape.on_agent(self._said.push(text, "delta"), now_ms, tone=True)
        self._tape.on_heard(0, now_ms)
        self._kept.on_tick()

    def on_interrupted(self) -> None:
        """The caller begins to speak: what is not played yet never is."""
        self._said.clear()
        self._tape.on_cut(0, self._now_ms())

    def close(self) -> None:
        """The session is over: `closed` follows."""
        self._tape.on_cut(0, self._now_ms())
        self._kept.close()

    async def closed(self) -> None:
        """Wait for the last write, and record the end."""
        try:
            await self._kept.closed()
        finally:
            self._kept.settle()


class _Track:
    """The sound of one side as mu-law in whole frames; what is left waits for more."""

    def __init__(self, audio_format: AudioFormat) -> None:
        self._format = audio_format
        self.clear()

    def clear(self) -> None:
        self._transcoder = Transcoder(self._format, PCMU_8K)
        self._rest = b""

    def become(self, audio_format: AudioFormat | None) -> None:
        if audio_format is not None and audio_format != self._format:
            self._format = audio_format
            self.clear()

    def push(self, text: str | bytes, key: str) -> bytes:
        """The whole frames of an event's sound; none of one that cannot be read."""
        event = parse(text) or {}
        try:
            sound = base64.b64decode(event.get(key) or "", validate=True)
        except (TypeError, ValueError, binascii.Error):
            return b""
        self._rest += self._transcoder.push(sound)
        whole = len(self._rest) - len(self._rest) % FRAME_BYTES
        sound, self._rest = self._rest[:whole], self._rest[whole:]
        return sound
