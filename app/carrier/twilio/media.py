"""Twilio Media Streams, the server's side: text in, stream events out; actions in, text out.

Pure: no socket, no clock. `MediaProtocol` checks the order and the shape of what a carrier sends;
`render_media`, `render_mark` and `render_clear` write the only three messages that it takes. The
socket, time limits and tolerance for broken messages belong to `carrier.py`; the simulated
caller's half is `caller_side.py`, whose names can be had from here as well.

Follows Twilio voice/media-streams/websocket-messages (2026-11). Surprises: an
unknown event is `Unknown`, a repeated `connected` or a track that is not the caller's is counted
and ignored, everything after `stop` is ignored, a known message that is malformed is a
`RemoteProtocolError`.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Final

import msgspec

from app.carrier.base import (
    CallerAudio,
    CarrierCallId,
    Dtmf,
    MarkReached,
    StreamEvent,
    StreamId,
    StreamStarted,
    StreamStopped,
)
from app.carrier.twilio.caller_side import (
    Clear,
    SendMark,
    SendMedia,
    ServerMessage,
    parse_server_message,
    render_caller_media,
    render_connected,
    render_dtmf,
    render_mark_reached,
    render_start,
    render_stop,
)
from app.errors import LocalProtocolError, RemoteProtocolError
from audio.format import PCMU_8K

__all__ = [
    "MAX_MESSAGE_CHARS",
    "MAX_PAYLOAD_BYTES",
    "MESSAGE_TOO_LARGE",
    "SECOND_START",
    "Clear",
    "MediaCounters",
    "MediaProtocol",
    "MediaState",
    "SendMark",
    "SendMedia",
    "ServerMessage",
    "Unknown",
    "parse_server_message",
    "render_caller_media",
    "render_clear",
    "render_connected",
    "render_dtmf",
    "render_mark",
    "render_mark_reached",
    "render_media",
    "render_start",
    "render_stop",
]

MAX_MESSAGE_CHARS: Final = 65_536
"""Twilio's own frames hold 160 bytes of audio, about 300 characters; a start at most a few kB."""

MAX_PAYLOAD_BYTES: Final = 8_192
"""Just over a second of mu-law in one message, fifty times what Twilio sends."""

SECOND_START: Final = "second_start"
MESSAGE_TOO_LARGE: Final = "message_too_large"

# Ids enter logs, tokens and REST paths: Twilio's are two letters and 32 hex digits, other
# carriers with the same protocol use UUIDs. Nothing that could break a line or a path gets in.
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_KEYS: Final = frozenset("0123456789*#ABCD")
_CALLER_TRACKS: Final = frozenset({"inbound", "inbound_track"})
_SHOWN_CHARS: Final = 40

# Twilio writes counts as strings; a decoder that is not strict takes "4" and 4 alike.
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class MediaState(StrEnum):
    """The stages of a stream."""

    NEW = "new"
    CONNECTED = "connected"
    STARTED = "started"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Unknown:
    """An event type that this version does not know; to be ignored."""

    event: str


@dataclass(slots=True)
class MediaCounters:
    """The counters of one stream. `missing` is the sum of the holes in the sequence numbers."""

    media: int = 0
    duplicates: int = 0
    missing: int = 0
    out_of_order: int = 0
    unknown: int = 0
    ignored: int = 0


