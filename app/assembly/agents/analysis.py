"""Makes the analysis of calls, its tasks and the review of what the settings say."""

from __future__ import annotations

from collections.abc import Mapping

from app.agents.analysis.analyzer import AnalyzerLimits
from app.agents.analysis.live_analysis import AnalysisPlan
from app.agents.analysis.questions import AnalysisSpec, ReviewSpec
from app.agents.llm.chat_completions import ChatEndpoint, ChatSpec, JsonMode
from app.agents.llm.question import Ask
from app.agents.tools.tool import Tool
from app.assembly.problems import Problems
from app.errors import ConfigError
from app.http.client import SafeHttp
from app.http.signed_webhook import Webhook, WebhookSpec
from app.settings import AnalysisSettings, Settings
from app.settings.reader.names import no_such

__all__ = ["check_task_tool", "make_analysis"]


def make_analysis(
    settings: Settings, http: SafeHttp, tools: Mapping[str, Tool], problems: Problems
) -> AnalysisPlan | None:
    """The analysis, where there is to be one; a tool of an MCP server is known only later."""
    written = settings.analysis
    if written is None:
        return None
    with problems.at("analysis", prefix="analysis: "):
        return AnalysisPlan(
            analysis=AnalysisSpec(
                intents=written.intents,
                entities=written.entities,
                tasks=frozenset(written.tasks),
                instructions=written.instructions,
            ),
            limits=AnalyzerLimits(
                analysis_timeout_ms=written.turn_timeout_ms,
                task_timeout_ms=written.task_timeout_ms,
                max_tasks=written.max_tasks,
            ),
            ask=_endpoint(written, http, problems),
            task_tool=_task_tool(written, tools, problems),
            task_argument=written.task_argument,
            review=_review(written, problems),
            webhook=_webhook(written, http, problems),
        )
    return None


def _task_tool(
    written: AnalysisSettings, tools: Mapping[str, Tool], problems: Problems
) -> Tool | None:
    tool = tools.get(written.task_tool or "")
    if tool is not None:
        with problems.at("analysis", "task_argument"):
            check_task_tool(tool, written.task_argument)
    return tool


def check_task_tool(tool: Tool, argument: str) -> None:
    """Raises ConfigError for a tool that cannot be called with a task and nothing else."""
    properties = tool.parameters.get("properties") or {}
    if argument not in properties:
        raise ConfigError(f"of {tool.name}, {no_such('argument', argument, properties)}")
    others = [name for name in tool.parameters.get("required") or () if name != argument]
    if others:
        raise ConfigError(f"{tool.name} needs {others[0]!r} as well, which a task does not give")


def _endpoint(written: AnalysisSettings, http: SafeHttp, problems: Problems) -> Ask | None:
    chat = written.endpoint
    if chat is None:
        return None
    with problems.at("analysis", "endpoint", "base_url", prefix="analysis: base_url: "):
        spec = ChatSpec(
            base_url=chat.base_url,
            model=chat.model,
            api_key="" if chat.api_key is None else chat.api_key.get_secret_value(),
            timeout_ms=chat.timeout_ms,
            json_mode=JsonMode(chat.json_mode),
            allow_private=chat.allow_private,
        )
        return ChatEndpoint(spec, http)
    return None


def _review(written: AnalysisSettings, problems: Problems) -> ReviewSpec | None:
    review = written.review
    if review is None:
        return None
    with problems.at("analysis", "review", "json_schema", prefix="analysis review: "):
        if review.json_schema is None:
            return ReviewSpec(instructions=review.instructions)
        return ReviewSpec(schema=review.json_schema, instructions=review.instructions)
    return None


def _webhook(written: AnalysisSettings, http: SafeHttp, problems: Problems) -> Webhook | None:
    hook = written.webhook
    if hook is None:
        return None
    with problems.at("analysis", "webhook", prefix="webhook: "):
        spec = WebhookSpec(
            url=hook.url,
            secret=hook.secret.get_secret_value(),
            timeout_ms=hook.timeout_ms,
            attempts=hook.attempts,
            allow_private=hook.allow_private,
        )
        return Webhook(spec, http)
    return None
