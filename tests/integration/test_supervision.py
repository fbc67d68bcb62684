"""Supervisors on a real server: they listen in, whisper, take a call over and hand it back."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from app.calls.caller_leg import Monitor
from app.credentials.api_keys import Scope
from app.events import AgentSaid, CallId, OperatorActed
from app.framing import Passthrough
from app.realtime import events as ev
from app.web import supervisor_socket
from app.web.server.sockets import Messages, MessageTransport
from audio.format import PCMU_8K
from tests.fakes.carrier import FakeCall
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import TIME_LIMIT_S, time_limit, until
from tests.integration.server import App
from tests.integration.test_api import client, is_problem, new_key
from tests.integration.test_api_live import call_id_of, operated
from tests.integration.test_browser_phone import page

FRAME_MS = 20


class Page:
    """A supervisor's page: what has come to it."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.heard = {"caller": b"", "agent": b""}
        self.other: list[dict[str, Any]] = []

    async def send(self, **message: str) -> None:
        await self.socket.send(json.dumps(message))

    async def until(self, holds: Callable[[Page], object]) -> None:
        async with time_limit():
            while not holds(self):
                message = json.loads(await self.socket.recv())
                if message["event"] == "media":
                    self.heard[message["side"]] += base64.b64decode(message["payload"])
                else:
                    self.other.append(message)


async def ticket_for(operator: httpx2.AsyncClient) -> dict[str, Any]:
    answer = await operator.post(f"/calls/{await call_id_of(operator)}/supervise")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@contextlib.asynccontextmanager
async def supervised(
    *replies: Reply,
) -> AsyncIterator[tuple[App, FakeCall, Page, httpx2.AsyncClient, ScriptedVoiceServer]]:
    async with operated(*replies) as (app, operator, voice), app.twilio() as twilio:
        call = await twilio.call(app.url)
        await app.event(call, AgentSaid)
        given = await ticket_for(operator)
        async with page(app, given["ticket"], given["path"]) as opened:
            yield app, call, Page(opened), operator, voice
        if not call.over:
            await call.hang_up()
            await app.ended(call)


async def acted(app: App, call: FakeCall, action: str) -> OperatorActed:
    return await app.event(call, OperatorActed, lambda event: event.action == action)


async def test_a_supervisor_hears_both_sides_and_the_end() -> None:
    async with supervised(Reply(text="Yes?", audio_ms=400)) as (app, call, page, _, _voice):
        await acted(app, call, "listen")
        await call.speak(0.6)
        await page.until(lambda page: len(page.heard["agent"]) >= 8 * 400)
        loud = page.heard["caller"].replace(b"\xff", b"").replace(b"\x7f", b"")
        assert len(loud) > 8 * 300
        await call.hang_up()
        await page.until(lambda page: {"event": "over"} in page.other)


async def test_a_supervisor_is_told_when_the_agent_is_cut_off() -> None:
    async with supervised(Reply(text="A long story.", audio_ms=9_000)) as (_, call, page, _o, _v):
        await call.speak(0.6)
        await call.hear(ms=300)
        await call.speak(0.6)
        await page.until(lambda page: {"event": "clear"} in page.other)


async def test_a_whisper_reaches_the_agent_alone_who_says_nothing_because_of_it() -> None:
    async with supervised() as (app, call, _, operator, voice):
        responses = len(voice.latest.of(ev.ResponseCreate))
        path = f"/calls/{await call_id_of(operator)}/whisper"
        assert (await operator.post(path, json={"text": "Offer ten percent."})).status_code == 202
        await voice.until(lambda: any("ten percent" in str(item) for item in voice.items))
        [told] = [item for item in voice.items if "ten percent" in str(item)]
        assert told.role == "system"
        assert len(voice.latest.of(ev.ResponseCreate)) == responses
        assert (await acted(app, call, "whisper")).text == "Offer ten percent."


async def test_a_supervisor_speaks_in_the_agents_place_and_hands_back() -> None:
    replies = [Reply(text="A long story.", audio_ms=20_000), Reply(text="I am back.")]
    async with supervised(*replies) as (app, call, page, operator, voice):
        await call.speak(0.6)
        await page.until(lambda page: page.heard["agent"])
        await call.hear(ms=300)
        await page.send(event="take_over")
        await page.until(lambda page: {"event": "state", "speaks": True} in page.other)
        assert (await app.event(call, AgentSaid, lambda said: said.cut_off)).text == "A long story."
        await voice.until(lambda: not detection(voice).create_response)
        [shown] = (await operator.get("/live/calls")).json()["calls"]
        assert shown["taken_over"] is True

        before = call.counters.agent_bytes
        for _ in range(10):
            await page.send(event="media", payload=base64.b64encode(b"\x10" * 160).decode())
        await until(lambda: call.counters.agent_bytes >= before + 1600)
        turns = len(voice.latest.of(ev.ResponseCreate))
        await call.speak(0.6)  # the model would answer, were it asked
        await page.until(lambda page: len(page.heard["caller"]) > 8 * 600)
        assert len(voice.latest.of(ev.ResponseCreate)) == turns

        await page.send(event="hand_back")
        await page.until(lambda page: {"event": "state", "speaks": False} in page.other)
        await voice.until(lambda: detection(voice).create_response)
        await app.event(call, AgentSaid, lambda said: "back" in said.text)
        assert any("handed the call back" in str(item).replace("\\n", " ") for item in voice.items)


