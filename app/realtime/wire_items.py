"""The spelling of items, responses, usage and errors, in both generations.

Part of `app.realtime.dialect`. An assistant's parts are `output_text` and `output_audio` in GA,
`text` and `audio` in beta; in `response.content_part.*` they are `text` and `audio` in both.
"""

from __future__ import annotations

import json
from binascii import b2a_base64
from collections.abc import Callable, Mapping
from typing import Any, Final

from app.realtime.events import (
    UNSET,
    ContentPart,
    ErrorDetail,
    Item,
    RateLimit,
    Response,
    ResponseConfig,
    ResponseStatus,
    Unset,
    Usage,
)
from app.realtime.fields import Fields, MalformedEvent
from app.realtime.wire_session import (
    Generation,
    read_format,
    read_max_tokens,
    read_modalities,
    read_voice,
    write_format,
    write_modalities,
    write_voice,
)

__all__ = [
    "read_arguments",
    "read_error",
    "read_item",
    "read_part",
    "read_rate_limit",
    "read_response",
    "read_response_config",
    "write_error",
    "write_item",
    "write_part",
    "write_rate_limit",
    "write_response",
    "write_response_config",
]

Json = dict[str, Any]

_SHORT_PARTS: Final = {"output_text": "text", "output_audio": "audio"}
_SPOKEN_PARTS: Final = frozenset({"input_audio", "output_audio", "audio"})
_LONG_PARTS: Final = {short: long for long, short in _SHORT_PARTS.items()}


def _encode_audio(audio: bytes) -> str:
    return b2a_base64(audio, newline=False).decode("ascii")


# Items --------------------------------------------------------------------------------------------


def write_part(part: ContentPart, *, short: bool = True) -> Json:
    """A content part; `short` writes the names of beta and of `response.content_part.*`."""
    spelled: Json = {"type": _SHORT_PARTS.get(part.type, part.type) if short else part.type}
    if part.text is not None:
        spelled["text"] = part.text
    # Null until it is known, or once it was cut: strict clients want the key.
    if part.transcript is not None or part.type in _SPOKEN_PARTS:
        spelled["transcript"] = part.transcript
    if part.audio is not None:
        spelled["audio"] = _encode_audio(part.audio)
    return spelled


def read_part(fields: Fields, *, lengthen: bool = False) -> ContentPart:
    """A content part; `lengthen` turns beta's assistant names into those of GA."""
    kind = _kind(fields, "text" if fields.has("text") else "audio")
    return ContentPart(
        type=_LONG_PARTS.get(kind, kind) if lengthen else kind,
        text=fields.optional_text("text"),
        transcript=fields.optional_text("transcript"),
        audio=fields.optional_audio("audio"),
    )


def _kind(fields: Fields, otherwise: str) -> str:
    """The `type` of an object; a patient reader takes what its other fields are of."""
    try:
        return fields.text("type")
    except MalformedEvent as error:
        fields.tolerate(error)
        return otherwise


def write_item(item: Item, generation: Generation) -> Json:
    """A conversation item. `object` goes with those that have a status, as servers send them."""
    spelled: Json = {"type": item.type}
    if item.status is not None:
        spelled["object"] = "realtime.item"
    for key in ("id", "role", "status", "call_id", "name", "arguments", "output"):
        value = getattr(item, key)
        if value is not None:
            spelled[key] = value
    if item.type == "message":
        short = generation is Generation.BETA
        spelled["content"] = [write_part(part, short=short) for part in item.content]
    return spelled


def read_item(fields: Fields, generation: Generation) -> Item:
    """A conversation item; of an unknown type, the fields that it shares with the others."""
    role = fields.optional_text("role")
    beta = generation is Generation.BETA
    return Item(
        type=_kind(fields, "function_call" if fields.has("call_id") else "message"),
        id=fields.optional_text("id"),
        role=role,
        status=fields.optional_text("status"),
        content=tuple(
            read_part(part, lengthen=beta and role == "assistant")
            for part in (fields.children("content") if role is not None else ())
        ),
        call_id=fields.optional_text("call_id"),
        name=fields.optional_text("name"),
        arguments=read_arguments(fields, "arguments"),
        output=fields.optional_text("output"),
    )


def read_arguments(fields: Fields, key: str) -> str | None:
    """A call's arguments as JSON text; a patient reader takes the object itself, too."""
    value = fields.data.get(key)
    if isinstance(value, dict) and fields.oddities is not None:
        fields.tolerate(fields.wrong(key, "a string"))
        return json.dumps(value)
    return fields.optional_text(key)


# Errors and limits --------------------------------------------------------------------------------


