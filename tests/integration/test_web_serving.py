"""The listener in a process of its own: slow and silent sockets, floods, signals and the drain.

The process runs on uvloop, as in production. Raw sockets take the stranger's part.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import signal
import socket
import struct
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlencode

import httpx2
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from app.carrier.base import CarrierCallId, StreamId
from app.carrier.twilio.http import sign_http
from app.carrier.twilio.media import render_caller_media, render_connected, render_start
from app.errors import ConfigError
from app.web.server.serving import make_server, running
from tests.fakes.forked import ForkedProcess, start_forked
from tests.fakes.waiting import TIME_LIMIT_S, time_limit, until
from tests.integration.web_server import (
    ACCOUNT,
    AUTH_TOKEN,
    STATUS_PATH,
    STREAM_PATH,
    VOICE_PATH,
    build,
    call_form,
)

STREAM = StreamId("MZ" + "2" * 32)
CALL = CarrierCallId("CA" + "1" * 32)


@dataclass
class Remote:
    """A server process and a client of it."""

    process: ForkedProcess
    port: int
    client: httpx2.AsyncClient

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def guard(self) -> dict[str, int]:
        counts: dict[str, int] = (await self.client.get(self.url + "/guard")).json()
        return counts

    async def until_guard(self, **wanted: int) -> None:
        async def so() -> bool:
            counts = await self.guard()
            return all(counts[name] == count for name, count in wanted.items())

        await _until(so)

    async def until_draining(self) -> None:
        async def so() -> bool:
            return (await self.client.get(self.url + "/readyz")).status_code == 503

        await _until(so)

    async def post(self, path: str, form: dict[str, str]) -> httpx2.Response:
        signature = sign_http(AUTH_TOKEN, self.url + path, form)
        return await self.client.post(
            self.url + path, data=form, headers={"X-Twilio-Signature": signature}
        )

    @contextlib.asynccontextmanager
    async def call(self) -> AsyncIterator[ClientConnection]:
        """A call that is being carried."""
        await self.post(VOICE_PATH, call_form())
        url = f"ws://127.0.0.1:{self.port}{STREAM_PATH}"
        headers = {"X-Twilio-Signature": sign_http(AUTH_TOKEN, url)}
        async with connect(url, additional_headers=headers) as stream:
            await stream.send(render_connected())
            start = render_start(STREAM, CALL, account_id=ACCOUNT, parameters={"token": "token-0"})
            await stream.send(start)
            await echo(stream, 1)
            yield stream

    async def ended(self) -> str:
        """Wait for the process's end; what it said last."""
        assert self.process.stdout is not None
        async with time_limit():
            said = await self.process.stdout.read()
            await self.process.wait()
        return said.decode().strip()


async def echo(stream: ClientConnection, number: int) -> None:
    """One piece of sound there and back."""
    sound = render_caller_media(
        STREAM, b"\xff" * 160, sequence=number + 1, chunk=number, timestamp_ms=20 * number
    )
    async with time_limit():
        await stream.send(sound)
        assert json.loads(await stream.recv())["event"] == "media"


@contextlib.asynccontextmanager
async def remote(**limits: int) -> AsyncIterator[Remote]:
    """A server process with these socket limits."""
    program = ("tests.integration.web_server", json.dumps(limits))
    process = await start_forked(*program, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        async with time_limit():
            port = int(await process.stdout.readline())
        async with httpx2.AsyncClient(trust_env=False, timeout=TIME_LIMIT_S) as client:
            server = Remote(process, port, client)
            await _until(lambda: _alive(server))
            yield server
    finally:
        await process.end()


async def _until(so: Callable[[], Awaitable[bool]]) -> None:
    async with time_limit():
        while not await so():  # noqa: ASYNC110 - the condition is in another process
            await asyncio.sleep(0.02)


async def _alive(server: Remote) -> bool:
    try:
        return (await server.client.get(server.url + "/healthz")).status_code == 200
    except httpx2.ConnectError:
        return False


async def _closed(reader: asyncio.StreamReader) -> bytes:
    """All that the server sends until it closes the connection."""
    async with time_limit():
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


# Slow and silent sockets --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "opening",
    [
        b"",
        b"GET / HT",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: 1\r\n",
        b"\r\n",
        b"POST /twilio/voice HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\n\r\na=1",
    ],
)
async def test_a_request_that_does_not_come_to_its_end_is_cut_off(opening: bytes) -> None:
    async with remote(request_receipt_ms=300) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(opening)
        assert await _closed(reader) == b""
        assert (await server.guard())["receipt_timeouts"] == 1
        writer.close()


