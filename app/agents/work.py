"""Work beside the sound of one dialogue: its tools, guardrails and analysis.

Phone calls and sessions without a phone hold it alike, and hand it every event of the model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from app.agents.analysis.analyzer import Emit
from app.agents.analysis.live_analysis import AnalysisPlan, LiveAnalysis
from app.agents.dialogue.dialogue import Dialogue
from app.agents.dialogue.tool_runner import ToolListener, ToolRunner
from app.agents.guardrails.rules import CheckGuardrail, GuardrailResult
from app.agents.guardrails.runner import check_guardrails
from app.agents.llm.out_of_band import OutOfBandAsker
from app.realtime.events import ClientEvent, ServerEvent, SpeechStarted

__all__ = ["DialogueWork"]


class DialogueWork:
    """The parts that take time; each reports to the shell that holds them."""

    def __init__(
        self,
        dialogue: Dialogue,
        listener: ToolListener,
        *,
        send: Callable[[ClientEvent], None],
        analysis: AnalysisPlan | None,
        emit: Emit,
        say: Callable[[str], None],
    ) -> None:
        """`send` takes questions to the model, `emit` and `say` what the analysis finds."""
        self._active = dialogue.active
        self.tools = ToolRunner(dialogue.active, listener)
        self.ask = OutOfBandAsker(send)
        self.analysis = (
            None
            if analysis is None
            else LiveAnalysis(analysis, dialogue, self.tools, ask=self.ask, emit=emit, say=say)
        )

    def begin(self, tasks: asyncio.TaskGroup) -> None:
        """Begin the analysis, as a task of the group."""
        if self.analysis is not None:
            tasks.create_task(self.analysis.analyzer.run(), name="analysis")

    def on_voice(self, event: ServerEvent) -> None:
        """Take every event of the model, before the dialogue does."""
        self.ask.on_voice(event)
        if isinstance(event, SpeechStarted):
            self.tools.on_caller_speech()

    def after_voice(self, event: ServerEvent) -> None:
        """Take every event of the model again, once the dialogue has."""
        if self.analysis is not None:
            self.analysis.on_voice(event)

    async def check(self, check: CheckGuardrail) -> GuardrailResult:
        """Ask the guardrails of the agent that spoke, or was spoken with."""
        agent = self._active.roster.get(check.agent)
        return await check_guardrails(check, agent, self._active.facts, self.ask)
