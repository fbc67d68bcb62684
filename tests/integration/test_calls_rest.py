"""With an account, calls are ended at the carrier: by REST, and without it all the same."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import pytest

from app.calls import hang_up as closing
from app.calls.admission import switchboard
from app.dial.leg import EndedBy
from app.events import EndReason
from tests.fakes.carrier import FakeCall
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import until
from tests.integration.server import ALL_OVER_S, trunkline

ACCOUNT = "AC" + "1" * 32
AUTH_TOKEN = "an-auth-token-of-tests"
GOODBYE = Reply(audio_ms=300, text="Goodbye.", tool=("end_call", '{"reason": "task_complete"}'))


@dataclass
class RestServer:
    """Twilio's REST API as far as a hang-up sees it."""

    status: int = 200
    url: str = ""
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii")
            length = next(
                int(line.partition(":")[2])
                for line in head.splitlines()
                if line.lower().startswith("content-length")
            )
            body = (await reader.readexactly(length)).decode("ascii")
            self.requests.append((head.partition(" HTTP")[0], dict(parse_qsl(body))))
            answer: dict[str, Any] = {"sid": "CA", "status": "completed"}
            if self.status != 200:
                answer = {"code": 20404 if self.status == 404 else 20500, "message": "no"}
            text = json.dumps(answer)
            writer.write(
                f"HTTP/1.1 {self.status} X\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n{text}".encode("ascii")
            )
            await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def rest_server(status: int = 200) -> AsyncIterator[RestServer]:
    """A REST server that answers everything with one status."""
    rest = RestServer(status)
    server = await asyncio.start_server(rest.serve, "127.0.0.1", 0)
    rest.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield rest


def live(rest: RestServer) -> dict[str, dict[str, str]]:
    """Settings of a server with an account."""
    return {
        "twilio": {"account_sid": ACCOUNT, "auth_token": AUTH_TOKEN, "rest_url": rest.url},
        "server": {"public_url": "https://voice.example.com"},
    }


async def say_something(call: FakeCall) -> None:
    await call.hear_quiet(ms=300)
    await call.speak(0.4)


def hang_up_of(call: FakeCall) -> tuple[str, dict[str, str]]:
    path = f"POST /2010-04-01/Accounts/{ACCOUNT}/Calls/{call.identity.call_id}.json"
    return path, {"Status": "completed"}


async def test_an_agent_hangs_up_at_the_carrier() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), GOODBYE])
    async with (
        rest_server() as rest,
        voice,
        trunkline(voice, **live(rest)) as app,
        app.twilio() as twilio,
    ):
        call = await twilio.call(app.url)
        await say_something(call)
        assert (await call.ended()).by is EndedBy.AGENT
        assert (await app.ended(call)).reason is EndReason.AGENT_HUNG_UP
        assert call.ringing.order is not None
        assert call.ringing.order.url == "wss://voice.example.com/twilio/media-stream"
    assert rest.requests == [hang_up_of(call)]


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ({"max_duration_ms": 900}, EndReason.MAX_DURATION),
        ({"inactivity_after_ms": 0, "silence_ms": 300}, EndReason.SILENCE),
        ({"silence_ms": 300}, EndReason.SILENCE),
        ({}, EndReason.OPERATOR_HUNG_UP),
        ({}, EndReason.DRAINED),
    ],
)
async def test_the_carrier_hangs_up_at_every_limit(
    policy: dict[str, int], reason: EndReason
) -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with (
        rest_server() as rest,
        voice,
        trunkline(voice, policy=policy, limits={"drain_timeout_s": 0}, **live(rest)) as app,
        app.twilio() as twilio,
    ):
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        if reason is EndReason.OPERATOR_HUNG_UP:
            (live_call,) = app.switchboard._live
            assert app.switchboard.hang_up(live_call)
        elif reason is EndReason.DRAINED:
            app.trunkline.server.stop()
        assert (await call.ended()).by is EndedBy.AGENT
        assert (await app.ended(call)).reason is reason
    assert rest.requests == [hang_up_of(call)]


async def test_a_caller_who_has_hung_up_is_not_hung_up_on() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with (
        rest_server() as rest,
        voice,
        trunkline(voice, **live(rest)) as app,
        app.twilio() as twilio,
    ):
        call = await twilio.call(app.url)
        await say_something(call)
        await call.hang_up()
        await app.ended(call)
    assert rest.requests == []


async def test_a_call_that_is_gone_at_the_carrier_is_hung_up() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), GOODBYE])
    async with (
        rest_server(404) as rest,
        voice,
        trunkline(voice, **live(rest)) as app,
        app.twilio() as twilio,
    ):
        call = await twilio.call(app.url)
        await say_something(call)
        assert (await call.ended()).by is EndedBy.AGENT
        assert (await app.ended(call)).reason is EndReason.AGENT_HUNG_UP
    assert rest.requests == [hang_up_of(call)]


async def test_a_caller_whom_the_carrier_does_not_hang_up_leaves_after_the_goodbye() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), GOODBYE])
    async with (
        rest_server(403) as rest,
        voice,
        trunkline(voice, **live(rest)) as app,
        app.twilio() as twilio,
    ):
        call = await twilio.call(app.url)
        await say_something(call)
        await until(lambda: bool(rest.requests))
        await until(lambda: not voice.open_connections, within_s=ALL_OVER_S)
        assert not call.over  # what is behind the stream would speak of a lost connection
        assert (await call.hang_up()).by is EndedBy.CALLER
        assert (await app.ended(call)).reason is EndReason.AGENT_HUNG_UP


@pytest.mark.parametrize("status", [403, 503])
async def test_a_carrier_whose_rest_fails_still_loses_the_call_and_the_model_at_once(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "LINGER_S", 0.3)
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), GOODBYE])
    async with (
        rest_server(status) as rest,
        voice,
        trunkline(voice, **live(rest)) as app,
        app.twilio() as twilio,
    ):
        call = await twilio.call(app.url)
        await say_something(call)
        await until(lambda: bool(rest.requests))
        await until(lambda: not voice.open_connections, within_s=ALL_OVER_S)
        assert (await call.ended()).by is EndedBy.AGENT
        assert (await app.ended(call)).reason is EndReason.AGENT_HUNG_UP
    assert len(rest.requests) == (1 if status == 403 else 3)


async def test_a_caller_on_the_way_to_a_server_that_leaves_is_not_hung_up_on() -> None:
    voice = ScriptedVoiceServer()
    limits = {"drain_timeout_s": 0}
    async with (
        rest_server() as rest,
        voice,
        trunkline(voice, limits=limits, **live(rest)) as app,
        app.twilio() as twilio,
    ):
        ringing = await twilio.ring(app.url)
        app.trunkline.server.stop()
        assert (await app.ended(ringing)).reason is EndReason.DRAINED
    assert rest.requests == []


async def test_a_caller_without_a_goodbye_is_not_hung_up_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(switchboard, "GOODBYE_S", 0.3)
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), Reply(audio_ms=60_000)])
    limits = {"drain_timeout_s": 0}
    async with (
        rest_server() as rest,
        voice,
        trunkline(voice, limits=limits, **live(rest)) as app,
        app.twilio() as twilio,
    ):
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        app.trunkline.server.stop()
        assert (await call.ended()).by is EndedBy.LOST
        assert (await app.ended(call)).reason is EndReason.DRAINED
    assert rest.requests == []