def write_error(error: ErrorDetail, *, names_event: bool = True) -> Json:
    """An error object; in an `error` event it names the client's event that caused it."""
    spelled = {
        "type": error.type or "server_error",
        "code": error.code,
        "message": error.message,
        "param": error.param,
    }
    if names_event:
        return {**spelled, "event_id": error.client_event_id}
    # Of a transcription: OpenAI's JavaScript client takes no null here.
    return {key: value for key, value in spelled.items() if value is not None}


def read_error(fields: Fields, key: str) -> ErrorDetail:
    """The error under `key`; a patient reader takes a sentence, or the fields around it, too."""
    value = fields.data.get(key)
    flat = not isinstance(value, dict)
    if flat:
        fields.tolerate(fields.wrong(key, "an object"))
    if isinstance(value, str):
        return ErrorDetail(message=value)
    spelled = fields if flat else fields.child(key)
    return ErrorDetail(
        type="" if flat else spelled.text("type", ""),
        code=spelled.optional_text("code"),
        message=spelled.text("message", ""),
        param=spelled.optional_text("param"),
        client_event_id=None if flat else spelled.optional_text("event_id"),
    )


def write_rate_limit(limit: RateLimit) -> Json:
    return {
        "name": limit.name,
        "limit": limit.limit,
        "remaining": limit.remaining,
        "reset_seconds": limit.reset_seconds,
    }


def read_rate_limit(fields: Fields) -> RateLimit:
    return RateLimit(
        name=fields.text("name", ""),
        limit=fields.count("limit", 0),
        remaining=fields.count("remaining", 0),
        reset_seconds=fields.number("reset_seconds", 0.0),
    )


# Responses ----------------------------------------------------------------------------------------


def _write_usage(usage: Usage, generation: Generation) -> Json:
    images = {} if generation is Generation.BETA else {"image_tokens": 0}
    return {
        "total_tokens": usage.total_tokens,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "input_token_details": {
            "text_tokens": usage.input_text_tokens,
            "audio_tokens": usage.input_audio_tokens,
            **images,
            "cached_tokens": usage.cached_tokens,
            "cached_tokens_details": {
                "text_tokens": usage.cached_text_tokens,
                "audio_tokens": usage.cached_audio_tokens,
                **images,
            },
        },
        "output_token_details": {
            "text_tokens": usage.output_text_tokens,
            "audio_tokens": usage.output_audio_tokens,
        },
        **({"estimated": True} if usage.estimated else {}),
    }


def _read_usage(fields: Fields) -> Usage:
    nothing = Fields({}, fields.path)
    inputs = fields.optional_child("input_token_details") or nothing
    cached = inputs.optional_child("cached_tokens_details") or nothing
    outputs = fields.optional_child("output_token_details") or nothing
    return Usage(
        total_tokens=fields.count("total_tokens", 0),
        input_tokens=fields.count("input_tokens", 0),
        output_tokens=fields.count("output_tokens", 0),
        input_text_tokens=inputs.count("text_tokens", 0),
        input_audio_tokens=inputs.count("audio_tokens", 0),
        cached_tokens=inputs.count("cached_tokens", 0),
        cached_text_tokens=cached.count("text_tokens", 0),
        cached_audio_tokens=cached.count("audio_tokens", 0),
        output_text_tokens=outputs.count("text_tokens", 0),
        output_audio_tokens=outputs.count("audio_tokens", 0),
        estimated=fields.flag("estimated", False),
    )


def _write_status_details(response: Response) -> Json | None:
    if response.status is ResponseStatus.IN_PROGRESS:
        return None
    details: Json = {"type": response.status.value}
    if response.status_reason is not None:
        details["reason"] = response.status_reason
    if response.error is not None:
        details["error"] = {
            "type": response.error.type,
            "code": response.error.code,
            "message": response.error.message,
        }
    return details


def write_response(response: Response, generation: Generation) -> Json:
    beta = generation is Generation.BETA
    spelled: Json = {
        "object": "realtime.response",
        "id": response.id,
        "status": response.status.value,
        "status_details": _write_status_details(response),
        "output": [write_item(item, generation) for item in response.output],
        "conversation_id": response.conversation_id,
        "modalities" if beta else "output_modalities": write_modalities(
            response.output_modalities, generation
        ),
        "metadata": dict(response.metadata) or None,
        "usage": None if response.usage is None else _write_usage(response.usage, generation),
    }
    if response.max_output_tokens is not None:
        spelled["max_output_tokens"] = response.max_output_tokens
    if response.output_format is not None and response.voice is not None:
        wire_format = write_format(response.output_format, generation)
        voice = write_voice(response.voice, generation)
        if beta:
            spelled.update(output_audio_format=wire_format, voice=voice)
        else:
            spelled["audio"] = {"output": {"format": wire_format, "voice": voice}}
    return spelled


