"""Outages of the model on its way to it: a gate in front of a server that is well all the time.

A gate is a TCP port of its own. While it is out it refuses, drops or keeps connections as its kind
says, and what was open before is cut or stands still. Afterwards what was hung stays hung, as with
a machine that was exchanged, except where the kind says otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from enum import StrEnum
from types import TracebackType
from typing import Final, Self

__all__ = ["Gate", "Outage"]


class Outage(StrEnum):
    """The kinds of outages. `frozen` leaves open what is open, and goes on where it stood."""

    REFUSED = "refused"
    BLACK_HOLE = "no packet answered"
    HANGS_BEFORE = "accepted, and no answer"
    HANGS_AFTER = "upgraded, and not a word"
    HANGS_AT_SETTINGS = "settings never confirmed"
    CLOSED = "closed at once"
    UNAVAILABLE = "503"
    TLS_HANGS = "accepted, and no TLS"
    NO_NAME = "name not found"
    NAME_HANGS = "name server does not answer"
    FROZEN = "frozen"


_HANGS: Final = {Outage.HANGS_BEFORE, Outage.TLS_HANGS, Outage.FROZEN}
_503: Final = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


class Gate:
    """A way to `upstream`, a port of this machine, at `port`."""

    def __init__(self, kind: Outage, upstream: int, tls: ssl.SSLContext | None = None) -> None:
        self.kind = kind
        self.out = False
        self._upstream = upstream
        self._tls = tls if kind is Outage.TLS_HANGS else None
        self._well = asyncio.Event()
        self._well.set()
        self._listener = self._bound(0)
        self.port: int = self._listener.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._waiting: list[socket.socket] = []
        self._ways: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        named = self.kind in {Outage.NO_NAME, Outage.NAME_HANGS}
        host = f"{self.kind.name.lower().replace('_', '-')}.example" if named else "127.0.0.1"
        if self.kind is Outage.TLS_HANGS:
            return f"wss://localhost:{self.port}/v1/realtime"
        return f"ws://{host}:{self.port}/v1/realtime"

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        self._listener.close()
        await self._cut()

    async def begin(self) -> None:
        """The outage begins."""
        self.out = True
        self._well.clear()
        if self.kind is Outage.FROZEN:
            return
        if self.kind in {Outage.REFUSED, Outage.BLACK_HOLE} and self._server is not None:
            self._server.close()
            self._server = None
            self._listener = self._bound(self.port)
        if self.kind is Outage.BLACK_HOLE:
            self._fill()
        await self._cut()

    async def end(self) -> None:
        """Serve what connects from now on."""
        self.out = False
        self._well.set()
        for waiting in self._waiting:
            waiting.close()
        if self._server is None:
            await self._listen()

    @staticmethod
    def _bound(port: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind(("127.0.0.1", port))
        return listener

    def _fill(self) -> None:
        """Leave the kernel no room to answer in: it drops what comes then."""
        self._listener.listen(0)
        for _ in range(2):
            waiting = socket.socket()
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(("127.0.0.1", self.port))
            self._waiting.append(waiting)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, sock=self._listener, backlog=100)

    async def _cut(self) -> None:
        ways = list(self._ways)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        way = asyncio.current_task()
        assert way is not None
        self._ways.add(way)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):  # of `_cut`
                await self._serve_one(reader, writer)
        finally:
            self._ways.discard(way)
            writer.transport.abort()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun_out = self.out
        if begun_out and self.kind is Outage.CLOSED:
            return
        if begun_out and self.kind is Outage.UNAVAILABLE:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(_503)
            await writer.drain()
            return
        if begun_out and self.kind in _HANGS:
            if self.kind is not Outage.FROZEN:
                await reader.read()
                return
            await self._well.wait()
        if self._tls is not None:
            await writer.start_tls(self._tls)
        there, back = await asyncio.open_connection("127.0.0.1", self._upstream)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(reader, back))
                both.create_task(self._pass(there, writer, begun_out=begun_out))
        except* _Over:
            pass
        finally:
            back.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, begun_out: bool = False
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if self.kind is Outage.FROZEN:
                    await self._well.wait()
                if begun_out and self.kind is Outage.HANGS_AFTER:
                    end = data.find(b"\r\n\r\n")
                    data = data[: end + 4] if end >= 0 else b""
                if begun_out and self.kind is Outage.HANGS_AT_SETTINGS and b".updated" in data:
                    data = b""
                writer.write(data)
                await writer.drain()
        raise _Over


class _Over(Exception):
    """One side is gone: ends the way."""