async def test_a_slow_drip_does_not_put_the_deadline_off() -> None:
    async with remote(request_receipt_ms=400) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        drips = 0
        closing = asyncio.ensure_future(_closed(reader))
        while not closing.done():
            with contextlib.suppress(ConnectionError):
                writer.write(b"X-Drip: 1\r\n")
                await writer.drain()
            drips += 1
            await asyncio.wait({closing}, timeout=0.02)
        assert await closing == b""
        assert drips > 3
        assert (await server.guard())["receipt_timeouts"] == 1
        writer.close()


async def test_an_open_connection_gets_a_new_deadline_with_each_request() -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    async with remote(request_receipt_ms=300) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for _ in range(3):
            writer.write(request)
            async with time_limit():
                assert (await reader.readline()).startswith(b"HTTP/1.1 200")
                await reader.readuntil(b"}")
            await asyncio.sleep(0.2)  # In all longer than one deadline, and never half a request.
        writer.write(request[:20])
        assert await _closed(reader) == b""
        assert (await server.guard())["receipt_timeouts"] == 1
        writer.close()


async def test_a_live_call_has_no_request_deadline() -> None:
    async with remote(request_receipt_ms=200) as server, server.call() as stream:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        assert await _closed(reader) == b""  # One deadline has passed.
        writer.close()
        await echo(stream, 2)


async def test_an_endless_head_is_cut_off() -> None:
    async with remote() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\n")
        with contextlib.suppress(ConnectionError):
            async with time_limit():
                while True:
                    writer.write(b"X-More: " + b"x" * 8_000 + b"\r\n")
                    await writer.drain()
        with contextlib.suppress(ConnectionError):  # reset, since we went on writing
            assert await _closed(reader) == b""
        await server.until_guard(oversized_heads=1)
        writer.close()


async def test_a_request_is_answered_at_once_beside_500_silent_sockets() -> None:
    async with remote(request_receipt_ms=3_000) as server:
        before = (await server.guard())["open"]
        opened = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(500)]
        for number, (_, writer) in enumerate(opened):
            if number % 2:
                writer.write(b"POST /twilio/voice HTTP/1.1\r\nHost")
        assert (await server.post(VOICE_PATH, call_form())).status_code == 200
        assert (await server.guard())["receipt_timeouts"] == 0  # while they were all silent
        await asyncio.gather(*(_closed(reader) for reader, _ in opened))
        await server.until_guard(open=before)
        counts = await server.guard()
        assert counts["flood_cuts"] >= 500 - 256
        # One more is the kept connection of our own client, the oldest of all.
        assert counts["flood_cuts"] + counts["receipt_timeouts"] in (500, 501)
        for _, writer in opened:
            writer.close()


async def test_a_flood_of_silent_sockets_cuts_the_oldest_and_lets_a_request_in() -> None:
    async with remote(waiting_sockets=10) as server:
        await server.client.aclose()
        opened = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(30)]
        await asyncio.gather(*(_closed(reader) for reader, _ in opened[:20]))
        async with httpx2.AsyncClient(trust_env=False, timeout=TIME_LIMIT_S) as late:
            assert (await late.get(server.url + "/healthz")).status_code == 200
        for _, writer in opened:
            writer.close()


# Idle sockets -------------------------------------------------------------------------------------

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


async def _ask(connection: Connection, request: bytes) -> int:
    """Send a request; the status of its answer, which is read whole."""
    reader, writer = connection
    writer.write(request)
    async with time_limit():
        head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").lower()
        await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r\n")[0]))
    return int(head.split()[1])


def _webhook(server: Remote, call_id: str = CALL) -> bytes:
    form = call_form(call_id)
    body = urlencode(form)
    return (
        f"POST {VOICE_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n"
        f"X-Twilio-Signature: {sign_http(AUTH_TOKEN, server.url + VOICE_PATH, form)}\r\n\r\n{body}"
    ).encode("ascii")


async def _connections(server: Remote, count: int) -> list[Connection]:
    return [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(count)]


def _close(connections: list[Connection]) -> None:
    for _, writer in connections:
        writer.close()


async def test_an_idle_connection_is_kept_for_proxies_and_closed_at_the_end() -> None:
    # Slow for its purpose: proxies use a connection again after a minute, uvicorn closes after 5 s.
    async with remote() as server:
        kept = await asyncio.open_connection("127.0.0.1", server.port)
        assert await _ask(kept, HEALTH) == 200
        await asyncio.sleep(6)
        assert await _ask(kept, _webhook(server)) == 200
        server.process.send_signal(signal.SIGTERM)
        assert await _closed(kept[0]) == b""
        assert await server.ended() == "forced False"
        _close([kept])


