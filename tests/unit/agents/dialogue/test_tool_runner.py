"""Tools run beside the conversation: each to its answer, none beyond its end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.agents.agent import Agent
from app.agents.dialogue.actions import RunTool
from app.agents.dialogue.active_agent import ActiveAgent
from app.agents.dialogue.tool_runner import ToolRunner, consent_prompt
from app.agents.guardrails.rules import Stop, Warn
from app.agents.instructions import CallFacts
from app.agents.roster import Roster
from app.agents.tools.invocation import ApprovalRequest
from app.agents.tools.tool import Approval, Tool, ToolContext, ToolResult
from app.events import CallId, Party
from app.realtime.events import SessionConfig
from tests.fakes.waiting import time_limit

ANY: Mapping[str, Any] = {"type": "object"}


class RecordingListener:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.results: dict[str, ToolResult] = {}
        self.fillers: list[str] = []
        self.asked_while_loud = 0
        self.loud = 0
        self.approvals: list[ApprovalRequest] = []
        self._changed = asyncio.Event()

    def on_tool_result(self, run: RunTool, result: ToolResult) -> None:
        assert run.tool_call_id not in self.results
        self.results[run.tool_call_id] = result
        self._changed.set()

    def on_tool_slow(self, run: RunTool, filler: str) -> bool:
        if self.loud:
            self.loud -= 1
            self.asked_while_loud += 1
            return False
        self.fillers.append(filler)
        self._changed.set()
        return True

    def on_approval_wanted(self, request: ApprovalRequest) -> None:
        self.approvals.append(request)
        self._changed.set()

    async def until(self, count: int, what: str = "results") -> None:
        async with time_limit():
            while len(getattr(self, what)) < count:
                self._changed.clear()
                await self._changed.wait()


def tool(name: str, run: Any, **options: Any) -> Tool:
    return Tool(name=name, description="Does it.", parameters=ANY, run=run, **options)


def call_of(
    name: str, tool_call_id: str = "c1", agent: str = "a", arguments: str = "{}"
) -> RunTool:
    return RunTool(tool_call_id=tool_call_id, name=name, arguments=arguments, agent=agent)


def runner_of(agent: Agent, listener: RecordingListener) -> ToolRunner:
    facts = CallFacts(call_id=CallId("call"), caller_number="+1", variables={"vip": "yes"})
    return ToolRunner(ActiveAgent(agent, Roster([agent]), facts, str), listener)


@asynccontextmanager
async def running(
    *tools: Tool, **agent: Any
) -> AsyncIterator[tuple[ToolRunner, RecordingListener, Any]]:
    listener = RecordingListener()
    runner = runner_of(Agent(name="a", session=SessionConfig(), tools=tools, **agent), listener)
    async with asyncio.TaskGroup() as tasks:
        yield runner, listener, tasks


async def forever(context: ToolContext, arguments: Mapping[str, Any]) -> None:
    await asyncio.Event().wait()


async def quick(context: ToolContext, arguments: Mapping[str, Any]) -> str:
    return "done"


async def test_tools_run_at_the_same_time() -> None:
    met = asyncio.Barrier(2)

    async def meet(context: ToolContext, arguments: Mapping[str, Any]) -> str:
        await met.wait()
        return context.tool_call_id

    async with running(tool("meet", meet)) as (runner, listener, tasks):
        runner.run(call_of("meet", "c1"), tasks)
        runner.run(call_of("meet", "c2"), tasks)
        await listener.until(2)
    assert listener.results["c2"].output == '{"result": "c2"}'


async def test_a_tool_knows_its_call_and_its_agents_variables_only() -> None:
    seen: list[ToolContext] = []

    async def look(context: ToolContext, arguments: Mapping[str, Any]) -> None:
        seen.append(context)

    async with running(tool("look", look), variables={"vip": "no", "tier": "1"}) as started:
        runner, listener, tasks = started
        runner.run(call_of("look"), tasks)
        await listener.until(1)
    assert seen[0].agent == "a"
    assert seen[0].caller_number == "+1"
    assert seen[0].variables == {"vip": "yes", "tier": "1"}


async def test_another_agents_tools_cannot_be_called() -> None:
    async with running(tool("look", quick)) as (runner, listener, tasks):
        runner.run(call_of("look", agent="b"), tasks)
        await listener.until(1)
    assert listener.results["c1"].error == "unknown_tool"


async def test_a_slow_tool_is_reported_once_and_a_quick_one_never() -> None:
    slow = tool("slow", forever, filler="One moment.", filler_after_ms=1, timeout_ms=30)
    async with running(slow, tool("quick", quick, filler="Never.")) as (runner, listener, tasks):
        runner.run(call_of("quick", "c1"), tasks)
        runner.run(call_of("slow", "c2"), tasks)
        await listener.until(2)
    assert listener.fillers == ["One moment."]
    assert listener.results["c2"].error == "tool_timeout"


async def test_a_filler_that_finds_somebody_speaking_is_tried_again_until_the_tool_is_done() -> (
    None
):
    slow = tool("slow", forever, filler="One moment.", filler_after_ms=1, interruptible=True)
    async with running(slow) as (runner, listener, tasks):
        listener.loud = 2
        runner.run(call_of("slow"), tasks)
        await listener.until(1, "fillers")
        runner.on_caller_speech()
    assert listener.asked_while_loud == 2
    assert listener.fillers == ["One moment."]


async def test_nothing_is_heard_of_tools_when_the_conversation_is_over() -> None:
    over = RuntimeError("over")
    listener = RecordingListener()
    agent = Agent(name="a", session=SessionConfig(), tools=(tool("slow", forever),))
    runner = runner_of(agent, listener)
    try:
        async with asyncio.TaskGroup() as tasks:
            runner.run(call_of("slow"), tasks)
            await asyncio.sleep(0)
            raise over
    except* RuntimeError:
        pass
    assert listener.results == {}


async def test_an_interruptible_tool_is_cancelled_when_the_caller_goes_on() -> None:
    tools = (tool("search", forever, interruptible=True), tool("book", quick))
    async with running(*tools) as (runner, listener, tasks):
        runner.run(call_of("search", "c1"), tasks)
        await asyncio.sleep(0)
        runner.on_caller_speech()
        runner.run(call_of("book", "c2"), tasks)
        await listener.until(2)
    given_up = listener.results["c1"]
    assert (given_up.error, given_up.reply) == ("interrupted", False)
    assert listener.results["c2"].error == ""


async def test_tools_begun_for_words_that_are_stopped_are_cancelled_where_that_is_safe() -> None:
    tools = (
        tool("search", forever, interruptible=True),
        tool("pay", quick, approval=Approval.OPERATOR),
        tool("book", forever, timeout_ms=50),
    )
    async with running(*tools) as (runner, listener, tasks):
        for tool_call_id, name in enumerate(("search", "pay", "book")):
            runner.run(call_of(name, str(tool_call_id)), tasks)
        await listener.until(1, "approvals")
        runner.on_guardrail_result(Party.AGENT, Stop("No.", "advice"))
        runner.on_guardrail_result(Party.CALLER, Warn("advice"))
        assert listener.results == {}
        runner.on_guardrail_result(Party.CALLER, Stop("No.", "advice"))
        await listener.until(3)
    errors = {name: result.error for name, result in listener.results.items()}
    assert errors == {"0": "interrupted", "1": "not_approved", "2": "tool_timeout"}


async def test_a_tool_waits_for_approval_and_runs_once_it_has_it() -> None:
    async with running(tool("pay", quick, approval=Approval.OPERATOR)) as (runner, listener, tasks):
        runner.run(call_of("pay", arguments='{"amount": 3}'), tasks)
        await listener.until(1, "approvals")
        assert listener.results == {}
        assert listener.approvals[0].arguments == {"amount": 3}
        assert runner.decide("c1", approved=True)
        assert not runner.decide("c1", approved=False)
        await listener.until(1)
    assert listener.results["c1"].error == ""
    assert not runner.decide("c1", approved=True)


async def test_a_tool_that_is_not_approved_does_not_run() -> None:
    ran = []

    async def pay(context: ToolContext, arguments: Mapping[str, Any]) -> None:
        ran.append(context)

    async with running(tool("pay", pay, approval=Approval.OPERATOR)) as (runner, listener, tasks):
        runner.run(call_of("pay"), tasks)
        await listener.until(1, "approvals")
        assert runner.decide("c1", approved=False)
        await listener.until(1)
    assert json.loads(listener.results["c1"].output)["code"] == "not_approved"
    assert ran == []


async def test_a_caller_is_told_that_an_operator_takes_their_time() -> None:
    slow = {"filler": "One moment.", "filler_after_ms": 1}
    pay = tool("pay", quick, approval=Approval.OPERATOR, **slow)
    sign = tool("sign", quick, approval=Approval.KEYPAD, **slow)  # here it is they who are asked
    async with running(pay, sign) as (runner, listener, tasks):
        runner.run(call_of("sign", "c1"), tasks)
        runner.run(call_of("pay", "c2"), tasks)
        await listener.until(1, "fillers")
        assert [w.tool.name for w in runner.waiting(Approval.OPERATOR)] == ["pay"]
        for tool_call_id in ("c1", "c2"):
            runner.decide(tool_call_id, approved=True)
        await listener.until(2)
        assert runner.waiting(Approval.OPERATOR) == []
    assert listener.fillers == ["One moment."]


async def test_approval_for_always_is_asked_for_once() -> None:
    async with running(tool("pay", quick, approval=Approval.OPERATOR)) as (runner, listener, tasks):
        runner.run(call_of("pay", "c1"), tasks)
        await listener.until(1, "approvals")
        runner.decide("c1", approved=True, always=True)
        await listener.until(1)
        runner.run(call_of("pay", "c2"), tasks)
        await listener.until(2)
    assert len(listener.approvals) == 1


async def test_the_budget_of_a_call_survives_a_change_of_agents() -> None:
    async with running(tool("look", quick)) as (runner, listener, tasks):
        runner.run(call_of("look"), tasks)
        await listener.until(1)
        other = Agent(name="b", session=SessionConfig(), tools=(tool("look", quick),))
        runner._active.roster = Roster([other])
        runner.run(call_of("look", "c2", agent="b"), tasks)
        await listener.until(2)
    assert listener.results["c2"].error == ""


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ({"day": "Monday", "at_hour": 9}, "book appointment: day Monday, at hour 9"),
        ({}, "book appointment"),
        (
            {"seats": [{"row": 2, "aisle": True}, {"row": 3}], "note": None},
            "book appointment: seats row 2, aisle yes, row 3, note nothing",
        ),
        (
            {"note": "x " * 400, "day": "Monday", "price": 5_000},
            f"book appointment: note {'x ' * 29}x, and more, day Monday, price 5000",
        ),
        ({"notes": ["x"] * 400}, f"book appointment: notes {'x, ' * 91}x,, and more"),
    ],
)
def test_a_caller_is_asked_with_the_arguments_of_the_tool(
    arguments: dict[str, Any], asked: str
) -> None:
    request = ApprovalRequest(
        tool=tool("book_appointment", quick),
        arguments=arguments,
        context=ToolContext(call_id=CallId("call"), tool_call_id="c1"),
    )
    prompt = f"Please confirm: {asked}. Press 1 for yes, or 2 for no."
    assert consent_prompt(request) == prompt