class _Wire(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Base of the wire shapes; unknown fields are ignored."""


class _Connected(_Wire, frozen=True, gc=False, tag_field="event", tag="connected"):
    pass


class _Format(_Wire, frozen=True, gc=False):
    encoding: str
    sample_rate: _Count
    channels: _Count


class _StartBody(_Wire, frozen=True, gc=False):
    stream_sid: str
    call_sid: str
    account_sid: str
    media_format: _Format
    tracks: list[str]
    custom_parameters: dict[str, str] = {}


class _Start(_Wire, frozen=True, gc=False, tag_field="event", tag="start"):
    start: _StartBody
    stream_sid: str | None = None
    sequence_number: _Count = 0


class _MediaBody(_Wire, frozen=True, gc=False):
    payload: bytes
    timestamp: _Count
    chunk: _Count = 0
    track: str = "inbound"


class _Media(_Wire, frozen=True, gc=False, tag_field="event", tag="media"):
    stream_sid: str
    media: _MediaBody
    sequence_number: _Count = 0


class _MarkBody(_Wire, frozen=True, gc=False):
    name: str


class _Mark(_Wire, frozen=True, gc=False, tag_field="event", tag="mark"):
    stream_sid: str
    mark: _MarkBody
    sequence_number: _Count = 0


class _DtmfBody(_Wire, frozen=True, gc=False):
    digit: str


class _Dtmf(_Wire, frozen=True, gc=False, tag_field="event", tag="dtmf"):
    stream_sid: str
    dtmf: _DtmfBody
    sequence_number: _Count = 0


class _Stop(_Wire, frozen=True, gc=False, tag_field="event", tag="stop"):
    stream_sid: str
    sequence_number: _Count = 0


class _Envelope(msgspec.Struct):
    event: str


_Message = _Media | _Mark | _Dtmf | _Connected | _Start | _Stop
_DECODER: Final = msgspec.json.Decoder(_Message, strict=False)
_ENVELOPE: Final = msgspec.json.Decoder(_Envelope)
_KNOWN: Final = frozenset({"connected", "start", "media", "mark", "dtmf", "stop"})


class MediaProtocol:
    """The state of one media stream as its server sees it."""

    def __init__(self) -> None:
        self.state = MediaState.NEW
        self.counters = MediaCounters()
        self._stream_id: str | None = None
        self._sequence = 0
        self._chunk = 0
        self._timestamp_ms = -1

    def receive(self, text: str) -> StreamEvent | Unknown | None:
        """Take one text message; None when it holds nothing that a call needs.

        Raises:
            RemoteProtocolError: malformed, or not allowed now. The state is as before, so that
                the shell may ignore the message; `code` is `SECOND_START` or `MESSAGE_TOO_LARGE`
                where it should not.
        """
        if self.state is MediaState.STOPPED:
            self.counters.ignored += 1
            return None
        if len(text) > MAX_MESSAGE_CHARS:
            raise RemoteProtocolError(
                f"the carrier's message has {len(text)} characters, more than {MAX_MESSAGE_CHARS}",
                code=MESSAGE_TOO_LARGE,
            )
        try:
            message = _DECODER.decode(text)
        except msgspec.ValidationError as error:
            return self._on_surprise(text, error)
        except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
            raise RemoteProtocolError("the carrier's message is not JSON") from error
        if isinstance(message, _Media):  # 50 times a second, the others once in a while
            return self._on_media(message)
        return self._on_control(message)

    def _on_surprise(self, text: str, error: msgspec.ValidationError) -> Unknown:
        try:
            event = _ENVELOPE.decode(text).event
        except (msgspec.DecodeError, RecursionError):
            event = None
        if event is None or event in _KNOWN:
            # The detail names a path and types, never a value: only an unknown event would.
            detail = str(error) if event is not None else "no event name"
            raise RemoteProtocolError(f"the carrier's message is malformed: {detail}") from error
        self.counters.unknown += 1
        return Unknown(event[:_SHOWN_CHARS])

    def _on_media(self, message: _Media) -> CallerAudio | None:
        if message.stream_sid != self._stream_id:
            self._expect_stream(message.stream_sid, "media")
        media = message.media
        if len(media.payload) > MAX_PAYLOAD_BYTES:
            raise RemoteProtocolError(
                f"a media payload has {len(media.payload)} bytes, more than {MAX_PAYLOAD_BYTES}",
                code=MESSAGE_TOO_LARGE,
            )
        if message.sequence_number == self._sequence + 1:
            self._sequence += 1
        else:
            self._count_sequence(message.sequence_number)
        if media.track not in _CALLER_TRACKS or not media.payload:
            self.counters.ignored += 1
            return None
        if media.chunk > self._chunk:
            self._chunk = media.chunk
        elif media.timestamp <= self._timestamp_ms:
            # Both stand still: a carrier that never counts its chunks is not silenced for it.
            self.counters.duplicates += 1
            return None
        if media.timestamp > self._timestamp_ms:
            self._timestamp_ms = media.timestamp
        self.counters.media += 1
        return CallerAudio(media.payload, media.timestamp)

    def _on_control(
        self, message: _Mark | _Dtmf | _Connected | _Start | _Stop
    ) -> StreamEvent | None:
        match message:
            case _Connected():
                if self.state is MediaState.NEW:
                    self.state = MediaState.CONNECTED
                else:
                    self.counters.ignored += 1
                return None
            case _Start():
                return self._on_start(message)
            case _Mark():
                self._expect_stream(message.stream_sid, "mark")
                self._count_sequence(message.sequence_number)
                return MarkReached(message.mark.name)
            case _Dtmf():
                self._expect_stream(message.stream_sid, "dtmf")
                digit = message.dtmf.digit.upper()
                if digit not in _KEYS:
                    raise RemoteProtocolError("a dtmf message does not hold one key")
                self._count_sequence(message.sequence_number)
                return Dtmf(digit)
            case _:
                if self.state is MediaState.STARTED:
                    self._expect_stream(message.stream_sid, "stop")
                self._count_sequence(message.sequence_number)
                self.state = MediaState.STOPPED
                return StreamStopped(hung_up=True)

    def _on_start(self, message: _Start) -> StreamStarted:
        if self.state is MediaState.STARTED:
            raise RemoteProtocolError("a second start on one stream", code=SECOND_START)
        if self.state is MediaState.NEW:
            raise RemoteProtocolError("start came before connected")
        start = message.start
        for name, value in (
            ("streamSid", start.stream_sid),
            ("callSid", start.call_sid),
            ("accountSid", start.account_sid),
        ):
            if not _ID.fullmatch(value):
                raise RemoteProtocolError(f"start.{name} is not an id")
        if message.stream_sid not in (None, start.stream_sid):
            raise RemoteProtocolError("start names two different streams")
        sound = start.media_format
        if (sound.encoding, sound.sample_rate, sound.channels) != ("audio/x-mulaw", 8_000, 1):
            raise RemoteProtocolError(
                f"the stream's format is {sound.encoding[:_SHOWN_CHARS]!r}, {sound.sample_rate} Hz,"
                f" {sound.channels} channel(s); expected audio/x-mulaw, 8000 Hz, 1 channel"
            )
        if not _CALLER_TRACKS.intersection(start.tracks):
            raise RemoteProtocolError("the stream does not carry the caller's track")
        self._stream_id = start.stream_sid
        self._sequence = message.sequence_number
        self.state = MediaState.STARTED
        return StreamStarted(
            stream_id=StreamId(start.stream_sid),
            carrier_call_id=CarrierCallId(start.call_sid),
            account_id=start.account_sid,
            audio_format=PCMU_8K,
            parameters=start.custom_parameters,
        )

    def _expect_stream(self, stream_sid: str, event: str) -> None:
        if stream_sid == self._stream_id:
            return
        if self.state is not MediaState.STARTED:
            raise RemoteProtocolError(f"{event} came before start")
        raise RemoteProtocolError(f"{event} names another stream")

    def _count_sequence(self, number: int) -> None:
        if not number:  # absent: Twilio counts from 1
            return
        step = number - self._sequence
        if step == 1:
            self._sequence = number
        elif step > 1:
            self.counters.missing += step - 1
            self._sequence = number
        else:
            self.counters.out_of_order += 1


@lru_cache(maxsize=1024)
def _head(event: str, stream_id: str) -> str:
    """The part of a message that is the same for a whole stream, JSON-escaped once."""
    if not stream_id:
        raise LocalProtocolError(f"{event} without a stream id")
    return f'{{"event":"{event}","streamSid":{msgspec.json.encode(stream_id).decode()}'


def render_media(stream_id: StreamId, payload: bytes) -> str:
    """Agent audio in the stream's own format, without any container header."""
    if not payload:
        raise LocalProtocolError("media without audio")
    sound = binascii.b2a_base64(payload, newline=False).decode("ascii")
    return f'{_head("media", stream_id)},"media":{{"payload":"{sound}"}}}}'


def render_mark(stream_id: StreamId, name: str) -> str:
    """A checkpoint that comes back when all before it has been played, or was cleared."""
    if not name:
        raise LocalProtocolError("a mark without a name")
    return f'{_head("mark", stream_id)},"mark":{{"name":{msgspec.json.encode(name).decode()}}}}}'


def render_clear(stream_id: StreamId) -> str:
    """Drop all unplayed audio; every outstanding mark comes back at once."""
    return f"{_head('clear', stream_id)}}}"
