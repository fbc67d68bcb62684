"""Passes a media socket on to the worker that has its call.

The path of a stream names that worker. The one that accepts the connection reads the head of the
request as always; where the path names another one, it sends that one the socket itself with the
head, and forgets it. Later bytes go there without a detour.

Follows uvicorn 0.54 (`HttpToolsProtocol.handle_websocket_upgrade`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from app.web.server.sockets import GuardedHttp

__all__ = ["SocketPassing", "stream_path_of", "with_socket_passing"]

PassOn = Callable[[str, int, bytes], bool]
"""Takes a worker's name, a descriptor, and what was read of it; False when it was not taken."""


@dataclass(frozen=True, slots=True)
class SocketPassing:
    """The worker that this is, and the way to the others."""

    own: str
    stream_path: str
    pass_on: PassOn


def stream_path_of(base: str, worker: str) -> str:
    """The path of the streams of a worker's calls."""
    return f"{base}/{worker}"


class _PassingHttp(GuardedHttp):
    passing: ClassVar[SocketPassing]

    def handle_websocket_upgrade(self) -> None:
        own, base = self.passing.own, self.passing.stream_path + "/"
        path = self.url.partition(b"?")[0].decode("ascii", "replace")
        worker = path.removeprefix(base) if path.startswith(base) else own
        if worker == own or not self._passed_on_to(worker):
            super().handle_websocket_upgrade()

    def _passed_on_to(self, worker: str) -> bool:
        # As it stood on the wire, but for the case of names: the carrier signs neither.
        lines = [f"{self.scope['method']} ".encode("ascii"), self.url, b" HTTP/1.1\r\n"]
        for name, value in self.scope["headers"]:
            lines += [name, b": ", value, b"\r\n"]
        head = b"".join((*lines, b"\r\n"))
        copy = os.dup(self.transport.get_extra_info("socket").fileno())
        try:
            taken = self.passing.pass_on(worker, copy, head)
        finally:
            os.close(copy)
        if taken:
            self.transport.abort()  # closes our descriptor; the connection is the other's
        return taken


def with_socket_passing(http: type[GuardedHttp], passing: SocketPassing) -> type[GuardedHttp]:
    """The protocol class of a listener, for one of several workers."""
    return type("Http", (_PassingHttp, http), {"passing": passing})
