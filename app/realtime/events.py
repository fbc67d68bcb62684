"""The Realtime protocol's vocabulary, in the names of the GA dialect, as values.

Both sides of the protocol share it: we are the client of OpenAI and the server of our own engine.
Spelling on the wire, base64 and the beta dialect live in `app.realtime.dialect`. Written against
OpenAI's GA event models of August 2026 (openai-python `types/realtime`).

Audio is raw bytes in the session's format, never base64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, Final

from audio.format import AudioFormat

__all__ = [
    "DEFAULT_TRANSCRIPTION_MODEL",
    "DEFAULT_TURN_DETECTION",
    "NOTICE_METADATA_KEY",
    "SAY_METADATA_KEY",
    "STAGES_METADATA_KEY",
    "UNSET",
    "AudioDelta",
    "AudioDone",
    "AudioTranscriptDelta",
    "AudioTranscriptDone",
    "ClientEvent",
    "ContentPart",
    "ContentPartAdded",
    "ContentPartDone",
    "ConversationCreated",
    "ErrorDetail",
    "ErrorEvent",
    "FunctionArgumentsDelta",
    "FunctionArgumentsDone",
    "InputAudioAppend",
    "InputAudioClear",
    "InputAudioCleared",
    "InputAudioCommit",
    "InputAudioCommitted",
    "InputTimeoutTriggered",
    "Item",
    "ItemAdded",
    "ItemCreate",
    "ItemDelete",
    "ItemDeleted",
    "ItemDone",
    "ItemRetrieve",
    "ItemRetrieved",
    "ItemTruncate",
    "ItemTruncated",
    "OutputItemAdded",
    "OutputItemDone",
    "RateLimit",
    "RateLimitsUpdated",
    "Response",
    "ResponseCancel",
    "ResponseConfig",
    "ResponseCreate",
    "ResponseCreated",
    "ResponseDone",
    "ResponseStatus",
    "SemanticVad",
    "ServerEvent",
    "ServerVad",
    "SessionConfig",
    "SessionCreated",
    "SessionUpdate",
    "SessionUpdated",
    "SpeechStarted",
    "SpeechStopped",
    "TextDelta",
    "TextDone",
    "Transcription",
    "TranscriptionCompleted",
    "TranscriptionDelta",
    "TranscriptionFailed",
    "Unknown",
    "Unset",
    "Usage",
]

NOTICE_METADATA_KEY: Final = "notice"
"""Beside `SAY_METADATA_KEY`: the sentence comes before the first words, and is none of them."""
STAGES_METADATA_KEY: Final = "stage_ms"
"""Metadata of a chained engine's response: its stages' times, as `stt=120 llm=300 tts=90`."""
SAY_METADATA_KEY: Final = "say"
"""`response.create` metadata under which we name a sentence to be spoken word for word.

A language model follows the instructions beside it; the offline engine, which cannot follow
instructions, reads this key. Metadata values hold 512 characters at most (OpenAI schema).
"""


class Unset(Enum):
    """Marks a setting that is left as it is; `None` on the wire means "turn it off"."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return "UNSET"

    def __bool__(self) -> bool:
        return False


UNSET: Final = Unset.UNSET


# Session ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerVad:
    """Turn detection by voice activity, with the vendor's defaults."""

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500
    create_response: bool = True
    interrupt_response: bool = True
    idle_timeout_ms: int | None = None


