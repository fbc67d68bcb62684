"""Merges session settings and call limits of all calls, of an agent and of a number.

From the general to the particular: `openai_realtime`, the agent, the number; at each step first a
preset, then single settings.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from app.assembly.agents.tools import session_tools
from app.calls.policy import (
    AnsweredByRules,
    CallPolicy,
    Disclosure,
    InactivityTexts,
    ProductivityRules,
    RecordingRules,
)
from app.calls.turns.presets import preset
from app.realtime.events import UNSET, SemanticVad, ServerVad, SessionConfig, Transcription, Unset
from app.settings import (
    AnsweredBySettings,
    AudioSettings,
    CallLimits,
    ComplianceSettings,
    Limits,
    OpenAIRealtime,
    Recording,
    SessionOverrides,
    TranscriptionSettings,
    TurnDetection,
)

__all__ = [
    "call_policy",
    "overridden",
    "session_config",
    "with_first_words",
    "with_given",
    "with_limits",
]


RECORDED: Final = "This call is being recorded."
"""For calls that are placed, where the recording has no notice of its own."""


S = TypeVar("S", bound=BaseModel)


# Sessions -----------------------------------------------------------------------------------------


def session_config(model: OpenAIRealtime) -> SessionConfig:
    """The session that is asked of the voice model for a call."""
    transcription = model.transcription
    return SessionConfig(
        model=model.model,
        output_modalities=("audio",),
        instructions=model.system_instruction,
        input_format=model.audio.audio_format,
        output_format=model.audio.audio_format,
        voice=model.voice,
        speed=UNSET if model.audio.speed == 1.0 else model.audio.speed,
        noise_reduction=model.audio.noise_reduction or UNSET,
        transcription=None
        if transcription is None
        else Transcription(
            model=transcription.model,
            language=transcription.language,
            languages=transcription.languages,
            keywords=transcription.keywords,
            prompt=transcription.prompt,
            delay=transcription.delay,
        ),
        turn_detection=_turn_detection(model.turn_detection),
        tools=session_tools(),
        tool_choice=model.tool_choice,
        max_output_tokens=model.max_output_tokens,
        parallel_tool_calls=UNSET
        if model.parallel_tool_calls is None
        else model.parallel_tool_calls,
        reasoning_effort=model.reasoning_effort or UNSET,
        truncation=_truncation(model),
        tracing=_tracing(model),
    )


def _turn_detection(turns: TurnDetection) -> ServerVad | SemanticVad | None:
    if turns.type == "none":
        return None
    if turns.type == "semantic_vad":
        return SemanticVad(
            eagerness=turns.eagerness,
            create_response=turns.create_response,
            interrupt_response=turns.interrupt_response,
        )
    return ServerVad(
        threshold=turns.threshold,
        prefix_padding_ms=turns.prefix_padding_ms,
        silence_duration_ms=turns.silence_duration_ms,
        idle_timeout_ms=turns.idle_timeout_ms,
        create_response=turns.create_response,
        interrupt_response=turns.interrupt_response,
    )


def _truncation(model: OpenAIRealtime) -> str | dict[str, Any] | Unset:
    chosen = model.truncation
    if isinstance(chosen, str):
        return UNSET if chosen == "auto" else chosen
    wire: dict[str, Any] = {"type": "retention_ratio", "retention_ratio": chosen.retention_ratio}
    if chosen.post_instructions_tokens is not None:
        wire["token_limits"] = {"post_instructions": chosen.post_instructions_tokens}
    return wire


def _tracing(model: OpenAIRealtime) -> str | dict[str, Any] | Unset:
    chosen = model.tracing
    if chosen is None:
        return UNSET
    if isinstance(chosen, str):
        return chosen
    named = {
        "workflow_name": chosen.workflow_name,
        "group_id": chosen.group_id,
        "metadata": chosen.metadata,
    }
    return {name: value for name, value in named.items() if value}


# Overrides ----------------------------------------------------------------------------------------


def overridden(model: OpenAIRealtime, own: SessionOverrides) -> OpenAIRealtime:
    """The settings of `openai_realtime` with an agent's or a number's own."""
    change: dict[str, Any] = {
        "voice": own.voice,
        "max_output_tokens": own.max_output_tokens,
        "tool_choice": own.tool_choice,
        "parallel_tool_calls": own.parallel_tool_calls,
        "reasoning_effort": own.reasoning_effort,
        "truncation": own.truncation,
    }
    change = {key: value for key, value in change.items() if value is not None}
    turns, audio = model.turn_detection, model.audio
    if own.preset is not None:
        turns, audio = _with_preset(own.preset, turns, audio)
    change["turn_detection"] = _turns(turns, own.turn_detection)
    change["audio"] = audio if own.audio is None else with_given(audio, own.audio)
    if "transcription" in own.model_fields_set:
        change["transcription"] = _transcription(model.transcription, own.transcription)
    if "tracing" in own.model_fields_set:
        change["tracing"] = own.tracing
    return model.model_copy(update=change)


def with_given(base: S, own: BaseModel) -> S:
    """`base` with the keys that are written in `own`."""
    given = {name: getattr(own, name) for name in own.model_fields_set}
    return base.model_copy(update={k: v for k, v in given.items() if v is not None or k in _NULLED})


_NULLED: Final = frozenset(("noise_reduction", "idle_timeout_ms", "language", "prompt", "delay"))
"""Keys where nothing is something: it turns off what is set for all."""


def _with_preset(
    name: str, turns: TurnDetection, audio: AudioSettings
) -> tuple[TurnDetection, AudioSettings]:
    listening = preset(name)
    found = turns if turns.type == "server_vad" else TurnDetection()
    found = found.model_copy(
        update={
            "threshold": listening.vad.threshold,
            "prefix_padding_ms": listening.vad.prefix_padding_ms,
            "silence_duration_ms": listening.vad.silence_duration_ms,
        }
    )
    return found, audio.model_copy(update={"noise_reduction": listening.noise_reduction})


def _turns(base: TurnDetection, own: TurnDetection | None) -> TurnDetection:
    # Another type has other keys: nothing of the first fits it.
    if own is None or own.type != base.type:
        return own or base
    return with_given(base, own)


def _transcription(
    base: TranscriptionSettings | None, own: TranscriptionSettings | None
) -> TranscriptionSettings | None:
    if base is None or own is None:
        return own
    given = own.model_fields_set
    if "model" in given and own.model != base.model:
        return own  # another model takes other hints
    found = with_given(base, own)
    if "languages" in given and own.languages:
        return found.model_copy(update={"language": None})
    return found.model_copy(update={"languages": ()}) if own.language else found


# Limits -------------------------------------------------------------------------------------------


def with_limits(limits: Limits, own: CallLimits, preset_name: str | None = None) -> Limits:
    """The limits with those of an agent's or a number's preset, and then with its own."""
    found = limits
    if preset_name is not None:
        heard_ms = preset(preset_name).false_interruption_ms
        found = limits.model_copy(update={"false_interruption_ms": heard_ms})
    found = with_given(found, own)
    if own.inactivity is not None:
        there = with_given(limits.inactivity, own.inactivity)
        found = found.model_copy(update={"inactivity": there})
    return found


def call_policy(
    limits: Limits, recording: Recording | None = None, preset_name: str | None = None
) -> CallPolicy:
    """The limits of a call as its conversation keeps them."""
    there = limits.inactivity
    return CallPolicy(
        max_duration_ms=limits.max_duration_s * 1000,
        max_cost_usd=limits.max_cost_usd,
        duration_warning_ms=limits.duration_warning_s * 1000,
        duration_warning=limits.duration_warning,
        silence_ms=limits.silence_s * 1000,
        claim_deadline_ms=limits.claim_s * 1000,
        inactivity_after_ms=there.after_s * 1000,
        inactivity_texts=InactivityTexts(prompts=there.prompts, closing_prompt=there.goodbye),
        productivity=_productivity(limits.unproductive_turns),
        echo_guard=preset_name is not None and preset(preset_name).echo_guard,
        false_interruption_ms=limits.false_interruption_ms,
        answer_wait_ms=limits.answer_wait_s * 1000,
        recording=RecordingRules(notice=recording.notice.strip())
        if recording is not None and recording.enabled
        else None,
    )


def with_first_words(
    policy: CallPolicy, compliance: ComplianceSettings, answered_by: AnsweredBySettings
) -> CallPolicy:
    """The limits with what is said first, and with how it is found out who hears it."""
    placed = compliance.placed_text
    if placed and policy.recording is not None and not policy.recording.notice:
        placed = f"{placed} {RECORDED}"
    return replace(
        policy,
        disclosure=Disclosure(placed=placed, taken=compliance.taken_text),
        answered_by=_answered_by(answered_by) if answered_by.enabled else None,
    )


def _answered_by(settings: AnsweredBySettings) -> AnsweredByRules:
    return AnsweredByRules(
        wait_for_callee=settings.wait_for_callee,
        opening=settings.opening,
        opening_after_ms=round(settings.opening_after_s * 1000),
        nobody_after_ms=round(settings.nobody_after_s * 1000),
        screening_text=settings.screening,
        screening_wait_ms=round(settings.screening_wait_s * 1000),
        message=settings.message.strip(),
        message_silence_ms=round(settings.message_silence_s * 1000),
        message_wait_ms=round(settings.message_wait_s * 1000),
        talk_to_menus=settings.menus == "talk",
        hold_wait_ms=round(settings.hold_s * 1000),
    )


def _productivity(turns: int) -> ProductivityRules:
    return (
        ProductivityRules(max_turns=turns)
        if turns
        else ProductivityRules(max_turns=0, max_wordless_ms=0)
    )
