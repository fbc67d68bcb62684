"""One media stream as the carrier runs it.

Pure: text and `now_ms` in, text out. Keeps the order of messages (`connected`, `start` as number
1, then `media`, `dtmf` and `mark`, at the end `stop`), the counters, the playout and the marks.
`leg` has the socket and the pace, `app.carrier.twilio.caller_side` the spelling of messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from app.carrier.base import CarrierCallId, StreamId
from app.carrier.twilio.caller_side import (
    Clear,
    SendMark,
    SendMedia,
    parse_server_message,
    render_caller_media,
    render_connected,
    render_dtmf,
    render_mark_reached,
    render_start,
    render_stop,
)
from app.dial.faults import Fault
from app.dial.measures import QueueCleared
from app.dial.playout import BYTES_PER_MS, CallerPlayout, Heard, MarkBack, PlayoutEvent
from app.dial.speaking import FRAME_BYTES, FRAME_MS, SpeechPlayer
from app.dial.utterances import UtteranceDetector
from app.errors import RemoteProtocolError

__all__ = ["CarrierStream", "Recorder", "StreamCounters", "StreamIdentity"]

# A caller barges in only where the agent was heard just now; a queue that holds the silent tail of
# an answer does not count.
_JUST_HEARD_MS: Final = 300
# Twilio warns once per stream; more than this many of a kind say nothing new.
_FAULTS_KEPT: Final = 100
_DIGITS: Final = frozenset("0123456789*#ABCD")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamIdentity:
    """The ids and parameters that a `start` message carries."""

    stream_id: StreamId
    call_id: CarrierCallId
    account_id: str
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class StreamCounters:
    """Counts of what passed over the stream."""

    frames_sent: int = 0
    frames_discarded: int = 0
    media_received: int = 0
    agent_bytes: int = 0
    marks_received: int = 0
    marks_returned: int = 0
    faults: int = 0

    @property
    def agent_audio_ms(self) -> int:
        return self.agent_bytes // BYTES_PER_MS


class Recorder(Protocol):
    """Records both sides of the stream, in mu-law, by position since the start."""

    def caller_audio(self, at_byte: int, ulaw: bytes) -> None: ...

    def agent_audio(self, at_byte: int, ulaw: bytes) -> None: ...


class CarrierStream:
    """The carrier's end of one media stream, from `start` to `stop`."""

    def __init__(
        self, identity: StreamIdentity, start_ms: int, *, recorder: Recorder | None = None
    ) -> None:
        self.identity = identity
        self.start_ms = start_ms
        self.playout = CallerPlayout(start_ms)
        self.detector = UtteranceDetector(start_ms)
        self.player = SpeechPlayer()
        self.clears: list[QueueCleared] = []
        self.faults: list[Fault] = []
        self.marks: list[MarkBack] = []
        self.counters = StreamCounters()
        self._recorder = recorder
        self._sequence = 0
        self._frame_index = 0

    def opening(self) -> tuple[str, str]:
        """The two messages that open a stream."""
        start = render_start(
            self.identity.stream_id,
            self.identity.call_id,
            account_id=self.identity.account_id,
            parameters=self.identity.parameters,
            sequence=self._next(),
        )
        return render_connected(), start

    def agent_audible(self, now_ms: int) -> bool:
        """True while the caller hears the agent, or heard it a moment ago."""
        last_ms = self.detector.last_audible_ms
        return self.playout.playing and last_ms is not None and now_ms - last_ms < _JUST_HEARD_MS

    def frame(self, now_ms: int, *, discard: bool = False) -> list[str]:
        """Play up to now and return the next 20 ms of the caller, with the marks that are due.

        With `discard` the frame is lost on its way: time goes on and a gap stays, as when a
        carrier drops audio for a server that reads too slowly (31930).
        """
        messages = self._played(self.playout.advance(now_ms))
        index = self._frame_index
        self._frame_index += 1
        ulaw = self.player.next_frame(now_ms, agent_playing=self.agent_audible(now_ms))
        if self._recorder is not None:
            self._recorder.caller_audio(index * FRAME_BYTES, ulaw)
        if discard:
            self.counters.frames_discarded += 1
            return messages
        self.counters.frames_sent += 1
        media = render_caller_media(
            self.identity.stream_id,
            ulaw,
            sequence=self._next(),
            chunk=self.counters.frames_sent,
            timestamp_ms=index * FRAME_MS,
        )
        return [*messages, media]

    def receive(self, frame: str | bytes, now_ms: int) -> list[str]:
        """Take a frame of the server; return the marks to send back for it."""
        returned = self._played(self.playout.advance(now_ms))
        try:
            message = parse_server_message(frame, self.identity.stream_id)
        except RemoteProtocolError as error:
            self._fault(error.code, error.message, now_ms)
            return returned
        match message:
            case SendMedia(payload):
                self._queue(payload, now_ms)
            case SendMark(name):
                self.counters.marks_received += 1
                back = self.playout.mark(name, now_ms)
                returned += self._played([back] if back else [])
            case Clear():
                self.clears.append(QueueCleared(now_ms, self.playout.queued_ms))
                returned += self._played(self.playout.clear(now_ms))
                self.detector.flush()
        return returned

    def press(self, digit: str) -> str:
        """Render one key press.

        Raises:
            ValueError: telephones do not have that key.
        """
        if digit not in _DIGITS:
            raise ValueError(f"{digit!r} is not a telephone key")
        return render_dtmf(self.identity.stream_id, digit, sequence=self._next())

    def stop(self) -> str:
        """The last message."""
        return render_stop(
            self.identity.stream_id,
            self.identity.call_id,
            account_id=self.identity.account_id,
            sequence=self._next(),
        )

    def _queue(self, payload: bytes, now_ms: int) -> None:
        self.counters.media_received += 1
        self.counters.agent_bytes += len(payload)
        lost = self.playout.push(payload, now_ms)
        if lost:
            lost_ms = lost // BYTES_PER_MS
            self._fault("31931", f"queue full: {lost_ms} ms of agent audio discarded", now_ms)

    def _played(self, events: Sequence[PlayoutEvent]) -> list[str]:
        messages = []
        for event in events:
            if isinstance(event, Heard):
                self.detector.hear(event)
                if self._recorder is not None:
                    self._recorder.agent_audio(event.at_byte, event.payload)
            else:
                self.marks.append(event)
                self.counters.marks_returned += 1
                messages.append(
                    render_mark_reached(self.identity.stream_id, event.name, sequence=self._next())
                )
        return messages

    def _fault(self, code: str, text: str, now_ms: int) -> None:
        self.counters.faults += 1
        if len(self.faults) < _FAULTS_KEPT:
            self.faults.append(Fault(code, text, now_ms - self.start_ms))

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence
