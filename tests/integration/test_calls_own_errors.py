"""An error of our own at any place of a call costs that call at most. One server, many calls.

Each call has its own fault, which stays from the moment it is set: at the end of the call too.
"""

from __future__ import annotations

import asyncio
import inspect
from operator import attrgetter
from typing import Any, Final

import pytest

from app.agents.tools.tool import tool
from app.calls.call import LOST, Call
from app.carrier.base import CallProgress
from app.dial.leg import EndedBy
from app.errors import ToolError
from app.events import EndReason
from tests.fakes.carrier import FakeCall, FakeTwilio
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import until
from tests.integration.server import App, trunkline

PLACES: Final = {
    "_conversation": (
        "on_tick on_stream on_caller_audio on_voice on_voice_lost on_call_over on_tool_done"
    ),
    "_conversation.floor": "rests heard_out quiet move update_timers",
    "_conversation.dialogue": "on_voice on_tick lines on_lost on_call_over",
    "_conversation.latency": "on_caller_stopped on_agent_audio turn_latency_ms",
    "_caller_leg": "on_audio on_event close clear",
    "_caller_leg.outbox": "put on_over",
    "_bill": "on_event cost usage carrier on_disconnected",
    "_timer": "on_event on_voice on_mark settle",
    "_to_voice": "put put_audio take",
    "_voice": "give_up",
    "_work": "run_tool on_voice after_voice close",
    "_transfers": "close",
    "tools": "run on_caller_speech on_over",
    "": "_on_record _on_spent",
}
FAULTS: Final = [(part, name) for part, names in PLACES.items() for name in names.split()]


def fail(*_: object, **__: object) -> None:
    raise ValueError("a fault of our own")


async def fail_later(*_: object, **__: object) -> None:
    fail()


@tool
async def look() -> str:
    """Look something up."""
    return "found"


async def test_an_error_at_any_place_of_a_call_costs_that_call_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    replies = [Reply(audio_ms=200), Reply(audio_ms=200, tool=("look", "{}")), Reply(audio_ms=200)]
    voice = ScriptedVoiceServer(replies=replies, heard=["Look."])
    sections: dict[str, Any] = {
        "tools": {"look": {"python": f"{__name__}:look"}},
        "limits": {"max_calls": 100},
    }
    async with voice, trunkline(voice, **sections) as app, app.twilio(1.0) as twilio:
        bystander = await twilio.call(app.url)
        async with asyncio.TaskGroup() as calls:
            for part, name in FAULTS:
                calls.create_task(suffer(app, twilio, part, name), name=f"{part}.{name}")
        await bystander.speak(0.4)
        await bystander.hear(ms=100)
        await bystander.hang_up()
        assert (await app.ended(bystander)).reason is EndReason.CALLER_HUNG_UP
        await until(lambda: not app.switchboard.active)
    assert "UnboundLocalError" not in caplog.text
    assert "AttributeError" not in caplog.text


async def suffer(app: App, twilio: FakeTwilio, part: str, name: str) -> None:
    """Go through a call in which one function fails, up to an end that everybody learns of."""
    call = await twilio.call(app.url)
    await call.hear_quiet(ms=100)
    live = live_call(app, call)
    place = attrgetter(part)(live) if part else live
    waits = inspect.iscoroutinefunction(getattr(place, name))
    setattr(place, name, fail_later if waits else fail)
    call.say(0.4)
    answered_ms = call.heard_ms + 300
    await until(lambda: call.over or call.heard_ms >= answered_ms, what=lambda: (part, name))
    if not call.over:
        await call.hang_up()
    end = await call.ended()
    if name != "_on_record":  # which is what tells everybody
        summary = await app.ended(call)
        hung_up = end.by is EndedBy.CALLER  # before the server was rid of the call
        if summary.reason is EndReason.INTERNAL_ERROR and name != "close" and not hung_up:
            assert end.close_code == LOST, (part, name, end)  # the carrier speaks to the caller
    await until(lambda: app.switchboard.call(live.call_id) is None, what=lambda: (part, name))


def live_call(app: App, call: FakeCall) -> Call:
    admission = app.switchboard._admissions[call.identity.call_id]
    assert isinstance(admission.call, Call)
    return admission.call


class _Stream:
    def close(self, code: int = 1000, reason: str = "") -> None: ...


class _Monitor:
    def on_caller(self, *_: object) -> None: ...
    def on_agent(self, *_: object) -> None: ...
    def on_clear(self) -> None: ...
    def on_over(self) -> None: ...


ARGUMENTS: Final[dict[str, Any]] = {
    "monitor": _Monitor(),
    "stream": _Stream(),
    "reason": EndReason.OPERATOR_HUNG_UP,
    "destination": "nobody",
    "progress": CallProgress.COMPLETED,
    "audio": b"\xff" * 160,
}


async def test_whoever_holds_a_call_that_is_over_may_ask_it_everything() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=200)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=100)
        live = live_call(app, call)
        await call.hang_up()
        await app.ended(call)
        await until(lambda: not app.switchboard.active and live.transfers is None)
        recorded: list[object] = []
        live._on_record = recorded.append
        for name, member in inspect.getmembers(Call):
            if name.startswith("_") or name == "run" or "voice" in name or name == "present":
                continue  # `run` is the call itself; those for the voice loop ended with it
            if isinstance(member, property):
                getattr(live, name)
                continue
            wanted = [
                each
                for each in list(inspect.signature(member).parameters.values())[1:]
                if each.default is each.empty
            ]
            given = {each.name: ARGUMENTS.get(each.name, "x") for each in wanted}
            await asked(live, name, given)
        assert not recorded
        assert live.status()["ending"]
        assert live.tools.decide("x", approved=True) is False


async def asked(call: Call, name: str, given: dict[str, Any]) -> None:
    try:
        answer = getattr(call, name)(**given)
        if inspect.isawaitable(answer):
            await answer
        elif callable(answer):
            answer()
    except ToolError as refused:
        assert refused.code == "call_over"
