"""HTTP requests that reach public addresses only, unless the settings allow others.

A tool's URL is fixed in the settings, but names resolve to what their owner likes, and answers
redirect. So every hop is resolved once, all of its addresses are checked, and the connection goes
to a checked address, with the name kept for Host and TLS. Where the settings name a proxy, it is
told the name and chooses the address. No .netrc is read. Answers are bounded in size, also
unpacked, and in time.

`app.http.addresses` holds the addresses, `app.agents.tools.http_tool` the meaning of an answer.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Final, Self

import httpx2

from app.errors import ToolFailed, ToolTimeout
from app.http.addresses import Resolve, check_url, checked_addresses, resolve_by_system, url_refused
from app.http.routed import new_transport
from app.network import proxy_for

__all__ = ["CONNECT_TIMEOUT_S", "Fetched", "Outgoing", "SafeHttp", "send_checked"]


CONNECT_TIMEOUT_S: Final = 3.0
MAX_REDIRECTS: Final = 3
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))


# Requests -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A request and its limits."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    content: bytes | None = field(default=None, repr=False)
    timeout_ms: int = 8_000
    max_bytes: int = 262_144
    follow_redirects: bool = False
    allow_private: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """An answer, of any status; `headers` in lower case, `body` unpacked."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class SafeHttp:
    """Makes requests to checked addresses and keeps connections open; one for a process."""

    def __init__(
        self,
        *,
        resolve: Resolve = resolve_by_system,
        max_connections: int = 100,
    ) -> None:
        self._resolve = resolve
        self._limits = httpx2.Limits(
            max_connections=max_connections, max_keepalive_connections=10, keepalive_expiry=30
        )
        self._warm: dict[tuple[str, str, int | None], httpx2.AsyncHTTPTransport] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        for transport in self._warm.values():
            await transport.aclose()
        self._warm.clear()

    async def fetch(self, request: Outgoing) -> Fetched:
        """Send a request and read its whole answer.

        Raises:
            ToolFailed: codes `url_refused`, `unreachable`, `redirect_refused`,
                `response_too_large`, `response_invalid`.
            ToolTimeout: redirects and all took longer than `timeout_ms`.
        """
        try:
            async with asyncio.timeout(request.timeout_ms / 1000):
                return await self._follow(request)
        except TimeoutError as error:
            raise ToolTimeout("The service did not answer in time.") from error
        except httpx2.TransportError as error:
            raise ToolFailed(
                "The service could not be reached.", code="unreachable", retryable=True
            ) from error

    async def _follow(self, request: Outgoing) -> Fetched:
        url = check_url(request.url, allow_private=request.allow_private)
        fetched = await self._exchange(request, url, self._transport_to(url))
        for _ in range(MAX_REDIRECTS):
            if fetched.status not in _REDIRECTS:
                return fetched
            if not request.follow_redirects or request.method not in ("GET", "HEAD"):
                break
            next_url = check_url(
                _target(url, fetched.headers.get("location", "")),
                allow_private=request.allow_private,
            )
            if _origin(next_url) != _origin(url):
                request = replace(request, headers={})  # they were meant for the first host
            url = next_url
            # Not kept: only origins from the settings may hold connections here.
            async with new_transport(proxy_for(str(url)), self._limits) as transport:
                fetched = await self._exchange(request, url, transport)
        if fetched.status in _REDIRECTS:
            raise ToolFailed(
                "The service redirects to elsewhere, which is not followed.",
                code="redirect_refused",
            )
        return fetched

    async def _exchange(
        self, request: Outgoing, url: httpx2.URL, transport: httpx2.AsyncHTTPTransport
    ) -> Fetched:
        """Make one request and read its answer."""
        asked = httpx2.Request(
            request.method,
            url,
            headers={"Accept-Encoding": "identity", **request.headers},
            content=request.content,
            extensions={"timeout": {"connect": CONNECT_TIMEOUT_S, "pool": CONNECT_TIMEOUT_S}},
        )
        response = await send_checked(
            asked, transport, self._resolve, allow_private=request.allow_private
        )
        try:
            return await _read(response, request.max_bytes)
        finally:
            await response.aclose()

    def _transport_to(self, url: httpx2.URL) -> httpx2.AsyncHTTPTransport:
        """The connections to one origin.

        A pool for each: they are kept by address, and two names of one address must not share a
        TLS connection.
        """
        key = _origin(url)
        if key not in self._warm:
            self._warm[key] = new_transport(proxy_for(str(url)), self._limits)
        return self._warm[key]


