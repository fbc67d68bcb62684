"""Websockets on raw protocol objects: what a frame costs where nothing stands around it.

Both ends of the load and the raw relay are made of it. It trusts its peers, which are ours and on
this machine: no limits, no strictness, no fragments. Bytes go from `data_received` to `on_text`,
and leave by `transport.write`; there is no task and no queue.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
from typing import Final, cast
from urllib.parse import urlsplit

from websockets.speedups import apply_mask

__all__ = ["WireClient", "WireServer", "frame"]

_MAGIC: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_TEXT: Final = 0x81
_CLOSE: Final = 0x88
_PING: Final = 0x89
_NO_KEY: Final = bytes(4)


def frame(payload: bytes, key: bytes | None = None, *, head: int = _TEXT) -> bytes:
    """A whole frame; masked where a key is given, which a key of zeros makes cheap."""
    size = len(payload)
    mask = 0 if key is None else 0x80
    if size < 126:
        start = bytes((head, mask | size))
    elif size < 65_536:
        start = bytes((head, mask | 126, size >> 8, size & 0xFF))
    else:
        start = bytes((head, mask | 127)) + size.to_bytes(8, "big")
    if key is None:
        return start + payload
    return start + key + (payload if key == _NO_KEY else apply_mask(payload, key))


class _Wire(asyncio.Protocol):
    """One end of a websocket."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.open = asyncio.get_running_loop().create_future()
        self.lost = asyncio.get_running_loop().create_future()
        self.close_code = 1006
        """The other end's, once it has closed the websocket."""
        self._buffer = b""
        self._is_open = False
        self._is_client = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        for waiting in (self.open, self.lost):
            if not waiting.done():
                waiting.set_result(None)
        self.on_end()

    def on_open(self) -> None:
        """The handshake is over."""

    def on_end(self) -> None:
        """The connection is gone."""

    def on_text(self, text: bytes) -> None:
        """A message has come."""

    def send(self, text: bytes) -> None:
        key = secrets.token_bytes(4) if self._is_client else None
        self.transport.write(frame(text, key))

    def close(self, code: int = 1000) -> None:
        key = _NO_KEY if self._is_client else None
        self.transport.write(frame(code.to_bytes(2, "big"), key, head=_CLOSE))

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        if not self._is_open:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = data
                return
            self._shake_hands(data[:end])
            data = data[end + 4 :]
        self._buffer = self._cut(data)

    def _cut(self, data: bytes) -> bytes:
        at, end = 0, len(data)
        while end - at >= 2:
            size, start = data[at + 1], at + 2
            masked, size = size & 0x80, size & 0x7F
            if size == 126:
                start += 2
                size = int.from_bytes(data[at + 2 : start], "big")
            elif size == 127:
                start += 8
                size = int.from_bytes(data[at + 2 : start], "big")
            body = start + 4 if masked else start
            if start > end or body + size > end:
                break
            payload = data[body : body + size]
            if masked:
                payload = apply_mask(payload, data[start:body])
            head, at = data[at], body + size
            if head == _TEXT:
                self.on_text(payload)
            elif head == _PING:
                key = _NO_KEY if self._is_client else None
                self.transport.write(frame(payload, key, head=0x8A))
            elif head == _CLOSE:
                self.close_code = int.from_bytes(payload[:2], "big") or 1005
                self.close()
                self.transport.close()
        return data[at:]

    def _shake_hands(self, head: bytes) -> None:
        self._is_open = True
        if not self.open.done():  # nobody waits any more
            self.open.set_result(None)
        self.on_open()


class WireServer(_Wire):
    """The end that was connected to; any path is a websocket, and other requests find it well."""

    def _shake_hands(self, head: bytes) -> None:
        fields = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
        }
        key = fields.get(b"sec-websocket-key")
        if key is None:
            self.transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            )
            self.transport.close()
            return
        accept = base64.b64encode(hashlib.sha1(key + _MAGIC, usedforsecurity=False).digest())
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-accept: " + accept + b"\r\n\r\n"
        )
        super()._shake_hands(head)


class WireClient(_Wire):
    """The end that connects."""

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        super().__init__()
        self._is_client = True
        self._url = urlsplit(url)
        self._headers = headers or {}

    async def connect(self) -> None:
        """Open the connection; returns once the other end has agreed."""
        loop = asyncio.get_running_loop()
        host, port = self._url.hostname or "", self._url.port or 80
        await loop.create_connection(lambda: self, host, port)
        await self.open
        if not self._is_open:
            raise ConnectionError("the websocket was refused")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        target = self._url._replace(scheme="", netloc="").geturl() or "/"
        more = "".join(f"{name}: {value}\r\n" for name, value in self._headers.items())
        self.transport.write(
            f"GET {target} HTTP/1.1\r\nhost: {self._url.netloc}\r\n"
            "upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\n"
            f"sec-websocket-key: {base64.b64encode(secrets.token_bytes(16)).decode()}\r\n"
            f"{more}\r\n".encode("ascii")
        )

    def _shake_hands(self, head: bytes) -> None:
        if head.split(b" ", 2)[1] != b"101":
            self.transport.close()
            return
        super()._shake_hands(head)
