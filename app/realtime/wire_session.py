"""How a session and a response's overrides are spelled: nested in GA, flat in beta.

Part of `app.realtime.dialect`. What a generation cannot say (reasoning effort or truncation in
beta, for example) is left out when writing. An audio format is never guessed: one that we do not
know, or cannot spell, is an error. Fields by OpenAI's `types/realtime` (GA) and
`types/beta/realtime` (beta).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final

from app.errors import LocalProtocolError
from app.realtime.events import (
    UNSET,
    SemanticVad,
    ServerVad,
    SessionConfig,
    Transcription,
    Unset,
)
from app.realtime.fields import Fields
from audio.format import PCM16_24K, PCMA_8K, PCMU_8K, AudioFormat, Encoding

__all__ = [
    "Generation",
    "read_format",
    "read_max_tokens",
    "read_modalities",
    "read_session",
    "read_voice",
    "write_format",
    "write_modalities",
    "write_session",
    "write_voice",
]

Json = dict[str, Any]


class Generation(StrEnum):
    """The two shapes of the protocol: before and after September 2025."""

    BETA = "beta"
    GA = "ga"


_BETA_FORMATS: Final = {"pcm16": PCM16_24K, "g711_ulaw": PCMU_8K, "g711_alaw": PCMA_8K}
_GA_G711: Final = {"audio/pcmu": PCMU_8K, "audio/pcma": PCMA_8K}


# Values that both use ----------------------------------------------------------------------------


def write_format(value: AudioFormat, generation: Generation) -> str | Json:
    """GA `{"type": "audio/pcm", "rate": 24000}`, beta `pcm16`.

    Raises:
        LocalProtocolError: the generation has no name for this format.
    """
    if generation is Generation.BETA:
        for name, known in _BETA_FORMATS.items():
            if known == value:
                return name
        raise LocalProtocolError(f"the beta dialect has no name for {value}")
    for name, known in _GA_G711.items():
        if known == value:
            return {"type": name}
    if value.encoding is Encoding.PCM16:
        return {"type": "audio/pcm", "rate": value.rate_hz}
    raise LocalProtocolError(f"the GA dialect has no name for {value}")


def read_format(fields: Fields, key: str, generation: Generation) -> AudioFormat:
    if generation is Generation.BETA:
        known = _BETA_FORMATS.get(fields.text(key))
        if known is None:
            raise fields.wrong(key, "pcm16, g711_ulaw or g711_alaw", code="invalid_value")
        return known
    spelled = fields.child(key)
    name = spelled.text("type")
    if name in _GA_G711:
        if spelled.count("rate", 8_000) != 8_000:
            raise spelled.wrong("rate", "8000 for G.711", code="invalid_value")
        return _GA_G711[name]
    if name == "audio/pcm":
        rate_hz = spelled.count("rate", 24_000)  # the only rate that OpenAI's GA schema allows
        if rate_hz == 0:
            raise spelled.wrong("rate", "a sample rate", code="invalid_value")
        return AudioFormat(Encoding.PCM16, rate_hz)
    raise spelled.wrong("type", "audio/pcm, audio/pcmu or audio/pcma", code="invalid_value")


def write_modalities(value: tuple[str, ...], generation: Generation) -> list[str]:
    """Beta has no audio alone: `["text", "audio"]` there is `["audio"]` in GA."""
    if generation is Generation.BETA and "audio" in value:
        return ["text", "audio"]
    return list(value)


def read_modalities(fields: Fields, key: str, generation: Generation) -> tuple[str, ...]:
    value = fields.texts(key)
    if generation is Generation.BETA and "audio" in value:
        return ("audio",)
    return value


def write_voice(value: str, generation: Generation) -> str | Json:
    """Custom voices (`voice_...`) are objects in GA."""
    if generation is Generation.GA and value.startswith("voice_"):
        return {"id": value}
    return value


def read_voice(fields: Fields, key: str) -> str:
    value = fields.text_or_object(key)
    return value if isinstance(value, str) else fields.child(key).text("id")


def read_max_tokens(fields: Fields, key: str) -> int | str:
    return "inf" if fields.data.get(key) == "inf" else fields.count(key)


# Turn detection and transcription ----------------------------------------------------------------


def _write_turn_detection(
    value: ServerVad | SemanticVad | None, generation: Generation
) -> Json | None:
    if value is None:
        return None
    if isinstance(value, SemanticVad):
        spelled: Json = {"type": "semantic_vad", "eagerness": value.eagerness}
    else:
        spelled = {
            "type": "server_vad",
            "threshold": value.threshold,
            "prefix_padding_ms": value.prefix_padding_ms,
            "silence_duration_ms": value.silence_duration_ms,
        }
        if value.idle_timeout_ms is not None and generation is Generation.GA:
            spelled["idle_timeout_ms"] = value.idle_timeout_ms
    spelled["create_response"] = value.create_response
    spelled["interrupt_response"] = value.interrupt_response
    return spelled


def _read_turn_detection(fields: Fields, key: str) -> ServerVad | SemanticVad | None:
    spelled = fields.child(key)
    kind = spelled.text("type", "none")
    create = spelled.flag("create_response", True)
    interrupt = spelled.flag("interrupt_response", True)
    if kind == "none":  # how some compatible servers say null
        return None
    if kind == "semantic_vad":
        return SemanticVad(
            eagerness=spelled.text("eagerness", "auto"),
            create_response=create,
            interrupt_response=interrupt,
        )
    if kind != "server_vad":
        raise spelled.wrong("type", "server_vad or semantic_vad", code="invalid_value")
    idle = spelled.data.get("idle_timeout_ms")
    defaults = ServerVad()
    return ServerVad(
        threshold=spelled.number("threshold", defaults.threshold),
        prefix_padding_ms=spelled.count("prefix_padding_ms", defaults.prefix_padding_ms),
        silence_duration_ms=spelled.count("silence_duration_ms", defaults.silence_duration_ms),
        create_response=create,
        interrupt_response=interrupt,
        idle_timeout_ms=None if idle is None else spelled.count("idle_timeout_ms"),
    )


def _write_transcription(value: Transcription | None, generation: Generation) -> Json | None:
    if value is None:
        return None
    spelled: Json = {"model": value.model} if value.model else {}
    if value.language is not None:
        spelled["language"] = value.language
    if value.prompt is not None:
        spelled["prompt"] = value.prompt
    if generation is Generation.GA:
        if value.languages:
            spelled["languages"] = list(value.languages)
        if value.keywords:
            spelled["keywords"] = list(value.keywords)
        if value.delay is not None:
            spelled["delay"] = value.delay
    return spelled


def _read_transcription(fields: Fields, key: str) -> Transcription:
    spelled = fields.child(key)
    return Transcription(
        model=spelled.text("model", ""),
        language=spelled.optional_text("language"),
        languages=spelled.texts("languages"),
        keywords=spelled.texts("keywords"),
        prompt=spelled.optional_text("prompt"),
        delay=spelled.optional_text("delay"),
    )


def _write_noise_reduction(value: str | None) -> Json | None:
    return None if value is None else {"type": value}


def _read_noise_reduction(fields: Fields, key: str) -> str | None:
    return fields.child(key).optional_text("type")


# Session ------------------------------------------------------------------------------------------


def write_session(value: SessionConfig, generation: Generation) -> Json:
    """The session object of `session.update`, `.created` and `.updated`."""
    spelled: Json = {"type": value.type} if generation is Generation.GA else {}
    if value.id is not None:
        spelled["id"] = value.id
        spelled["object"] = "realtime.session"
    if value.model is not None:
        spelled["model"] = value.model
    if value.expires_at is not None:
        spelled["expires_at"] = value.expires_at
    _put(spelled, "instructions", value.instructions)
    _put(spelled, "tools", value.tools, lambda tools: [dict(tool) for tool in tools])
    _put(spelled, "tool_choice", value.tool_choice, _plain)
    _put(spelled, "tracing", value.tracing, _plain)
    if generation is Generation.BETA:
        _write_flat(spelled, value)
    else:
        _write_nested(spelled, value)
    return spelled


def _write_nested(spelled: Json, value: SessionConfig) -> None:
    ga = Generation.GA
    _put(spelled, "output_modalities", value.output_modalities, list)
    _put(spelled, "parallel_tool_calls", value.parallel_tool_calls)
    _put(spelled, "max_output_tokens", value.max_output_tokens)
    _put(spelled, "reasoning", value.reasoning_effort, lambda effort: {"effort": effort})
    _put(spelled, "truncation", value.truncation, _plain)
    _put(spelled, "include", value.include, list)
    heard: Json = {}
    _put(heard, "format", value.input_format, lambda known: write_format(known, ga))
    _put(heard, "noise_reduction", value.noise_reduction, _write_noise_reduction)
    _put(heard, "transcription", value.transcription, lambda t: _write_transcription(t, ga))
    _put(heard, "turn_detection", value.turn_detection, lambda t: _write_turn_detection(t, ga))
    spoken: Json = {}
    _put(spoken, "format", value.output_format, lambda known: write_format(known, ga))
    _put(spoken, "voice", value.voice, lambda voice: write_voice(voice, ga))
    _put(spoken, "speed", value.speed)
    audio = {name: part for name, part in (("input", heard), ("output", spoken)) if part}
    if audio:
        spelled["audio"] = audio


def _write_flat(spelled: Json, value: SessionConfig) -> None:
    beta = Generation.BETA
    _put(spelled, "modalities", value.output_modalities, lambda m: write_modalities(m, beta))
    _put(spelled, "max_response_output_tokens", value.max_output_tokens)
    _put(spelled, "input_audio_format", value.input_format, lambda f: write_format(f, beta))
    _put(spelled, "output_audio_format", value.output_format, lambda f: write_format(f, beta))
    _put(spelled, "input_audio_noise_reduction", value.noise_reduction, _write_noise_reduction)
    _put(
        spelled,
        "input_audio_transcription",
        value.transcription,
        lambda t: _write_transcription(t, beta),
    )
    _put(spelled, "turn_detection", value.turn_detection, lambda t: _write_turn_detection(t, beta))
    _put(spelled, "voice", value.voice)
    _put(spelled, "speed", value.speed)


def read_session(fields: Fields, generation: Generation) -> SessionConfig:
    """A session object; fields that we have no name for are ignored."""
    expires_at = fields.data.get("expires_at")
    values: Json = {
        "id": fields.optional_text("id"),
        "model": fields.optional_text("model"),
        "expires_at": None if expires_at is None else fields.count("expires_at"),
        "type": fields.text("type", "realtime"),
    }
    _take(values, "instructions", fields, "instructions", fields.text)
    _take(values, "tools", fields, "tools", lambda key: tuple(f.data for f in fields.children(key)))
    _take(values, "tool_choice", fields, "tool_choice", fields.text_or_object)
    _take_or_off(values, "tracing", fields, "tracing", fields.text_or_object)
    if generation is Generation.BETA:
        _read_flat(values, fields)
    else:
        _read_nested(values, fields)
    return SessionConfig(**values)


def _read_nested(values: Json, fields: Fields) -> None:
    ga = Generation.GA
    _take(values, "output_modalities", fields, "output_modalities", fields.texts)
    _take(
        values,
        "parallel_tool_calls",
        fields,
        "parallel_tool_calls",
        lambda key: fields.flag(key, True),
    )
    _take(
        values,
        "max_output_tokens",
        fields,
        "max_output_tokens",
        lambda key: read_max_tokens(fields, key),
    )
    _take(values, "truncation", fields, "truncation", fields.text_or_object)
    _take(values, "include", fields, "include", fields.texts)
    reasoning = fields.optional_child("reasoning")
    if reasoning is not None:
        _take(values, "reasoning_effort", reasoning, "effort", reasoning.text)
    audio = fields.optional_child("audio")
    heard = audio and audio.optional_child("input")
    if heard:
        _take(values, "input_format", heard, "format", lambda k: read_format(heard, k, ga))
        _read_input(values, heard, "")
        _take_turn_detection(values, heard)
    spoken = audio and audio.optional_child("output")
    if spoken:
        _take(values, "output_format", spoken, "format", lambda k: read_format(spoken, k, ga))
        _take(values, "voice", spoken, "voice", lambda key: read_voice(spoken, key))
        _take(values, "speed", spoken, "speed", spoken.number)


def _read_flat(values: Json, fields: Fields) -> None:
    beta = Generation.BETA
    _take(
        values,
        "output_modalities",
        fields,
        "modalities",
        lambda key: read_modalities(fields, key, beta),
    )
    _take(
        values,
        "max_output_tokens",
        fields,
        "max_response_output_tokens",
        lambda key: read_max_tokens(fields, key),
    )
    for name, key in (
        ("input_format", "input_audio_format"),
        ("output_format", "output_audio_format"),
    ):
        _take(values, name, fields, key, lambda k: read_format(fields, k, beta))
    _read_input(values, fields, "input_audio_")
    _take_turn_detection(values, fields)
    _take(values, "voice", fields, "voice", lambda key: read_voice(fields, key))
    _take(values, "speed", fields, "speed", fields.number)


def _read_input(values: Json, fields: Fields, prefix: str) -> None:
    _take_or_off(
        values,
        "noise_reduction",
        fields,
        prefix + "noise_reduction",
        lambda key: _read_noise_reduction(fields, key),
    )
    _take_or_off(
        values,
        "transcription",
        fields,
        prefix + "transcription",
        lambda key: _read_transcription(fields, key),
    )


def _take_turn_detection(values: Json, fields: Fields) -> None:
    _take_or_off(
        values,
        "turn_detection",
        fields,
        "turn_detection",
        lambda key: _read_turn_detection(fields, key),
    )


def _plain(value: str | Mapping[str, Any] | None) -> str | Json | None:
    return dict(value) if isinstance(value, Mapping) else value


def _put(
    spelled: Json, key: str, value: Any | Unset, write: Callable[[Any], Any] | None = None
) -> None:
    """Write a setting unless it is to be left as it is."""
    if value is not UNSET:
        spelled[key] = value if write is None else write(value)


def _take(values: Json, name: str, fields: Fields, key: str, read: Callable[[str], Any]) -> None:
    """Read a setting for which null means the same as absence."""
    if fields.data.get(key) is not None:
        values[name] = read(key)


def _take_or_off(
    values: Json, name: str, fields: Fields, key: str, read: Callable[[str], Any]
) -> None:
    """Read a setting for which null means "off"."""
    if fields.has(key):
        values[name] = None if fields.data[key] is None else read(key)
