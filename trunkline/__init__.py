"""Trunkline's Python API: agents, their tools and rules, and conversations without a phone.

    from trunkline import Agent, AgentSession, SessionConfig, WebSocketModel, tool

Programs import from here and from the modules beside it: `trunkline.events`, `trunkline.errors`,
`trunkline.analysis`, `trunkline.realtime` and `trunkline.audio`. Everything else that a wheel holds
is private and may change with any version. `docs/python-api.md` lists each name.
"""

from __future__ import annotations

from app.agents.agent import Agent
from app.agents.dialogue.messages import SayMode, SayWhen
from app.agents.guardrails.rules import (
    Allow,
    Guardrail,
    GuardrailContext,
    Stop,
    Verdict,
    Warn,
    function_guardrail,
    model_guardrail,
    regex_guardrail,
)
from app.agents.handoffs import HandoffTo
from app.agents.instructions import CallFacts
from app.agents.roster import Roster
from app.agents.session.agent_session import AgentSession
from app.agents.session.handler import OpenAIRealtimeHandler
from app.agents.tools.http_tool import HttpToolSpec, http_tool
from app.agents.tools.mcp import McpTools
from app.agents.tools.mcp_server import McpServerSpec
from app.agents.tools.tool import Approval, Tool, ToolContext, ToolResult, tool
from app.engine.assembly import make_engine
from app.engine.chain_assembly import offline_speech
from app.engine.server import Engine
from app.engine.stages.base import StageError, StageSpec
from app.engine.stages.deepgram import DeepgramTranscriber
from app.engine.stages.realtime_transcriber import RealtimeTranscriber
from app.engine.stages.realtime_voice import RealtimeVoice
from app.engine.stages.text_models import ChatCompletions, Responses
from app.engine.stages.text_to_speech import HttpVoice
from app.engine.stages.transcriptions import HttpTranscriber
from app.errors import AppError, ConfigError, PlacingRefused, ToolFailed, VoiceError
from app.events import CallId, Party
from app.http.client import SafeHttp
from app.http.place_call import place_call
from app.http.streaming import StreamingHttp
from app.pipeline.events import (
    VoiceStreamEventAudio,
    VoiceStreamEventError,
    VoiceStreamEventLifecycle,
)
from app.pipeline.inputs import AudioInput, StreamedAudioInput
from app.pipeline.pipeline import StreamedAudioResult, VoicePipeline, VoicePipelineConfig
from app.pipeline.workflows import AgentWorkflow, SimpleWorkflow
from app.realtime.connection import VoiceModel
from app.realtime.events import SemanticVad, ServerVad, SessionConfig, Transcription
from app.realtime.probe import ProbeOutcome, ProbeResult, probe
from app.realtime.websocket import WebSocketModel

__all__ = [
    "Agent",
    "AgentSession",
    "AgentWorkflow",
    "Allow",
    "AppError",
    "Approval",
    "AudioInput",
    "CallFacts",
    "CallId",
    "ChatCompletions",
    "ConfigError",
    "DeepgramTranscriber",
    "Engine",
    "Guardrail",
    "GuardrailContext",
    "HandoffTo",
    "HttpToolSpec",
    "HttpTranscriber",
    "HttpVoice",
    "McpServerSpec",
    "McpTools",
    "OpenAIRealtimeHandler",
    "Party",
    "PlacingRefused",
    "ProbeOutcome",
    "ProbeResult",
    "RealtimeTranscriber",
    "RealtimeVoice",
    "Responses",
    "Roster",
    "SafeHttp",
    "SayMode",
    "SayWhen",
    "SemanticVad",
    "ServerVad",
    "SessionConfig",
    "SimpleWorkflow",
    "StageError",
    "StageSpec",
    "Stop",
    "StreamedAudioInput",
    "StreamedAudioResult",
    "StreamingHttp",
    "Tool",
    "ToolContext",
    "ToolFailed",
    "ToolResult",
    "Transcription",
    "Verdict",
    "VoiceError",
    "VoiceModel",
    "VoicePipeline",
    "VoicePipelineConfig",
    "VoiceStreamEventAudio",
    "VoiceStreamEventError",
    "VoiceStreamEventLifecycle",
    "Warn",
    "WebSocketModel",
    "function_guardrail",
    "http_tool",
    "make_engine",
    "model_guardrail",
    "offline_speech",
    "place_call",
    "probe",
    "regex_guardrail",
    "tool",
]
