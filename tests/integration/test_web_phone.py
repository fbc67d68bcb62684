"""The carrier's routes over real sockets: signatures, webhooks, the media websocket's handshake."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any
from xml.etree import ElementTree

import httpx2
import pytest
from fastapi import APIRouter
from starlette.routing import BaseRoute
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from app import logs
from app.carrier.base import CallProgress, CarrierCallId, StreamId
from app.carrier.twilio.http import sign_http
from app.carrier.twilio.media import render_caller_media, render_connected, render_start
from app.web.phone import UnclaimedSockets
from app.web.realtime import SECRETS_PATH
from app.web.server.serving import running
from tests.fakes.waiting import TIME_LIMIT_S, time_limit
from tests.integration.web_server import (
    ACCOUNT,
    AUTH_TOKEN,
    STATUS_PATH,
    STREAM_PATH,
    TRANSFER_PATHS,
    VOICE_PATH,
    Site,
    build,
    call_form,
)

CALL = "CA" + "1" * 32
STREAM = StreamId("MZ" + "2" * 32)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = build()
    async with running(site.server):
        yield site


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(trust_env=False, timeout=TIME_LIMIT_S) as client:
        yield client


async def _post(
    client: httpx2.AsyncClient, site: Site, path: str, form: dict[str, str]
) -> httpx2.Response:
    return await client.post(site.url + path, data=form, headers=site.signed(path, form))


def _start(call_id: str = CALL, *, token: str = "token-0", account: str = ACCOUNT) -> str:
    return render_start(
        STREAM, CarrierCallId(call_id), account_id=account, parameters={"token": token}
    )


async def _begin(socket: ClientConnection) -> None:
    await socket.send(render_connected())
    await socket.send(_start())


async def _echo(socket: ClientConnection, number: int = 1) -> None:
    """Send the caller's audio message of that number, and have it back."""
    sound = render_caller_media(
        STREAM, b"\xff" * 160, sequence=number + 1, chunk=number, timestamp_ms=20 * number
    )
    async with time_limit():
        await socket.send(sound)
        assert json.loads(await socket.recv())["event"] == "media"


async def _close_code(socket: ClientConnection) -> int | None:
    async with time_limit():
        try:
            while True:
                await socket.recv()
        except ConnectionClosed:
            return socket.close_code


# Webhooks -----------------------------------------------------------------------------------------


async def test_the_same_webhook_twice_gets_the_same_document(
    site: Site, client: httpx2.AsyncClient
) -> None:
    first = await _post(client, site, VOICE_PATH, call_form())
    second = await _post(client, site, VOICE_PATH, call_form())
    assert first.status_code == second.status_code == 200
    assert first.content == second.content
    assert first.headers["content-type"].startswith("application/xml")
    assert len(site.calls.admitted) == 1
    stream = ElementTree.fromstring(first.text).find("./Connect/Stream")
    assert stream is not None
    assert stream.attrib["url"] == site.stream_url


async def test_a_webhook_may_be_a_get(site: Site, client: httpx2.AsyncClient) -> None:
    target = f"{VOICE_PATH}?{httpx2.QueryParams(call_form())}"
    answer = await client.get(site.url + target, headers=site.signed(target))
    assert answer.status_code == 200
    assert "<Stream" in answer.text
    assert list(site.calls.admitted) == [CALL]


@pytest.mark.parametrize("reason", ["at_capacity", "draining"])
async def test_a_call_without_room_is_refused_in_speech(
    site: Site, client: httpx2.AsyncClient, reason: str
) -> None:
    site.calls.full = reason
    answer = await _post(client, site, VOICE_PATH, call_form())
    assert answer.status_code == 200
    assert [verb.tag for verb in ElementTree.fromstring(answer.text)] == ["Say", "Hangup"]
    assert site.counted("refused_total", reason=reason) == 1


async def test_nothing_of_a_caller_enters_the_document(
    site: Site, client: httpx2.AsyncClient
) -> None:
    form = call_form(CallerName='"/><Dial>900</Dial><Say x="', FromCity="<Redirect/>")
    answer = await _post(client, site, VOICE_PATH, form)
    verbs = [verb.tag for verb in ElementTree.fromstring(answer.text).iter()]
    assert verbs == ["Response", "Connect", "Stream", "Parameter", "Say", "Hangup"]


