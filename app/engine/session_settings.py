"""The settings in force in an engine session: defaults, what may change, and how.

A `session.update` changes the settings that it names and no other; a refused one changes none.
Pure; follows the GA session of OpenAI's schema (August 2026).

Settings that the offline engine takes and echoes but that have no effect on it: `instructions`
(it cannot follow them), `noise_reduction`, `reasoning_effort`, `parallel_tool_calls`,
`max_output_tokens`, `truncation`, `tracing`, `include`, and the model named under
`transcription`. `semantic_vad` is answered by voice activity with a longer or shorter silence.
`model` is fixed, and `session.created` tells it. Clients that name one of OpenAI's Realtime models,
which most do whatever they talk with, are served; another name is refused.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from app.engine.refusal import Refusal
from app.realtime.events import ResponseConfig, SemanticVad, ServerVad, SessionConfig, Unset
from audio.format import PCM16_24K, PCMA_8K, PCMU_8K

__all__ = [
    "ENGINE_MODEL",
    "MAX_TEXT_CHARS",
    "PIPELINE_MODEL",
    "check_model",
    "check_response",
    "default_session",
    "merge",
    "vad_of",
]

ENGINE_MODEL: Final = "offline-receptionist"
PIPELINE_MODEL: Final = "pipeline"
MAX_TEXT_CHARS: Final = 100_000
"""The longest text (instructions, an item's text, a tool's output) that a session stores."""

_FORMATS: Final = (PCM16_24K, PCMU_8K, PCMA_8K)
_EAGERNESS_SILENCE_MS: Final = {"auto": 800, "medium": 800, "low": 1_200, "high": 400}
"""`semantic_vad` here: how long a caller pauses before the turn ends. OpenAI's own limits (8, 4
and 2 s) bound a wait for meaning, which this engine cannot detect."""
_OPENAI_MODEL: Final = re.compile(r"gpt-(?:[a-z0-9.]+-)*realtime(?:-[a-z0-9.-]*)?")
_REASONING: Final = ("minimal", "low", "medium", "high", "xhigh")


def default_session(*, session_id: str, voice: str, model: str = ENGINE_MODEL) -> SessionConfig:
    """The settings of a session before its first update: the vendor's defaults."""
    return SessionConfig(
        id=session_id,
        model=model,
        output_modalities=("audio",),
        instructions="",
        input_format=PCM16_24K,
        output_format=PCM16_24K,
        voice=voice,
        speed=1.0,
        noise_reduction=None,
        transcription=None,
        turn_detection=ServerVad(),
        tools=(),
        tool_choice="auto",
        max_output_tokens="inf",
        truncation="auto",
        tracing=None,
    )


def check_model(name: str, param: str, own: str = ENGINE_MODEL) -> None:
    """Check the model that a client asks for; none is what this engine has.

    Raises:
        Refusal: neither this engine nor a Realtime model of OpenAI's.
    """
    if name not in ("", own) and not _OPENAI_MODEL.fullmatch(name):
        raise Refusal(
            "model_not_found",
            f"There is no model {name[:64]!r} here: this session has {own!r}.",
            param=param,
        )


def merge(current: SessionConfig, update: SessionConfig, *, spoken: bool) -> SessionConfig:
    """`current` with the settings that `update` names.

    `spoken`: the session has produced audio, so its voice is fixed.

    Raises:
        Refusal: a value that the session does not have, or a change that comes too late.
    """
    if update.type != "realtime":
        raise Refusal(
            "invalid_value",
            "The offline engine serves sessions of type 'realtime' only.",
            param="session.type",
        )
    named = {
        field.name: value
        for field in dataclasses.fields(update)
        if field.name not in _FIXED and not isinstance(value := getattr(update, field.name), Unset)
    }
    if isinstance(update.model, str):
        check_model(update.model, "session.model", own=str(current.model))
    for name, value in named.items():
        check = _CHECKS.get(name)
        if check is not None:
            check(value)
    if "tool_choice" in named:
        tools = named.get("tools", current.tools)
        _tool_choice(named["tool_choice"], tools, "session.tool_choice")
    if spoken and "voice" in named and named["voice"] != current.voice:
        raise Refusal(
            "cannot_update_voice",
            "The voice cannot change once the session has produced audio.",
            param="session.audio.output.voice",
        )
    return dataclasses.replace(current, **named)


def check_response(
    config: ResponseConfig,
    *,
    voice: str,
    spoken: bool,
    tools: tuple[Mapping[str, Any], ...] | Unset = (),
) -> None:
    """Check the overrides of one response.

    Raises:
        Refusal: a value that a response does not have.
    """
    if not isinstance(config.output_modalities, Unset):
        _modalities(config.output_modalities, "response.output_modalities")
    if not isinstance(config.output_format, Unset):
        _one_of(config.output_format, _FORMATS, "response.audio.output.format")
    if not isinstance(config.conversation, Unset):
        _one_of(config.conversation, ("auto", "none"), "response.conversation")
    if not isinstance(config.tools, Unset):
        _tools(config.tools, "response.tools")
        tools = config.tools
    if not isinstance(config.tool_choice, Unset):
        _tool_choice(config.tool_choice, tools, "response.tool_choice")
    if not isinstance(config.voice, Unset):
        _voice(config.voice, "response.audio.output.voice")
        if spoken and config.voice != voice:
            raise Refusal(
                "cannot_update_voice",
                "The voice cannot change once the session has produced audio.",
                param="response.audio.output.voice",
            )
    if not isinstance(config.metadata, Unset):
        _metadata(config.metadata)


