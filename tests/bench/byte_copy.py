"""The baseline of the gateway benchmark: copies bytes between two sockets, and knows no websocket.

python -m tests.bench.byte_copy PORT UPSTREAM_PORT
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

__all__ = ["serve"]


class _End(asyncio.Protocol):
    """One socket; what it receives is written to the other one, or waits for it."""

    def __init__(self, other: _End | None = None) -> None:
        self.transport: asyncio.Transport | None = None
        self.other = other
        self._early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self._early:
            self.transport.write(self._early)

    def data_received(self, data: bytes) -> None:
        assert self.other is not None
        self.other.write(data)

    def write(self, data: bytes) -> None:
        if self.transport is None:
            self._early += data
        else:
            self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class _Client(_End):
    """The socket that was accepted: connects its other end."""

    def __init__(self, upstream_port: int) -> None:
        super().__init__()
        self._upstream_port = upstream_port
        self._connecting: asyncio.Task[object] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.other = upstream = _End(self)
        loop = asyncio.get_running_loop()
        connecting = loop.create_connection(lambda: upstream, "127.0.0.1", self._upstream_port)
        self._connecting = loop.create_task(connecting)


async def serve(port: int, upstream_port: int) -> None:
    """Relay until cancelled."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Client(upstream_port), "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1]), int(sys.argv[2])))
