"""Twilio Media Streams, the server's side: text in, stream events out; actions in, text out.

Pure: no socket, no clock. `MediaProtocol` checks the order and the shape of what a carrier sends;
`render_media`, `render_mark` and `render_clear` write the only three messages that it takes. The
socket, time limits and tolerance for broken messages belong to `carrier.py`; the simulated
caller's half is `caller_side.py`, whose names can be had from here as well.

Follows Twilio voice/media-streams/websocket-messages (2026-11), and reads what simulators and
serializers of other people make of it. A message needs only what a call cannot go on without: the
ids of the call in `start`, sound in `media`, the name of a mark, a key. Everything else that is
missing or odd is left out and counted, by field; a message that cannot be used is ignored. A format
that is given is obeyed: one that cannot be converted is refused. Text that is not a message is a
`RemoteProtocolError`, and so is a `start` that cannot be used.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Final, Protocol

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
from audio.format import PCM16_8K, PCM16_16K, PCM16_24K, PCMA_8K, PCMU_8K, AudioFormat, Encoding

__all__ = [
    "MAX_MESSAGE_CHARS",
    "MAX_PAYLOAD_MS",
    "MEDIA_FORMAT",
    "MESSAGE_TOO_LARGE",
    "SECOND_START",
    "Clear",
    "MediaCounters",
    "MediaProtocol",
    "MediaState",
    "SendMark",
    "SendMedia",
    "ServerMessage",
    "Sound",
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

MAX_PAYLOAD_MS: Final = 1_024
"""Just over a second of sound in one message, fifty times what Twilio sends."""

MEDIA_FORMAT: Final = "media_format"

SECOND_START: Final = "second_start"
MESSAGE_TOO_LARGE: Final = "message_too_large"

# Ids enter logs, tokens and REST paths: Twilio's are two letters and 32 hex digits, other
# carriers with the same protocol use UUIDs. Nothing that could break a line or a path gets in.
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_KEYS: Final = frozenset("0123456789*#ABCD")
_CALLER_TRACKS: Final = frozenset({"inbound", "inbound_track"})
_MONO: Final = (None, 1, "1")
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
    """The counters of one stream. `missing` is the sum of the holes in the sequence numbers.

    `odd` counts, by field, what was missing or of another kind than Twilio's.
    """

    media: int = 0
    duplicates: int = 0
    missing: int = 0
    out_of_order: int = 0
    unknown: int = 0
    ignored: int = 0
    odd: dict[str, int] = field(default_factory=dict)


class Sound(Protocol):
    """A piece of caller audio, in the stream's format."""

    @property
    def payload(self) -> bytes: ...
    @property
    def timestamp(self) -> Any:
        """An int, in ms from the stream's start."""
        ...


