"""One filled-in sample, and often a bare one, of every Realtime event; and how they are spelled."""

from __future__ import annotations

from typing import Final

from app.realtime import events as ev
from app.realtime.events import ClientEvent, ServerEvent
from audio.format import PCM16_24K, PCMA_8K, PCMU_8K

__all__ = ["BETA_SESSION", "CLIENT", "SERVER", "SESSION", "message"]

_TOOL: Final = {
    "type": "function",
    "name": "lookup",
    "description": "Find an order.",
    "parameters": {"type": "object", "properties": {"id": {"type": "string"}}},
}

SESSION: Final = ev.SessionConfig(
    output_modalities=("audio",),
    instructions="You answer the phone.",
    input_format=PCMU_8K,
    output_format=PCM16_24K,
    voice="marin",
    speed=1.1,
    noise_reduction="near_field",
    transcription=ev.Transcription(
        model="gpt-live-transcribe", languages=("en", "de"), keywords=("Trunkline",), delay="low"
    ),
    turn_detection=ev.ServerVad(threshold=0.6, idle_timeout_ms=8_000, interrupt_response=False),
    tools=(_TOOL,),
    tool_choice={"type": "function", "name": "lookup"},
    parallel_tool_calls=False,
    max_output_tokens="inf",
    reasoning_effort="low",
    truncation={"type": "retention_ratio", "retention_ratio": 0.8},
    tracing={"workflow_name": "calls", "group_id": "g"},
    include=("item.input_audio_transcription.logprobs",),
)
OFF: Final = ev.SessionConfig(
    noise_reduction=None,
    transcription=None,
    turn_detection=None,
    tracing=None,
    tools=(),
    instructions="",
    max_output_tokens=900,
    output_modalities=("text",),
)
SEMANTIC: Final = ev.SessionConfig(
    turn_detection=ev.SemanticVad(eagerness="high", create_response=False),
    transcription=ev.Transcription(model="whisper-1", language="en", prompt="names"),
    input_format=PCMA_8K,
    voice="voice_custom1",
    truncation="auto",
    tool_choice="required",
    tracing="auto",
)
BETA_SESSION: Final = ev.SessionConfig(
    output_modalities=("audio",),
    instructions="You answer the phone.",
    input_format=PCMU_8K,
    output_format=PCM16_24K,
    voice="alloy",
    speed=1.1,
    noise_reduction="far_field",
    transcription=ev.Transcription(model="whisper-1", language="en", prompt="names"),
    turn_detection=ev.ServerVad(threshold=0.6),
    tools=(_TOOL,),
    tool_choice="auto",
    max_output_tokens="inf",
    tracing={"workflow_name": "calls", "group_id": "g"},
)


def message(role: str, *parts: ev.ContentPart, status: str | None = "completed") -> ev.Item:
    return ev.Item(type="message", id="item_1", role=role, status=status, content=parts)


_ASSISTANT: Final = message(
    "assistant", ev.ContentPart(type="output_audio", transcript="Hello, how can I help?")
)
_USER: Final = message("user", ev.ContentPart(type="input_audio", transcript="Hi."))
_TYPED: Final = ev.Item(
    type="message", role="user", content=(ev.ContentPart(type="input_text", text="[keypad] 5"),)
)
_CALL: Final = ev.Item(
    type="function_call",
    id="item_2",
    status="completed",
    call_id="call_1",
    name="lookup",
    arguments='{"id": "7"}',
)
_OUTPUT: Final = ev.Item(type="function_call_output", call_id="call_1", output="found")

CLIENT: Final[tuple[ClientEvent, ...]] = (
    ev.SessionUpdate(BETA_SESSION),
    ev.SessionUpdate(ev.SessionConfig(turn_detection=None, transcription=None)),
    ev.InputAudioAppend(b"\x00\xff\x10\x80"),
    ev.InputAudioCommit(),
    ev.InputAudioClear(),
    ev.ItemCreate(_TYPED, previous_item_id="root"),
    ev.ItemCreate(_OUTPUT),
    ev.ItemCreate(_CALL),
    ev.ItemCreate(message("system", ev.ContentPart(type="input_text", text="Go on."), status=None)),
    ev.ItemCreate(message("assistant", ev.ContentPart(type="output_text", text="I said so."))),
    ev.ItemCreate(message("user", ev.ContentPart(type="input_audio", audio=b"\x01\x02"))),
    ev.ItemDelete("item_1"),
    ev.ItemRetrieve("item_1"),
    ev.ItemTruncate("item_1", 0, 1500),
    ev.ResponseCreate(),
    ev.ResponseCreate(
        ev.ResponseConfig(
            instructions="Say exactly: one moment.",
            output_modalities=("audio",),
            conversation="none",
            metadata={ev.SAY_METADATA_KEY: "One moment."},
            tools=(_TOOL,),
            tool_choice="none",
            max_output_tokens=200,
            input=(_TYPED,),
            output_format=PCMU_8K,
            voice="alloy",
        )
    ),
    ev.ResponseCreate(ev.ResponseConfig(input=(), max_output_tokens="inf")),
    ev.ResponseCancel(),
    ev.ResponseCancel("resp_1"),
)

