"""Floods by strangers, each from a process of its own, while other calls talk.

Run as `python -m tests.chaos.soak.floods KIND URL TOKEN SECONDS`; prints how much was sent. What a
model can flood is sent by the model itself: `flood_deltas`.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

import httpx2
from websockets.frames import Frame, Opcode

from app.carrier.twilio.signature import sign_http
from tests.bench.call_load import Load, Phone
from tests.fakes.waiting import until

__all__ = ["FLOODS", "flood_deltas"]

SOCKETS: Final = 300
HANDSHAKE: Final = (
    "GET /twilio/media-stream HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{signature}\r\n"
)
BLOCK: Final = 400
"""Frames that are written at once."""


class _Flood:
    """One flood: its target, its end, and how much was sent so far."""

    def __init__(self, url: str, token: str, seconds: float) -> None:
        self.url = url
        self.token = token
        self.host, _, port = url.removeprefix("http://").partition(":")
        self.port = int(port)
        self.sent = 0
        self._ends_s = time.monotonic() + seconds

    @property
    def on(self) -> bool:
        return time.monotonic() < self._ends_s

    async def each(self, one: Callable[[], Awaitable[None]], count: int) -> None:
        """Do something over and over, so many times side by side."""

        async def repeat() -> None:
            while self.on:
                with contextlib.suppress(OSError, RuntimeError, httpx2.HTTPError):
                    await one()

        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(repeat())

    def handshake(self, *, signed: bool) -> bytes:
        stream = self.url.replace("http", "ws", 1) + "/twilio/media-stream"
        line = f"X-Twilio-Signature: {sign_http(self.token, stream)}\r\n" if signed else ""
        return HANDSHAKE.format(host=f"{self.host}:{self.port}", signature=line).encode()


async def _stranger_sockets(flood: _Flood) -> None:
    """Handshakes without a signature."""

    async def one() -> None:
        reader, writer = await asyncio.open_connection(flood.host, flood.port)
        try:
            writer.write(flood.handshake(signed=False))
            await reader.read(4_096)
            flood.sent += 1
        finally:
            writer.close()

    await flood.each(one, 16)


async def _silent_sockets(flood: _Flood) -> None:
    """Signed handshakes, by somebody who has seen one, and nothing after them."""

    async def one() -> None:
        reader, writer = await asyncio.open_connection(flood.host, flood.port)
        try:
            writer.write(flood.handshake(signed=True))
            flood.sent += 1
            while flood.on and await reader.read(4_096):
                pass
        finally:
            writer.close()

    await flood.each(one, SOCKETS)


async def _slowloris(flood: _Flood) -> None:
    """Heads of requests, a byte at a time."""

    async def one() -> None:
        _, writer = await asyncio.open_connection(flood.host, flood.port)
        try:
            writer.write(b"POST /twilio/voice HTTP/1.1\r\nX-Slow: ")
            while flood.on and not writer.transport.is_closing():
                writer.write(b"x")
                flood.sent += 1
                await asyncio.sleep(0.1)
        finally:
            writer.close()

    await flood.each(one, SOCKETS)


async def _bad_webhooks(flood: _Flood) -> None:
    """Webhooks with a forged signature, on connections that are kept."""
    headers = {"X-Twilio-Signature": "forged"}
    async with httpx2.AsyncClient(trust_env=False) as client:

        async def one() -> None:
            await client.post(flood.url + "/twilio/voice", data={"CallSid": "x"}, headers=headers)
            flood.sent += 1

        await flood.each(one, 8)


async def _tiny_pieces(flood: _Flood) -> None:
    """A body without end in chunks of a byte."""

    async def one() -> None:
        _, writer = await asyncio.open_connection(flood.host, flood.port)
        try:
            writer.write(b"POST /twilio/voice HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")
            while flood.on and not writer.transport.is_closing():
                writer.write(b"1\r\na\r\n" * 10_000)
                flood.sent += 10_000
                await _taken(writer.transport)
        finally:
            writer.close()

    await flood.each(one, 4)


def _frames(*frames: Frame) -> Callable[[_Flood], Awaitable[None]]:
    """A flood of these frames by a caller whose call is live."""

    async def flooded(flood: _Flood) -> None:
        load = Load()
        load.base_url, load.auth_token = flood.url, flood.token
        load.stream_url = flood.url.replace("http", "ws", 1) + "/twilio/media-stream"
        block = b"".join(each.serialize(mask=True) for each in frames) * BLOCK

        async def one() -> None:
            number = secrets.randbits(100)
            phone = Phone(load, number, await load.ring(f"CA{number:032x}"))
            await phone.connect()
            while flood.on and not phone.transport.is_closing():
                phone.transport.write(block)
                flood.sent += BLOCK
                await _taken(phone.transport)
            phone.transport.abort()

        async with httpx2.AsyncClient(trust_env=False) as load.http:
            await flood.each(one, 1)

    return flooded


async def _taken(wire: asyncio.WriteTransport) -> None:
    await until(lambda: wire.get_write_buffer_size() <= 65_536 or wire.is_closing())
    await asyncio.sleep(0)


FLOODS: Final[dict[str, Callable[[_Flood], Awaitable[None]]]] = {
    "stranger sockets": _stranger_sockets,
    "silent signed sockets": _silent_sockets,
    "slowloris": _slowloris,
    "bad webhooks": _bad_webhooks,
    "bodies in tiny pieces": _tiny_pieces,
    "empty texts": _frames(Frame(Opcode.TEXT, b"")),
    "pings": _frames(Frame(Opcode.PING, b"")),
    "fragments": _frames(
        Frame(Opcode.TEXT, b"", fin=False),
        *[Frame(Opcode.CONT, b"", fin=False)] * 30,
        Frame(Opcode.CONT, b"{}"),
    ),
}


async def flood_deltas(wire: asyncio.WriteTransport, seconds: float) -> int:
    """Send tiny deltas of a response that nobody asked for; return how many."""
    delta = (
        b'{"type":"response.output_audio.delta","event_id":"e","response_id":"resp_1",'
        b'"item_id":"item_1","output_index":0,"content_index":0,"delta":"AAA="}'
    )
    block = Frame(Opcode.TEXT, delta).serialize(mask=False) * BLOCK
    ends_s, sent = time.monotonic() + seconds, 0
    while time.monotonic() < ends_s and not wire.is_closing():
        wire.write(block)
        sent += BLOCK
        await _taken(wire)
    return sent


def main() -> None:
    """Flood a server."""
    kind, url, token, seconds = sys.argv[1:]
    flood = _Flood(url, token, float(seconds))
    asyncio.run(_run(FLOODS[kind], flood))
    sys.stdout.write(str(flood.sent))


async def _run(kind: Callable[[_Flood], Awaitable[None]], flood: _Flood) -> None:
    await kind(flood)


if __name__ == "__main__":
    main()