DEFAULT_TURN_DETECTION: Final = ServerVad(
    threshold=0.6, prefix_padding_ms=200, silence_duration_ms=300
)
"""Trunkline's own defaults: quicker than the vendor's, and less easily set off by noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticVad:
    """Turn detection by what was said. `eagerness`: auto, low, medium or high."""

    eagerness: str = "auto"
    create_response: bool = True
    interrupt_response: bool = True


DEFAULT_TRANSCRIPTION_MODEL: Final = "gpt-transcribe"
"""Takes turns that the server detects; gpt-live-transcribe may want them committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcription:
    """Transcription of caller speech by a separate model; any model name is accepted."""

    model: str
    language: str | None = None
    languages: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    prompt: str | None = None
    delay: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """The session's settings, whole or in part: `UNSET` fields are not on the wire.

    `tools` holds JSON objects as the wire has them (`{"type": "function", "name": ...}`).
    """

    id: str | None = None
    expires_at: int | None = None
    model: str | None = None
    type: str = "realtime"
    output_modalities: tuple[str, ...] | Unset = UNSET
    instructions: str | Unset = UNSET
    input_format: AudioFormat | Unset = UNSET
    output_format: AudioFormat | Unset = UNSET
    voice: str | Unset = UNSET
    speed: float | Unset = UNSET
    noise_reduction: str | Unset | None = UNSET
    transcription: Transcription | Unset | None = UNSET
    turn_detection: ServerVad | SemanticVad | Unset | None = UNSET
    tools: tuple[Mapping[str, Any], ...] | Unset = UNSET
    tool_choice: str | Mapping[str, Any] | Unset = UNSET
    parallel_tool_calls: bool | Unset = UNSET
    max_output_tokens: int | str | Unset = UNSET
    reasoning_effort: str | Unset = UNSET
    truncation: str | Mapping[str, Any] | Unset = UNSET
    tracing: str | Mapping[str, Any] | Unset | None = UNSET
    include: tuple[str, ...] | Unset = UNSET


# Conversation -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentPart:
    """A part of an item.

    `type`: input_text, input_audio, output_text, output_audio; text and audio in `ContentPart*`
    events.
    """

    type: str
    text: str | None = None
    transcript: str | None = None
    audio: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A conversation item: a message, a function call or its output.

    `type`: message, function_call, function_call_output, or a type that we only carry along.
    `role` is for messages: system, user or assistant. `status`: in_progress, completed, incomplete.
    """

    type: str
    id: str | None = None
    role: str | None = None
    status: str | None = None
    content: tuple[ContentPart, ...] = ()
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorDetail:
    """An error in the model's words; `client_event_id` is the client's event that caused it."""

    type: str = ""
    code: str | None = None
    message: str = ""
    param: str | None = None
    client_event_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one response. Cached tokens are part of the input tokens.

    `estimated`, which only our own engines write: some of them were not told by a model's server.
    """

    total_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    input_text_tokens: int = 0
    input_audio_tokens: int = 0
    cached_tokens: int = 0
    cached_text_tokens: int = 0
    cached_audio_tokens: int = 0
    output_text_tokens: int = 0
    output_audio_tokens: int = 0
    estimated: bool = False


class ResponseStatus(StrEnum):
    """The progress of a response."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    INCOMPLETE = "incomplete"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One generation. `status_reason`: turn_detected, client_cancelled, max_output_tokens, ..."""

    id: str
    status: ResponseStatus
    status_reason: str | None = None
    error: ErrorDetail | None = None
    output: tuple[Item, ...] = ()
    usage: Usage | None = None
    conversation_id: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    output_modalities: tuple[str, ...] = ("audio",)
    # Echoes of the settings, which a server writes and a client has no use for.
    max_output_tokens: int | str | None = None
    output_format: AudioFormat | None = None
    voice: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseConfig:
    """Overrides for one response; `input` and `tools` hold JSON objects as the wire has them."""

    instructions: str | Unset = UNSET
    output_modalities: tuple[str, ...] | Unset = UNSET
    conversation: str | Unset = UNSET
    metadata: Mapping[str, str] | Unset = UNSET
    tools: tuple[Mapping[str, Any], ...] | Unset = UNSET
    tool_choice: str | Mapping[str, Any] | Unset = UNSET
    max_output_tokens: int | str | Unset = UNSET
    input: tuple[Item, ...] | Unset = UNSET
    output_format: AudioFormat | Unset = UNSET
    voice: str | Unset = UNSET


# Client events ------------------------------------------------------------------------------------
# `event_id` empty: `RealtimeProtocol.send` makes one. The peer's errors name it.


@dataclass(frozen=True, slots=True)
class SessionUpdate:
    session: SessionConfig
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class InputAudioAppend:
    audio: bytes = field(repr=False)
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class InputAudioCommit:
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class InputAudioClear:
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ItemCreate:
    item: Item
    previous_item_id: str | None = None
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ItemDelete:
    item_id: str
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ItemRetrieve:
    item_id: str
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ItemTruncate:
    item_id: str
    content_index: int
    audio_end_ms: int
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ResponseCreate:
    response: ResponseConfig | None = None
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ResponseCancel:
    response_id: str | None = None
    event_id: str = ""


