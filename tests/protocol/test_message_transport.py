"""The writing half of an accepted websocket: open as long as a frame may follow, and no longer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from app.framing import masked_text_frame, text_frame
from app.web.server.sockets import (
    MessageTransport,
    SocketCounts,
    SocketLimits,
    guarded_protocols,
    transport_of,
)
from tests.fakes.waiting import time_limit, until

SOUND = text_frame(b"sound " * 30)
CLOSE = 0x88
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nhost: here\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class Silent:
    """Takes what comes, and remembers the end."""

    def __init__(self) -> None:
        self.texts: list[bytes] = []
        self.ended = False

    def on_text(self, text: bytes) -> None:
        self.texts.append(text)

    def on_binary(self) -> None:
        """None is sent."""

    def on_end(self) -> None:
        self.ended = True

    def on_writable(self) -> None:
        """The test looks for itself."""


@dataclass
class Both:
    """Both ends of one websocket; the peer's is bare."""

    transport: MessageTransport
    messages: Silent
    asgi: WebSocket
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    leave: asyncio.Event

    async def came(self) -> list[bytes]:
        """All frames until the server has closed the connection."""
        frames: list[bytes] = []
        async with time_limit():
            while head := await self.reader.read(2):
                size = head[1] & 0x7F
                if size == 126:
                    size = int.from_bytes(await self.reader.readexactly(2))
                frames.append(head[:1] + await self.reader.readexactly(size))
        return frames


@asynccontextmanager
async def both() -> AsyncIterator[Both]:
    """A websocket that is accepted, with its transport taken."""
    accepted = asyncio.get_running_loop().create_future()
    leave = asyncio.Event()

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        messages = Silent()
        transport = transport_of(websocket)
        transport.listen(messages)
        accepted.set_result((transport, messages, websocket))
        await leave.wait()

    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    limits = SocketLimits(linger_ms=200)
    http, protocol = guarded_protocols(limits, SocketCounts())
    config = uvicorn.Config(app, http=http, ws=protocol, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve(sockets=[listener]))
            reader, writer = await asyncio.open_connection(*listener.getsockname()[:2])
            try:
                writer.write(HANDSHAKE)
                await reader.readuntil(b"\r\n\r\n")
                transport, messages, asgi = await accepted
                yield Both(transport, messages, asgi, reader, writer, leave)
            finally:
                leave.set()
                writer.close()
                server.should_exit = server.force_exit = True


async def fill(here: Both) -> int:
    """Write until the peer, who does not read, is behind; the number of frames."""
    sent = 0
    async with time_limit():
        while here.transport.frame_writer.open:
            here.transport.frame_writer.write(SOUND * 500)
            sent += 500
            await asyncio.sleep(0)
    return sent


ENDS: dict[str, Callable[[Both], object]] = {
    "ours": lambda here: here.transport.close(1000, "done"),
    "asgi": lambda here: asyncio.ensure_future(here.asgi.close()),
    "theirs": lambda here: here.writer.write(b"\x88\x82\0\0\0\0\x03\xe8"),
    "unmasked": lambda here: here.writer.write(text_frame(b"no mask")),
    "reserved bits": lambda here: here.writer.write(b"\xf1\x80\0\0\0\0"),
    "too large": lambda here: here.writer.write(masked_text_frame(b"a" * 70_000, b"abcd")),
    "no pong": lambda here: here.transport._socket.keepalive_timeout(),  # after 20 s
    "server stops": lambda here: here.transport._socket.shutdown(),
}


@pytest.mark.parametrize("behind", [False, True], ids=["", "behind"])
@pytest.mark.parametrize("end", ENDS)
async def test_no_frame_follows_the_close_frame(end: str, behind: bool) -> None:
    async with both() as here:
        frame_writer = here.transport.frame_writer
        frame_writer.write(SOUND)
        if behind:  # but not so far that it may not be written to
            buffer = here.transport._socket.transport
            buffer.set_write_buffer_limits(2**24)
            while not buffer.get_write_buffer_size():
                frame_writer.write(SOUND * 500)
        ENDS[end](here)
        reading = asyncio.create_task(here.came())
        # A writer that knows nothing of the end: it writes as often as it is let.
        async with time_limit():
            while frame_writer.open:
                frame_writer.write(SOUND)
                await asyncio.sleep(0)
        assert not here.transport.send(b"too late")
        here.leave.set()
        frames = await reading
    kinds = [frame[0] for frame in frames]
    assert kinds.count(CLOSE) == 1 and kinds[-1] == CLOSE
    assert frames[0] == b"\x81" + SOUND[4:]
    await until(lambda: here.messages.ended)


async def test_the_frame_writer_is_closed_once_the_peer_has_vanished() -> None:
    async with both() as here:
        here.writer.transport.abort()
        await until(lambda: here.messages.ended)
        assert not here.transport.frame_writer.open


async def test_the_frame_writer_is_closed_while_the_peer_is_behind() -> None:
    async with both() as here:
        frame_writer, sent = here.transport.frame_writer, await fill(here)
        assert not here.transport.send(b"no room")
        for _ in range(sent):
            assert await here.reader.readexactly(len(SOUND)) == SOUND
        await until(lambda: frame_writer.open)
        assert here.transport.send(b"room again")
        assert await here.reader.readexactly(12) == text_frame(b"room again")
        here.transport.close()
        assert not frame_writer.open
