"""Live calls over the API: what an operator sees, and has them do, on a real server."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import httpx2
import pytest

from app.calls.observers.live_feed import KEPT_EVENTS
from app.credentials.api_keys import Scope
from app.events import (
    AgentSaid,
    CallEnded,
    CallerSaid,
    EndReason,
    OperatorActed,
    TransferEnded,
    TransferStarted,
)
from app.realtime import events as ev
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import time_limit
from tests.integration.server import GREETING, App, trunkline
from tests.integration.test_api import TOKEN, client, is_problem, new_key

LONG_MS = 20_000


def said(text: str, event: AgentSaid) -> bool:
    return text in event.text


async def call_id_of(operator: httpx2.AsyncClient) -> str:
    [call] = (await operator.get("/live/calls")).json()["calls"]
    return str(call["call_id"])


@contextlib.asynccontextmanager
async def operated(
    *replies: Reply, **sections: Any
) -> AsyncIterator[tuple[App, httpx2.AsyncClient, ScriptedVoiceServer]]:
    async with (
        ScriptedVoiceServer(replies=[Reply(text=GREETING, audio_ms=300), *replies]) as voice,
        trunkline(voice, **{"server": TOKEN, **sections}) as app,
        client(app, new_key(app, Scope.OPERATOR, "the operator")) as operator,
    ):
        yield app, operator, voice


async def test_a_live_call_is_listed_with_its_facts() -> None:
    async with operated() as (app, operator, _), app.twilio() as twilio:
        assert (await operator.get("/live/calls")).json() == {"calls": []}
        call = await twilio.call(app.url)
        await app.event(call, AgentSaid)
        [shown] = (await operator.get("/live/calls")).json()["calls"]
        assert shown["caller_number"] == call.ringing.caller.caller_number
        assert shown["carrier_call_id"] == call.ringing.caller.call_id
        assert (shown["turn"], shown["caller"], shown["model_connected"]) == (
            "idle",
            "attached",
            True,
        )
        assert shown["started_at"].endswith("Z")
        pause = f"/calls/{shown['call_id']}/pause_recording"
        is_problem(await operator.post(pause, json={"paused": True}), 409, "not_recorded")
        await call.hang_up()
        await app.ended(call)
        assert (await operator.get("/live/calls")).json() == {"calls": []}


@pytest.mark.parametrize("mode", ["exactly", "own_words", "instruction"])
async def test_the_agent_says_what_the_operator_wants(mode: str) -> None:
    words = Reply(text="Mr. Lee is on his way.", audio_ms=200)
    async with operated(words) as (app, operator, voice), app.twilio() as twilio:
        call = await twilio.call(app.url)
        await app.event(call, AgentSaid)
        path = f"/calls/{await call_id_of(operator)}/say"
        answer = await operator.post(path, json={"text": "Mr. Lee comes.", "mode": mode})
        assert answer.status_code == 202, answer.text
        await app.event(call, AgentSaid, partial(said, "Mr. Lee"))
        asked = voice.latest.of(ev.ResponseCreate)[-1]
        told = [str(create.item) for create in voice.latest.of(ev.ItemCreate)]
        assert ("Mr. Lee comes." in str(asked)) is (mode != "instruction")
        assert any("Mr. Lee comes." in item for item in told) is (mode != "exactly")
        acted = await app.event(call, OperatorActed)
        assert (acted.action, acted.by, acted.text) == ("say", "the operator", "Mr. Lee comes.")
        await call.hang_up()
        await app.ended(call)
        is_problem(await operator.post(path, json={"text": "Too late."}), 404, "call_not_live")


async def test_an_interrupted_agent_falls_silent_and_the_call_goes_on() -> None:
    replies = [Reply(text="A long story.", audio_ms=LONG_MS), Reply(text="Yes?", audio_ms=200)]
    async with operated(*replies) as (app, operator, _), app.twilio() as twilio:
        call = await twilio.call(app.url)
        await app.event(call, AgentSaid)
        await call.speak(0.6)
        await call.hear(ms=300)
        call_id = await call_id_of(operator)
        assert (await operator.post(f"/calls/{call_id}/interrupt")).status_code == 202
        cut = await app.event(call, AgentSaid, lambda event: event.cut_off)
        assert cut.text == "A long story."
        assert len(cut.heard_text) < len(cut.text)
        await call.speak(0.6)
        await app.event(call, AgentSaid, partial(said, "Yes?"))
        await call.hang_up()
        await app.ended(call)


@pytest.mark.parametrize("goodbye", [True, False])
async def test_an_operator_ends_a_call(goodbye: bool) -> None:
    bye = Reply(text="Goodbye.", audio_ms=200)
    async with operated(bye) as (app, operator, _), app.twilio() as twilio:
        call = await twilio.call(app.url)
        await app.event(call, AgentSaid)
        path = f"/calls/{await call_id_of(operator)}/hang_up"
        again = {"idempotency-key": "once"}
        for _ in range(2):
            answer = await operator.post(path, json={"goodbye": goodbye}, headers=again)
            assert answer.status_code == 202
        ended = await app.event(call, CallEnded)
        assert ended.summary.reason is EndReason.OPERATOR_HUNG_UP
        spoken = [e.text for e in await app.events(call) if isinstance(e, AgentSaid)]
        assert any("Goodbye." in words for words in spoken) is goodbye
        acted = [e for e in await app.events(call) if isinstance(e, OperatorActed)]
        assert [event.action for event in acted] == ["hang_up"]
        await operator.post(path)  # without a body, and without a call


async def test_an_operator_transfers_a_caller_by_the_name_of_a_destination() -> None:
    destinations = {"sales": {"number": "+15005550099"}}
    reception = {"reception": {"tools": ["transfer_call"]}}
    sections = {"destinations": destinations, "agents": reception}
    async with operated(**sections) as (app, operator, _), app.twilio() as twilio:
        call = await twilio.call(app.url)
        await app.event(call, AgentSaid)
        path = f"/calls/{await call_id_of(operator)}/transfer"
        answer = await operator.post(path, json={"destination": "elswhere"})
        is_problem(answer, 422, "destination_unknown")
        answer = await operator.post(path, json={"destination": "sales"})
        assert answer.status_code == 202, answer.text
        started = await app.event(call, TransferStarted)
        assert started.destination == "sales"
        # Without an account there is no REST API that could do it: the events say so.
        ended = await app.event(call, TransferEnded)
        assert ended.outcome == "failed"
        await call.hang_up()
        await app.ended(call)


async def read_events(
    operator: httpx2.AsyncClient,
    count: int,
    path: str = "/live",
    last_id: str | None = None,
    follows: asyncio.Event | None = None,
) -> list[dict[str, str]]:
    """So many events of the feed, each as its fields."""
    headers = {} if last_id is None else {"last-event-id": last_id}
    found: list[dict[str, str]] = []
    fields: dict[str, str] = {}
    async with time_limit(), operator.stream("GET", path, headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        if follows is not None:
            follows.set()
        async for line in answer.aiter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
                continue
            if "data" in fields:
                found.append(fields)
            fields = {}
            if len(found) == count:
                break
    return found


async def test_the_feed_tells_what_happens_and_goes_on_after_a_break() -> None:
    async with operated() as (app, operator, _), app.twilio() as twilio:
        follows = asyncio.Event()
        reading = asyncio.create_task(read_events(operator, 3, follows=follows))
        await follows.wait()
        call = await twilio.call(app.url)
        first = await reading
        data = [json.loads(event["data"]) for event in first]
        assert data[0]["type"] == first[0]["event"] == "call_admitted"
        assert data[0]["at"].endswith("Z")
        await app.event(call, AgentSaid)
        await call.speak(0.4)
        await app.event(call, CallerSaid)
        await call.hang_up()
        await app.ended(call)
        rest = await read_events(operator, 3, last_id=first[-1]["id"])
        numbers = [int(event["id"].partition("-")[2]) for event in first + rest]
        assert numbers == [*range(numbers[0], numbers[0] + 6)]
        call_id = data[0]["call_id"]
        again = await read_events(
            operator, 2, f"/live?call_id={call_id}&last_event_id={first[0]['id']}"
        )
        assert [event["id"] for event in again] == [event["id"] for event in first[1:]]
        for unknown in ("00000000-1", "x", f"{first[0]['id'].partition('-')[0]}-99999"):
            [gap] = await read_events(operator, 1, last_id=unknown)
            assert (gap["event"], gap["data"]) == ("gap", "{}")


async def test_nothing_is_held_back_for_a_console_that_does_not_read() -> None:
    async with operated() as (app, operator, _):
        key = operator.headers["authorization"]
        lines = (
            "GET /api/v1/live HTTP/1.1",
            f"Host: {operator.base_url.host}",
            f"Authorization: {key}",
        )
        reader, writer = await asyncio.open_connection(
            operator.base_url.host, operator.base_url.port, limit=4_096
        )  # fmt: skip
        writer.write("\r\n".join((*lines, "", "")).encode())
        await reader.readuntil(b"retry: ")  # and reads no more
        words = "x" * 4_000
        for number in range(4 * KEPT_EVENTS):  # 32 MB, as for all who follow
            app.trunkline.feed.put({"type": "call_admitted", "number": number, "words": words})
            if number % 100 == 0:
                await asyncio.sleep(0)
        held = b""
        async with time_limit():
            while b"event: gap" not in held:
                held += await reader.read(65_536)
        assert len(held) < 8_000_000
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_only_so_many_clients_follow_the_feed() -> None:
    async with operated(api={"live_clients": 1}) as (_, operator, _voice):
        async with operator.stream("GET", "/live"):
            is_problem(await operator.get("/live"), 503, "too_many_clients")
        await until_open(operator)


async def until_open(operator: httpx2.AsyncClient) -> None:
    async with time_limit():
        while True:
            async with operator.stream("GET", "/live") as answer:
                if answer.status_code == 200:
                    return


async def test_levels_show_who_is_loud_and_whose_turn_it_is_while_somebody_watches() -> None:
    async with (
        operated(Reply(text="A long answer.", audio_ms=LONG_MS)) as (app, operator, _),
        app.twilio() as twilio,
    ):
        call = await twilio.call(app.url)
        await app.event(call, AgentSaid)
        async with operator.stream("GET", "/live?levels=true") as answer:
            shown = levels_of(answer)

            async def until_shown(*, caller: bool, agent: bool, turn: str) -> None:
                async with time_limit():
                    async for [levels] in shown:
                        if [levels[0] > -40, levels[1] > -40, levels[2]] == [caller, agent, turn]:
                            return

            await until_shown(caller=False, agent=False, turn="idle")
            speaking = asyncio.create_task(call.speak(4.0))
            await until_shown(caller=True, agent=False, turn="caller")
            await speaking
            await until_shown(caller=False, agent=True, turn="agent")
        await call.hang_up()
        await app.ended(call)


async def levels_of(answer: httpx2.Response) -> AsyncIterator[list[Any]]:
    async for line in answer.aiter_lines():
        if line.startswith('data: {"type":"levels"'):
            yield [*json.loads(line.removeprefix("data: "))["calls"].values()]