async def test_an_idle_connection_is_closed_in_the_end() -> None:
    async with remote(idle_s=1) as server:
        idle = await asyncio.open_connection("127.0.0.1", server.port)
        assert await _ask(idle, HEALTH) == 200
        assert await _closed(idle[0]) == b""
        assert (await server.guard())["flood_cuts"] == 0
        _close([idle])


# A request that is answered before its body has come, as one of a wrong type is.
EARLY_HEAD = (
    b"POST /twilio/voice HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 3\r\n\r\n"
)
STRANGERS: dict[str, list[tuple[bytes, int]]] = {
    "silent": [],
    "answered": [(HEALTH, 200)],
    "refused": [(EARLY_HEAD + b"a=1", 403)],
    "answered early": [(EARLY_HEAD, 403), (b"a=1" + HEALTH, 200)],
    "answered early, and nothing more": [(EARLY_HEAD, 403), (b"a=1", 0)],
}


@pytest.mark.parametrize("requests", STRANGERS.values(), ids=STRANGERS)
async def test_a_flood_of_idle_strangers_cuts_its_own_oldest_and_no_connection_of_the_carrier(
    requests: list[tuple[bytes, int]],
) -> None:
    async with remote(waiting_sockets=10, known_sockets=2) as server:
        await server.client.aclose()
        kept = await _connections(server, 2)
        for connection in kept:
            assert await _ask(connection, _webhook(server)) == 200
        strangers = []
        for _ in range(30):
            strangers += await _connections(server, 1)
            for request, status in requests:
                if status:
                    assert await _ask(strangers[-1], request) == status
                else:
                    strangers[-1][1].write(request)
        # A connection that comes during the flood is served as well.
        (late,) = await _connections(server, 1)
        assert await _ask(late, _webhook(server, "CA" + "3" * 32)) == 200
        await asyncio.gather(*(_closed(reader) for reader, _ in strangers[:20]))
        assert await _ask(kept[1], _webhook(server)) == 200
        # That one is known now, too: of three, the one that has waited longest made room.
        assert await _closed(kept[0][0]) == b""
        _close([*kept, *strangers, late])


async def test_a_flood_of_idle_strangers_leaves_descriptors_to_calls_where_there_are_few() -> None:
    # What five calls need by `needed_open_files`; the sockets of a call come on top of the flood.
    async with remote(open_files=220) as server:
        strangers = []
        for _ in range(300):
            strangers += await _connections(server, 1)
            assert await _ask(strangers[-1], HEALTH) == 200
        async with server.call() as stream:
            await echo(stream, 2)
        _close(strangers)


async def test_an_early_answer_leaves_no_socket_without_an_end() -> None:
    async with remote(idle_s=1) as server:
        idle = await asyncio.open_connection("127.0.0.1", server.port)
        assert await _ask(idle, EARLY_HEAD) == 403
        idle[1].write(b"a=1")
        assert await _closed(idle[0]) == b""
        _close([idle])


async def test_a_connection_that_is_reset_while_it_idles_is_forgotten() -> None:
    async with running(make_server(_answer, host="127.0.0.1", port=0, drain=_nothing)) as server:
        connection = await asyncio.open_connection("127.0.0.1", server.port)
        assert await _ask(connection, HEALTH) == 200
        (protocol,) = server.server_state.connections
        gone = weakref.ref(protocol)
        del protocol
        raw = connection[1].get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection[1].transport.abort()
        await until(lambda: not server.server_state.connections)

        def forgotten() -> bool:
            gc.collect()
            return gone() is None

        await until(forgotten)


async def test_peers_that_vanish_from_idle_connections_are_noticed_by_the_system() -> None:
    async with running(make_server(_answer, host="127.0.0.1", port=0, drain=_nothing)) as server:
        connection = await asyncio.open_connection("127.0.0.1", server.port)
        assert await _ask(connection, HEALTH) == 200
        (protocol,) = server.server_state.connections
        accepted = protocol.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        _close([connection])


