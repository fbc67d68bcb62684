"""The model is out for some seconds, once or twice, in each way there is, and no call is lost.

One server serves calls to several models at once, each behind a gate of its own.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from app.calls.route import Diversion, Route
from app.carrier.base import IncomingCall
from app.events import EndReason
from app.realtime.connecting import GuardedModel
from app.realtime.websocket import WebSocketModel
from tests.chaos.outages import Gate, Outage
from tests.fakes.carrier import FakeCall, FakeTwilio
from tests.fakes.certificates import Authority
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import until
from tests.integration.server import App, trunkline

NUMBERS: Final = {kind: f"+1500555{at:04}" for at, kind in enumerate(Outage)}


def route_by_number(app: App, gates: dict[Outage, Gate]) -> None:
    """Have the call to each number talk with the model behind that gate."""
    models = {NUMBERS[kind]: GuardedModel(WebSocketModel(g.url)) for kind, g in gates.items()}
    route = app.switchboard._route

    def found(incoming: IncomingCall) -> Route | Diversion:
        usual = route(incoming)
        assert isinstance(usual, Route)
        return replace(usual, model=models[incoming.called_number])

    app.switchboard._route = found


def resolve_names(monkeypatch: pytest.MonkeyPatch, gates: dict[Outage, Gate]) -> None:
    """Find the names of gates on this machine, except while they are out."""
    resolve = socket.getaddrinfo
    clock = threading.Event()

    def getaddrinfo(host: Any, *rest: Any, **more: Any) -> Any:
        for kind in (Outage.NO_NAME, Outage.NAME_HANGS):
            if kind in gates and str(host) in gates[kind].url:
                while gates[kind].out:
                    if kind is Outage.NO_NAME:
                        raise socket.gaierror(socket.EAI_AGAIN, "try again")
                    clock.wait(0.05)
                host = "127.0.0.1"
        return resolve(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


async def place(app: App, twilio: FakeTwilio) -> list[FakeCall]:
    async def one(number: str) -> FakeCall:
        return await (await twilio.ring(app.url, called_number=number)).connect()

    return await asyncio.gather(*map(one, NUMBERS.values()))


def missing(calls: list[FakeCall], marks: dict[FakeCall, int]) -> set[str]:
    """The kinds whose callers have not heard the agent since; its sound has marks, ringing none."""
    kinds = {number: kind.value for kind, number in NUMBERS.items()}
    return {
        kinds[call.ringing.caller.called_number]
        for call in calls
        if call.counters.marks_received <= marks[call] or call.over
    }


async def all_hear(calls: list[FakeCall], marks: dict[FakeCall, int]) -> None:
    await until(lambda: not missing(calls, marks) or any(call.over for call in calls))
    assert not missing(calls, marks)


@pytest.mark.parametrize(
    ("when", "outages_s"),
    [("at the start", [4]), ("in mid-call", [4]), ("in mid-call", [1, 2])],
    ids=str,
)
async def test_outages_of_the_model_end_no_call(
    when: str, outages_s: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    tls = authority.server("localhost")
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(voice)
        upstream = int(voice.url.split(":")[2].split("/")[0])
        gates = {
            kind: await stack.enter_async_context(Gate(kind, upstream, tls)) for kind in Outage
        }
        resolve_names(monkeypatch, gates)
        app = await stack.enter_async_context(trunkline(voice, policy={"inactivity_after_ms": 0}))
        twilio = await stack.enter_async_context(app.twilio(1.0))
        route_by_number(app, gates)
        calls = [] if when == "at the start" else await place(app, twilio)
        for seconds in outages_s:
            for call in calls:
                await call.hear_quiet(ms=300)
                call.say(0.4)  # who waits for an answer hears the carrier's apology after 7.5 s
            marks = {call: call.counters.marks_received for call in calls}
            ends_s = asyncio.get_running_loop().time() + seconds
            for gate in gates.values():
                await gate.begin()
            if not calls:
                calls = await place(app, twilio)
                marks = dict.fromkeys(calls, 0)
            await asyncio.sleep(ends_s - asyncio.get_running_loop().time())
            for gate in gates.values():
                await gate.end()
            await all_hear(calls, marks)
        # Of several tries one was used, and the others are closed.
        await until(lambda: voice.open_connections == len(calls))
        for call in calls:
            await call.hang_up()
            assert (await app.ended(call)).reason is EndReason.CALLER_HUNG_UP