# Server events ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionCreated:
    session: SessionConfig
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class SessionUpdated:
    session: SessionConfig
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ConversationCreated:
    conversation_id: str
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ItemAdded:
    item: Item
    previous_item_id: str | None = None
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ItemDone:
    item: Item
    previous_item_id: str | None = None
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ItemRetrieved:
    item: Item
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ItemDeleted:
    item_id: str
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ItemTruncated:
    item_id: str
    content_index: int
    audio_end_ms: int
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class TranscriptionDelta:
    item_id: str
    content_index: int
    delta: str
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class TranscriptionCompleted:
    """`seconds` or `tokens` is what the transcription is billed by, when the model says it.

    `text_tokens` and `audio_tokens` are the parts of what it read, `output_tokens` what it wrote.
    """

    item_id: str
    content_index: int
    transcript: str
    seconds: float | None = None
    tokens: int | None = None
    text_tokens: int = 0
    audio_tokens: int = 0
    output_tokens: int = 0
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class TranscriptionFailed:
    item_id: str
    content_index: int
    error: ErrorDetail
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class InputAudioCommitted:
    item_id: str
    previous_item_id: str | None = None
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class InputAudioCleared:
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """`audio_start_ms` counts the audio appended in the session, padding included."""

    item_id: str
    audio_start_ms: int
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """`audio_end_ms` includes the silence that closed the turn."""

    item_id: str
    audio_end_ms: int
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class InputTimeoutTriggered:
    item_id: str
    audio_start_ms: int
    audio_end_ms: int
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ResponseCreated:
    response: Response
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ResponseDone:
    response: Response
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class OutputItemAdded:
    response_id: str
    output_index: int
    item: Item
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class OutputItemDone:
    response_id: str
    output_index: int
    item: Item
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ContentPartAdded:
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    part: ContentPart
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ContentPartDone:
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    part: ContentPart
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class AudioDelta:
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    audio: bytes = field(repr=False)
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class AudioDone:
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class AudioTranscriptDelta:
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    delta: str
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class AudioTranscriptDone:
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    transcript: str
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class TextDelta:
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    delta: str
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class TextDone:
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    text: str
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class FunctionArgumentsDelta:
    response_id: str
    item_id: str
    output_index: int
    call_id: str
    delta: str
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class FunctionArgumentsDone:
    """`name` is empty when the peer leaves it out, as the beta dialect does."""

    response_id: str
    item_id: str
    output_index: int
    call_id: str
    name: str
    arguments: str
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class RateLimit:
    name: str
    limit: int
    remaining: int
    reset_seconds: float


@dataclass(frozen=True, slots=True)
class RateLimitsUpdated:
    limits: tuple[RateLimit, ...]
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ErrorEvent:
    error: ErrorDetail
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A message of an unknown type, kept whole: new types must not end a call."""

    type: str
    raw: Mapping[str, Any]


ClientEvent = (
    SessionUpdate
    | InputAudioAppend
    | InputAudioCommit
    | InputAudioClear
    | ItemCreate
    | ItemDelete
    | ItemRetrieve
    | ItemTruncate
    | ResponseCreate
    | ResponseCancel
    | Unknown
)

ServerEvent = (
    SessionCreated
    | SessionUpdated
    | ConversationCreated
    | ItemAdded
    | ItemDone
    | ItemRetrieved
    | ItemDeleted
    | ItemTruncated
    | TranscriptionDelta
    | TranscriptionCompleted
    | TranscriptionFailed
    | InputAudioCommitted
    | InputAudioCleared
    | SpeechStarted
    | SpeechStopped
    | InputTimeoutTriggered
    | ResponseCreated
    | ResponseDone
    | OutputItemAdded
    | OutputItemDone
    | ContentPartAdded
    | ContentPartDone
    | AudioDelta
    | AudioDone
    | AudioTranscriptDelta
    | AudioTranscriptDone
    | TextDelta
    | TextDone
    | FunctionArgumentsDelta
    | FunctionArgumentsDone
    | RateLimitsUpdated
    | ErrorEvent
    | Unknown
)
