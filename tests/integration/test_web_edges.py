"""Transcript feed, Realtime socket, health and metrics, errors: over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import linecache
import sys
import time
from collections.abc import AsyncIterator

import httpx2
import pytest
from fastapi import APIRouter
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from app.carrier.base import CarrierCallId
from app.events import (
    AgentSaid,
    BargeIn,
    CallAdmitted,
    CallEnded,
    CallerSaid,
    CallId,
    CallSummary,
    EndReason,
    KeyPressed,
)
from app.web import health
from app.web.app import make_app
from app.web.health import LoopMonitor
from app.web.metrics import Metrics
from app.web.realtime import MAX_MESSAGE_BYTES
from app.web.server.serving import make_server, running
from tests.fakes.waiting import TIME_LIMIT_S, until
from tests.integration.web_server import Site, build

CALL = CarrierCallId("CA" + "1" * 32)
ID = CallId("call_1")
TRANSCRIPT = f"/calls/{CALL}/transcript"


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = build()
    async with running(site.server):
        yield site


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(trust_env=False, timeout=TIME_LIMIT_S) as client:
        yield client


def _ended(reason: EndReason = EndReason.CALLER_HUNG_UP) -> CallEnded:
    summary = CallSummary(
        call_id=ID,
        carrier_call_id=CALL,
        agent="reception",
        model="model",
        reason=reason,
        duration_ms=1_000,
    )
    return CallEnded(call_id=ID, at_ms=900, summary=summary)


# Transcript feed ----------------------------------------------------------------------------------


async def test_words_are_streamed_as_they_are_spoken(
    site: Site, client: httpx2.AsyncClient
) -> None:
    feed = site.calls.feeds[CALL] = asyncio.Queue()
    url, headers = site.url + TRANSCRIPT, site.signed(TRANSCRIPT)
    async with client.stream("GET", url, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        lines = answer.aiter_lines()
        feed.put_nowait(
            CallAdmitted(
                call_id=ID,
                carrier_call_id=CALL,
                caller_number="+15550100001",
                called_number="+15550100002",
                agent="reception",
            )
        )
        feed.put_nowait(CallerSaid(call_id=ID, at_ms=100, item_id="a", text="When <b>open</b>? é"))
        assert json.loads(await anext(lines)) == {
            "at_ms": 100,
            "who": "caller",
            "text": "When <b>open</b>? é",
            "failed": False,
            "unverified": False,
        }
        feed.put_nowait(
            AgentSaid(
                call_id=ID,
                at_ms=200,
                item_id="b",
                text="At nine. Until five.",
                heard_text="At nine.",
                cut_off=True,
            )
        )
        assert json.loads(await anext(lines)) == {
            "at_ms": 200,
            "who": "agent",
            "text": "At nine. Until five.",
            "heard_text": "At nine.",
            "cut_off": True,
        }
        feed.put_nowait(BargeIn(call_id=ID, at_ms=300, item_id="b", heard_ms=80, sent_ms=400))
        feed.put_nowait(KeyPressed(call_id=ID, at_ms=400, digit="5"))
        feed.put_nowait(_ended())
        feed.put_nowait(None)
        rest = [json.loads(line) async for line in lines]
    assert [line["who"] for line in rest] == ["event"] * 3
    assert [line["text"] for line in rest] == ["barge-in", "key pressed", "call ended"]
    assert rest[2]["reason"] == "caller_hung_up"


async def test_a_reader_who_leaves_is_forgotten(site: Site, client: httpx2.AsyncClient) -> None:
    site.calls.feeds[CALL] = asyncio.Queue()
    url, headers = site.url + TRANSCRIPT, site.signed(TRANSCRIPT)
    async with client.stream("GET", url, headers=headers):
        await until(lambda: site.calls.followers == 1)
    await until(lambda: site.calls.followers == 0)


async def test_the_transcript_of_an_unknown_call_is_not_found(
    site: Site, client: httpx2.AsyncClient
) -> None:
    answer = await client.get(site.url + TRANSCRIPT, headers=site.signed(TRANSCRIPT))
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "call_not_found"


async def test_another_calls_signature_opens_no_transcript(
    site: Site, client: httpx2.AsyncClient
) -> None:
    site.calls.feeds[CALL] = asyncio.Queue()
    headers = site.signed("/calls/CA2/transcript")
    assert (await client.get(site.url + TRANSCRIPT, headers=headers)).status_code == 403
    assert (await client.get(site.url + TRANSCRIPT)).status_code == 403


async def test_transcripts_do_not_exist_unless_they_are_turned_on(
    client: httpx2.AsyncClient,
) -> None:
    site = build(transcript_feed=False)
    site.calls.feeds[CALL] = asyncio.Queue()
    async with running(site.server):
        answer = await client.get(site.url + TRANSCRIPT, headers=site.signed(TRANSCRIPT))
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "not_found"


# The Realtime socket ------------------------------------------------------------------------------


def _realtime(site: Site) -> str:
    return f"ws://127.0.0.1:{site.server.port}/v1/realtime?model=offline-receptionist"


async def test_a_program_on_this_machine_talks_with_the_engine(site: Site) -> None:
    async with connect(_realtime(site), compression=None) as socket:
        for text in ("hello", "x" * 900_000):  # far more than a carrier's socket may send
            await socket.send(text)
            assert await socket.recv() == text
        await socket.send("bye")
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 1000


async def test_the_engine_hears_how_its_client_left(site: Site) -> None:
    async with connect(_realtime(site)) as socket:
        await socket.close(4_001)
    await until(lambda: site.engine.left_with == [4_001])


async def test_binary_frames_are_not_realtime(site: Site) -> None:
    async with connect(_realtime(site)) as socket:
        await socket.send(b"\x00")
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 1003


async def test_a_text_that_is_not_utf_8_closes_its_socket_without_a_traceback(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    for parts in ([b"\xff" * 200], [b"\xff" * 100, b"\xff"]):
        async with connect(_realtime(site), compression=None) as socket:
            await socket.send(parts if len(parts) > 1 else parts[0], text=True)
            with pytest.raises(ConnectionClosed):
                await socket.recv()
            assert socket.close_code == 1007
    assert not [record for record in caplog.records if record.exc_info]


FLOODS = {
    "empty texts": b"\x81\x80\x00\x00\x00\x00",
    "pings": b"\x89\x80\x00\x00\x00\x00",
    "pongs": b"\x8a\x80\x00\x00\x00\x00",
    "fragments": b"\x01\x81\x00\x00\x00\x00x\x80\x80\x00\x00\x00\x00",
}


@pytest.mark.parametrize("kind", FLOODS)
@pytest.mark.parametrize("on_media", [True, False], ids=["media", "realtime"])
async def test_a_flood_of_frames_that_say_nothing_is_cut(
    site: Site, kind: str, on_media: bool
) -> None:
    url = site.stream_url if on_media else _realtime(site)
    headers = site.signed_stream() if on_media else {}
    async with connect(url, additional_headers=headers, compression=None) as socket:
        if not on_media:
            await socket.send("hello")
            assert await socket.recv() == "hello"
        for _ in range(20):  # some of them are no flood
            await socket.ping()
        with contextlib.suppress(ConnectionError):
            while not socket.transport.is_closing():
                socket.transport.write(FLOODS[kind] * 1_000)
                await asyncio.sleep(0)
        await until(lambda: site.server.counts.flood_cuts == 1)


async def test_a_message_beyond_the_bound_closes_the_realtime_socket(site: Site) -> None:
    async with connect(_realtime(site), compression=None) as socket:
        with pytest.raises(ConnectionClosed):  # while it is sent, or after
            await socket.send("x" * (MAX_MESSAGE_BYTES + 1))
            await socket.recv()
        assert socket.close_code == 1009


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"X-Forwarded-For": "203.0.113.9"},
        {"Host": "voice.example.com"},
    ],
)
async def test_the_open_realtime_socket_refuses_pages_and_proxies(
    site: Site, headers: dict[str, str]
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(_realtime(site), additional_headers=headers)
    response = refused.value.response
    code = json.loads(response.body)["error"]["code"]
    foreign = "Origin" in headers
    assert (response.status_code, code) == (
        (403, "foreign_site") if foreign else (401, "invalid_api_key")
    )
    assert site.engine.served == 0


async def test_without_a_token_the_realtime_socket_is_closed_outside_development() -> None:
    site = build(open_to_local=False)
    async with running(site.server):
        with pytest.raises(InvalidStatus):
            await connect(_realtime(site))
    assert site.engine.served == 0
    assert site.counted("auth_failures_total", kind="realtime_token") == 1


async def test_a_realtime_token_is_wanted_of_everyone() -> None:
    site = build(realtime_token="secret", open_to_local=True)
    async with running(site.server):
        for headers in ({}, {"Authorization": "Bearer secre"}, {"Authorization": "Basic secret"}):
            with pytest.raises(InvalidStatus):
                await connect(_realtime(site), additional_headers=headers)
        assert site.engine.served == 0
        async with connect(
            _realtime(site), additional_headers={"Authorization": "Bearer secret"}
        ) as socket:
            await socket.send("hello")
            assert await socket.recv() == "hello"
        offered = [Subprotocol("realtime"), Subprotocol("openai-insecure-api-key.secret")]
        async with connect(_realtime(site), subprotocols=offered) as socket:
            assert socket.subprotocol == "realtime"
            await socket.send("hello")
            assert await socket.recv() == "hello"


# Health, metrics, errors --------------------------------------------------------------------------


async def test_health_says_alive_and_ready(site: Site, client: httpx2.AsyncClient) -> None:
    assert (await client.get(site.url + "/healthz")).json() == {"status": "ok"}
    ready = await client.get(site.url + "/readyz")
    assert (ready.status_code, ready.json()) == (
        200,
        {"ready": True, "reasons": [], "degraded": []},
    )
    site.calls.full = "at_capacity"
    ready = await client.get(site.url + "/readyz")
    assert ready.status_code == 503
    assert ready.json() == {"ready": False, "reasons": ["at_capacity"], "degraded": []}
    assert (await client.get(site.url + "/healthz")).status_code == 200


async def test_metrics_are_read_from_this_machine_only(
    site: Site, client: httpx2.AsyncClient
) -> None:
    site.metrics.observe(_ended())
    answer = await client.get(site.url + "/metrics")
    assert answer.status_code == 200
    assert 'trunkline_calls_total{outcome="caller_hung_up"} 1.0' in answer.text
    for headers in ({"X-Forwarded-For": "203.0.113.9"}, {"Host": "voice.example.com"}):
        assert (await client.get(site.url + "/metrics", headers=headers)).status_code == 403


async def test_a_metrics_token_is_wanted_of_everyone(client: httpx2.AsyncClient) -> None:
    site = build(metrics_token="secret")
    async with running(site.server):
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            assert (await client.get(site.url + "/metrics", headers=headers)).status_code == 403
        good = {"Authorization": "Bearer secret", "X-Forwarded-For": "203.0.113.9"}
        assert (await client.get(site.url + "/metrics", headers=good)).status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/redoc", "/openapi.json", "/twilio/voice/", "/twilio", "/../etc/passwd"]
)
async def test_nothing_else_is_served(site: Site, client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(site.url + path)
    assert answer.status_code == 404
    assert answer.json() == {"error": {"code": "not_found", "message": "Not Found"}}
    assert "server" not in answer.headers
    assert "date" not in answer.headers


async def test_a_wrong_method_has_the_one_shape_too(site: Site, client: httpx2.AsyncClient) -> None:
    answer = await client.delete(site.url + "/twilio/voice")
    assert answer.status_code == 405
    assert answer.json()["error"]["code"] == "method_not_allowed"


async def test_a_bug_says_nothing_of_itself(
    client: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    router = APIRouter()

    @router.get("/bug")
    async def bug() -> None:
        raise ValueError("secret detail")

    async def nothing() -> None:
        return

    server = make_server(
        make_app([router]), host="127.0.0.1", port=0, drain=nothing, own_signals=False
    )
    async with running(server):
        answer = await client.get(f"http://127.0.0.1:{server.port}/bug")
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert "secret" not in answer.text
    assert "secret detail" in caplog.text  # the operator still finds it


async def test_a_blocked_loop_is_measured() -> None:
    metrics = Metrics()

    def sample(name: str) -> float:
        return metrics.registry.get_sample_value(f"trunkline_loop_lag_seconds_{name}") or 0.0

    monitor = LoopMonitor(metrics)
    async with asyncio.TaskGroup() as group:
        measuring = group.create_task(monitor.run())
        await asyncio.sleep(0)
        began_s = time.thread_time()
        while time.thread_time() < began_s + 0.3:  # this is the fault
            pass
        await until(lambda: sample("sum") >= 0.15 and sample("count") >= 3)
        measuring.cancel()
    assert monitor._timer.cancelled()


@pytest.mark.parametrize(
    ("lags_ms", "max_lag_ms", "overloaded"),
    [
        ([80] * 99, 50, False),  # not for ten seconds yet
        ([80] * 100, 50, True),
        ([80] * 100, 0, False),
        ([0] * 95 + [80] * 5, 50, True),
        ([80] * 4 + [0] * 96, 50, False),
        ([80] * 100 + [0] * 100, 50, False),
    ],
)
def test_a_loop_is_overloaded_while_it_is_late_again_and_again(
    lags_ms: list[float], max_lag_ms: float, overloaded: bool
) -> None:
    monitor = LoopMonitor(Metrics(), max_lag_ms)
    for lag_ms in lags_ms:
        monitor.record(lag_ms)
    assert monitor.overloaded() is overloaded


def test_to_name_a_stack_no_source_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linecache, "cache", {})
    places = health._places(sys._getframe())
    assert places.split(" < ")[0].endswith(" test_to_name_a_stack_no_source_is_read")
    assert not linecache.cache


async def test_a_flood_of_pipelined_requests_is_cut(site: Site, client: httpx2.AsyncClient) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n" * 5_000)
    with contextlib.suppress(ConnectionError):
        answer = await asyncio.wait_for(reader.read(), TIME_LIMIT_S)
        assert answer.count(b"HTTP/1.1") < 20
    writer.close()
    assert site.server.counts.flood_cuts == 1
    assert (await client.get(site.url + "/healthz")).status_code == 200


@pytest.mark.parametrize("path", ["/twilio/voice", "/nothing", "/healthz"])
async def test_a_body_in_tiny_pieces_is_cut(
    path: str, site: Site, client: httpx2.AsyncClient
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
    head = f"POST {path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    writer.write(head.encode() + b"1\r\na\r\n" * 20_000)
    with contextlib.suppress(ConnectionError):
        await asyncio.wait_for(reader.read(), TIME_LIMIT_S)
    writer.close()
    assert site.server.counts.flood_cuts == 1
    assert (await client.get(site.url + "/healthz")).status_code == 200