async def test_a_webhook_of_another_account_is_forbidden(
    site: Site, client: httpx2.AsyncClient
) -> None:
    form = call_form(AccountSid="AC" + "9" * 32)
    assert (await _post(client, site, VOICE_PATH, form)).status_code == 403
    assert (await _post(client, site, STATUS_PATH, form)).status_code == 403
    assert not site.calls.admitted
    assert site.counted("auth_failures_total", kind="webhook_account") == 2


async def test_a_signed_webhook_without_a_call_is_a_bad_request(
    site: Site, client: httpx2.AsyncClient
) -> None:
    form = call_form()
    del form["CallSid"]
    answer = await _post(client, site, VOICE_PATH, form)
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"code", "message"}


async def test_status_callbacks_reach_the_switchboard(
    site: Site, client: httpx2.AsyncClient
) -> None:
    form = call_form(CallStatus="completed", SequenceNumber="3")
    assert (await _post(client, site, STATUS_PATH, form)).status_code == 200
    assert site.calls.reports == [(CALL, CallProgress.COMPLETED)]


# Signatures: every route --------------------------------------------------------------------------


def _http_routes(site: Site) -> list[tuple[str, str]]:
    """Method and path of every HTTP route of the application, however deep it is included."""

    def walk(routes: list[BaseRoute]) -> Iterator[tuple[str, str]]:
        for route in routes:
            inner = getattr(route, "original_router", None)
            if isinstance(inner, APIRouter):
                yield from walk(inner.routes)
            for method in getattr(route, "methods", None) or ():
                yield method, str(route.path)  # type: ignore[attr-defined]

    return sorted(walk(site.app.routes))


async def test_every_route_of_the_carrier_wants_a_signature(
    site: Site, client: httpx2.AsyncClient
) -> None:
    others = {"/healthz", "/readyz", "/metrics", SECRETS_PATH}  # they ask for nothing, or for a key
    routes = [(method, path) for method, path in _http_routes(site) if path not in others]
    assert {path for _, path in routes} == {
        VOICE_PATH,
        STATUS_PATH,
        *TRANSFER_PATHS,
        "/calls/{carrier_call_id}/transcript",
    }
    form = call_form()
    for method, template in routes:
        path = template.replace("{carrier_call_id}", CALL)
        good = site.signed(path, form if method == "POST" else None)["X-Twilio-Signature"]
        other = sign_http(AUTH_TOKEN, "https://elsewhere.example" + path, form)
        other_form = sign_http(AUTH_TOKEN, site.url + path, {**form, "To": "+15550100009"})
        other_key = sign_http("another token", site.url + path, form)
        bodies = set()
        signatures: list[bytes | None] = [
            None,
            b"",
            b"wrong",
            "nicht-ascii-é".encode(),
            b"\xff\xfe",
            good[:-3].encode(),
            good.encode() + b"x" * 5_000,
            other.encode(),
            other_form.encode(),
            other_key.encode(),
        ]
        for signature in signatures:
            headers = [] if signature is None else [(b"X-Twilio-Signature", signature)]
            answer = await client.request(
                method,
                site.url + path,
                data=form if method == "POST" else None,
                headers=headers,
            )
            assert answer.status_code == 403, (method, path, signature)
            bodies.add(answer.content)
        assert bodies == {b'{"error":{"code":"forbidden","message":"Forbidden"}}'}
    assert not site.calls.admitted
    assert not site.calls.reports
    assert not site.calls.transfer_reports.found