def read_response(fields: Fields, generation: Generation, *, otherwise: ResponseStatus) -> Response:
    """A response. `otherwise` is its status where the server names none that is known.

    An `id` that is missing is empty; `app.realtime.protocol` knows which response runs.
    """
    details = fields.optional_child("status_details") or Fields({}, fields.path)
    usage = fields.optional_child("usage")
    key = "modalities" if generation is Generation.BETA else "output_modalities"
    return Response(
        id=fields.text("id", ""),
        status=_read_status(fields, otherwise),
        status_reason=details.optional_text("reason"),
        error=None if details.data.get("error") is None else read_error(details, "error"),
        output=tuple(read_item(item, generation) for item in fields.children("output")),
        usage=None if usage is None else _read_usage(usage),
        conversation_id=fields.optional_text("conversation_id"),
        metadata=fields.text_map("metadata"),
        output_modalities=read_modalities(fields, key, generation) or ("audio",),
    )


def _read_status(fields: Fields, otherwise: ResponseStatus) -> ResponseStatus:
    given = fields.text("status", "")
    known = {status.value: status for status in ResponseStatus} | {
        "canceled": ResponseStatus.CANCELLED
    }
    if given not in known or (
        known[given] is ResponseStatus.IN_PROGRESS is not otherwise
    ):  # `response.done` says that nothing is in progress any more, whatever stands in it
        fields.tolerate(fields.wrong("status", "a response status", code="invalid_value"))
        return otherwise
    return known[given]


def write_response_config(config: ResponseConfig, generation: Generation) -> Json:
    beta = generation is Generation.BETA
    spelled: Json = {}
    for key in ("instructions", "conversation"):
        value = getattr(config, key)
        if value is not UNSET:
            spelled[key] = value
    if not isinstance(config.output_modalities, Unset):
        spelled["modalities" if beta else "output_modalities"] = write_modalities(
            config.output_modalities, generation
        )
    if not isinstance(config.metadata, Unset):
        spelled["metadata"] = dict(config.metadata)
    if not isinstance(config.tools, Unset):
        spelled["tools"] = [dict(tool) for tool in config.tools]
    if not isinstance(config.tool_choice, Unset):
        choice = config.tool_choice
        spelled["tool_choice"] = dict(choice) if isinstance(choice, Mapping) else choice
    if not isinstance(config.max_output_tokens, Unset):
        spelled["max_response_output_tokens" if beta else "max_output_tokens"] = (
            config.max_output_tokens
        )
    if not isinstance(config.input, Unset):
        spelled["input"] = [write_item(item, generation) for item in config.input]
    spoken: Json = {}
    if not isinstance(config.output_format, Unset):
        name = "output_audio_format" if beta else "format"
        spoken[name] = write_format(config.output_format, generation)
    if not isinstance(config.voice, Unset):
        spoken["voice"] = write_voice(config.voice, generation)
    if beta:
        spelled.update(spoken)
    elif spoken:
        spelled["audio"] = {"output": spoken}
    return spelled


def read_response_config(fields: Fields, generation: Generation) -> ResponseConfig:
    """Overrides of a `response.create`; null and absent both mean "as the session has it"."""
    beta = generation is Generation.BETA
    values: Json = {}

    def take(place: Fields | None, key: str, name: str, read: Callable[[Fields, str], Any]) -> None:
        if place is not None and place.data.get(key) is not None:
            values[name] = read(place, key)

    take(fields, "instructions", "instructions", Fields.text)
    take(
        fields,
        "modalities" if beta else "output_modalities",
        "output_modalities",
        lambda f, key: read_modalities(f, key, generation),
    )
    take(fields, "conversation", "conversation", Fields.text)
    take(fields, "metadata", "metadata", Fields.text_map)
    take(fields, "tools", "tools", lambda f, key: tuple(tool.data for tool in f.children(key)))
    take(fields, "tool_choice", "tool_choice", Fields.text_or_object)
    take(
        fields,
        "max_response_output_tokens" if beta else "max_output_tokens",
        "max_output_tokens",
        lambda f, key: read_max_tokens(f, key, generation),
    )
    take(
        fields,
        "input",
        "input",
        lambda f, key: tuple(read_item(item, generation) for item in f.children(key)),
    )
    output: Fields | None = fields
    if not beta:
        audio = fields.optional_child("audio")
        output = audio and audio.optional_child("output")
    take(
        output,
        "output_audio_format" if beta else "format",
        "output_format",
        lambda f, key: read_format(f, key, generation),
    )
    take(output, "voice", "voice", lambda f, key: read_voice(f, key, generation))
    return ResponseConfig(**values)