class _Wire(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Base of the wire shapes; unknown fields are ignored."""


class _Connected(_Wire, frozen=True, gc=False, tag_field="event", tag="connected"):
    pass


class _MediaBody(_Wire, frozen=True, gc=False):
    payload: bytes
    timestamp: _Count | None = None
    chunk: _Count = 0
    track: str = "inbound"


class _Media(_Wire, frozen=True, gc=False, tag_field="event", tag="media"):
    media: _MediaBody
    stream_sid: str | None = None
    sequence_number: _Count = 0


class _MarkBody(_Wire, frozen=True, gc=False):
    name: str


class _Mark(_Wire, frozen=True, gc=False, tag_field="event", tag="mark"):
    mark: _MarkBody
    stream_sid: str | None = None
    sequence_number: _Count = 0


class _DtmfBody(_Wire, frozen=True, gc=False):
    digit: str


class _Dtmf(_Wire, frozen=True, gc=False, tag_field="event", tag="dtmf"):
    dtmf: _DtmfBody
    stream_sid: str | None = None
    sequence_number: _Count = 0


class _Stop(_Wire, frozen=True, gc=False, tag_field="event", tag="stop"):
    stream_sid: str | None = None
    sequence_number: _Count = 0


_InStream = _Media | _Mark | _Dtmf | _Stop
_Message = _InStream | _Connected
_DECODER: Final = msgspec.json.Decoder(_Message, strict=False)
_MEDIA_DECODER: Final = msgspec.json.Decoder(_Media, strict=False)
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])
_KNOWN: Final = frozenset({"connected", "start", "media", "mark", "dtmf", "stop"})

# Names of the formats that `audio.transcoder` converts. L16 is little-endian, as carriers send it.
_ENCODINGS: Final = {
    **dict.fromkeys(("audio/x-mulaw", "audio/pcmu", "mulaw", "pcmu", "ulaw"), Encoding.PCMU),
    **dict.fromkeys(("audio/x-alaw", "audio/pcma", "alaw", "pcma"), Encoding.PCMA),
    **dict.fromkeys(
        ("audio/x-l16", "audio/l16", "l16", "audio/pcm", "pcm", "linear16"), Encoding.PCM16
    ),
}
_FORMATS: Final = frozenset({PCMU_8K, PCMA_8K, PCM16_8K, PCM16_16K, PCM16_24K})
_TAKEN: Final = "mu-law or A-law at 8000 Hz, or L16 at 8000, 16000 or 24000 Hz, in one channel"


class MediaProtocol:
    """The state of one media stream as its server sees it."""

    def __init__(self) -> None:
        self.state = MediaState.NEW
        self.counters = MediaCounters()
        self._stream_id: str | None = None
        self._call_id: str | None = None
        self._format = PCMU_8K
        self._sequence = 0
        self._chunk = 0
        self._timestamp_ms = -1
        self._next_ms = 0
        self._last_payload = b""
        self._half_sample = b""
        # For `receive_audio`: nothing, as long as there is no stream whose samples are bytes.
        self._max_plain_bytes = 0
        self._plain_bytes_per_ms = 1

    def receive(self, text: str) -> StreamEvent | Unknown | None:
        """Take one text message; None when it holds nothing that a call needs.

        Raises:
            RemoteProtocolError: no message, or a `start` that cannot be used. The state is as
                before, so that the shell may ignore the message; `code` is `SECOND_START` or
                `MESSAGE_TOO_LARGE` where it should not.
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
            message: _Message | None = _DECODER.decode(text)
        except msgspec.ValidationError:
            return self._on_other(text)
        except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
            raise RemoteProtocolError("the carrier's message is not JSON") from error
        return self._on_message(message)

    def receive_audio(self, text: bytes) -> Sound | None:
        """Take the caller's audio where the message is just what was expected next.

        None, and nothing has changed, for any other: `receive` then says what it is. Fifty times
        a second for each call, so it decodes one shape, and makes no event of it.
        """
        try:
            message = _MEDIA_DECODER.decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        media = message.media
        timestamp_ms = media.timestamp
        if (
            message.sequence_number != self._sequence + 1
            or message.stream_sid != self._stream_id
            or timestamp_ms is None
            or timestamp_ms <= self._timestamp_ms
            or media.chunk <= self._chunk
            or media.track not in _CALLER_TRACKS
            or not 0 < len(media.payload) <= self._max_plain_bytes
        ):
            return None
        self._sequence += 1
        self._chunk = media.chunk
        self._timestamp_ms = timestamp_ms
        self._last_payload = media.payload
        self._next_ms = timestamp_ms + len(media.payload) // self._plain_bytes_per_ms
        self.counters.media += 1
        return media

    def _on_message(self, message: _Message | None) -> StreamEvent | None:
        if isinstance(message, _Media):  # 50 times a second, the others once in a while
            return self._on_media(message) if self._is_ours(message) else None
        if isinstance(message, _Connected):
            if self.state is MediaState.NEW:
                self.state = MediaState.CONNECTED
            else:
                self.counters.ignored += 1
            return None
        return None if message is None else self._on_control(message)

    def _on_other(self, text: str) -> StreamEvent | Unknown | None:
        """A `start`, an unknown event, or a message with odd fields."""
        try:
            raw = _OBJECT.decode(text)
        except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
            raise RemoteProtocolError("the carrier's message is not JSON, or no object") from error
        event = raw.get("event")
        if not isinstance(event, str):
            raise RemoteProtocolError("the carrier's message has no event name")
        if event not in _KNOWN:
            self.counters.unknown += 1
            return Unknown(event[:_SHOWN_CHARS])
        if event == "start":
            return self._on_start(raw)
        return self._on_message(self._read_patiently(event, raw))

    def _on_media(self, message: _Media) -> CallerAudio | None:
        media = message.media
        if len(media.payload) > self._format.ms_to_bytes(MAX_PAYLOAD_MS):
            raise RemoteProtocolError(
                f"a media payload has {len(media.payload)} bytes, more than {MAX_PAYLOAD_MS} ms",
                code=MESSAGE_TOO_LARGE,
            )
        advanced = message.sequence_number > self._sequence
        if message.sequence_number == self._sequence + 1:
            self._sequence += 1
        else:
            self._count_sequence(message.sequence_number)
        if media.track not in _CALLER_TRACKS or not media.payload:
            self.counters.ignored += 1
            return None
        timestamp_ms = media.timestamp
        if media.chunk > self._chunk:
            self._chunk = media.chunk
        elif self._repeats(message, advanced=advanced):
            self.counters.duplicates += 1
            return None
        if timestamp_ms is None:
            self._note_odd("media.timestamp")
            timestamp_ms = self._next_ms
        if timestamp_ms > self._timestamp_ms:
            self._timestamp_ms = timestamp_ms
        self.counters.media += 1
        self._last_payload = payload = media.payload
        if self._format.encoding is Encoding.PCM16:
            payload = self._whole_samples(payload)
            if not payload:
                return None
        self._next_ms = timestamp_ms + self._format.bytes_to_ms(len(payload))
        return CallerAudio(payload, timestamp_ms)

    def _repeats(self, message: _Media, *, advanced: bool) -> bool:
        """True for a frame that was received before.

        All counts that are given must stand still: a carrier that leaves some out, or never moves
        them, is not silenced for it.
        """
        media = message.media
        if not media.chunk or media.timestamp is None or media.timestamp > self._timestamp_ms:
            return False
        return not advanced if message.sequence_number else media.payload == self._last_payload

    def _whole_samples(self, payload: bytes) -> bytes:
        payload = self._half_sample + payload
        whole = len(payload) - len(payload) % 2
        self._half_sample = payload[whole:]
        return payload[:whole]

    def _on_control(self, message: _Mark | _Dtmf | _Stop) -> StreamEvent | None:
        if isinstance(message, _Stop):
            if self.state is MediaState.STARTED and not self._is_ours(message):
                return None
            self._count_sequence(message.sequence_number)
            self.state = MediaState.STOPPED
            self._max_plain_bytes = 0
            return StreamStopped(hung_up=True)
        if not self._is_ours(message):
            return None
        self._count_sequence(message.sequence_number)
        if isinstance(message, _Mark):
            return MarkReached(message.mark.name)
        digit = message.dtmf.digit.upper()
        if digit not in _KEYS:
            self._note_odd("dtmf.digit")
            return None
        return Dtmf(digit)

    def _is_ours(self, message: _InStream) -> bool:
        """False for what comes before the stream has started, or names another one."""
        if message.stream_sid == self._stream_id is not None:
            return True
        if self.state is not MediaState.STARTED:
            self.counters.ignored += 1
            return False
        self._note_odd("streamSid")
        return message.stream_sid is None

    # Odd messages -------------------------------------------------------------------------------

    def _note_odd(self, field: str) -> None:
        self.counters.odd[field] = self.counters.odd.get(field, 0) + 1

    def _read_patiently(self, event: str, raw: Mapping[str, Any]) -> _Message | None:
        """A known message without its odd fields; None when it cannot be used."""
        stream_sid = raw.get("streamSid")
        if not (stream_sid is None or isinstance(stream_sid, str)):
            stream_sid = None
        sequence = self._count(raw, "sequenceNumber", "sequenceNumber") or 0
        if event == "connected":
            return _Connected()
        if event == "stop":
            return _Stop(stream_sid, sequence)
        body = raw.get(event)
        if not isinstance(body, dict):
            self._note_odd(event)
            return None
        if event == "media":
            payload = _bytes(body.get("payload"))
            if payload is None:
                self._note_odd("media.payload")
                return None
            track = body.get("track")
            if not isinstance(track, str):
                track = "inbound"
            chunk = self._count(body, "chunk", "media.chunk") or 0
            timestamp = self._count(body, "timestamp", "media.timestamp")
            return _Media(_MediaBody(payload, timestamp, chunk, track), stream_sid, sequence)
        name = "name" if event == "mark" else "digit"
        value = body.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            self._note_odd(f"{event}.{name}")
            return None
        if event == "mark":
            return _Mark(_MarkBody(value), stream_sid, sequence)
        return _Dtmf(_DtmfBody(value), stream_sid, sequence)

    def _count(self, raw: Mapping[str, Any], name: str, field: str) -> int | None:
        """A field that holds a count; None where it is absent or odd."""
        value = raw.get(name)
        try:
            return None if value is None else msgspec.convert(value, _Count, strict=False)
        except msgspec.ValidationError:
            if name != "timestamp":  # that is counted where its absence is
                self._note_odd(field)
            return None

    # Start --------------------------------------------------------------------------------------

    def _on_start(self, raw: Mapping[str, Any]) -> StreamStarted | None:
        start = raw.get("start")
        if not isinstance(start, dict):
            raise RemoteProtocolError("the carrier's start is malformed: it holds no object start")
        stream_sid = _id(start, "streamSid") or _id(raw, "streamSid")
        call_sid, account_sid = _id(start, "callSid"), _id(start, "accountSid")
        if not stream_sid or not call_sid:
            missing = "callSid" if stream_sid else "streamSid"
            raise RemoteProtocolError(f"the carrier's start is malformed: it lacks {missing}")
        if _id(raw, "streamSid") not in ("", stream_sid):
            raise RemoteProtocolError("start names two different streams")
        if self.state is MediaState.STARTED:
            if (stream_sid, call_sid) == (self._stream_id, self._call_id):
                self.counters.ignored += 1
                return None
            raise RemoteProtocolError("a second start on one stream", code=SECOND_START)
        audio_format = _format(start.get("mediaFormat"))
        tracks = start.get("tracks")
        if isinstance(tracks, list) and tracks and _CALLER_TRACKS.isdisjoint(map(str, tracks)):
            raise RemoteProtocolError("the stream does not carry the caller's track")
        parameters = start.get("customParameters", {})
        for name, is_odd in (
            ("connected", self.state is MediaState.NEW),
            ("start.accountSid", not account_sid),
            ("start.mediaFormat", not start.get("mediaFormat")),
            ("start.tracks", not isinstance(tracks, list) or not tracks),
            ("start.customParameters", not isinstance(parameters, dict)),
        ):
            if is_odd:
                self._note_odd(name)
        if not isinstance(parameters, dict):
            parameters = {}
        self._stream_id, self._call_id, self._format = stream_sid, call_sid, audio_format
        self._sequence = self._count(raw, "sequenceNumber", "sequenceNumber") or 0
        self.state = MediaState.STARTED
        if audio_format.encoding is not Encoding.PCM16:
            self._max_plain_bytes = audio_format.ms_to_bytes(MAX_PAYLOAD_MS)
            self._plain_bytes_per_ms = audio_format.ms_to_bytes(1)
        return StreamStarted(
            stream_id=StreamId(stream_sid),
            carrier_call_id=CarrierCallId(call_sid),
            account_id=account_sid,
            audio_format=audio_format,
            parameters={
                name: value for name, value in parameters.items() if isinstance(value, str)
            },
        )

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


def _bytes(value: object) -> bytes | None:
    try:
        return msgspec.convert(value, bytes) if isinstance(value, str) else None
    except msgspec.ValidationError:
        return None


def _id(raw: Mapping[str, Any], name: str) -> str:
    """An id, or nothing where it is absent.

    Raises:
        RemoteProtocolError: it is something else.
    """
    value = raw.get(name)
    if not isinstance(value, str) or not value:
        return ""
    if not _ID.fullmatch(value):
        raise RemoteProtocolError(f"start.{name} is not an id")
    return value


def _format(given: object) -> AudioFormat:
    """The stream's format: mu-law at 8 kHz where nothing is said, as it always was.

    Raises:
        RemoteProtocolError: it is said, and is none that can be converted.
    """
    if given is None:
        return PCMU_8K
    if isinstance(given, dict):
        encoding = given.get("encoding")
        rate, channels = given.get("sampleRate"), given.get("channels")
        coding = Encoding.PCMU if encoding is None else _ENCODINGS.get(str(encoding).lower())
        if rate is None and coding is not Encoding.PCM16:
            rate = 8_000
        for one in _FORMATS:
            if one.encoding is coding and str(rate) == str(one.rate_hz) and channels in _MONO:
                return one
        shown = f"{encoding!s:.{_SHOWN_CHARS}}, {rate!s:.9} Hz, {channels!s:.9} channel(s)"
    else:
        shown = "no object"
    raise RemoteProtocolError(
        f"the stream's mediaFormat is {shown!a}; expected {_TAKEN}", code=MEDIA_FORMAT
    )


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
