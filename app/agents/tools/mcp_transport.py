"""The wires to MCP servers: a process (`app.agents.tools.mcp_stdio`), or HTTP to checked addresses.

The `mcp` package brings its own HTTP client, the older sibling of ours, so the guard of
`app.http.client` is built a second time around that one; the judgment of addresses is the
same. Imported only when a server is configured.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import anyio
import httpx
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage

from app.agents.tools.mcp_stdio import Reader, Writer, served_by_process
from app.errors import ToolFailed
from app.http.addresses import Resolve, check_url, checked_addresses

if TYPE_CHECKING:
    from app.agents.tools.mcp_server import McpServerSpec

__all__ = ["GuardedTransport", "transport", "watched"]


logger = logging.getLogger(__name__)


MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
_CONNECT_TIMEOUT_S: Final = 3.0
_READ_TIMEOUT_S: Final = 300.0  # a stream of events may be silent for long


@asynccontextmanager
async def transport(spec: McpServerSpec, resolve: Resolve) -> AsyncIterator[tuple[Reader, Writer]]:
    """Messages from and to a server. The process or the connection ends with the context."""
    if spec.transport == "stdio":
        process = served_by_process((spec.command, *spec.args), spec.env, MAX_ANSWER_BYTES)
        async with process as (read, write):
            yield read, write
        return
    client = httpx.AsyncClient(
        transport=GuardedTransport(resolve, allow_private=spec.allow_private),
        headers={**spec.headers, "Accept-Encoding": "identity"},
        timeout=httpx.Timeout(_CONNECT_TIMEOUT_S, read=_READ_TIMEOUT_S),
        trust_env=False,
    )
    async with client, streamable_http_client(spec.url, http_client=client) as (read, write, _):
        yield read, write


@asynccontextmanager
async def watched(name: str, read: Reader, on_end: Callable[[], None]) -> AsyncIterator[Reader]:
    """The same messages, with word when there will be no more: the package tells nobody.

    `name` is the server's, for the log.
    """
    entry, exit_ = anyio.create_memory_object_stream[SessionMessage | Exception](0)

    async def pump() -> None:
        told = False
        async with entry:
            try:
                async for message in read:
                    if isinstance(message, Exception) and not told:
                        told = True  # once: some servers write a log to where messages belong
                        logger.warning("mcp server says what is no message", extra={"server": name})
                    await entry.send(message)
            except (anyio.ClosedResourceError, anyio.BrokenResourceError):
                pass  # one of the two sides is gone: that is an end as well
            on_end()

    async with read, entry, exit_, anyio.create_task_group() as group:
        group.start_soon(pump)
        try:
            yield exit_
        finally:
            group.cancel_scope.cancel()


class GuardedTransport(httpx.AsyncBaseTransport):
    """Resolves, judges, and connects to what was judged; see `app.http.client`."""

    def __init__(self, resolve: Resolve, *, allow_private: bool) -> None:
        self._resolve = resolve
        self._allow_private = allow_private
        self._inner = httpx.AsyncHTTPTransport(trust_env=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = check_url(str(request.url), allow_private=self._allow_private)
        addresses = await checked_addresses(url, self._resolve, allow_private=self._allow_private)
        for address in addresses:
            pinned = httpx.Request(
                request.method,
                request.url.copy_with(host=address),
                headers=request.headers,
                stream=request.stream,
                extensions={
                    **request.extensions,
                    "sni_hostname": url.raw_host.decode("ascii"),
                },
            )
            try:
                response = await self._inner.handle_async_request(pinned)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if address == addresses[-1]:
                    raise
                continue
            return await self._bounded(request, response)
        raise AssertionError("checked_addresses returns at least one")

    async def _bounded(self, request: httpx.Request, response: httpx.Response) -> httpx.Response:
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            raise ToolFailed("The server packs what it was asked not to.", code="response_invalid")
        stream: Any = response.stream
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=_Bounded(stream, endless=request.method == "GET"),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Bounded(httpx.AsyncByteStream):
    """An answer that ends with an error when it grows too large.

    An `endless` one is the stream of events, of which each may be so large.
    """

    def __init__(self, stream: httpx.AsyncByteStream, *, endless: bool) -> None:
        self._stream = stream
        self._endless = endless

    async def __aiter__(self) -> AsyncIterator[bytes]:
        total_bytes = 0
        async for chunk in self._stream:
            event_ends = b"\n\n" in chunk or b"\r\n\r\n" in chunk
            total_bytes = len(chunk) + (0 if self._endless and event_ends else total_bytes)
            if total_bytes > MAX_ANSWER_BYTES:
                raise httpx.ReadError("answer too large")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
