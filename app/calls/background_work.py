"""Background work of a call: tools, guardrails, analysis, transfers by keypad.

The call itself reads and writes sockets; here is the work that takes time. Each piece is a task of
the call's group, reports to the conversation when it is done, and ends with the call.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from app.agents.analysis.live_analysis import AnalysisPlan
from app.agents.dialogue.actions import RunTool, ToVoice
from app.agents.dialogue.messages import SayMode, SayWhen
from app.agents.dialogue.tool_runner import consent_prompt
from app.agents.guardrails.rules import CheckGuardrail
from app.agents.tools.invocation import ApprovalRequest
from app.agents.tools.tool import Approval, ToolResult
from app.agents.work import DialogueWork
from app.calls.actions import Action, CheckMessages
from app.calls.conversation.conversation import Conversation
from app.calls.transfer.transfers import Transfers
from app.errors import ToolError
from app.events import AnalysisEvent, CallEvent, ToolApprovalRequired, ToolRan

__all__ = ["BackgroundWork"]


CALL_OVER: Final = "call_over"
"""The error code of a tool that the end of its call has cancelled."""
BUDGET_SPENT: Final = "tool_budget_spent"
"""The error code of a tool that a call has no budget left for."""
REFUSALS_RECORDED: Final = 50
"""Of those: a model may go on for ever, and each would be a line of the log and of the history."""


class BackgroundWork:
    """The work of one call; `perform` carries out the conversation's actions."""

    def __init__(
        self,
        conversation: Conversation,
        *,
        record: Callable[[CallEvent], None],
        perform: Callable[[Sequence[Action]], None],
        now_ms: Callable[[], int],
        analysis: AnalysisPlan | None = None,
    ) -> None:
        self._work = DialogueWork(
            conversation.dialogue,
            self,
            send=lambda event: perform([ToVoice(event)]),
            analysis=analysis,
            emit=self._on_analysis,
            say=lambda text: self._say(text, SayWhen.IDLE),
        )
        self.tools = self._work.tools
        self.ask = self._work.ask
        self.on_voice = self._work.on_voice
        """Takes every event of the model, before the conversation does."""
        self.after_voice = self._work.after_voice
        """Takes every event of the model again, once the conversation has."""
        self._conversation = conversation
        self._record = record
        self._perform = perform
        self._now_ms = now_ms
        self._tasks: asyncio.TaskGroup | None = None
        self._refusals = 0
        self._running: dict[str, tuple[RunTool, int]] = {}  # with the time at which each began

    def open(self, tasks: asyncio.TaskGroup) -> None:
        """Start work, as tasks of the call's group."""
        self._tasks = tasks
        self._work.begin(tasks)

    def close(self) -> None:
        """End with the call: nothing is begun any more, and late results are dropped."""
        self._tasks = None
        now_ms = self._now_ms()
        for run, since_ms in self._running.values():
            self._record_tool(run, now_ms, now_ms - since_ms, CALL_OVER)
        self._running.clear()

    def run_tool(self, run: RunTool) -> None:
        if self._tasks is not None:
            self._running[run.tool_call_id] = (run, self._now_ms())
            self.tools.run(run, self._tasks)

    def check(self, check: CheckGuardrail) -> None:
        if self._tasks is not None:
            self._tasks.create_task(self._check_rule(check), name="guardrails")

    def check_messages(
        self, check: CheckMessages, can_keep: Callable[[], Awaitable[bool]] | None
    ) -> None:
        """Find out whether messages can be kept; without `can_keep` they can."""
        if self._tasks is not None:
            self._tasks.create_task(self._check_messages(check, can_keep), name="messages")

    async def _check_messages(
        self, check: CheckMessages, can_keep: Callable[[], Awaitable[bool]] | None
    ) -> None:
        answer = can_keep is None or await can_keep()
        if self._tasks is not None:
            now_ms = self._now_ms()
            self._perform(
                self._conversation.on_messages_checked(check.run, now_ms, can_keep=answer)
            )

    def transfer(self, transfers: Transfers, destination: str) -> None:
        """Transfer a caller who has chosen it by keypad."""
        if self._tasks is not None:
            self._tasks.create_task(self._transfer(transfers, destination), name="keypad transfer")

    async def _transfer(self, transfers: Transfers, destination: str) -> None:
        try:
            outcome = (await transfers.transfer(destination)).outcome.value
        except ToolError as error:
            outcome = error.message
        text = f"The transfer to {destination} did not work: {outcome}"
        self._say(text, SayWhen.AFTER_TURN)

    def _say(self, text: str, when: SayWhen) -> None:
        """Have the agent pass a text on, unless the call is over."""
        if self._tasks is not None:
            now_ms = self._now_ms()
            self._perform(self._conversation.say(text, now_ms, mode=SayMode.RELAY, when=when))

    def _on_analysis(self, event: AnalysisEvent) -> None:
        self._record(replace(event, at_ms=self._now_ms()))

    def on_tool_result(self, run: RunTool, result: ToolResult) -> None:
        """For the tool runner: the model gets the result, unless the call is over."""
        if self._tasks is None:
            return
        now_ms = self._now_ms()
        self._running.pop(run.tool_call_id, None)
        self._refusals += result.error == BUDGET_SPENT
        if result.error != BUDGET_SPENT or self._refusals <= REFUSALS_RECORDED:
            self._record_tool(run, now_ms, result.duration_ms, result.error)
        self._perform(
            self._conversation.on_tool_done(
                run.tool_call_id, result.output, now_ms, reply=result.reply
            )
        )

    def _record_tool(self, run: RunTool, now_ms: int, duration_ms: int, error: str) -> None:
        self._record(
            ToolRan(
                call_id=self._conversation.call_id,
                at_ms=now_ms,
                name=run.name,
                duration_ms=duration_ms,
                error=error,
            )
        )

    def on_tool_slow(self, run: RunTool, filler: str) -> bool:
        """For the tool runner: the caller is told where nobody speaks; True once that is done."""
        if self._tasks is None:
            return True
        said = self._conversation.on_tool_slow(run.tool_call_id, filler, self._now_ms())
        self._perform(said)
        return bool(said)

    def on_approval_wanted(self, request: ApprovalRequest) -> None:
        """For the tool runner: a tool waits for an operator, or for the caller's keypad."""
        now_ms = self._now_ms()
        tool_call_id = request.context.tool_call_id
        self._record(
            ToolApprovalRequired(
                call_id=self._conversation.call_id,
                at_ms=now_ms,
                tool_call_id=tool_call_id,
                name=request.tool.name,
                arguments=json.dumps(dict(request.arguments), ensure_ascii=False),
                by=request.tool.approval.value,
            )
        )
        if request.tool.approval is Approval.KEYPAD:
            prompt = consent_prompt(request)
            self._perform(self._conversation.on_consent_wanted(tool_call_id, prompt, now_ms))

    async def _check_rule(self, check: CheckGuardrail) -> None:
        result = await self._work.check(check)
        if self._tasks is not None:
            self.tools.on_guardrail_result(check.side, result.verdict)
            self._perform(self._conversation.on_guardrail_result(check, result, self._now_ms()))
