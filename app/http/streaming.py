"""Requests whose answers are read while they arrive, to servers that the settings name.

The operator chose these addresses, so private ones and plain http are allowed. Answers of tools,
whose addresses may come from elsewhere, go through `app.http.client`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from json import dumps
from typing import Any, Final, Self

import httpx2

from app.http.client import CONNECT_TIMEOUT_S
from app.http.routed import open_client
from app.json_text import whole_text

__all__ = ["StreamingHttp", "sse_data"]

_MAX_EVENT_CHARS: Final = 4 * 1024 * 1024
"""A piece of speech in base64 is far smaller; a server that never ends a line is cut off."""


class StreamingHttp:
    """Keeps connections to the servers open; one for a process, closed at its end."""

    def __init__(self, *, max_connections: int = 400) -> None:
        self._limits = httpx2.Limits(
            max_connections=max_connections, max_keepalive_connections=50, keepalive_expiry=60
        )
        self._client: httpx2.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Get ready; the first request connects.

        Raises:
            ConfigError: the certificates cannot be read.
        """
        self._opened()

    async def close(self) -> None:
        """Close every connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    @asynccontextmanager
    async def post(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        timeout_s: float,
        json: Any = None,
        fields: Mapping[str, Any] | None = None,
        file: tuple[str, bytes, str] | None = None,
    ) -> AsyncIterator[httpx2.Response]:
        """Send JSON, or a form with `file` (name, bytes, type); the answer's body is unread.

        `timeout_s` bounds each wait for the server, not the whole answer.

        Raises:
            httpx2.HTTPError: the server was not reached, is late, or cut the answer.
        """
        sent = dict(headers)
        body: dict[str, Any] = {"files": {"file": file}}
        if file is None:
            text = dumps(json, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
            body = {"content": whole_text(text).encode()}
            sent["content-type"] = "application/json"
        if fields is not None:
            body["data"] = dict(fields)
        timeout = httpx2.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s))
        async with self._opened().stream(
            "POST", url, headers=sent, timeout=timeout, **body
        ) as response:
            yield response

    def _opened(self) -> httpx2.AsyncClient:
        if self._client is None:
            self._client = open_client(self._limits)
        return self._client


async def sse_data(response: httpx2.Response) -> AsyncIterator[str]:
    """The data of each server-sent event, comments and other fields left out.

    Servers differ in the blank after `data:` and in the blank line at the end of the stream.

    Raises:
        httpx2.HTTPError: the stream broke.
    """
    lines: list[str] = []
    size = 0
    async for raw in response.aiter_lines():
        line = raw.rstrip("\r\n")
        if line.startswith("data:"):
            lines.append(line[5:].removeprefix(" "))
            size += len(line)
            if size > _MAX_EVENT_CHARS:
                raise httpx2.DecodingError("a server-sent event is too long")
        elif not line and lines:
            yield "\n".join(lines)
            lines, size = [], 0
    if lines:
        yield "\n".join(lines)
