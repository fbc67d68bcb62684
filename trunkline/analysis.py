"""Analysis of a conversation while it runs, tasks for other systems, and the review afterwards."""

from __future__ import annotations

from app.agents.analysis.analyzer import Analyzer, AnalyzerLimits
from app.agents.analysis.delegates import Delegate, ToolDelegate, WebhookDelegate
from app.agents.analysis.live_analysis import AnalysisPlan
from app.agents.analysis.questions import AnalysisSpec, ReviewSpec, TranscriptLine
from app.agents.analysis.review import Reviewer
from app.agents.llm.chat_completions import ChatEndpoint, ChatSpec, JsonMode
from app.agents.llm.out_of_band import OutOfBandAsker
from app.agents.tools.invocation import ToolInvoker
from app.background import BackgroundJobs
from app.http.signed_webhook import Webhook, WebhookSpec

__all__ = [
    "AnalysisPlan",
    "AnalysisSpec",
    "Analyzer",
    "AnalyzerLimits",
    "BackgroundJobs",
    "ChatEndpoint",
    "ChatSpec",
    "Delegate",
    "JsonMode",
    "OutOfBandAsker",
    "ReviewSpec",
    "Reviewer",
    "ToolDelegate",
    "ToolInvoker",
    "TranscriptLine",
    "Webhook",
    "WebhookDelegate",
    "WebhookSpec",
]
