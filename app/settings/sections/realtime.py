"""The voice model's settings, after OpenAI's GA session schema."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from app.realtime.events import DEFAULT_TRANSCRIPTION_MODEL, DEFAULT_TURN_DETECTION
from app.settings.values import (
    Blank,
    Language,
    Name,
    OptionalSecret,
    Secret,
    Section,
    Spoken,
    Text,
    WebsocketUrl,
    is_openai,
)
from audio.format import PCM16_24K, PCMU_8K, AudioFormat

__all__ = [
    "OPENAI_REALTIME_URL",
    "AudioSettings",
    "OpenAIRealtime",
    "SessionOverrides",
    "Tracing",
    "TranscriptionSettings",
    "Truncation",
    "TurnDetection",
]

OPENAI_REALTIME_URL: Final = "wss://api.openai.com/v1/realtime"
DEFAULT_INSTRUCTION: Final = (
    "You answer the telephone. Be friendly and brief: one or two short sentences at a time. "
    "Ask when something is unclear, and say goodbye before the call ends."
)


_VAD: Final = DEFAULT_TURN_DETECTION


class TurnDetection(Section):
    """The detection of the caller's turns. With `none`, no turn of the caller ever ends."""

    type: Literal["server_vad", "semantic_vad", "none"] = "server_vad"
    threshold: float = Field(default=_VAD.threshold, ge=0, le=1)
    prefix_padding_ms: int = Field(default=_VAD.prefix_padding_ms, ge=0, le=5_000)
    silence_duration_ms: int = Field(default=_VAD.silence_duration_ms, ge=50, le=10_000)
    idle_timeout_ms: int | None = Field(default=_VAD.idle_timeout_ms, ge=1_000, le=60_000)
    eagerness: Literal["auto", "low", "medium", "high"] = "auto"
    create_response: bool = _VAD.create_response
    interrupt_response: bool = _VAD.interrupt_response

    def without_effect(self) -> set[str]:
        server = {"threshold", "prefix_padding_ms", "silence_duration_ms", "idle_timeout_ms"}
        return {"server_vad": {"eagerness"}, "semantic_vad": server}.get(self.type, set())

    @model_validator(mode="after")
    def _fields_fit_the_type(self) -> Self:
        foreign = self.model_fields_set & self.without_effect()
        given = sorted(name for name in foreign if getattr(self, name) is not None)
        if given:
            raise ValueError(f"{', '.join(given)} does nothing with type {self.type}: remove it")
        return self


class TranscriptionSettings(Section):
    """The model that writes down what the caller says. Any model name is accepted."""

    model: Name = DEFAULT_TRANSCRIPTION_MODEL
    language: Annotated[Language | None, Blank] = None
    languages: tuple[Language, ...] = ()
    keywords: tuple[Text, ...] = ()
    prompt: Annotated[str | None, Blank] = None
    delay: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None

    @model_validator(mode="after")
    def _one_way_to_name_languages(self) -> Self:
        if self.language and self.languages:
            raise ValueError("language and languages exclude each other: keep one")
        return self


class AudioSettings(Section):
    """The audio between Trunkline and the model."""

    format: Literal["pcm16_24k", "pcmu"] = "pcm16_24k"
    noise_reduction: Literal["near_field", "far_field"] | None = None
    speed: float = Field(default=1.0, ge=0.25, le=1.5)

    @property
    def audio_format(self) -> AudioFormat:
        return PCMU_8K if self.format == "pcmu" else PCM16_24K


class Truncation(Section):
    """Forget the oldest until this share of the context is left."""

    retention_ratio: float = Field(gt=0, le=1)
    post_instructions_tokens: int | None = Field(default=None, ge=1)


class Tracing(Section):
    """The names by which calls are found again in the vendor's traces."""

    workflow_name: Text | None = None
    group_id: Text | None = None
    metadata: dict[Name, str] = Field(default_factory=dict)


class OpenAIRealtime(Section):
    """The voice model: OpenAI, Azure, or any server that speaks the Realtime protocol."""

    enabled: bool = True
    api_key: OptionalSecret = None
    model: Name = "gpt-realtime-2.1"
    voice: Name = "marin"
    system_instruction: str = DEFAULT_INSTRUCTION
    greeting: Annotated[Spoken | None, Blank] = "Hello! How can I help you today?"
    speaks_first: Literal["agent", "caller"] = "agent"
    interruptible_greeting: bool = True
    url: WebsocketUrl = OPENAI_REALTIME_URL
    headers: dict[Name, Secret] = Field(default_factory=dict)
    dialect: Literal["ga", "beta"] = "ga"
    turn_detection: TurnDetection = Field(default_factory=TurnDetection)
    transcription: TranscriptionSettings | None = Field(default_factory=TranscriptionSettings)
    audio: AudioSettings = Field(default_factory=AudioSettings)
    max_output_tokens: Annotated[int, Field(ge=1)] | Literal["inf"] = "inf"
    tool_choice: Literal["auto", "none", "required"] = "auto"
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None
    truncation: Literal["auto", "disabled"] | Truncation = "auto"
    tracing: Literal["auto"] | Tracing | None = None

    @property
    def has_credentials(self) -> bool:
        return self.api_key is not None or bool(self.headers)

    @property
    def is_openai(self) -> bool:
        """True for OpenAI's own address, whose models and voices are known."""
        return is_openai(self.url)


class SessionOverrides(Section):
    """The overrides of an agent or a number; absent settings are as in `openai_realtime`.

    Of `turn_detection`, `transcription` and `audio` too, only the keys that are given change.
    """

    voice: Name | None = None
    preset: Literal["quiet", "office", "street", "speakerphone"] | None = None
    turn_detection: TurnDetection | None = None
    transcription: TranscriptionSettings | None = None
    audio: AudioSettings | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | Literal["inf"] | None = None
    tool_choice: Literal["auto", "none", "required"] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None
    truncation: Literal["auto", "disabled"] | Truncation | None = None
    tracing: Literal["auto"] | Tracing | None = None
