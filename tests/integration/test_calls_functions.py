"""Operators' functions that end in no ordinary way cost at most their call. Whole servers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest

from app.agents.agent import Agent
from app.agents.guardrails.rules import Guardrail
from app.agents.handoffs import HandoffTo
from app.agents.tools.tool import tool
from app.events import AgentSaid, EndReason, Party
from tests.fakes.carrier import FakeCall
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.integration.server import App, trunkline


class Own(BaseException):
    """An exception of an operator, of a kind that few people catch."""


def _exit(*_: object) -> Any:
    sys.exit(3)


def _interrupt(*_: object) -> Any:
    raise KeyboardInterrupt


def _own(*_: object) -> Any:
    raise Own


def reception(place: str, fault: Callable[..., Any]) -> Agent:
    """An agent with a function in one place that does something odd."""
    options: dict[str, Any] = {}

    async def run() -> str:
        if place == "a tool":
            fault()
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
        # Nothing is left of it: the next call is answered like the first.
        following = await twilio.call(app.url)
        await following.hear(ms=100)
        await following.hang_up()
        assert (await app.ended(following)).reason is EndReason.CALLER_HUNG_UP


async def talks(app: App, call: FakeCall) -> None:
    await app.event(call, AgentSaid)
    await call.speak(0.6)
    await app.event(call, AgentSaid, lambda said: said.text == "Act.")