async def send_checked(
    request: httpx2.Request,
    transport: httpx2.AsyncBaseTransport,
    resolve: Resolve,
    *,
    allow_private: bool,
) -> httpx2.Response:
    """Send a request to the first of its addresses that answers, all of which were checked.

    The name stays in the Host header and in TLS. A proxy gets the name: it is the one that
    connects, by its own resolver and its own rules.

    Raises:
        ToolFailed: the URL, its name or one of its addresses is refused.
        httpx2.TransportError: no address could be reached.
    """
    url = check_url(str(request.url), allow_private=allow_private)
    if proxy_for(str(url)) is not None:
        return await transport.handle_async_request(request)
    addresses = await checked_addresses(url, resolve, allow_private=allow_private)
    for last, address in ((a == addresses[-1], a) for a in addresses):
        pinned = httpx2.Request(
            request.method,
            url.copy_with(host=address),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": url.raw_host.decode("ascii")},
        )
        try:
            return await transport.handle_async_request(pinned)
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            if last:
                raise
    raise AssertionError("checked_addresses returns at least one")


def _target(url: httpx2.URL, location: str) -> str:
    try:
        return str(url.join(location))
    except httpx2.InvalidURL as error:
        raise url_refused("it cannot be read") from error


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


async def _read(response: httpx2.Response, max_bytes: int) -> Fetched:
    announced = response.headers.get("content-length", "")
    if announced.isdecimal() and len(announced) < 20 and int(announced) > max_bytes:
        raise _too_large(max_bytes)
    body = _Body(response.headers.get("content-encoding", "identity"), max_bytes)
    stream = response.stream
    assert isinstance(stream, AsyncIterable)
    async for chunk in stream:
        body.push(chunk)
    return Fetched(
        status=response.status_code,
        headers={name.lower(): value for name, value in response.headers.items()},
        body=body.finish(),
    )


class _Body:
    """Collects an answer and unpacks it; neither form may pass the limit.

    We ask for no packing, but some servers pack anyway. Unpacking stops at the limit, so that a
    small bomb stays small.
    """

    def __init__(self, encoding: str, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._received_bytes = 0
        self._unpacked = bytearray()
        kind = encoding.strip().lower()
        if kind not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise ToolFailed("The answer is packed in an unknown way.", code="response_invalid")
        # 32 + 15: the header says whether it is gzip or zlib.
        self._unpacker = None if kind in ("", "identity") else zlib.decompressobj(wbits=47)

    def push(self, chunk: bytes) -> None:
        self._received_bytes += len(chunk)
        if self._received_bytes > self._max_bytes:
            raise _too_large(self._max_bytes)
        if self._unpacker is None:
            self._unpacked += chunk
            return
        room = self._max_bytes - len(self._unpacked)
        try:
            self._unpacked += self._unpacker.decompress(chunk, room + 1)
        except zlib.error as error:
            raise ToolFailed("The answer cannot be unpacked.", code="response_invalid") from error
        if len(self._unpacked) > self._max_bytes:
            raise _too_large(self._max_bytes)

    def finish(self) -> bytes:
        if self._unpacker is not None and self._received_bytes and not self._unpacker.eof:
            raise ToolFailed("The answer ends too early.", code="response_invalid", retryable=True)
        return bytes(self._unpacked)


def _too_large(max_bytes: int) -> ToolFailed:
    return ToolFailed(f"The answer is larger than {max_bytes} bytes.", code="response_too_large")
