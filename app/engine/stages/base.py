"""The stages that a chained engine is made of: four small interfaces and the values between them.

Audio to a recognizer is mono int16 PCM at 16 kHz, audio from a voice mono int16 PCM at 24 kHz.
Pure: what reaches a server lives in the modules beside it. The fourth interface, voice activity, is
`app.engine.host.SpeechDetector`: int16 PCM at 16 kHz in, edges of speech out.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, Self, runtime_checkable
from urllib.parse import urlsplit

from app.engine.base import Hearing
from app.errors import VoiceUnavailable

__all__ = [
    "AnswerUsage",
    "LanguageHints",
    "Message",
    "SpeechToText",
    "StageError",
    "StageSpec",
    "TextModel",
    "TextPiece",
    "TextRequest",
    "TextToSpeech",
    "TextUsage",
    "ToolCall",
    "Words",
    "language_fields",
    "primary_tags",
    "transcribe_turn",
]


_CHARS_PER_TOKEN: Final = 4


class StageError(VoiceUnavailable):
    """A stage failed: `stage_key_refused`, `stage_busy`, `stage_timeout`, `stage_cut`, ...

    `fields` are those of the request that the server seems to refuse.
    """

    code = "stage_failed"
    fields: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSpec:
    """A server of one stage.

    `parse` overrides the answer's Content-Type: `sse`, `raw` or `wav`; `sample_rate` is that of raw
    sound. `extra_body` is laid over the request; a value of `None` removes a field that a server
    does not take.
    """

    base_url: str
    model: str
    api_key: str = field(default="", repr=False)
    timeout_s: float = 8.0
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    extra_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    sample_rate: int = 24_000
    parse: Literal["auto", "sse", "raw", "wav"] = "auto"

    @property
    def is_openai(self) -> bool:
        """True for OpenAI's own address, whose models are known."""
        return urlsplit(self.base_url).hostname == "api.openai.com"

    def url(self, path: str) -> str:
        """The address of an endpoint; `base_url` ends in `/v1` with most servers."""
        return self.base_url.rstrip("/") + path

    def headers(self) -> dict[str, str]:
        """The key as a bearer token, and the extra headers, which may hold another key."""
        key = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return {**key, **self.extra_headers}

    def body(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a request with `extra_body` over them."""
        merged = {**fields, **self.extra_body}
        return {name: value for name, value in merged.items() if value is not None}


class SpeechToText(Protocol):
    """Speech to text: of a whole utterance, or of one that is still being spoken."""

    @property
    def name(self) -> str: ...

    async def transcribe(self, pcm16: bytes) -> str:
        """Return the words; none when nothing was said.

        Raises:
            StageError: the stage failed.
        """
        ...

    def open(self) -> Hearing:
        """Begin an utterance: its audio is pushed as it comes. `finish` raises `StageError`."""
        ...


@runtime_checkable
class LanguageHints(Protocol):
    """A server of speech to text that can be told what language is spoken."""

    def in_languages(self, languages: Sequence[str]) -> Self:
        """Return this server for callers who speak one of these, whatever its own language."""
        ...


def language_fields(model: str, languages: Sequence[str]) -> dict[str, Any]:
    """The languages as OpenAI's transcription models take them: a list, or one.

    A model that takes one is told none of several: it would hear all of them as the first.
    """
    if model.startswith(("gpt-transcribe", "gpt-live-transcribe")):
        return {"languages": list(languages)} if languages else {}
    return {"language": languages[0]} if len(languages) == 1 else {}


def primary_tags(languages: Sequence[str]) -> tuple[str, ...]:
    """The languages without regions, which OpenAI's endpoints do not take: `pt` of `pt-BR`."""
    return tuple(dict.fromkeys(language.partition("-")[0] for language in languages))


async def transcribe_turn(turn: Hearing, pcm16: bytes) -> str:
    """Push a whole utterance, int16 mono PCM at 16 kHz, and return its words.

    Raises:
        StageError: the stage failed.
    """
    try:
        turn.push(pcm16)
        return (await turn.finish()).transcript
    finally:
        turn.abandon()


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A function call; `arguments` is JSON text."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Words:
    """More of the answer's text."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TextUsage:
    """Tokens of an answer; cached ones are part of the input. `estimated`: no server told them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    estimated: bool = False

    @classmethod
    def estimate(cls, request: TextRequest, written: str) -> TextUsage:
        """The usage of an answer whose server has not told it; `written` is what came of it."""
        asked = sum(
            len(message.text) + sum(len(call.arguments) for call in message.calls)
            for message in request.messages
        )
        asked += sum(len(json.dumps(tool)) for tool in request.tools)
        return cls(
            input_tokens=-(-asked // _CHARS_PER_TOKEN),
            output_tokens=-(-len(written) // _CHARS_PER_TOKEN),
            estimated=True,
        )

    def __add__(self, other: TextUsage) -> TextUsage:
        return TextUsage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            estimated=self.estimated or other.estimated,
        )


class AnswerUsage:
    """The usage of one answer as it becomes known."""

    def __init__(self) -> None:
        self._told: TextUsage | None = None
        self._besides = TextUsage()

    def add(self, usage: TextUsage) -> None:
        """Take what its server tells, or an estimate of a request that another one answered."""
        if usage.estimated:
            self._besides += usage
        else:
            self._told = usage

    def total(self, request: TextRequest, written: str, *, billed: bool) -> TextUsage:
        """All of it; where its server tells nothing, an estimate, if it is `billed` at all."""
        guess = TextUsage.estimate(request, written) if billed else TextUsage()
        return self._besides + (guess if self._told is None else self._told)


TextPiece = Words | ToolCall | TextUsage


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A line of the conversation. `call_id`: the call that a message of role `tool` answers."""

    role: Literal["system", "user", "assistant", "tool"]
    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRequest:
    """A question to a text model. Tools have the shape of the Realtime API (flat)."""

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: str | Mapping[str, Any] = "auto"
    max_tokens: int | None = None


class TextModel(Protocol):
    """Text in, streamed words and tool calls out."""

    @property
    def name(self) -> str: ...

    def stream(self, request: TextRequest) -> AsyncGenerator[TextPiece, None]:
        """Yield words as they come, each tool call once it is whole, and the usage.

        An estimated usage is that of a request that another server answers in its place.
        Closing the generator early ends the request.

        Raises:
            StageError: the stage failed; words that came before it stand.
        """
        ...


class TextToSpeech(Protocol):
    """Text in, streamed speech out."""

    @property
    def name(self) -> str: ...

    def speak(self, text: str, *, voice: str, speed: float) -> AsyncGenerator[bytes, None]:
        """Yield int16 mono PCM at 24 kHz as it comes, whole samples.

        Raises:
            StageError: the stage failed; sound that came before it stands.
        """
        ...