async def test_signed_reports_of_transfers_reach_the_switchboard(
    site: Site, client: httpx2.AsyncClient
) -> None:
    path = "/twilio/after-transfer?transfer=abcdefgh"
    form = call_form(DialCallStatus="busy")
    headers = site.signed(path, form)
    answer = await client.post(site.url + path, data=form, headers=headers)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert "<Hangup" in answer.text
    moved = path.replace("abcdefgh", "hgfedcba")  # the address is signed as well
    assert (await client.post(site.url + moved, data=form, headers=headers)).status_code == 403
    assert site.calls.transfer_reports.found == ["abcdefgh busy"]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"CallSid": "CA1"}'),
        ("multipart/form-data; boundary=x", b"--x--"),
        ("application/x-www-form-urlencoded", b"a=" + b"x" * 70_000),
        ("application/x-www-form-urlencoded", b"a=%ff"),
        ("application/x-www-form-urlencoded", b"\xff=1"),
        ("application/x-www-form-urlencoded", b"&".join(b"a=1" for _ in range(5_000))),
    ],
)
async def test_only_a_form_of_sane_size_is_read(
    site: Site, client: httpx2.AsyncClient, content_type: str, body: bytes
) -> None:
    headers = {**site.signed(VOICE_PATH), "content-type": content_type}
    answer = await client.post(site.url + VOICE_PATH, content=body, headers=headers)
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "forbidden"


async def test_a_field_that_was_added_twice_breaks_the_signature(
    site: Site, client: httpx2.AsyncClient
) -> None:
    form = call_form()
    body = str(httpx2.QueryParams([*form.items(), ("From", "+15550100666")])).encode()
    headers = {
        **site.signed(VOICE_PATH, form),
        "content-type": "application/x-www-form-urlencoded",
    }
    answer = await client.post(site.url + VOICE_PATH, content=body, headers=headers)
    assert answer.status_code == 403


async def test_the_host_header_does_not_affect_the_signature(
    site: Site, client: httpx2.AsyncClient
) -> None:
    form = call_form()
    forged = sign_http(AUTH_TOKEN, "http://evil.example" + VOICE_PATH, form)
    headers = {"X-Twilio-Signature": forged, "Host": "evil.example"}
    answer = await client.post(site.url + VOICE_PATH, data=form, headers=headers)
    assert answer.status_code == 403


# The media websocket ------------------------------------------------------------------------------