async def test_a_client_that_does_not_read_its_answer_is_cut_off() -> None:
    async with remote(stall_ms=200) as server:
        stalled = socket.socket()
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        stalled.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(stalled, ("127.0.0.1", server.port))
        await loop.sock_sendall(stalled, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        await server.until_guard(stalls=1, tasks=1)  # The one is that which answers this.
        stalled.close()


@pytest.mark.parametrize(
    "request_line_and_headers",
    [
        b"POST /twilio/media-stream HTTP/1.1\r\n",
        b"GET /twilio/media-stream HTTP/1.1\r\nContent-Length: 3\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n",
        b"GET /twilio/media-stream HTTP/1.1\r\n" + b"X-A: 1\r\n" * 200,
        b"GET /twilio/media-stream HTTP/1.1\r\nX-A: " + b"x" * 20_000 + b"\r\n",
        b"GET /twilio/\xff\xfe HTTP/1.1\r\n",
        b"GET /twilio/%ff%fe HTTP/1.1\r\nX-A: \xff\xfe\r\n",
        b"GET /twilio/media-stream?\xc3\xa9=1 HTTP/1.1\r\n",
        b"GET //twilio/media-stream HTTP/1.0\r\n",
        b"CONNECT twilio:443 HTTP/1.1\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
    ],
)
async def test_an_odd_handshake_is_refused_and_forgotten(request_line_and_headers: bytes) -> None:
    async with remote(request_receipt_ms=2_000) as server:
        before = (await server.guard())["open"]
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(
            request_line_and_headers
            + b"Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        answer = await _closed(reader)
        assert not answer.startswith(b"HTTP/1.1 101")
        assert not answer.startswith(b"HTTP/1.1 5")
        await server.until_guard(open=before, tasks=1)
        writer.close()


async def test_endless_fragments_close_the_socket() -> None:
    async with remote() as server, server.call() as stream:

        async def fragments() -> AsyncIterator[str]:
            while True:
                yield ""
                await asyncio.sleep(0)

        with pytest.raises(ConnectionClosed):
            async with time_limit():
                await stream.send(fragments())
        # While we still write, the reset of the connection may overtake the close frame (1006).
        assert stream.close_code in {1008, 1006}


async def test_a_peer_that_vanishes_from_its_socket_is_forgotten() -> None:
    async with remote(linger_ms=200) as server:
        before = (await server.guard())["open"]
        async with server.call() as stream:
            stream.transport.abort()
        await server.until_guard(open=before, tasks=1)


# Signals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_live_call_goes_on_after_the_first_signal(number: signal.Signals) -> None:
    async with remote() as server:
        async with server.call() as stream:
            server.process.send_signal(number)
            await server.until_draining()
            ready = (await server.client.get(server.url + "/readyz")).json()
            assert ready == {"ready": False, "reasons": ["draining"], "degraded": []}
            for count in range(2, 30):
                await echo(stream, count)
            done = call_form(CallStatus="completed")
            assert (await server.post(STATUS_PATH, done)).status_code == 200
            refused = await server.post(VOICE_PATH, call_form("CA" + "8" * 32))
            assert "<Say>" in refused.text
            assert "<Stream" not in refused.text
            assert server.process.returncode is None
        assert await server.ended() == "forced False"
        assert server.process.returncode == 0


async def test_an_idle_server_ends_at_the_first_signal() -> None:
    async with remote() as server:
        server.process.send_signal(signal.SIGTERM)
        assert await server.ended() == "forced False"
        assert server.process.returncode == 0


async def test_the_second_signal_ends_the_calls() -> None:
    async with remote() as server, server.call() as stream:
        server.process.send_signal(signal.SIGTERM)
        await server.until_draining()
        server.process.send_signal(signal.SIGTERM)
        assert await server.ended() == "forced True"
        with pytest.raises(ConnectionClosed):
            async with time_limit():
                await stream.recv()
        assert stream.close_code == 1012


# The server as a part -----------------------------------------------------------------------------


async def _nothing() -> None:
    return


async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
    """The smallest application: it starts, answers, and ends."""
    if scope["type"] == "lifespan":
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})
        return
    await PlainTextResponse("here")(scope, receive, send)


async def test_an_address_in_use_is_named() -> None:
    site = build()
    port = site.server.port
    async with running(site.server):
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}"):
            make_server(site.app, host="127.0.0.1", port=port, drain=_nothing)


async def test_the_second_of_two_servers_on_one_port_is_refused() -> None:
    first = build()
    again = pytest.raises(ConfigError, match=r"set server\.port")
    with contextlib.closing(first.server._listener), again:
        make_server(first.app, host="127.0.0.1", port=first.server.port, drain=_nothing)


async def test_a_failing_block_still_stops_the_server() -> None:
    site = build()
    with pytest.raises(ExceptionGroup) as failed:
        async with running(site.server):
            raise ValueError("of the block")
    assert failed.group_contains(ValueError, match="of the block")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", site.server.port)
