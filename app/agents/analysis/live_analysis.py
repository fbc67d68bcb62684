"""Live analysis of a conversation: feeds the caller's turns to an `Analyzer`.

Phone calls and `AgentSession` share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from app.agents.analysis.analyzer import Analyzer, AnalyzerLimits, Emit
from app.agents.analysis.delegates import Delegate, ToolDelegate, WebhookDelegate
from app.agents.analysis.questions import AnalysisSpec, ReviewSpec, TranscriptLine
from app.agents.dialogue.dialogue import Dialogue
from app.agents.dialogue.item_history import HistoryEntry
from app.agents.dialogue.tool_runner import ToolRunner
from app.agents.llm.question import Ask
from app.agents.tools.tool import Tool
from app.events import Party
from app.http.signed_webhook import Webhook
from app.realtime.events import ServerEvent, TranscriptionCompleted

__all__ = ["AnalysisPlan", "LiveAnalysis"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisPlan:
    """Settings of the analysis. Without `ask`, the conversation's own voice model is asked.

    Tasks go to `task_tool`, without one to `webhook`, which also gets the `review` of a call.
    """

    analysis: AnalysisSpec
    limits: AnalyzerLimits
    ask: Ask | None = None
    task_tool: Tool | None = None
    task_argument: str = "task"
    review: ReviewSpec | None = None
    webhook: Webhook | None = None


class LiveAnalysis:
    """Feeds an `Analyzer` with the caller's turns of one conversation; returns at once."""

    def __init__(
        self,
        plan: AnalysisPlan,
        dialogue: Dialogue,
        tools: ToolRunner,
        *,
        ask: Ask,
        emit: Emit,
        say: Callable[[str], None],
    ) -> None:
        """`ask` reaches the conversation's own model; `say` is that of the `Analyzer`."""
        self._dialogue = dialogue
        self.analyzer = Analyzer(
            dialogue.active.facts.call_id,
            plan.analysis,
            plan.ask or ask,
            emit,
            delegate=_delegate(plan, dialogue, tools),
            say=say,
            limits=plan.limits,
        )

    def on_voice(self, event: ServerEvent) -> None:
        """Take any event of the model, once the dialogue has: a transcript is a caller's turn."""
        if isinstance(event, TranscriptionCompleted) and event.transcript.strip():
            self.on_caller_turn(event.item_id)

    def on_caller_turn(self, item_id: str = "") -> None:
        """The words of an item, or those that the caller has typed, are in the transcript now.

        Turns that the caller has taken since may have their words already.
        """
        entries = self._dialogue.transcript.messages()
        said = [entry.item_id for entry in entries if entry.party is Party.CALLER and entry.text]
        latest = said[-1] if said else item_id
        self.analyzer.on_caller_turn(latest, _lines_until(latest, entries))


def _delegate(plan: AnalysisPlan, dialogue: Dialogue, tools: ToolRunner) -> Delegate | None:
    tool = plan.task_tool
    if tool is not None:
        return ToolDelegate(
            tools.invoker(tool),
            tool.name,
            lambda key: tools.context(key, dialogue.active.agent.name),
            argument=plan.task_argument,
        )
    return None if plan.webhook is None else WebhookDelegate(plan.webhook)


def _lines_until(item_id: str, entries: Iterable[HistoryEntry]) -> list[TranscriptLine]:
    """The transcript up to an item and with it; of the agent's words, those that were heard."""
    lines = []
    for entry in entries:
        text = entry.heard_text if entry.party is Party.AGENT else entry.text
        if entry.party is not None and text:
            lines.append(TranscriptLine(party=entry.party, text=text, item_id=entry.item_id))
        if entry.item_id == item_id:
            break
    return lines