def detection(voice: ScriptedVoiceServer) -> Any:
    updates = voice.latest.of(ev.SessionUpdate)
    return [u.session.turn_detection for u in updates if u.session.turn_detection][-1]


async def test_a_supervisor_who_leaves_has_handed_back() -> None:
    async with supervised(Reply(text="I am back.")) as (app, call, page, _, _voice):
        await page.send(event="take_over")
        await page.until(lambda page: {"event": "state", "speaks": True} in page.other)
        await page.socket.close()
        await app.event(call, AgentSaid, lambda said: "back" in said.text)
        await acted(app, call, "hand_back")


async def test_only_one_supervisor_speaks() -> None:
    async with supervised() as (app, _, first, operator, _voice):
        given = await ticket_for(operator)
        async with page(app, given["ticket"], given["path"]) as opened:
            second = Page(opened)
            await first.send(event="take_over")
            await first.until(lambda page: {"event": "state", "speaks": True} in page.other)
            await second.send(event="take_over")
            await second.until(lambda page: {"event": "state", "speaks": False} in page.other)


async def test_a_page_that_does_not_read_is_cut_off_and_nothing_is_kept_for_it() -> None:
    transport, call = NeverReads(), Quiet()
    serving = asyncio.ensure_future(supervisor_socket.supervise(call, "a page", transport))
    await until(lambda: call.monitors)
    for _ in range(4):
        for monitor in call.monitors:
            monitor.on_agent(b"\xff" * 250_000, PCMU_8K)
    await asyncio.wait_for(serving, TIME_LIMIT_S)
    assert transport.closed
    assert not call.monitors


class NeverReads(MessageTransport):
    """A socket whose buffer is full, and stays so."""

    __slots__ = ("closed",)

    def __init__(self) -> None:
        self.closed = False

    def listen(self, messages: Messages, passthrough: Passthrough | None = None) -> None:
        pass

    def send(self, *texts: bytes) -> bool:
        return False

    def close(self, code: int = 1000, reason: str = "") -> None:
        self.closed = True


class Quiet:
    """A call in which nothing happens."""

    call_id = CallId("call_quiet")
    ending = False

    def __init__(self) -> None:
        self.monitors: list[Monitor] = []

    def listen_in(self, monitor: Monitor) -> Callable[[], None]:
        self.monitors.append(monitor)
        return lambda: self.monitors.remove(monitor)

    def take_over(self) -> bool:
        return False

    def hand_back(self) -> None:
        pass

    def speak(self, audio: bytes) -> None:
        pass

    def note_operator(self, action: str, by: str, text: str = "") -> None:
        pass


@pytest.mark.parametrize("text", ["no JSON", "[]", "1"])
async def test_a_page_that_sends_no_message_is_cut_off(text: str) -> None:
    async with supervised() as (_, _call, page, _operator, _voice), time_limit():
        await page.socket.send(text)
        with pytest.raises(ConnectionClosed):
            while True:
                await page.socket.recv()
        assert page.socket.close_code == 1008


async def test_only_an_unused_ticket_of_our_own_page_opens_a_supervisors_socket() -> None:
    async with operated() as (app, operator, _), app.twilio() as twilio:
        call = await twilio.call(app.url)
        await app.event(call, AgentSaid)
        used = await ticket_for(operator)
        path = used["path"]
        async with page(app, used["ticket"], path):
            pass
        odd = {
            "made up": ("a" * len(used["ticket"]), ""),
            "used": (used["ticket"], ""),
            "of another site": ((await ticket_for(operator))["ticket"], "https://other.example"),
            "of a file": ((await ticket_for(operator))["ticket"], "null"),
            "of no page": ((await ticket_for(operator))["ticket"], None),
        }
        for kind, (ticket, origin) in odd.items():
            with pytest.raises(InvalidStatus) as refused:
                await page(app, ticket, path, origin=origin)
            assert refused.value.response.status_code == 403, kind
        viewer = new_key(app, Scope.VIEWER, "a viewer")
        async with client(app, viewer) as stranger:
            answer = await stranger.post(f"/calls/{used['call_id']}/supervise")
            assert answer.status_code == 403
        await call.hang_up()


async def test_a_call_that_is_over_cannot_be_supervised() -> None:
    async with operated() as (app, operator, _), app.twilio() as twilio:
        call = await twilio.call(app.url)
        await app.event(call, AgentSaid)
        given = await ticket_for(operator)
        unused = await ticket_for(operator)
        async with page(app, given["ticket"], given["path"]):
            await call.hang_up()
            await app.ended(call)
        with pytest.raises(InvalidStatus):
            await page(app, given["ticket"], given["path"])
        async with page(app, unused["ticket"], unused["path"]) as opened, time_limit():
            with pytest.raises(ConnectionClosed):
                await opened.recv()
        answer = await operator.post(f"/calls/{given['call_id']}/supervise")
        assert is_problem(answer, 404, "call_not_live")
