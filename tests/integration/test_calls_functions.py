"""Operators' functions that end in no ordinary way cost at most their call. Whole servers."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app.agents.agent import Agent
from app.agents.guardrails.rules import Guardrail
from app.agents.handoffs import HandoffTo
from app.agents.tools.tool import tool
from app.events import AgentSaid, EndReason, Party, TaskAnswered, TaskStarted, ToolRan
from tests.fakes.carrier import FakeCall, FakeTwilio
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.web_service import WebService, answer
from tests.integration.analysis_site import analysis_of
from tests.integration.server import App, trunkline
from tests.integration.test_calls_analysis import section_of
from tests.integration.test_mcp_faults import OK as MCP_ANSWERS
from tests.integration.test_mcp_faults import SERVER as MCP_SERVER


class Own(BaseException):
    """An exception of an operator, of a kind that few people catch."""


def _exit(*_: object) -> Any:
    sys.exit(3)


def _interrupt(*_: object) -> Any:
    raise KeyboardInterrupt


def _own(*_: object) -> Any:
    raise Own


async def _cancel_itself(*_: object) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(60)


async def _ignore_cancellation(*_: object) -> None:
    """Go on for longer than a call that has ended waits for it."""
    for _turn in range(3):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.4)


def _block(*_: object) -> Any:
    released.wait(30)


def _compute(*_: object) -> Any:
    ends_s = time.monotonic() + 0.5
    while time.monotonic() < ends_s:
        pass


released = threading.Event()


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Let functions that block go on once their test is over."""
    released.clear()
    yield
    released.set()


def reception(place: str, fault: Callable[..., Any]) -> Agent:
    """An agent with a function in one place that does something odd."""
    options: dict[str, Any] = {}

    async def run() -> str:
        if place == "a tool":
            result = fault()
            if inspect.isawaitable(result):
                await result
        if place == "a task of a tool":
            left.append(asyncio.create_task(later()))
        return "done"

    left: list[asyncio.Task[Any]] = []

    async def later() -> None:
        fault()

    def in_thread() -> str:
        return str(fault())

    guards = (fault,) if place == "an input guardrail" else ()
    enabled = fault if place == "is_enabled" else True
    function = in_thread if place == "a tool in a thread" else run
    options["tools"] = (
        tool(name="act", description="Act.", input_guardrails=guards, is_enabled=enabled)(function),
    )
    if place == "a guardrail":
        options["guardrails"] = (Guardrail(name="rule", side=Party.AGENT, check=_async(fault)),)
    if place == "a handoff":
        options["handoffs"] = (HandoffTo(agent="billing", on_handoff=fault, tool_name="act"),)
        del options["tools"]
    written = fault if place == "instructions" else "Be brief."
    return Agent(name="reception", instructions=written, **options)


def _async(fault: Callable[..., Any]) -> Callable[..., Any]:
    async def check(*_: object) -> Any:
        return fault()

    return check


# Each way to end in each place is a test of app.threads; here are whole calls.
FAULTS: list[tuple[str, Callable[..., Any]]] = [
    ("a tool", _exit),
    ("a tool", _own),
    ("a tool in a thread", _exit),
    ("a task of a tool", _exit),
    ("a task of a tool", _interrupt),
    ("an input guardrail", _interrupt),
    ("is_enabled", _own),
    ("a guardrail", _exit),
    ("a handoff", _exit),
    ("instructions", _exit),
    ("a tool", _cancel_itself),
    ("a tool", _ignore_cancellation),
    ("a tool", _compute),
    ("a tool in a thread", _block),
    ("a tool in a thread", _compute),
]


@pytest.mark.parametrize(("place", "fault"), FAULTS)
async def test_a_function_that_ends_in_no_ordinary_way_costs_at_most_its_call(
    place: str, fault: Callable[..., Any]
) -> None:
    replies = [Reply(text="Hello.", audio_ms=200), Reply(text="Act.", tool=("act", "{}"))]
    voice = ScriptedVoiceServer(replies=replies, heard=["Go."])
    written = [reception(place, fault), Agent(name="billing", instructions="Be brief.")]
    async with voice, trunkline(voice, written=written) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await talks(app, call)
        await call.hang_up()
        await app.ended(call)
        await answers_the_next(app, twilio)


async def talks(app: App, call: FakeCall) -> None:
    await app.event(call, AgentSaid)
    await call.speak(0.6)
    await app.event(call, AgentSaid, lambda said: said.text == "Act.")


async def answers_the_next(app: App, twilio: FakeTwilio) -> None:
    """Nothing is left of a call: the next one is answered like the first."""
    following = await twilio.call(app.url)
    await following.hear(ms=100)
    await following.hang_up()
    assert (await app.ended(following)).reason is EndReason.CALLER_HUNG_UP


MALFORMED = {"result": {"content": "none"}}
REFUSED = {"error": {"code": -32603, "message": "no"}}


@pytest.mark.parametrize("fault", ["die", None, MALFORMED, REFUSED], ids=str)
async def test_a_tool_of_an_mcp_server_that_fails_costs_at_most_its_call(fault: Any) -> None:
    replies = [Reply(text="Hello.", audio_ms=200), Reply(text="Act.", tool=("look", "{}"))]
    voice = ScriptedVoiceServer(replies=replies, heard=["Go."])
    answers = json.dumps(MCP_ANSWERS | {"tools/call": fault})
    books = {"command": sys.executable, "args": ["-c", MCP_SERVER, answers]}
    servers = {"mcp_servers": {"books": books}}
    async with voice, trunkline(voice, **servers) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await talks(app, call)
        if fault is not None:
            await app.event(call, ToolRan)
        await call.hang_up()
        await app.ended(call)
        await answers_the_next(app, twilio)


def exits(task: str) -> str:
    """Do a task."""
    return str(_exit(task))


def fails(task: str) -> str:
    """Do a task."""
    return str(_own(task))


async def cancels_itself(task: str) -> None:
    """Do a task."""
    await _cancel_itself(task)


DELEGATES: dict[str, Any] = {
    "a tool that exits": exits,
    "a tool with an exception of its own": fails,
    "a tool that cancels itself": cancels_itself,
    "a webhook that answers nonsense": answer(b"{"),
}


@pytest.mark.parametrize("kind", DELEGATES)
async def test_a_delegate_that_fails_costs_at_most_its_task(kind: str) -> None:
    fault = DELEGATES[kind]
    script = answer() if kind.startswith("a tool") else fault
    book = analysis_of(intent="book", summary="Table.", task="a table")
    voice = ScriptedVoiceServer(replies=[Reply(text="Hello.", audio_ms=200), Reply(text="Act.")])
    async with WebService(book) as chat, WebService(script) as hook, voice:
        if kind.startswith("a tool"):
            section = section_of(chat, tasks=["book"], task_tool="act", task_argument="task")
            tools = {"act": {"python": f"{__name__}:{fault.__name__}"}}
        else:
            section, tools = section_of(chat, hook, tasks=["book"]), {}
        sections = {"analysis": section, "tools": tools}
        async with trunkline(voice, **sections) as app, app.twilio() as twilio:
            call = await twilio.call(app.url)
            await talks(app, call)
            await app.event(call, TaskStarted)
            assert (await app.event(call, TaskAnswered)).error
            await call.hang_up()
            assert (await app.ended(call)).reason is EndReason.CALLER_HUNG_UP
            await answers_the_next(app, twilio)
