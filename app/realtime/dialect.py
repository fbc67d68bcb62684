"""The two dialects of the Realtime protocol as tables: text to event and back, both sides.

`GA` is OpenAI's interface since September 2025, `BETA` the one before it, which OpenAI ended on
2026-05-12 and some gateways still speak. With its parts `wire_session`, `wire_items` and `fields`
this is the only place that knows how things are spelled on the wire, and the only one that knows
base64. States and event ids are `app.realtime.protocol`'s. By OpenAI's event models of August
2026 (openai-python `types/realtime` and `types/beta/realtime`).

An unknown type becomes `Unknown`; anything that is not a JSON object with a type is a
`MalformedEvent`. So is a client's event with an odd field. A server's event is read leniently:
its odd fields are left out and noted, but for those without which it has no meaning (the sound of a
delta, the call id of a tool call, formats and turn detection of a session). Audio and text deltas,
fifty in a second of a call, take a typed msgspec codec that also does base64; all others take the
tables.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, cast

import msgspec

from app.errors import LocalProtocolError
from app.realtime import events as ev
from app.realtime.events import ClientEvent, ResponseStatus, ServerEvent, Unknown
from app.realtime.fields import Fields, MalformedEvent
from app.realtime.wire_items import (
    read_arguments,
    read_error,
    read_item,
    read_part,
    read_rate_limit,
    read_response,
    read_response_config,
    write_error,
    write_item,
    write_part,
    write_rate_limit,
    write_response,
    write_response_config,
)
from app.realtime.wire_session import Generation, read_session, write_session

__all__ = ["BETA", "GA", "MAX_APPEND_BYTES", "Dialect"]

MAX_APPEND_BYTES: Final = 15 * 2**20 // 4 * 3  # 15 MiB of base64 per append (OpenAI's reference)

_Event = TypeVar("_Event")
_json_encoder: Final = msgspec.json.Encoder()
_json_decoder: Final = msgspec.json.Decoder()


# Columns: how one field of an event is read and written -------------------------------------------


@dataclass(frozen=True, slots=True)
class _Column:
    """`write` is handed the value, `read` the object and the key."""

    read: Callable[[Fields, str, Generation], Any]
    write: Callable[[Any, Generation], Any] = lambda value, _: value
    key: str = ""  # where it is not the attribute's own name
    omit_none: bool = False


_TEXT = _Column(lambda f, k, _: f.text(k))
_WORDS = _Column(lambda f, k, _: f.text(k, ""))
_ID = _WORDS  # left out by some servers, and not needed to go on
_OPTIONAL = _Column(lambda f, k, _: f.optional_text(k))
_OPTIONAL_ID = _Column(lambda f, k, _: f.optional_text(k), omit_none=True)
_INDEX = _Column(lambda f, k, _: f.count(k, 0))
_MS = _Column(lambda f, k, _: f.count(k))  # of a client, which has to say it
_MS_OR_0 = _Column(lambda f, k, _: f.count(k, 0))
_ITEM = _Column(lambda f, k, g: read_item(f.object(k), g), write_item)
_PART = _Column(lambda f, k, _: read_part(f.object(k)), lambda part, _: write_part(part))
_ERROR = _Column(lambda f, k, _: read_error(f, k), lambda error, _: write_error(error))
_CAUSE = _Column(_ERROR.read, lambda error, _: write_error(error, names_event=False))
_SESSION = _Column(lambda f, k, g: read_session(f.object(k), g), write_session)
_STARTED = _Column(
    lambda f, k, g: read_response(f.object(k), g, otherwise=ResponseStatus.IN_PROGRESS),
    write_response,
)
_ENDED = _Column(
    lambda f, k, g: read_response(f.object(k), g, otherwise=ResponseStatus.COMPLETED),
    write_response,
)
_ARGUMENTS = _Column(lambda f, k, _: read_arguments(f, k) or "{}")
_CONFIG = _Column(
    lambda f, k, g: None if f.data.get(k) is None else read_response_config(f.object(k), g),
    lambda config, g: None if config is None else write_response_config(config, g),
    omit_none=True,
)
_LIMITS = _Column(
    lambda f, k, _: tuple(read_rate_limit(limit) for limit in f.children(k)),
    lambda limits, _: [write_rate_limit(limit) for limit in limits],
    key="rate_limits",
)
_CONVERSATION = _Column(
    lambda f, k, _: f.object(k).text("id", ""),
    lambda value, _: {"id": value, "object": "realtime.conversation"},
    key="conversation",
)
_AUDIO = _Column(lambda f, k, _: f.audio(k))  # written by the hot codec alone
_AUDIO_DELTA = _Column(lambda f, k, _: f.audio(k), key="delta")


def _read_seconds(fields: Fields, key: str, _: Generation) -> float | None:
    usage = fields.optional_child(key)
    return None if usage is None or not usage.has("seconds") else usage.number("seconds", 0.0)


def _read_tokens(fields: Fields, key: str, _: Generation) -> int | None:
    usage = fields.optional_child(key)
    known = usage is not None and usage.has("total_tokens")
    return usage.count("total_tokens", 0) if usage is not None and known else None


def _read_part_of_tokens(part: str) -> Callable[[Fields, str, Generation], int]:
    def read(fields: Fields, key: str, _: Generation) -> int:
        usage = fields.optional_child(key)
        if usage is None or part == "output_tokens":
            return 0 if usage is None else usage.count(part, 0)
        details = usage.optional_child("input_token_details")
        return 0 if details is None else details.count(part, 0)

    return read


# Rows: the events of each side, in GA spelling ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Row:
    event: Callable[..., Any]
    type: str
    columns: Mapping[str, _Column]
    beta_type: str | None = None  # None: the same in beta; empty: beta does not have it

    def wire_type(self, generation: Generation) -> str:
        if generation is Generation.BETA and self.beta_type is not None:
            return self.beta_type
        return self.type


def _row(
    event: Callable[..., Any], type_: str, beta_type: str | None = None, /, **columns: _Column
) -> _Row:
    return _Row(event, type_, columns, beta_type)


_CLIENT: Final = (
    _row(ev.SessionUpdate, "session.update", session=_SESSION),
    _row(ev.InputAudioAppend, "input_audio_buffer.append", audio=_AUDIO),
    _row(ev.InputAudioCommit, "input_audio_buffer.commit"),
    _row(ev.InputAudioClear, "input_audio_buffer.clear"),
    _row(ev.ItemCreate, "conversation.item.create", item=_ITEM, previous_item_id=_OPTIONAL_ID),
    _row(ev.ItemDelete, "conversation.item.delete", item_id=_TEXT),
    _row(ev.ItemRetrieve, "conversation.item.retrieve", item_id=_TEXT),
    _row(
        ev.ItemTruncate,
        "conversation.item.truncate",
        item_id=_TEXT,
        content_index=_INDEX,
        audio_end_ms=_MS,
    ),
    _row(ev.ResponseCreate, "response.create", response=_CONFIG),
    _row(ev.ResponseCancel, "response.cancel", response_id=_OPTIONAL_ID),
)

_PLACE: Final = {"response_id": _ID, "item_id": _ID, "output_index": _INDEX}
_PART_PLACE: Final = {**_PLACE, "content_index": _INDEX}
_TRANSCRIBED: Final = {"item_id": _ID, "content_index": _INDEX}
_OUTPUT_ITEM: Final = {"response_id": _ID, "output_index": _INDEX, "item": _ITEM}
_HEARD: Final = "conversation.item.input_audio_transcription"

_SERVER: Final = (
    _row(ev.SessionCreated, "session.created", session=_SESSION),
    _row(ev.SessionUpdated, "session.updated", session=_SESSION),
    _row(ev.ConversationCreated, "conversation.created", conversation_id=_CONVERSATION),
    _row(
        ev.ItemAdded,
        "conversation.item.added",
        "conversation.item.created",
        item=_ITEM,
        previous_item_id=_OPTIONAL,
    ),
    _row(ev.ItemDone, "conversation.item.done", "", item=_ITEM, previous_item_id=_OPTIONAL),
    _row(ev.ItemRetrieved, "conversation.item.retrieved", item=_ITEM),
    _row(ev.ItemDeleted, "conversation.item.deleted", item_id=_ID),
    _row(
        ev.ItemTruncated,
        "conversation.item.truncated",
        item_id=_ID,
        content_index=_INDEX,
        audio_end_ms=_MS_OR_0,
    ),
    _row(ev.TranscriptionDelta, f"{_HEARD}.delta", **_TRANSCRIBED, delta=_WORDS),
    _row(
        ev.TranscriptionCompleted,
        f"{_HEARD}.completed",
        **_TRANSCRIBED,
        transcript=_WORDS,
        seconds=_Column(_read_seconds, key="usage"),  # all are written by `_write_usage`
        tokens=_Column(_read_tokens, key="usage"),
        text_tokens=_Column(_read_part_of_tokens("text_tokens"), key="usage"),
        audio_tokens=_Column(_read_part_of_tokens("audio_tokens"), key="usage"),
        output_tokens=_Column(_read_part_of_tokens("output_tokens"), key="usage"),
    ),
    _row(ev.TranscriptionFailed, f"{_HEARD}.failed", **_TRANSCRIBED, error=_CAUSE),
    _row(
        ev.InputAudioCommitted,
        "input_audio_buffer.committed",
        item_id=_ID,
        previous_item_id=_OPTIONAL,
    ),
    _row(ev.InputAudioCleared, "input_audio_buffer.cleared"),
    _row(
        ev.SpeechStarted,
        "input_audio_buffer.speech_started",
        item_id=_ID,
        audio_start_ms=_MS_OR_0,
    ),
    _row(ev.SpeechStopped, "input_audio_buffer.speech_stopped", item_id=_ID, audio_end_ms=_MS_OR_0),
    _row(
        ev.InputTimeoutTriggered,
        "input_audio_buffer.timeout_triggered",
        "",
        item_id=_ID,
        audio_start_ms=_MS_OR_0,
        audio_end_ms=_MS_OR_0,
    ),
    _row(ev.ResponseCreated, "response.created", response=_STARTED),
    _row(ev.ResponseDone, "response.done", response=_ENDED),
    _row(ev.OutputItemAdded, "response.output_item.added", **_OUTPUT_ITEM),
    _row(ev.OutputItemDone, "response.output_item.done", **_OUTPUT_ITEM),
    _row(ev.ContentPartAdded, "response.content_part.added", **_PART_PLACE, part=_PART),
    _row(ev.ContentPartDone, "response.content_part.done", **_PART_PLACE, part=_PART),
    _row(
        ev.AudioDelta,
        "response.output_audio.delta",
        "response.audio.delta",
        **_PART_PLACE,
        audio=_AUDIO_DELTA,
    ),
    _row(ev.AudioDone, "response.output_audio.done", "response.audio.done", **_PART_PLACE),
    _row(
        ev.AudioTranscriptDelta,
        "response.output_audio_transcript.delta",
        "response.audio_transcript.delta",
        **_PART_PLACE,
        delta=_WORDS,
    ),
    _row(
        ev.AudioTranscriptDone,
        "response.output_audio_transcript.done",
        "response.audio_transcript.done",
        **_PART_PLACE,
        transcript=_WORDS,
    ),
    _row(
        ev.TextDelta,
        "response.output_text.delta",
        "response.text.delta",
        **_PART_PLACE,
        delta=_WORDS,
    ),
    _row(
        ev.TextDone, "response.output_text.done", "response.text.done", **_PART_PLACE, text=_WORDS
    ),
    _row(
        ev.FunctionArgumentsDelta,
        "response.function_call_arguments.delta",
        **_PLACE,
        call_id=_ID,
        delta=_WORDS,
    ),
    _row(
        ev.FunctionArgumentsDone,
        "response.function_call_arguments.done",
        **_PLACE,
        call_id=_TEXT,
        name=_ID,
        arguments=_ARGUMENTS,
    ),
    _row(ev.RateLimitsUpdated, "rate_limits.updated", limits=_LIMITS),
    _row(ev.ErrorEvent, "error", error=_ERROR),
)


def _write_usage(event: ev.TranscriptionCompleted) -> dict[str, Any]:
    """The usage of a transcription; the schema requires one, so none is a duration of 0."""
    if event.tokens is not None:
        return {
            "type": "tokens",
            "total_tokens": event.tokens,
            "input_tokens": event.tokens - event.output_tokens,
            "input_token_details": {
                "text_tokens": event.text_tokens,
                "audio_tokens": event.audio_tokens,
            },
            "output_tokens": event.output_tokens,
        }
    return {"type": "duration", "seconds": event.seconds or 0.0}


# The hot messages ---------------------------------------------------------------------------------


class _HotAppend(msgspec.Struct, gc=False, omit_defaults=True):
    """`input_audio_buffer.append`; msgspec writes and reads `bytes` as strict base64."""

    audio: bytes
    event_id: str = ""


class _HotAudio(msgspec.Struct, gc=False):
    """`response.output_audio.delta`."""

    event_id: str
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    delta: bytes


class _HotText(msgspec.Struct, gc=False):
    """`response.output_audio_transcript.delta`."""

    event_id: str
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    delta: str


def _tagged(struct: type[Any], tag: str) -> type[Any]:
    """The struct under the name that the type has in one dialect."""
    return type(struct.__name__, (struct,), {}, tag_field="type", tag=tag)


# The dialects -------------------------------------------------------------------------------------


class _Side(Generic[_Event]):
    """The events of one side of the protocol, in one dialect."""

    def __init__(self, rows: Iterable[_Row], generation: Generation) -> None:
        self.generation = generation
        spoken = [row for row in rows if row.wire_type(generation)]
        self.by_type = {row.wire_type(generation): row for row in spoken}
        self.by_event = {row.event: row for row in spoken}

    def decode(self, text: str, oddities: list[str] | None = None) -> _Event:
        """Read an event, strictly unless `oddities` takes note of what is odd."""
        fields = _parse(text, oddities)
        event_id = fields.data.get("event_id")
        event_type: str = fields.data["type"]
        row = self.by_type.get(event_type)
        if row is None:
            return cast(_Event, Unknown(event_type, fields.data))
        try:
            values = {
                name: column.read(fields, column.key or name, self.generation)
                for name, column in row.columns.items()
            }
            return cast(_Event, row.event(**values, event_id=fields.text("event_id", "")))
        except MalformedEvent as error:
            error.event_type = event_type
            error.event_id = event_id if isinstance(event_id, str) else None
            raise

    def encode(self, event: Any, event_id: str) -> str:
        if isinstance(event, Unknown):
            spelled = {**event.raw, "type": event.type}
            spelled.setdefault("event_id", event_id)
            return _render(spelled)
        row = self.by_event.get(type(event))
        if row is None:
            name = type(event).__name__
            raise LocalProtocolError(
                f"{name} is not for this side in the {self.generation} dialect"
            )
        spelled = {"type": row.wire_type(self.generation), "event_id": event_id}
        for name, column in row.columns.items():
            value = column.write(getattr(event, name), self.generation)
            if value is not None or not column.omit_none:
                spelled[column.key or name] = value
        if isinstance(event, ev.TranscriptionCompleted):
            spelled["usage"] = _write_usage(event)
        return _render(spelled)


class Dialect:
    """One way to spell the protocol. Two exist: `GA` and `BETA`."""

    def __init__(self, generation: Generation, *, headers: Mapping[str, str]) -> None:
        self.generation = generation
        self.headers = dict(headers)  # that a connecting client has to send
        self._client: _Side[ClientEvent] = _Side(_CLIENT, generation)
        self._server: _Side[ServerEvent] = _Side(_SERVER, generation)
        names = self._server.by_event
        self._append = _tagged(_HotAppend, "input_audio_buffer.append")
        self._audio = _tagged(_HotAudio, names[ev.AudioDelta].wire_type(generation))
        self._text = _tagged(_HotText, names[ev.AudioTranscriptDelta].wire_type(generation))
        self._append_decoder = msgspec.json.Decoder(self._append)
        self._delta_decoder = msgspec.json.Decoder(self._audio | self._text)

    def __repr__(self) -> str:
        return f"Dialect({self.generation.value})"

    def can_spell(self, event: type[Any]) -> bool:
        """True if the dialect has the event, whichever side sends it."""
        return event in self._client.by_event or event in self._server.by_event

    def server_type(self, event: type[Any]) -> str:
        """The type of a server's event on the wire; empty where the dialect does not have it."""
        row = self._server.by_event.get(event)
        return "" if row is None else row.wire_type(self.generation)

    def decode_server(self, text: str, oddities: list[str] | None = None) -> ServerEvent:
        """Read an event of a server leniently; what is odd in it is added to `oddities`.

        Raises:
            MalformedEvent: it is not an event, or lacks what it cannot do without.
        """
        oddities = [] if oddities is None else oddities
        try:
            hot = self._delta_decoder.decode(text)
        except (ValueError, RecursionError):  # another event, or an odd one
            return self._server.decode(text, oddities)
        place = (hot.response_id, hot.item_id, hot.output_index, hot.content_index)
        if hot.output_index < 0 or hot.content_index < 0:
            return self._server.decode(text, oddities)
        if type(hot) is self._audio:
            return ev.AudioDelta(*place, hot.delta, hot.event_id)
        return ev.AudioTranscriptDelta(*place, hot.delta, hot.event_id)

    def decode_client(self, text: str) -> ClientEvent:
        """Read an event of a client, strictly.

        Raises:
            MalformedEvent: it breaks the protocol.
        """
        try:
            hot = self._append_decoder.decode(text)
        except (ValueError, RecursionError):
            return self._client.decode(text)
        return ev.InputAudioAppend(hot.audio, hot.event_id)

    def encode_server(self, event: ServerEvent, event_id: str) -> str:
        """Write an event of a server.

        Raises:
            LocalProtocolError: not a server's event, or not one of this dialect.
        """
        match event:
            case ev.AudioDelta(response, item, output_index, content_index, audio):
                hot = self._audio(event_id, response, item, output_index, content_index, audio)
            case ev.AudioTranscriptDelta(response, item, output_index, content_index, delta):
                hot = self._text(event_id, response, item, output_index, content_index, delta)
            case _:
                return self._server.encode(event, event_id)
        return _render(hot)

    def encode_client(self, event: ClientEvent, event_id: str) -> str:
        """Write an event of a client.

        Raises:
            LocalProtocolError: not a client's event, or more audio than one append may hold.
        """
        if not isinstance(event, ev.InputAudioAppend):
            return self._client.encode(event, event_id)
        return self.encode_append(event.audio, event_id).decode()

    def encode_append(self, audio: bytes, event_id: str) -> bytes:
        """Write an `InputAudioAppend`, UTF-8.

        Raises:
            LocalProtocolError: more audio than one append may hold.
        """
        if len(audio) > MAX_APPEND_BYTES:
            raise LocalProtocolError(f"{len(audio)} bytes are too many for one append")
        return _json_encoder.encode(self._append(audio, event_id))


def _parse(text: str, oddities: list[str] | None) -> Fields:
    try:
        data = _json_decoder.decode(text.removeprefix("\ufeff"))  # some writers' byte order mark
    except RecursionError:
        raise MalformedEvent("nested too deep", code="invalid_json") from None
    except ValueError:  # msgspec.DecodeError and UnicodeError among them
        raise MalformedEvent("not JSON", code="invalid_json") from None
    if not isinstance(data, dict):
        raise MalformedEvent("not a JSON object", code="invalid_json")
    fields = Fields(data, oddities=oddities)
    fields.text("type")
    return fields


def _render(value: object) -> str:
    try:
        return _json_encoder.encode(value).decode()
    except UnicodeEncodeError:
        # Half of a surrogate pair, as a caller's or a tool's text may hold, does not end a call.
        return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise LocalProtocolError(f"cannot be written as JSON: {type(error).__name__}") from error


GA: Final = Dialect(Generation.GA, headers={})
BETA: Final = Dialect(Generation.BETA, headers={"OpenAI-Beta": "realtime=v1"})
