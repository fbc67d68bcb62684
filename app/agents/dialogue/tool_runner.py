"""Runs the function calls of one conversation: beside the sound, at once, each to its answer.

Shared by the phone call and `AgentSession`. What may run, and with which limits, is
`app.agents.tools.invocation`; here is when: off the read loops, in the conversation's own task
group, so that nothing runs on when it is over. A tool that is slow is reported for a filler, one
that needs consent waits for `decide`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Final, Protocol

from app.agents.dialogue.actions import RunTool
from app.agents.guardrails.rules import Stop, Verdict
from app.agents.instructions import CallFacts
from app.agents.roster import Roster
from app.agents.tools.invocation import ApprovalRequest, ToolInvoker
from app.agents.tools.tool import Approval, Tool, ToolContext, ToolResult
from app.events import Party

__all__ = ["ToolListener", "ToolRunner", "consent_prompt"]


MAX_PROMPT_CHARS: Final = 300
_SHORT_CHARS: Final = 60
_STOPPED: Final = "The caller's words were stopped by a rule, so this was not done."


class ToolListener(Protocol):
    """Who hears of the tools: the conversation's shell. None of it may wait."""

    def on_tool_result(self, run: RunTool, result: ToolResult) -> None:
        """A function call has its answer; each gets exactly one, unless the call is over."""
        ...

    def on_tool_slow(self, run: RunTool, filler: str) -> bool:
        """A tool has not answered in its `filler_after_ms`; false where it is not quiet now."""
        ...

    def on_approval_wanted(self, request: ApprovalRequest) -> None:
        """A tool waits for `ToolRunner.decide`."""
        ...


