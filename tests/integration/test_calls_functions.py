"""Operators' functions that end in no ordinary way cost at most their call. Whole servers."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from app.agents.agent import Agent
from app.agents.guardrails.rules import Guardrail
from app.agents.handoffs import HandoffTo
from app.agents.tools.tool import tool
from app.calls.route import Diversion, Route
from app.carrier.base import IncomingCall
from app.events import AgentSaid, EndReason, Party, TaskAnswered, TaskStarted, ToolRan
from app.realtime.events import SessionConfig, Transcription
from tests.fakes.carrier import FakeCall, FakeTwilio
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.web_service import Asked, WebService, answer
from tests.integration.analysis_site import analysis_of
from tests.integration.server import App, trunkline
from tests.integration.test_calls_analysis import section_of
from tests.integration.test_command import live
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


def computing(seconds: float) -> Callable[..., Any]:
    """Take so much of a processor, however many share it."""

    def compute(*_: object) -> None:
        ends_s = time.thread_time() + seconds
        while time.thread_time() < ends_s:
            pass

    return compute


released = threading.Event()


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Let functions that block go on once their test is over."""
    released.clear()
    yield
    released.set()


def awaiting(fault: Callable[..., Any]) -> Callable[..., Any]:
    """The fault in an async function, whatever kind of function it is."""

    async def run(*_: object) -> Any:
        result = fault()
        return await result if inspect.isawaitable(result) else result

    return run


TRANSCRIBED: Final = SessionConfig(transcription=Transcription(model="any"))
"""Else the agent's lines wait for three seconds for words of the caller that never come."""


def reception(name: str, place: str, fault: Callable[..., Any]) -> Agent:
    """An agent with a function in one place that does something odd."""
    options: dict[str, Any] = {}
    left: list[asyncio.Task[Any]] = []

    async def run() -> str:
        if place == "a tool":
            await awaiting(fault)()
        if place == "a task of a tool":
            left.append(asyncio.create_task(awaiting(fault)()))
        return "done"

    def in_thread() -> str:
        return str(fault())

    guards = (fault,) if place == "an input guardrail" else ()
    enabled = fault if place == "is_enabled" else True
    function = in_thread if place == "a tool in a thread" else run
    options["tools"] = (
        tool(name="act", description="Act.", input_guardrails=guards, is_enabled=enabled)(function),
    )
    if place in ("a guardrail", "a guardrail in a thread"):
        check = fault if place == "a guardrail in a thread" else awaiting(fault)
        options["guardrails"] = (Guardrail(name="rule", side=Party.AGENT, check=check),)
    if place == "a handoff":
        options["handoffs"] = (HandoffTo(agent="billing", on_handoff=fault, tool_name="act"),)
        del options["tools"]
    written = fault if place == "instructions" else "Be brief."
    return Agent(name=name, instructions=written, session=TRANSCRIBED, **options)


def answer_by_number(app: App, numbers: Mapping[str, Agent]) -> None:
    """Have the call to each of these numbers answered by that agent."""
    route = app.switchboard._route

    def found(incoming: IncomingCall) -> Route | Diversion:
        usual = route(incoming)
        assert isinstance(usual, Route)
        return replace(usual, agent=numbers.get(incoming.called_number, usual.agent))

    app.switchboard._route = found


RAISE: Final = (_exit, _interrupt, _own)
ASYNC: Final = (*RAISE, _cancel_itself, _ignore_cancellation)
IN_THREAD: Final = (*RAISE, _block)
FAULTS: Final[dict[str, Sequence[Callable[..., Any]]]] = {
    "a tool": ASYNC,
    "a task of a tool": ASYNC,
    "a guardrail": ASYNC,
    "a handoff": (*ASYNC, _block),
    "an input guardrail": (*ASYNC, _block),
    "a tool in a thread": IN_THREAD,
    "a guardrail in a thread": IN_THREAD,
    "is_enabled": IN_THREAD,
    "instructions": IN_THREAD,
}


async def test_a_function_that_ends_in_no_ordinary_way_costs_at_most_its_call() -> None:
    each = [(place, fault) for place, faults in FAULTS.items() for fault in faults]
    written = [
        Agent(name=name, instructions="Be brief.", session=TRANSCRIBED)
        for name in ("reception", "billing")
    ]
    written += [reception(f"agent{at}", *one) for at, one in enumerate(each)]
    numbers = {f"+1500555{at:04}": agent for at, agent in enumerate(written[2:])}
    replies = [Reply(text="Hello.", audio_ms=200), Reply(text="Act.", tool=("act", "{}"))]
    replies.append(Reply(text="Done."))
    voice = ScriptedVoiceServer(replies=replies, heard=["Go."])
    site = trunkline(voice, written=written)
    async with voice, site as app, app.twilio(1.0) as twilio:

        async def suffer(number: str) -> None:
            call = await (await twilio.ring(app.url, called_number=number)).connect()
            await talks(app, call)
            await call.hang_up()
            await app.ended(call)

        answer_by_number(app, numbers)
        bystander = await twilio.call(app.url)
        async with asyncio.TaskGroup() as calls:
            for (place, fault), number in zip(each, numbers, strict=True):
                calls.create_task(suffer(number), name=f"{fault.__name__} in {place}")
        assert not bystander.over
        await talks(app, bystander)
        await bystander.hang_up()
        await answers_the_next(app, twilio)


