"""Calls from a browser, as its page makes them: a ticket, then the carrier's own messages."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from starlette.requests import HTTPConnection
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from app.carrier.base import CarrierCallId
from app.credentials.api_keys import Scope
from app.errors import SignatureError
from app.events import CallEnded, EndReason
from app.web.tickets import TICKET_PROTOCOL, TICKET_S, SocketTickets
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import time_limit
from tests.integration.server import GREETING, App, trunkline
from tests.integration.test_api import TOKEN, client, is_problem, new_key

NUMBER = "+15005550006"


@contextlib.asynccontextmanager
async def operated(**sections: Any) -> AsyncIterator[tuple[App, httpx2.AsyncClient]]:
    async with (
        ScriptedVoiceServer(replies=[Reply(text=GREETING, audio_ms=400)]) as voice,
        trunkline(voice, **{"server": TOKEN, "numbers": {NUMBER: {}}, **sections}) as app,
        client(app, new_key(app, Scope.OPERATOR, "the operator")) as operator,
    ):
        yield app, operator


async def new_ticket(operator: httpx2.AsyncClient, **body: str) -> dict[str, Any]:
    answer = await operator.post("/phone/tickets", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def page(
    app: App, ticket: str, path: str, *, origin: str | None = "", sock: socket.socket | None = None
) -> connect:
    """The socket that a page opens; its Origin is the server's own unless another is given."""
    return connect(
        app.url.replace("http", "ws") + path,
        origin=Origin(app.url if origin == "" else origin) if origin is not None else None,
        subprotocols=[Subprotocol(TICKET_PROTOCOL), Subprotocol(ticket)],
        proxy=None,
        max_queue=None,  # else what nobody reads stands before the end, for ten seconds
        sock=sock,
    )


async def start(opened: ClientConnection, given: dict[str, Any]) -> None:
    await opened.send(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
    body = {
        "streamSid": "MZbrowser",
        "accountSid": given["account_id"],
        "callSid": given["carrier_call_id"],
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"token": given["token"]},
    }
    message = {"event": "start", "sequenceNumber": "1", "streamSid": "MZbrowser", "start": body}
    await opened.send(json.dumps(message))


async def summary_of(app: App, given: dict[str, Any]) -> Any:
    async with time_limit():
        async for event in app.switchboard.follow(CarrierCallId(given["carrier_call_id"])):
            if isinstance(event, CallEnded):
                return event.summary


async def test_a_page_calls_with_a_ticket_and_hears_the_agent() -> None:
    async with operated() as (app, operator):
        given = await new_ticket(operator, number=NUMBER)
        assert given["number"] == NUMBER
        async with page(app, given["ticket"], given["path"]) as opened, time_limit():
            assert opened.subprotocol == TICKET_PROTOCOL
            await start(opened, given)
            heard = 0
            while heard < 8 * 400:
                message = json.loads(await opened.recv())
                if message["event"] == "media":
                    heard += len(base64.b64decode(message["media"]["payload"]))
                if message["event"] == "mark":
                    await opened.send(json.dumps({**message, "sequenceNumber": "2"}))
            [shown] = (await operator.get("/live/calls")).json()["calls"]
            assert shown["call_id"] == given["call_id"]
            assert shown["caller_number"] == "client:the-operator"
            await opened.send(json.dumps({"event": "stop", "streamSid": "MZbrowser", "stop": {}}))
            summary = await summary_of(app, given)
            assert summary.reason is EndReason.CALLER_HUNG_UP
            assert summary.carrier.seconds == 0  # no carrier bills it
            assert not any(name.startswith("carrier") for name in summary.costs)


async def test_hanging_up_on_a_page_asks_no_carrier_and_closes_its_socket() -> None:
    async with operated() as (app, operator):
        given = await new_ticket(operator)
        async with page(app, given["ticket"], given["path"]) as opened, time_limit():
            await start(opened, given)
            await opened.recv()
            await operator.post(f"/calls/{given['call_id']}/hang_up", json={})
            with pytest.raises(ConnectionClosed):
                while True:
                    await opened.recv()
            assert opened.close_code == 1000
        assert (await summary_of(app, given)).reason is EndReason.OPERATOR_HUNG_UP


@pytest.mark.parametrize(
    "odd", ["unknown", "used", "no_origin", "foreign_origin", "null_origin", "two_tickets"]
)
async def test_only_an_unused_ticket_of_our_own_page_opens_a_socket(odd: str) -> None:
    async with operated() as (app, operator):
        given = await new_ticket(operator)
        ticket, origin = given["ticket"], {
            "no_origin": None,
            "foreign_origin": "https://other.example",
            "null_origin": "null",
        }.get(odd, "")  # fmt: skip
        if odd == "unknown":
            ticket = "a" * len(ticket)
        if odd == "used":
            async with page(app, ticket, given["path"]):
                pass
        opening = page(app, ticket, given["path"], origin=origin)
        if odd == "two_tickets":
            both = [TICKET_PROTOCOL, "wrong", ticket]
            opening = connect(
                app.url.replace("http", "ws") + given["path"],
                origin=Origin(app.url),
                subprotocols=[Subprotocol(each) for each in both],
                proxy=None,
            )
        with pytest.raises(InvalidStatus) as refused:
            await opening
        assert refused.value.response.status_code == 403
        await operator.post(f"/calls/{given['call_id']}/hang_up", json={})


async def test_a_ticket_without_its_token_or_with_anothers_claims_no_call() -> None:
    async with operated() as (app, operator):
        mine, others = await new_ticket(operator), await new_ticket(operator)
        for stolen in ({**mine, "token": ""}, {**mine, "token": others["token"]}):
            ticket = (await new_ticket(operator))["ticket"]
            async with page(app, ticket, mine["path"]) as opened, time_limit():
                await start(opened, stolen)
                with pytest.raises(ConnectionClosed):
                    await opened.recv()
                assert opened.close_code == 1008
        for call in (await operator.get("/live/calls")).json()["calls"]:
            await operator.post(f"/calls/{call['call_id']}/hang_up", json={})


async def test_a_number_that_is_not_ours_gets_no_ticket() -> None:
    async with operated() as (app, operator):
        answer = await operator.post("/phone/tickets", json={"number": "+15005550199"})
        assert is_problem(answer, 422, "number_unknown")
        assert not app.switchboard.active


async def test_a_full_server_says_so_to_the_page() -> None:
    async with operated(limits={"max_calls": 1}) as (_, operator):
        given = await new_ticket(operator)
        assert is_problem(await operator.post("/phone/tickets", json={}), 503, "at_capacity")
        await operator.post(f"/calls/{given['call_id']}/hang_up", json={})


def test_an_old_ticket_opens_nothing() -> None:
    now_s = 0.0
    tickets = SocketTickets(lambda: now_s)
    ticket = tickets.issue()
    now_s = TICKET_S + 1.0
    scope = {"type": "websocket", "headers": [], "subprotocols": [TICKET_PROTOCOL, ticket]}
    with pytest.raises(SignatureError, match="too old"):
        tickets.redeem(HTTPConnection(scope))