_RUNNING: Final = ev.Response(
    id="resp_1", status=ev.ResponseStatus.IN_PROGRESS, conversation_id="conv_1"
)
_PART: Final = ("resp_1", "item_1", 0, 0)

SERVER: Final[tuple[ServerEvent, ...]] = (
    ev.SessionCreated(ev.SessionConfig(id="sess_1", input_format=PCM16_24K)),
    ev.SessionUpdated(BETA_SESSION),
    ev.ConversationCreated("conv_1"),
    ev.ItemAdded(_USER, previous_item_id="item_0"),
    ev.ItemAdded(_CALL),
    ev.ItemRetrieved(_ASSISTANT),
    ev.ItemDeleted("item_1"),
    ev.ItemTruncated("item_1", 0, 1500),
    ev.TranscriptionDelta("item_1", 0, "He"),
    ev.TranscriptionCompleted("item_1", 0, "Hello.", seconds=1.5),
    ev.TranscriptionCompleted("item_1", 0, "Hello.", tokens=12),
    ev.TranscriptionFailed("item_1", 0, ev.ErrorDetail(type="transcription_error", code="bad")),
    ev.InputAudioCommitted("item_1", "item_0"),
    ev.InputAudioCleared(),
    ev.SpeechStarted("item_1", 300),
    ev.SpeechStopped("item_1", 1800),
    ev.ResponseCreated(_RUNNING),
    ev.ResponseDone(
        ev.Response(
            id="resp_1",
            status=ev.ResponseStatus.COMPLETED,
            output=(_ASSISTANT, _CALL),
            conversation_id="conv_1",
            metadata={"purpose": "greeting"},
            usage=ev.Usage(
                total_tokens=30,
                input_tokens=20,
                output_tokens=10,
                input_text_tokens=12,
                input_audio_tokens=8,
                cached_tokens=6,
                cached_text_tokens=4,
                cached_audio_tokens=2,
                output_text_tokens=3,
                output_audio_tokens=7,
            ),
        )
    ),
    ev.ResponseDone(
        ev.Response(id="resp_1", status=ev.ResponseStatus.CANCELLED, status_reason="turn_detected")
    ),
    ev.ResponseDone(
        ev.Response(
            id="resp_1",
            status=ev.ResponseStatus.FAILED,
            error=ev.ErrorDetail(type="insufficient_quota", code="insufficient_quota"),
        )
    ),
    ev.OutputItemAdded("resp_1", 0, message("assistant", status="in_progress")),
    ev.OutputItemDone("resp_1", 0, _ASSISTANT),
    ev.ContentPartAdded(*_PART, ev.ContentPart(type="audio", transcript="")),
    ev.ContentPartDone(*_PART, ev.ContentPart(type="text", text="Hello.")),
    ev.AudioDelta(*_PART, b"\x01\x02\x03\x04"),
    ev.AudioDone(*_PART),
    ev.AudioTranscriptDelta(*_PART, "Hel"),
    ev.AudioTranscriptDone(*_PART, "Hello."),
    ev.TextDelta(*_PART, "Hel"),
    ev.TextDone(*_PART, "Hello."),
    ev.FunctionArgumentsDelta("resp_1", "item_2", 1, "call_1", '{"id"'),
    ev.RateLimitsUpdated((ev.RateLimit("tokens", 40_000, 39_000, 0.5),)),
    ev.ErrorEvent(
        ev.ErrorDetail(
            type="invalid_request_error",
            code="invalid_value",
            message="no",
            param="session.voice",
            client_event_id="evt_1",
        )
    ),
)

GA_CLIENT: Final[tuple[ClientEvent, ...]] = (
    ev.SessionUpdate(SESSION),
    ev.SessionUpdate(OFF),
    ev.SessionUpdate(SEMANTIC),
)
GA_SERVER: Final[tuple[ServerEvent, ...]] = (
    ev.SessionUpdated(SESSION),
    ev.ItemDone(_ASSISTANT, previous_item_id="item_0"),
    ev.InputTimeoutTriggered("item_1", 1000, 9000),
    ev.FunctionArgumentsDone("resp_1", "item_2", 1, "call_1", "lookup", '{"id": "7"}'),
)
BETA_SERVER: Final[tuple[ServerEvent, ...]] = (
    ev.FunctionArgumentsDone("resp_1", "item_2", 1, "call_1", "", '{"id": "7"}'),
)