async def _raw_handshake(site: Site, headers: dict[str, str]) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
    fields = {
        "Host": f"127.0.0.1:{site.server.port}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
        **headers,
    }
    lines = [f"GET {STREAM_PATH} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    async with time_limit():
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize("signature", [None, "", "wrong", "é", "A" * 28])
async def test_a_stranger_is_refused_on_the_wire_with_403(
    site: Site, signature: str | None
) -> None:
    headers = {} if signature is None else {"X-Twilio-Signature": signature}
    answer = await _raw_handshake(site, headers)
    assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert not site.calls.used
    assert site.counted("auth_failures_total", kind="media_signature") == 1


async def test_the_signature_of_a_webhook_opens_no_socket(site: Site) -> None:
    form_signature = site.signed(VOICE_PATH, call_form())
    assert (await _raw_handshake(site, form_signature)).startswith(b"HTTP/1.1 403 ")


async def test_audio_goes_both_ways_once_a_call_is_claimed(
    site: Site, client: httpx2.AsyncClient
) -> None:
    await _post(client, site, VOICE_PATH, call_form())
    async with connect(site.stream_url, additional_headers=site.signed_stream()) as socket:
        await _begin(socket)
        await _echo(socket)
        assert site.unclaimed.taken == 0
        assert site.calls.live == 1


@pytest.mark.parametrize(
    ("messages", "kind"),
    [
        ([render_connected(), _start(token="token-9")], "media_token"),
        ([render_connected(), _start("CA" + "7" * 32)], "media_token"),
        ([render_connected(), _start(account="AC" + "9" * 32)], "media_start"),
        (["not json"], "media_start"),
        ([b"\x00\x01"], "media_start"),
        (["[" * 60_000], "media_start"),
        ([render_connected()], "media_start"),  # and then silence
    ],
)
async def test_a_socket_without_a_call_is_closed(messages: list[Any], kind: str) -> None:
    site = build(start_deadline_s=0.2)
    async with (
        running(site.server),
        httpx2.AsyncClient(trust_env=False, timeout=TIME_LIMIT_S) as client,
    ):
        await _post(client, site, VOICE_PATH, call_form())
        async with connect(site.stream_url, additional_headers=site.signed_stream()) as socket:
            for message in messages:
                await socket.send(message)
            assert await _close_code(socket) == 1008
    assert not site.calls.used
    assert site.counted("auth_failures_total", kind=kind) == 1
    assert site.unclaimed.taken == 0


async def test_a_token_opens_one_stream(site: Site, client: httpx2.AsyncClient) -> None:
    await _post(client, site, VOICE_PATH, call_form())
    async with (
        connect(site.stream_url, additional_headers=site.signed_stream()) as first,
        connect(site.stream_url, additional_headers=site.signed_stream()) as second,
    ):
        await _begin(first)
        await _echo(first)
        await _begin(second)
        assert await _close_code(second) == 1008
        assert site.calls.live == 1


@pytest.mark.parametrize("begun", [True, False], ids=["in a call", "before start"])
@pytest.mark.parametrize("size_bytes", [70_000, 1_048_576, 12_000_000])
async def test_a_frame_that_is_too_large_closes_its_socket_with_1009(
    site: Site, client: httpx2.AsyncClient, size_bytes: int, begun: bool
) -> None:
    await _post(client, site, VOICE_PATH, call_form())
    async with connect(
        site.stream_url, additional_headers=site.signed_stream(), compression=None
    ) as socket:
        if begun:
            await _begin(socket)
        with pytest.raises(ConnectionClosed):
            async with time_limit():
                await socket.send("x" * size_bytes)
                while True:
                    await socket.recv()
        assert socket.close_code == 1009


async def test_compression_is_never_agreed(site: Site) -> None:
    async with connect(
        site.stream_url, additional_headers=site.signed_stream(), compression="deflate"
    ) as socket:
        assert socket.response is not None
        assert "Sec-WebSocket-Extensions" not in socket.response.headers


async def test_of_unclaimed_sockets_the_oldest_make_room_for_the_next() -> None:
    site = build(unclaimed=UnclaimedSockets(total=3), start_deadline_s=30)
    async with running(site.server), httpx2.AsyncClient(trust_env=False) as client:
        headers = site.signed_stream()
        async with contextlib.AsyncExitStack() as stack:
            silent = [
                await stack.enter_async_context(
                    connect(site.stream_url, additional_headers=headers)
                )
                for _ in range(5)
            ]
            for socket in silent[:2]:
                await asyncio.wait_for(socket.wait_closed(), TIME_LIMIT_S)
                assert socket.close_code == 1008
            assert site.counted("refused_total", reason="sockets") == 2
            assert site.unclaimed.taken == 3
            await _post(client, site, VOICE_PATH, call_form())
            async with connect(site.stream_url, additional_headers=headers) as caller:
                await _begin(caller)
                await _echo(caller, 1)
                assert site.unclaimed.taken == 2


async def test_a_flood_of_strangers_does_not_keep_a_caller_out(
    site: Site, client: httpx2.AsyncClient
) -> None:
    await _post(client, site, VOICE_PATH, call_form())
    async with connect(site.stream_url, additional_headers=site.signed_stream()) as caller:
        await _begin(caller)
        for number in range(1, 6):
            answers = await asyncio.gather(*(_raw_handshake(site, {}) for _ in range(40)))
            assert all(answer.startswith(b"HTTP/1.1 403 ") for answer in answers)
            await _echo(caller, number)
    assert site.counted("auth_failures_total", kind="media_signature") == 200


# Floods -------------------------------------------------------------------------------------------


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """The lines that a process writes, throttled as its log is."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.addFilter(logs.Throttle())
    logging.getLogger().addHandler(handler)
    yield written
    logging.getLogger().removeHandler(handler)


async def test_of_strangers_in_any_number_a_few_are_logged_and_all_are_counted(
    site: Site, client: httpx2.AsyncClient, log: io.StringIO
) -> None:
    async def knock() -> None:
        assert (await client.post(site.url + VOICE_PATH, data=call_form())).status_code == 403
        assert (await _raw_handshake(site, {})).startswith(b"HTTP/1.1 403 ")

    for _ in range(10):
        await asyncio.gather(*(knock() for _ in range(4)))
    assert site.counted("auth_failures_total", kind="webhook_signature") == 40
    assert site.counted("auth_failures_total", kind="media_signature") == 40
    for line in ("webhook refused", "media socket refused"):
        assert log.getvalue().count(line) == logs.LINES_AT_ONCE
