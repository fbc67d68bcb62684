"""A small HTTP/1.1 server for tests: records what it is asked and answers as told, also badly."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

__all__ = ["Asked", "WebService", "answer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as it came in; `headers` in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Script = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


def answer(
    body: bytes = b"", *, status: int = 200, content_type: str = "application/json", **headers: str
) -> Script:
    """A well-behaved answer."""

    async def write(_: Asked, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status} x", f"Content-Length: {len(body)}"]
        lines.append(f"Content-Type: {content_type}")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()

    return write


class WebService:
    """Serves `scripts` one after another, the last one for good; counts connections."""

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None) -> None:
        self.scripts = list(scripts)
        self.asked: list[Asked] = []
        self.connections = 0
        self.port = 0
        self._tls = tls
        self._open: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        self.let_go()
        await asyncio.gather(*self._open, return_exceptions=True)
        await self._server.wait_closed()

    def stop(self) -> None:
        """Listen no more."""
        self._server.close()

    def let_go(self) -> None:
        """Drop every connection, also one whose script never ends."""
        for task in self._open:
            task.cancel()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        pairs = (line.partition(":") for line in head[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        asked = Asked(method=method, target=target, headers=headers, body=body)
        self.asked.append(asked)
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        await script(asked, writer)
        return not writer.is_closing()
