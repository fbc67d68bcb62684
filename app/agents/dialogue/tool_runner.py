"""Runs the function calls of one conversation, beside the sound and side by side.

Shared by the phone call and `AgentSession`. `app.agents.tools.invocation` knows which tools may run
and with which limits. Each runs as a task of the conversation's own task group, so that none
outlives it. A slow tool is reported for a filler; one that needs approval waits for `decide`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Final, Protocol

from app.agents.dialogue.actions import RunTool
from app.agents.dialogue.active_agent import ActiveAgent
from app.agents.guardrails.rules import Stop, Verdict
from app.agents.tools.invocation import ApprovalRequest, ToolInvoker
from app.agents.tools.tool import Approval, Tool, ToolContext, ToolResult
from app.events import Party

__all__ = ["ToolListener", "ToolRunner", "consent_prompt"]


MAX_PROMPT_CHARS: Final = 300
_SHORT_CHARS: Final = 60
_STOPPED: Final = "The caller's words were stopped by a rule, so this was not done."


class ToolListener(Protocol):
    """The conversation's shell, which is told what becomes of the tools. No method may wait."""

    def on_tool_result(self, run: RunTool, result: ToolResult) -> None:
        """A function call has its result; each gets exactly one, unless the call is over."""
        ...

    def on_tool_slow(self, run: RunTool, filler: str) -> bool:
        """A tool has taken its `filler_after_ms`; False where it is not quiet now."""
        ...

    def on_approval_wanted(self, request: ApprovalRequest) -> None:
        """A tool waits for `ToolRunner.decide`."""
        ...


class ToolRunner:
    """The running tools of one conversation."""

    def __init__(
        self,
        active: ActiveAgent,
        listener: ToolListener,
        *,
        approval_timeout_ms: int = 60_000,
    ) -> None:
        self._active = active
        self._listener = listener
        self._invoker = ToolInvoker(
            (), approver=self._approve, approval_timeout_ms=approval_timeout_ms
        )
        self._fillers: dict[str, asyncio.TimerHandle] = {}
        self._approvals: dict[str, tuple[ApprovalRequest, asyncio.Future[bool | str]]] = {}
        self._interruptible: dict[str, asyncio.Task[None]] = {}
        self._given_up: set[str] = set()
        self._always: set[str] = set()

    def run(self, run: RunTool, tasks: asyncio.TaskGroup) -> None:
        """Begin a function call; returns at once."""
        invoker = self._invoker_of(run.agent)
        tool = invoker.get(run.name)
        task = tasks.create_task(self._answer(run, invoker), name=f"tool {run.name[:64]}")
        if tool is not None and tool.interruptible:
            self._interruptible[run.tool_call_id] = task

    def on_over(self) -> None:
        """The conversation and all of its tools are over: part with those who know the runner."""
        del self._invoker, self._listener

    def waiting(self, approval: Approval) -> list[ApprovalRequest]:
        """The tools that wait for this kind of approval, the oldest first."""
        requests = (request for request, _ in self._approvals.values())
        return [request for request in requests if request.tool.approval is approval]

    def decide(
        self, tool_call_id: str, *, approved: bool, always: bool = False, message: str = ""
    ) -> bool:
        """Answer a tool that waits for approval; `always`: for this tool in this conversation.

        `message` tells the model why not. Returns False where no tool waits under this id any more.
        """
        request, decision = self._approvals.get(tool_call_id, (None, None))
        if request is None or decision is None or decision.done():
            return False
        if approved and always:
            self._always.add(request.tool.name)
        decision.set_result(approved or message)
        return True

    def on_caller_speech(self) -> None:
        """The caller goes on: cancel the tools that may be interrupted."""
        for tool_call_id, task in self._interruptible.items():
            self._given_up.add(tool_call_id)
            task.cancel()
        self._interruptible.clear()

    def on_guardrail_result(self, side: Party, verdict: Verdict) -> None:
        """Words of the caller were stopped: cancel what was begun for them, where that is safe.

        A tool that waits for approval has done nothing yet. Any other runs to its end, unless it is
        interruptible: nobody knows how far it has come.
        """
        if side is Party.CALLER and isinstance(verdict, Stop):
            self.on_caller_speech()
            for tool_call_id in list(self._approvals):
                self.decide(tool_call_id, approved=False, message=_STOPPED)

    def _invoker_of(self, agent_name: str) -> ToolInvoker:
        # Anew each time: what is offered may change during the call.
        roster = self._active.roster
        agent = roster.get(agent_name)
        return self._invoker.with_tools(
            () if agent is None else roster.tools(agent, self._active.facts)
        )

    async def _answer(self, run: RunTool, invoker: ToolInvoker) -> None:
        tool = invoker.get(run.name)
        self._start_filler(run, tool)
        try:
            result = await invoker.invoke(
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

    def invoker(self, *tools: Tool) -> ToolInvoker:
        """An invoker of other tools, under the limits and approvals of the conversation."""
        return self._invoker.with_tools(tools)

    def context(self, tool_call_id: str, agent_name: str) -> ToolContext:
        """The context that a tool is called with."""
        facts, agent = self._active.facts, self._active.roster.get(agent_name)
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
            self._stop_filler(tool_call_id)  # a caller who is asked knows what the wait is for
        decision: asyncio.Future[bool | str] = asyncio.get_running_loop().create_future()
        self._approvals[tool_call_id] = (request, decision)
        self._listener.on_approval_wanted(request)
        try:
            approved = await decision
        finally:
            del self._approvals[tool_call_id]
        if approved is True and asks_caller:
            run = RunTool(
                tool_call_id=tool_call_id, name=tool.name, arguments="", agent=context.agent
            )
            self._start_filler(run, tool)
        return approved


def consent_prompt(request: ApprovalRequest) -> str:
    """The question to a caller before a tool runs, with the arguments it will run with."""
    what = _said(request, MAX_PROMPT_CHARS)
    if len(what) > MAX_PROMPT_CHARS:
        # Each shorter, so that a long one hides none behind it; then the whole is cut.
        what = _cut(_said(request, _SHORT_CHARS), MAX_PROMPT_CHARS)
    return f"Please confirm: {what}. Press 1 for yes, or 2 for no."


def _said(request: ApprovalRequest, most: int) -> str:
    name = _words(request.tool.name)
    facts = _spoken(request.arguments, most)
    return f"{name}: {facts}" if facts else name


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most].rsplit(' ', 1)[0]}, and more"


def _spoken(value: object, most: int) -> str:
    """An argument of any kind in words; no part is longer than `most`."""
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
