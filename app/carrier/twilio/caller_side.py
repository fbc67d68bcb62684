"""Twilio Media Streams, the carrier's side: the messages that a simulated caller exchanges.

Pure. Writes what Twilio writes to a server and reads what a server writes to Twilio, as strictly
as Twilio does: a broken rule is a `RemoteProtocolError` whose `code` is Twilio's error number and
whose message says in words what is wrong. The simulated caller decides when to speak and when a
mark comes back.

Follows Twilio voice/media-streams/websocket-messages and error pages 31950 and 31951 (2026-11).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.carrier.base import CarrierCallId, StreamId
from app.errors import RemoteProtocolError

__all__ = [
    "Clear",
    "SendMark",
    "SendMedia",
    "ServerMessage",
    "parse_server_message",
    "render_caller_media",
    "render_connected",
    "render_dtmf",
    "render_mark_reached",
    "render_start",
    "render_stop",
]

_UNDECODABLE: Final = "31950"  # "Malformed Message": a binary frame
_INVALID: Final = "31951"  # "Invalid Message": not JSON, fields, streamSid, unknown event
_BODY_FIELD: Final = {"media": "payload", "mark": "name", "clear": None}
_SHOWN_CHARS: Final = 60


@dataclass(frozen=True, slots=True)
class SendMedia:
    """The server wants this mu-law audio played."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class SendMark:
    """The server wants this name back when everything before it has been played."""

    name: str


@dataclass(frozen=True, slots=True)
class Clear:
    """The server wants the unplayed audio dropped and all marks back."""


ServerMessage = SendMedia | SendMark | Clear


def _text(message: Mapping[str, object]) -> str:
    return json.dumps(message, separators=(",", ":"))


def render_connected() -> str:
    """The first message on the socket, without a stream id."""
    return _text({"event": "connected", "protocol": "Call", "version": "1.0.0"})


def render_start(
    stream_id: StreamId,
    carrier_call_id: CarrierCallId,
    *,
    account_id: str,
    parameters: Mapping[str, str],
    sequence: int = 1,
) -> str:
    """The stream's own facts and the `<Parameter>`s of its TwiML."""
    return _text(
        {
            "event": "start",
            "sequenceNumber": str(sequence),
            "start": {
                "accountSid": account_id,
                "streamSid": stream_id,
                "callSid": carrier_call_id,
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": dict(parameters),
            },
            "streamSid": stream_id,
        }
    )


def render_caller_media(
    stream_id: StreamId, payload: bytes, *, sequence: int, chunk: int, timestamp_ms: int
) -> str:
    """Caller audio, mu-law 8 kHz; `timestamp_ms` counts from the stream's start."""
    return _text(
        {
            "event": "media",
            "sequenceNumber": str(sequence),
            "media": {
                "track": "inbound",
                "chunk": str(chunk),
                "timestamp": str(timestamp_ms),
                "payload": base64.b64encode(payload).decode("ascii"),
            },
            "streamSid": stream_id,
        }
    )


def render_dtmf(stream_id: StreamId, digit: str, *, sequence: int) -> str:
    """One key press. The track's odd spelling is Twilio's."""
    return _text(
        {
            "event": "dtmf",
            "streamSid": stream_id,
            "sequenceNumber": str(sequence),
            "dtmf": {"track": "inbound_track", "digit": digit},
        }
    )


def render_mark_reached(stream_id: StreamId, name: str, *, sequence: int) -> str:
    """A mark on its way back."""
    return _text(
        {
            "event": "mark",
            "sequenceNumber": str(sequence),
            "streamSid": stream_id,
            "mark": {"name": name},
        }
    )


def render_stop(
    stream_id: StreamId, carrier_call_id: CarrierCallId, *, account_id: str, sequence: int
) -> str:
    """The last message: the call ended or went on to other TwiML."""
    return _text(
        {
            "event": "stop",
            "sequenceNumber": str(sequence),
            "stop": {"accountSid": account_id, "callSid": carrier_call_id},
            "streamSid": stream_id,
        }
    )


def parse_server_message(frame: str | bytes, stream_id: StreamId) -> ServerMessage:
    """Read one frame of a server as Twilio would.

    Raises:
        RemoteProtocolError: with Twilio's number as `code`; the message names every fault found.
    """
    if isinstance(frame, bytes):
        raise RemoteProtocolError(
            f"a binary frame of {len(frame)} bytes: Media Streams are text", code=_UNDECODABLE
        )
    try:
        message: Any = json.loads(frame)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError("the message is not JSON", code=_INVALID) from error
    if not isinstance(message, dict):
        raise RemoteProtocolError("the message is not a JSON object", code=_INVALID)
    event = message.get("event")
    if not isinstance(event, str) or event not in _BODY_FIELD:
        raise RemoteProtocolError(
            f"event {_shown(event)} does not exist: only media, mark and clear do", code=_INVALID
        )
    field = _BODY_FIELD[event]
    faults = _field_faults(message, {"event", "streamSid"} | ({event} if field else set()), event)
    if "streamSid" in message and message["streamSid"] != stream_id:
        faults.append(f"{event}.streamSid {_shown(message['streamSid'])} is not this stream's")
    value: object = None
    if field and event in message:
        value, body_faults = _body(message[event], field, event)
        faults += body_faults
    if faults:
        raise RemoteProtocolError("; ".join(faults), code=_INVALID)
    if isinstance(value, bytes):
        return SendMedia(value)
    return SendMark(value) if isinstance(value, str) else Clear()


def _body(body: object, field: str, event: str) -> tuple[object, list[str]]:
    """The one value inside `media` or `mark`, and what is wrong around it."""
    if not isinstance(body, dict):
        return None, [f"{event}.{event} is not an object"]
    faults = _field_faults(body, {field}, f"{event}.{event}")
    value: object = body.get(field)
    if field not in body:
        return None, faults
    if not isinstance(value, str) or not value:
        return None, [*faults, f"{event}.{event}.{field} must be a string that is not empty"]
    if event == "mark":
        return value, faults
    try:
        sound = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None, [*faults, "media.media.payload is not base64"]
    if sound.startswith((b"RIFF", b"OggS", b".snd")):
        faults.append("media.media.payload begins with a file header, which is heard as noise")
    return sound, faults


def _field_faults(value: Mapping[str, object], fields: set[str], where: str) -> list[str]:
    missing = [f"{where} lacks {name}" for name in sorted(fields - value.keys())]
    extra = [
        f"{where} has a field that Twilio does not know: {_shown(name)}"
        for name in sorted(value.keys() - fields)
    ]
    return missing + extra


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."