def vad_of(config: SessionConfig) -> ServerVad | None:
    """The turn detection in force as voice activity settings; `None` when the client decides."""
    detection = config.turn_detection
    if isinstance(detection, ServerVad):
        return detection
    if isinstance(detection, SemanticVad):
        return ServerVad(
            silence_duration_ms=_EAGERNESS_SILENCE_MS[detection.eagerness],
            create_response=detection.create_response,
            interrupt_response=detection.interrupt_response,
        )
    return None


def _one_of(value: object, allowed: tuple[object, ...], param: str) -> None:
    if value not in allowed:
        raise Refusal("invalid_value", "This value is not supported here.", param=param)


def _within(value: float, low: float, high: float, param: str) -> None:
    if not low <= value <= high:
        raise Refusal("invalid_value", f"Expected {low:g} to {high:g}.", param=param)


def _modalities(value: tuple[str, ...], param: str) -> None:
    if value not in (("audio",), ("text",)):
        raise Refusal("invalid_value", "Expected either ['audio'] or ['text'].", param=param)


def _voice(value: str, param: str) -> None:
    if not 0 < len(value) <= 64:
        raise Refusal("invalid_value", "Expected the name of a voice.", param=param)


def _tools(value: tuple[Mapping[str, Any], ...], param: str) -> None:
    for index, tool in enumerate(value):
        where = f"{param}[{index}]"
        if tool.get("type") != "function":
            raise Refusal("invalid_value", "Only function tools work offline.", param=where)
        if not isinstance(tool.get("name"), str) or not tool["name"]:
            raise Refusal("missing_required_parameter", "A tool has a name.", param=f"{where}.name")


def _tool_choice(value: object, tools: object, param: str) -> None:
    names = [tool["name"] for tool in tools] if isinstance(tools, tuple) else []
    match value:
        case "auto" | "none" | "required":
            return
        case {"type": "function", "name": name} if name in names:
            return
    raise Refusal(
        "invalid_value", "Expected 'auto', 'none', 'required' or a function of yours.", param=param
    )


def _metadata(value: Mapping[str, str]) -> None:
    # OpenAI's schema: 16 pairs, keys of 64 and values of 512 characters.
    if len(value) > 16 or any(len(key) > 64 or len(text) > 512 for key, text in value.items()):
        raise Refusal(
            "invalid_value",
            "Metadata holds 16 pairs of at most 64 and 512 characters.",
            param="response.metadata",
        )


def _turn_detection(value: ServerVad | SemanticVad | None) -> None:
    where = "session.audio.input.turn_detection"
    if isinstance(value, SemanticVad):
        _one_of(value.eagerness, tuple(_EAGERNESS_SILENCE_MS), f"{where}.eagerness")
    elif isinstance(value, ServerVad):
        _within(value.threshold, 0.0, 1.0, f"{where}.threshold")
        _within(value.prefix_padding_ms, 0, 5_000, f"{where}.prefix_padding_ms")
        # Below one detector block of 32 ms every gap between syllables would end the turn.
        _within(value.silence_duration_ms, 32, 10_000, f"{where}.silence_duration_ms")
        if value.idle_timeout_ms is not None:
            # Our own settings allow these; OpenAI's range is said to be 5 to 30 s.
            _within(value.idle_timeout_ms, 1_000, 60_000, f"{where}.idle_timeout_ms")


def _tokens(value: int | str) -> None:
    if value != "inf" and (not isinstance(value, int) or value < 1):
        raise Refusal(
            "invalid_value", "Expected 1 or more, or 'inf'.", param="session.max_output_tokens"
        )


def _instructions(value: str) -> None:
    if len(value) > MAX_TEXT_CHARS:
        raise Refusal(
            "string_above_max_length",
            "The instructions are too long.",
            param="session.instructions",
        )


_FIXED: Final = frozenset({"id", "expires_at", "model", "type"})
_CHECKS: Final[Mapping[str, Callable[[Any], None]]] = {
    "output_modalities": lambda value: _modalities(value, "session.output_modalities"),
    "instructions": _instructions,
    "input_format": lambda value: _one_of(value, _FORMATS, "session.audio.input.format"),
    "output_format": lambda value: _one_of(value, _FORMATS, "session.audio.output.format"),
    "voice": lambda value: _voice(value, "session.audio.output.voice"),
    # The range is OpenAI's (schema: 0.25 to 1.5).
    "speed": lambda value: _within(value, 0.25, 1.5, "session.audio.output.speed"),
    "noise_reduction": lambda value: _one_of(
        value, ("near_field", "far_field", None), "session.audio.input.noise_reduction"
    ),
    "turn_detection": _turn_detection,
    "tools": lambda value: _tools(value, "session.tools"),
    "max_output_tokens": _tokens,
    "reasoning_effort": lambda value: _one_of(value, _REASONING, "session.reasoning.effort"),
}
