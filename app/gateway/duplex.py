"""The two directions of one session, each with a bound.

A frame that can be written at once is written in the turn of the loop that read it. What cannot
waits here, and its sender is held meanwhile: behind a full socket stands what one read has brought,
not a queue that grows.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from app.framing import FrameWriter, Passthrough
from app.realtime.connection import ClientTransport

__all__ = ["ClientSocket", "Duplex", "Messages"]

FLUSH_S = 2.0
"""For a client that is behind when its session ends."""


class Messages(Protocol):
    """Takes what comes from a client."""

    def on_text(self, text: bytes) -> None: ...
    def on_binary(self) -> None: ...
    def on_end(self) -> None: ...
    def on_writable(self) -> None: ...


class ClientSocket(Protocol):
    """A client's websocket, by callback: `app.web.server.sockets.MessageTransport`."""

    frame_writer: FrameWriter

    def listen(self, messages: Messages, passthrough: Passthrough | None = None) -> None: ...
    def hold(self) -> None: ...
    def go_on(self) -> None: ...
    def send(self, *texts: bytes) -> bool: ...
    def close(self, code: int = 1000, reason: str = "") -> None: ...
    @property
    def close_code(self) -> int: ...


class Duplex:
    """Moves texts between a client's socket and an upstream.

    `from_client` and `from_upstream` look at each text, and return the one to send, or None.
    """

    def __init__(
        self,
        client: ClientSocket,
        *,
        from_client: Callable[[bytes], bytes | None],
        from_upstream: Callable[[str], bytes | None],
        on_binary: Callable[[], None],
    ) -> None:
        self._client = client
        self._from_client = from_client
        self._from_upstream = from_upstream
        self._on_binary = on_binary
        self._upstream: ClientTransport | None = None
        self._up: deque[bytes] = deque()
        self._down: deque[bytes] = deque()
        self._up_wanted = asyncio.Event()
        self._down_empty = asyncio.Event()
        self._gone = asyncio.Event()

    async def run(
        self,
        upstream: ClientTransport,
        *,
        up: Passthrough | None = None,
        down: Passthrough | None = None,
    ) -> None:
        """Duplex until either side ends; `up` and `down` take frames before they are text.

        Raises:
            VoiceClosed: the upstream has ended.
        """
        self._upstream = upstream
        self._client.listen(self, up)
        async with asyncio.TaskGroup() as group:
            pump = group.create_task(self._pump(upstream))
            try:
                await upstream.deliver(self._on_upstream, self, down)
            finally:
                pump.cancel()

    async def left(self) -> int:
        """Wait for the client to leave; its close code."""
        await self._gone.wait()
        return self._client.close_code

    def tell(self, text: bytes) -> None:
        """Send the client a text of the gateway's own."""
        if self._down or not self._client.send(text):
            self._down.append(text)

    async def flush(self) -> None:
        """Give a client that is behind a moment to take what waits."""
        try:
            async with asyncio.timeout(FLUSH_S):
                while self._down and not self._gone.is_set():
                    await self.room()
        except TimeoutError:
            pass  # it does not read

    # From the client ----------------------------------------------------------------------------

    def on_text(self, text: bytes) -> None:
        sent = self._from_client(text)
        if sent is None or self._upstream is None:
            return
        if self._up or not self._upstream.send_at_once(sent):
            self._up.append(sent)
            self._client.hold()
            self._up_wanted.set()

    def on_binary(self) -> None:
        self._on_binary()

    def on_end(self) -> None:
        self._gone.set()
        self._down_empty.set()

    async def _pump(self, upstream: ClientTransport) -> None:
        while True:
            await self._up_wanted.wait()
            self._up_wanted.clear()
            while self._up:
                await upstream.send(self._up[0].decode("utf-8", "replace"))
                self._up.popleft()
            self._client.go_on()

    # From the upstream --------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """The client takes what comes."""
        return not self._down

    async def room(self) -> None:
        """Wait until it does."""
        while self._down and not self._gone.is_set():
            self._down_empty.clear()
            await self._down_empty.wait()

    def _on_upstream(self, text: str) -> None:
        sent = self._from_upstream(text)
        if sent is not None:
            self.tell(sent)

    def on_writable(self) -> None:
        while self._down and self._client.send(self._down[0]):
            self._down.popleft()
        if not self._down:
            self._down_empty.set()
