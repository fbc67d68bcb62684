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
from app.agents.session.handler import OpenAIRealtimeHandler
from app.agents.session.session import AgentSession
from app.agents.tools.http_tool import HttpToolSpec, http_tool
from app.agents.tools.mcp import McpTools
from app.agents.tools.mcp_server import McpServerSpec
from app.agents.tools.tool import Approval, Tool, ToolContext, ToolResult, tool
from app.engine import Engine, make_engine
from app.errors import AppError, ConfigError, ToolFailed, VoiceError
from app.events import CallId, Party
from app.http.client import SafeHttp
from app.realtime.connection import VoiceModel
from app.realtime.events import SemanticVad, ServerVad, SessionConfig, Transcription
from app.realtime.websocket import WebSocketModel

__all__ = [
    "Agent",
    "AgentSession",
    "Allow",
    "AppError",
    "Approval",
    "CallFacts",
    "CallId",
    "ConfigError",
    "Engine",
    "Guardrail",
    "GuardrailContext",
    "HandoffTo",
    "HttpToolSpec",
    "McpServerSpec",
    "McpTools",
    "OpenAIRealtimeHandler",
    "Party",
    "Roster",
    "SafeHttp",
    "SayMode",
    "SayWhen",
    "SemanticVad",
    "ServerVad",
    "SessionConfig",
    "Stop",
    "Tool",
    "ToolContext",
    "ToolFailed",
    "ToolResult",
    "Transcription",
    "Verdict",
    "VoiceError",
    "VoiceModel",
    "Warn",
    "WebSocketModel",
    "function_guardrail",
    "http_tool",
    "make_engine",
    "model_guardrail",
    "regex_guardrail",
    "tool",
]
