"""The settings of the chained pipeline: a list of servers for each stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, model_validator

from app.settings.values import (
    Blank,
    Language,
    Name,
    OptionalSecret,
    Secret,
    Section,
    Spoken,
    Text,
    is_openai,
)

__all__ = ["OPENAI_HTTP_URL", "PipelineSettings", "SttSettings", "TextSettings", "TtsSettings"]

OPENAI_HTTP_URL: Final = "https://api.openai.com/v1"


def _one_is_a_list_of_one(value: object) -> object:
    if isinstance(value, Mapping):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


class _Stage(Section):
    """A server of one stage."""

    base_url: Annotated[Text | None, Blank] = None
    api_key: OptionalSecret = None
    timeout_s: float = Field(default=8.0, ge=0.1, le=120)
    extra_body: dict[str, Any] = Field(default_factory=dict)
    extra_headers: dict[Name, Secret] = Field(default_factory=dict)
    sample_rate: int = Field(default=24_000, ge=4_000, le=192_000)
    parse: Literal["auto", "sse", "raw", "wav"] = "auto"

    @property
    def is_openai(self) -> bool:
        """True for OpenAI's own address, whose models are known."""
        return is_openai(self.base_url or OPENAI_HTTP_URL)

    @model_validator(mode="after")
    def _address_is_one(self) -> Self:
        if self.base_url is not None:
            scheme = urlsplit(self.base_url).scheme
            if scheme not in ("http", "https", "ws", "wss") or not urlsplit(self.base_url).hostname:
                raise ValueError("base_url is an address, such as http://127.0.0.1:8000/v1")
        return self


class SttSettings(_Stage):
    """A server that transcribes what callers say."""

    kind: Literal["openai", "realtime", "deepgram", "offline"] = "openai"
    model: Name = "gpt-transcribe"
    language: Annotated[Language | None, Blank] = None
    prompt: Annotated[str | None, Blank] = None


class TextSettings(_Stage):
    """A text model that writes what the agent says."""

    kind: Literal["openai"] = "openai"
    model: Name = "gpt-6-luna"
    api: Literal["chat", "responses"] = "chat"
    reasoning_effort: Annotated[Name | None, Blank] = None

    @property
    def effort(self) -> str | None:
        """The reasoning effort to ask for: OpenAI's models think for seconds unless told not to."""
        return self.reasoning_effort or ("none" if self.is_openai else None)


class TtsSettings(_Stage):
    """A server that speaks."""

    kind: Literal["openai", "realtime", "offline"] = "realtime"
    model: Name = "gpt-realtime-2.1-mini"
    voice: Annotated[Name | None, Blank] = None
    instructions: Annotated[str | None, Blank] = None


class VadSettings(Section):
    """The detection of speech, which is the offline engine's."""

    min_speech_ms: int = Field(default=64, ge=32, le=1_000)
    likely_end_ms: int = Field(default=64, ge=0, le=2_000)


Several = BeforeValidator(_one_is_a_list_of_one)


class PipelineSettings(Section):
    """Speech to text, a text model and text to speech, with the server's own voice activity."""

    stt: Annotated[tuple[SttSettings, ...], Several, Field(min_length=1)] = (SttSettings(),)
    llm: Annotated[tuple[TextSettings, ...], Several, Field(min_length=1)] = (TextSettings(),)
    tts: Annotated[tuple[TtsSettings, ...], Several, Field(min_length=1)] = (TtsSettings(),)
    vad: VadSettings = Field(default_factory=VadSettings)
    switch_after_ms: int = Field(default=1_500, ge=100, le=10_000)
    filler: Annotated[Spoken | None, Blank] = None
    filler_after_ms: int = Field(default=1_500, ge=200, le=10_000)
    max_sessions: int = Field(default=50, ge=1, le=1_000)

    def stages(self) -> dict[str, tuple[SttSettings | TextSettings | TtsSettings, ...]]:
        """The servers of each stage, by its name."""
        return {"stt": self.stt, "llm": self.llm, "tts": self.tts}

    def names(self) -> dict[str, tuple[str, ...]]:
        """The models of each stage, in order; `offline` is a part of this process."""
        return {
            stage: tuple("offline" if side.kind == "offline" else side.model for side in sides)
            for stage, sides in self.stages().items()
        }

    @property
    def chain(self) -> str:
        """The first model of each stage."""
        return " > ".join(first for first, *_ in self.names().values())