async def test_two_seconds_of_computing_end_no_other_call() -> None:
    replies = [Reply(text="Hello.", audio_ms=200), Reply(text="Act.", tool=("act", "{}"))]
    replies.append(Reply(text="Done."))
    voice = ScriptedVoiceServer(replies=replies, heard=["Go."])
    written = [Agent(name="reception", instructions="Be brief.", session=TRANSCRIBED)]
    written += [
        reception("one", "a tool", computing(2)),
        reception("two", "a tool in a thread", computing(0.5)),
        reception("three", "instructions", computing(0.3)),
        reception("four", "is_enabled", computing(0.3)),
    ]
    numbers = {f"+1500555000{at}": agent for at, agent in enumerate(written)}
    site = trunkline(voice, written=written)
    async with voice, site as app, app.twilio(1.0) as twilio:
        answer_by_number(app, numbers)
        ringing = [await twilio.ring(app.url, called_number=number) for number in numbers]
        bystander, *busy = [await each.connect() for each in ringing]
        async with asyncio.TaskGroup() as talking:
            for call in busy:
                talking.create_task(talks(app, call))
        for call in busy[:2]:  # the others hold no tool up
            await app.event(call, ToolRan)
        await talks(app, bystander)
        for call in (bystander, *busy):
            await call.hang_up()
            assert (await app.ended(call)).reason is EndReason.CALLER_HUNG_UP


PAST_ITS_TASK = """
import asyncio
import signal
import sys

from trunkline import Agent, tool


async def exits():
    sys.exit(3)


FAULTS = [
    lambda loop: loop.call_soon(sys.exit, 3),
    lambda loop: loop.call_later(0.01, sys.exit, 3),
    lambda loop: loop.call_soon_threadsafe(sys.exit, 3),
    lambda loop: asyncio.Task(exits(), loop=loop),
    lambda loop: loop.create_task(asyncio.sleep(0)).add_done_callback(sys.exit),
    lambda loop: loop.run_in_executor(None, print).add_done_callback(sys.exit),
    lambda loop: loop.stop(),
    lambda loop: signal.signal(signal.SIGTERM, signal.SIG_IGN),
]


@tool
async def act() -> str:
    \"\"\"Act.\"\"\"
    FAULTS.pop()(asyncio.get_running_loop())
    await asyncio.sleep(0.05)
    return f"{len(FAULTS)} are left"


desk = Agent(name="Desk", instructions="Be brief.", tools=[act])
"""
"""Faults of functions in callbacks and tasks that nobody contains."""


async def test_a_function_cannot_end_the_loop_from_outside_of_its_task_nor_keep_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "my_faulty_agents.py").write_text(PAST_ITS_TASK)
    replies = [Reply(text="Hello.", audio_ms=200), Reply(text="Act.", tool=("act", "{}"))]
    voice = ScriptedVoiceServer(replies=[*replies, Reply(text="Done.")], heard=["Go."])
    patient = {"inactivity": {"after_s": 0}, "silence_s": 3600}  # with the bystander, who waits
    running = live(tmp_path, voice, "my_faulty_agents:desk", store="off", limits=patient)
    async with voice, running as (server, phone, _api):
        bystander = await phone.call(server.url)
        for times in range(1, 9):
            call = await phone.call(server.url)
            await call.hear_quiet(ms=100)
            await call.speak(0.6)
            await server.until_logged("tool ran", times=times)
            await call.hang_up()
            await server.until_logged("call ended", times=times)
        assert not bystander.over
        await bystander.hang_up()
        await server.until_logged("signal handler was replaced")
        server.process.send_signal(signal.SIGTERM)
        assert await server.ended() == 0
    outcomes = [line for line in server.lines() if line["message"] == "tool ran"]
    assert [line.get("error", "") for line in outcomes] == [""] * 8


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


async def hang(_: Asked, writer: asyncio.StreamWriter) -> None:
    """Say nothing for longer than anybody waits."""
    await asyncio.sleep(1)


async def reset(_: Asked, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


DELEGATES: dict[str, Any] = {
    "a tool that exits": exits,
    "a tool with an exception of its own": fails,
    "a tool that cancels itself": cancels_itself,
    "a webhook that answers nonsense": answer(b"{"),
    "a webhook that hangs up": reset,
    "a webhook that does not answer": hang,
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
            section["webhook"] |= {"attempts": 1, "timeout_ms": 300}
        sections = {"analysis": section, "tools": tools}
        async with trunkline(voice, **sections) as app, app.twilio() as twilio:
            call = await twilio.call(app.url)
            await talks(app, call)
            await app.event(call, TaskStarted)
            assert (await app.event(call, TaskAnswered)).error
            await call.hang_up()
            assert (await app.ended(call)).reason is EndReason.CALLER_HUNG_UP
            await answers_the_next(app, twilio)
