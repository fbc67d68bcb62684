"""TwilioRest against a stand-in for api.twilio.com on a real socket."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

import pytest

from app.carrier.base import CarrierCallId
from app.carrier.twilio.carrier import TwilioCarrier
from app.carrier.twilio.rest import AccountState, NumberSetup, TwilioRest
from app.errors import CarrierError, CarrierRefused, CarrierUnavailable

CALL = CarrierCallId("CA1")
NUMBER = "+15551230002"


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    form: dict[str, str]
    credentials: str


@dataclass(slots=True)
class StandIn:
    """Answers one scripted reply per request, the last one for ever; `None` is silence."""

    replies: list[tuple[int, object] | None]
    requests: list[Request] = field(default_factory=list)
    url: str = ""
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    served: dict[asyncio.Task[None], asyncio.StreamWriter] = field(default_factory=dict)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.served[task] = writer
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                reply = self._take(head.decode(), await self._body(reader, head.decode()))
                if reply is None:
                    await reader.read()  # until the client gives up
                    return
                writer.write(reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def _body(self, reader: asyncio.StreamReader, head: str) -> str:
        for line in head.split("\r\n"):
            if line.lower().startswith("content-length:"):
                return (await reader.readexactly(int(line.split(":")[1]))).decode()
        return ""

    def _take(self, head: str, body: str) -> bytes | None:
        method, target, _ = head.split("\r\n", 1)[0].split(" ")
        lines = [line for line in head.split("\r\n") if line.lower().startswith("authorization:")]
        credentials = base64.b64decode(lines[0].split(" ")[-1]).decode() if lines else ""
        address = urlsplit(target)
        query, form = dict(parse_qsl(address.query)), dict(parse_qsl(body))
        self.requests.append(Request(method, address.path, query, form, credentials))
        self.asked.set()
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if reply is None:
            return None
        status, content = reply
        text = content if isinstance(content, str) else json.dumps(content)
        return (
            f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(text)}\r\n\r\n{text}"
        ).encode()


@asynccontextmanager
async def twilio(
    *replies: tuple[int, object] | None, timeout_s: float = 5.0, budget_s: float = 20.0
) -> AsyncIterator[tuple[StandIn, TwilioRest]]:
    stand_in = StandIn(list(replies))
    server = await asyncio.start_server(stand_in.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    stand_in.url = f"http://{host}:{port}"
    rest = TwilioRest(
        "AC1", "secret", base_url=stand_in.url, timeout_s=timeout_s, first_delay_s=0.0,
        budget_s=budget_s,
    )  # fmt: skip
    try:
        yield stand_in, rest
    finally:
        await rest.aclose()
        for writer in stand_in.served.values():
            writer.close()
        await asyncio.gather(*stand_in.served)
        server.close()
        await server.wait_closed()


def refusal(status: int, code: int | None) -> tuple[int, object]:
    return status, {"status": status, "code": code, "message": "no", "more_info": ""}


GONE = refusal(404, 20404)
DONE: tuple[int, object] = (200, {"sid": "CA1", "status": "completed"})


async def test_a_hang_up_asks_for_a_completed_call_with_our_credentials() -> None:
    async with twilio(DONE) as (stand_in, rest):
        await TwilioCarrier(rest).hang_up(CALL)
    assert stand_in.requests == [
        Request(
            method="POST",
            path="/2010-04-01/Accounts/AC1/Calls/CA1.json",
            query={},
            form={"Status": "completed"},
            credentials="AC1:secret",
        )
    ]


@pytest.mark.parametrize("reply", [GONE, refusal(400, 21220)])
async def test_a_call_that_is_already_gone_is_hung_up(reply: tuple[int, object]) -> None:
    async with twilio(reply) as (stand_in, rest):
        await rest.hang_up(CALL)
    assert len(stand_in.requests) == 1


@pytest.mark.parametrize(
    "trouble", [refusal(429, 20429), refusal(500, None), (503, "<html>"), (200, "<html>")]
)
async def test_trouble_that_may_pass_is_tried_three_times(trouble: tuple[int, object]) -> None:
    async with twilio(trouble, trouble, DONE) as (stand_in, rest):
        await rest.hang_up(CALL)
        assert len(stand_in.requests) == 3
    async with twilio(trouble) as (stand_in, rest):
        with pytest.raises(CarrierUnavailable) as caught:
            await rest.hang_up(CALL)
        assert len(stand_in.requests) == 3
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (refusal(401, 20003), "twilio_20003"),
        (refusal(403, None), "http_403"),
        (refusal(400, 21210), "twilio_21210"),
        ((404, "<html>no such page</html>"), "http_404"),
    ],
)
async def test_a_refusal_is_final(reply: tuple[int, object], code: str) -> None:
    async with twilio(reply) as (stand_in, rest):
        with pytest.raises(CarrierRefused) as caught:
            await rest.hang_up(CALL)
    assert caught.value.code == code
    assert "no such page" not in caught.value.message
    assert len(stand_in.requests) == 1


async def test_an_answer_that_never_comes_is_given_up_try_by_try() -> None:
    async with twilio(None, None, DONE, timeout_s=0.2) as (stand_in, rest):
        await rest.hang_up(CALL)
        assert len(stand_in.requests) == 3
    async with twilio(None, timeout_s=0.2) as (stand_in, rest):
        with pytest.raises(CarrierUnavailable, match="in time"):
            await rest.hang_up(CALL)
        assert len(stand_in.requests) == 3


async def test_all_tries_together_have_a_limit() -> None:
    async with twilio(None, timeout_s=1.0, budget_s=0.2) as (stand_in, rest):
        with pytest.raises(CarrierUnavailable, match="in time"):
            await rest.hang_up(CALL)
        assert len(stand_in.requests) == 1


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    async with twilio(DONE) as (stand_in, _):
        url = stand_in.url
    rest = TwilioRest("AC1", "secret", base_url=url, attempts=2, first_delay_s=0.0)
    with pytest.raises(CarrierUnavailable, match="reached"):
        await rest.hang_up(CALL)
    await rest.aclose()


async def test_the_event_loop_runs_on_while_twilio_does_not_answer() -> None:
    async with twilio(None, DONE, timeout_s=0.3) as (_, rest):
        hanging_up = asyncio.ensure_future(rest.hang_up(CALL))
        turns = 0
        while not hanging_up.done():
            await asyncio.sleep(0)
            turns += 1
        await hanging_up
    assert turns > 100


async def test_a_cancelled_hang_up_leaves_nothing_behind() -> None:
    async with twilio(None, timeout_s=0.3) as (stand_in, rest):
        hanging_up = asyncio.ensure_future(rest.hang_up(CALL))
        await stand_in.asked.wait()
        hanging_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging_up


async def test_a_number_shows_where_its_calls_go() -> None:
    rows = [
        {"sid": "PN0", "phone_number": NUMBER + "9", "voice_url": "https://other.example"},
        {
            "sid": "PN1",
            "phone_number": NUMBER,
            "voice_url": "https://voice.example.com/twilio/voice",
            "voice_method": "POST",
            "voice_fallback_url": None,
            "status_callback": "https://voice.example.com/twilio/status",
        },
    ]
    page = {"incoming_phone_numbers": rows, "page": 0, "next_page_uri": None}
    async with twilio((200, page)) as (stand_in, rest):
        assert await rest.find_number(NUMBER) == NumberSetup(
            number=NUMBER,
            number_id="PN1",
            voice_url="https://voice.example.com/twilio/voice",
            voice_method="POST",
            voice_fallback_url="",
            status_callback="https://voice.example.com/twilio/status",
        )
        assert await rest.find_number("+15550000000") is None
    assert stand_in.requests[0].query["PhoneNumber"] == NUMBER


async def test_the_account_is_looked_at() -> None:
    async with twilio((200, {"sid": "AC1", "status": "active", "type": "Full"})) as (
        stand_in,
        rest,
    ):
        state = await rest.check_account()
    assert state == AccountState(account_id="AC1", status="active", kind="Full")
    assert stand_in.requests[0].path == "/2010-04-01/Accounts/AC1.json"
    async with twilio(refusal(401, 20003)) as (_, rest):
        with pytest.raises(CarrierError, match="credentials"):
            await rest.check_account()


async def test_the_environment_does_not_divert_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TWILIO_REGION", "ie1")
    monkeypatch.setenv("TWILIO_EDGE", "dublin")
    async with twilio(DONE) as (stand_in, rest):
        await rest.hang_up(CALL)
    assert len(stand_in.requests) == 1


async def test_numbers_and_credentials_stay_out_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="app")
    caplog.set_level(logging.DEBUG, logger="twilio")
    async with twilio(refusal(500, None)) as (_, rest):
        with pytest.raises(CarrierUnavailable):
            await rest.find_number(NUMBER)
    assert caplog.records
    for record in caplog.records:
        assert NUMBER.strip("+") not in record.getMessage()
        assert "secret" not in repr(record.__dict__)


async def test_without_credentials_a_hang_up_is_left_to_the_document(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="app.carrier")
    carrier = TwilioCarrier(None)
    await carrier.hang_up(CALL)
    await carrier.aclose()
    assert [record.levelno for record in caplog.records] == [logging.DEBUG]
