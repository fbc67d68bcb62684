"""A socket that its peer has closed: late writes are dropped, on either event loop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvloop

from app.web.server.sockets import _Transport
from tests.fakes.waiting import until

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("end", ["abort", "close", "the peer resets"])
def test_what_is_written_to_a_closed_socket_is_dropped(loop: str, end: str) -> None:
    async def main() -> None:
        lost = asyncio.Event()

        class Peer(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                made.append(_Transport(transport))

            def connection_lost(self, exc: Exception | None) -> None:
                lost.set()

        made: list[Any] = []
        server = await asyncio.get_running_loop().create_server(Peer, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await until(lambda: made)
        transport = made[0]
        if end == "the peer resets":
            writer.transport.abort()
        else:
            getattr(transport, end)()
        await lost.wait()
        for _ in range(3):
            transport.write(b"late")
            transport.pause_reading()
            transport.resume_reading()
            transport.close()
            transport.abort()
            await asyncio.sleep(0)
        writer.close()
        server.close()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())