class ToolRunner:
    """The tools of one conversation at work."""

    def __init__(
        self,
        roster: Roster,
        facts: CallFacts,
        listener: ToolListener,
        *,
        approval_timeout_ms: int = 60_000,
    ) -> None:
        self._roster = roster
        self._facts = facts
        self._listener = listener
        self._box = ToolInvoker((), approver=self._approve, approval_timeout_ms=approval_timeout_ms)
        self._fillers: dict[str, asyncio.TimerHandle] = {}
        self._decisions: dict[str, asyncio.Future[bool | str]] = {}
        self._wanted: dict[str, ApprovalRequest] = {}
        self._interruptible: dict[str, asyncio.Task[None]] = {}
        self._given_up: set[str] = set()
        self._always: set[str] = set()

    def run(self, run: RunTool, tasks: asyncio.TaskGroup) -> None:
        """Begin a function call; returns at once."""
        box = self._box_of(run.agent)
        tool = box.get(run.name)
        task = tasks.create_task(self._answer(run, box), name=f"tool {run.name[:64]}")
        if tool is not None and tool.interruptible:
            self._interruptible[run.tool_call_id] = task

    def waiting(self, approval: Approval) -> list[ApprovalRequest]:
        """The tools that wait for this kind of consent, the oldest first."""
        return [wanted for wanted in self._wanted.values() if wanted.tool.approval is approval]

    def decide(
        self, tool_call_id: str, *, approved: bool, always: bool = False, message: str = ""
    ) -> bool:
        """Answer a tool that waits for consent; `always`: for this tool in this conversation.

        `message` is what the model is told of a no. False when nothing waits under this id, or no
        longer.
        """
        decision = self._decisions.get(tool_call_id)
        if decision is None or decision.done():
            return False
        if approved and always:
            wanted = self._wanted[tool_call_id]
            self._always.add(wanted.tool.name)
        decision.set_result(approved or message)
        return True

    def on_caller_speech(self) -> None:
        """The caller goes on: tools that may be given up are."""
        for tool_call_id, task in self._interruptible.items():
            self._given_up.add(tool_call_id)
            task.cancel()
        self._interruptible.clear()

    def on_guardrail_result(self, side: Party, verdict: Verdict) -> None:
        """Words of the caller were stopped: so is what was begun for them and can be.

        What waits for consent has done nothing yet. Any other tool runs to its end, unless it may
        be given up: nobody knows how far it has come.
        """
        if side is Party.CALLER and isinstance(verdict, Stop):
            self.on_caller_speech()
            for tool_call_id in list(self._decisions):
                self.decide(tool_call_id, approved=False, message=_STOPPED)

    def use_roster(self, roster: Roster) -> None:
        """Agents have changed; what the conversation has used of its budget counts on."""
        self._roster = roster

    def _box_of(self, agent_name: str) -> ToolInvoker:
        # Anew each time: what is offered may depend on more than the call's first moment.
        agent = self._roster.get(agent_name)
        return self._box.with_tools(() if agent is None else self._roster.tools(agent, self._facts))

    async def _answer(self, run: RunTool, box: ToolInvoker) -> None:
        tool = box.get(run.name)
        self._start_filler(run, tool)
        try:
            result = await box.invoke(
                run.name, run.arguments, self.context(run.tool_call_id, run.agent)
            )
        except asyncio.CancelledError:
            if run.tool_call_id not in self._given_up:
                raise  # the conversation is over: nobody wants a late result
            result = _given_up()
        finally:
            self._stop_filler(run.tool_call_id)
            self._interruptible.pop(run.tool_call_id, None)
        self._listener.on_tool_result(run, result)

    def box(self, *tools: Tool) -> ToolInvoker:
        """Other tools under the limits of the conversation, and with its approvals."""
        return self._box.with_tools(tools)

    def context(self, tool_call_id: str, agent_name: str) -> ToolContext:
        """What a tool is told of the conversation."""
        facts = self._facts
        agent = self._roster.get(agent_name)
        return ToolContext(
            call_id=facts.call_id,
            tool_call_id=tool_call_id,
            agent=agent_name,
            caller_number=facts.caller_number,
            called_number=facts.called_number,
            caller_verified=facts.caller_verified,
            variables=facts.declared({} if agent is None else agent.variables),
        )

    def _start_filler(self, run: RunTool, tool: Tool | None) -> None:
        if tool is None or not tool.filler:
            return
        self._fillers[run.tool_call_id] = asyncio.get_running_loop().call_later(
            tool.filler_after_ms / 1000, self._fill, run, tool
        )

    def _fill(self, run: RunTool, tool: Tool) -> None:
        if not self._listener.on_tool_slow(run, tool.filler or ""):
            self._start_filler(run, tool)  # somebody speaks; the tool may take longer than they do

    def _stop_filler(self, tool_call_id: str) -> None:
        filler = self._fillers.pop(tool_call_id, None)
        if filler is not None:
            filler.cancel()

    async def _approve(self, request: ApprovalRequest) -> bool | str:
        tool, context = request.tool, request.context
        if tool.name in self._always:
            return True
        tool_call_id = context.tool_call_id
        asks_caller = tool.approval is Approval.KEYPAD
        if asks_caller:
            self._stop_filler(tool_call_id)  # who is asked knows what is waited for
        loop = asyncio.get_running_loop()
        decision: asyncio.Future[bool | str] = loop.create_future()
        self._decisions[tool_call_id] = decision
        self._wanted[tool_call_id] = request
        self._listener.on_approval_wanted(request)
        try:
            approved = await decision
        finally:
            del self._decisions[tool_call_id], self._wanted[tool_call_id]
        if approved is True and asks_caller:
            run = RunTool(
                tool_call_id=tool_call_id, name=tool.name, arguments="", agent=context.agent
            )
            self._start_filler(run, tool)
        return approved


def consent_prompt(request: ApprovalRequest) -> str:
    """What a caller is asked before a tool runs: by rule, with what will really be done."""
    what = _said(request, MAX_PROMPT_CHARS)
    if len(what) > MAX_PROMPT_CHARS:
        # Each shorter, so that a long one hides none behind it; what is still too long is cut.
        what = _cut(_said(request, _SHORT_CHARS), MAX_PROMPT_CHARS)
    return f"Please confirm: {what}. Press 1 for yes, or 2 for no."


def _said(request: ApprovalRequest, most: int) -> str:
    name = _words(request.tool.name)
    facts = _spoken(request.arguments, most)
    return f"{name}: {facts}" if facts else name


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most].rsplit(' ', 1)[0]}, and more"


def _spoken(value: object, most: int) -> str:
    """An argument as it is said, whatever it is made of; no part longer than `most`."""
    match value:
        case bool():
            return "yes" if value else "no"
        case Mapping():
            pairs = (f"{_words(str(key))} {_spoken(part, most)}" for key, part in value.items())
            return ", ".join(pairs)
        case list() | tuple():
            return ", ".join(_spoken(part, most) for part in value)
        case None:
            return "nothing"
        case _:
            return _cut(str(value), most)


def _words(name: str) -> str:
    return name.replace("_", " ").replace("-", " ")


def _given_up() -> ToolResult:
    message = "The caller went on speaking, so this was given up."
    output = json.dumps({"error": message, "code": "interrupted"})
    return ToolResult(output=output, error="interrupted", reply=False)
