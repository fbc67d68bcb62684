"""The transports to MCP servers: a process (`app.agents.tools.mcp_stdio`), or HTTP.

HTTP goes to checked addresses (`app.http.client`) and is bounded: a JSON answer here, an event of a
stream by the `mcp` package. Imported only when a server is configured.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
import httpx2
from mcp.client._transport import ReadStream, TransportStreams
from mcp.client.streamable_http import MCP_SESSION_ID, streamable_http_client
from mcp.shared.message import SessionMessage
from mcp_types.methods import validate_server_result
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from pydantic import ValidationError

from app.agents.tools.mcp_faults import NO_MESSAGE, ProcessEnd, in_words
from app.agents.tools.mcp_stdio import served_by_process
from app.errors import ToolFailed
from app.http.addresses import Resolve
from app.http.client import CONNECT_TIMEOUT_S, send_checked
from app.http.routed import new_transport
from app.network import proxy_for

if TYPE_CHECKING:
    from app.agents.tools.mcp_server import McpServerSpec

__all__ = ["GuardedTransport", "transport", "watched"]


MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
_CURES: Final = {
    401: "it wants credentials: set an Authorization header in its headers",
    403: "its credentials do not suffice: check its headers",
    404: "there is no MCP server at this address: check its url, which often ends in /mcp",
    405: "it speaks an older transport, HTTP with SSE: use its address for streamable HTTP",
}
_READ_TIMEOUT_S: Final = 300.0  # a stream of events may be silent for long


@asynccontextmanager
async def transport(
    spec: McpServerSpec, resolve: Resolve, end: ProcessEnd | None = None
) -> AsyncIterator[TransportStreams]:
    """Messages from and to a server. The process or the connection ends with the context.

    `end` is told how a process ends by itself.
    """
    if spec.transport == "stdio":
        process = served_by_process((spec.command, *spec.args), spec.env, MAX_ANSWER_BYTES, end)
        async with process as (read, write):
            yield read, write
        return
    client = httpx2.AsyncClient(
        transport=GuardedTransport(spec.url, resolve, allow_private=spec.allow_private),
        headers={**spec.headers, "Accept-Encoding": "identity"},
        timeout=httpx2.Timeout(CONNECT_TIMEOUT_S, read=_READ_TIMEOUT_S),
        trust_env=False,
    )
    streams = streamable_http_client(
        spec.url, http_client=client, max_sse_event_size=MAX_ANSWER_BYTES
    )
    async with client, streams as (read, write):
        yield read, write


@asynccontextmanager
async def watched(
    read: ReadStream[SessionMessage | Exception],
    on_end: Callable[[], None],
    on_left_out: Callable[[str, str], None],
) -> AsyncIterator[ReadStream[SessionMessage | Exception]]:
    """The same messages, with a call when there will be no more: the package reports no end.

    Tools that the package would refuse, with all others of their list, are left out: `on_left_out`
    gets the name and the reason.
    """
    version = HANDSHAKE_PROTOCOL_VERSIONS[-1]
    entry, exit_ = anyio.create_memory_object_stream[SessionMessage | Exception](0)

    async def pump() -> None:
        nonlocal version
        async with entry:
            try:
                async for message in read:
                    if isinstance(message, SessionMessage):
                        result = getattr(message.message, "result", None) or {}
                        version = result.get("protocolVersion", version)
                        if "tools" in result:
                            result["tools"] = _readable(result["tools"], version, on_left_out)
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


def _readable(tools: Any, version: str, on_left_out: Callable[[str, str], None]) -> Any:
    """A list of tools without those that cannot be read; what is null in one is absent."""
    if not isinstance(tools, list):
        return [] if tools is None else tools
    kept = []
    for given in tools:
        present = {
            key: value
            for key, value in (given if isinstance(given, dict) else {}).items()
            if value is not None
        }
        tool = {"inputSchema": {}} | present
        schema = tool["inputSchema"]
        if isinstance(schema, dict) and schema.get("type") is None:  # one of alternatives, say
            tool["inputSchema"] = {**schema, "type": "object"}
        try:
            validate_server_result("tools/list", version, {"tools": [tool]})
            kept.append(tool)
        except ValidationError as error:
            on_left_out(str(tool.get("name", "")), in_words(error))
        except (KeyError, ValueError):  # a version that the package is about to refuse
            kept.append(tool)
    return kept


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Sends requests to the checked addresses of one server, and bounds what is answered."""

    def __init__(self, url: str, resolve: Resolve, *, allow_private: bool) -> None:
        self._resolve = resolve
        self._allow_private = allow_private
        self._inner = new_transport(proxy_for(url))

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            response = await send_checked(
                request, self._inner, self._resolve, allow_private=self._allow_private
            )
        except httpx2.TransportError as error:
            if not _begins(request):
                raise
            raise ToolFailed(_unreached(error), code="unreachable") from error
        if response.status_code == 404 and MCP_SESSION_ID in request.headers:
            # The session is over (specification, "session management"); bodies say it variously.
            await response.aclose()
            return httpx2.Response(404)
        if _begins(request) and (problem := _problem(response)):
            await response.aclose()
            raise ToolFailed(problem, code="unreachable")
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            raise ToolFailed("The server packs what it was asked not to.", code="response_invalid")
        stream = cast(httpx2.AsyncByteStream, response.stream)
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=stream if request.method == "GET" else _Bounded(stream),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


def _begins(request: httpx2.Request) -> bool:
    """True for the first message of a connection."""
    return request.method == "POST" and b'"initialize"' in request.content


def _unreached(error: httpx2.TransportError) -> str:
    """The failure to send that message in words."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, ssl.SSLCertVerificationError):
            return f"It cannot be reached: its certificate is not valid ({inner.verify_message})."
        if isinstance(inner, ssl.SSLError):
            return "It cannot be reached: its certificate is not accepted."
        if isinstance(inner, OSError) and inner.errno:
            reason = os.strerror(inner.errno).lower()
            return f"It cannot be reached ({reason}): check its url, and that it runs."
        inner = inner.__cause__ or inner.__context__
    return "It cannot be reached: check its url, and that it runs."


def _problem(response: httpx2.Response) -> str:
    """The reason why an answer to that message is none, in words; empty where it may be one."""
    status = response.status_code
    if status >= 300:
        return _refusal(status)
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if status == 200 and kind in ("application/json", "text/event-stream"):
        return ""
    return f"{NO_MESSAGE} It answered {status} with {kind or 'nothing'}."


def _refusal(status: int) -> str:
    """The answer to that message in words, with the cure where it is known."""
    if 300 <= status < 400:
        return f"It answered {status}, which points elsewhere: set its url to where that is."
    cure = _CURES.get(status, "look into its log" if status >= 500 else "check its url and headers")
    name = HTTPStatus(status).phrase if status in set(HTTPStatus) else "unknown status"
    return f"It answered {status} ({name}): {cure}."


class _Bounded(httpx2.AsyncByteStream):
    """The answer to one message, which ends with an error when it grows too large."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        total_bytes = 0
        async for chunk in self._stream:
            total_bytes += len(chunk)
            if total_bytes > MAX_ANSWER_BYTES:
                raise httpx2.ReadError("answer too large")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
