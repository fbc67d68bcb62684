"""Inboxes: how the workers of one machine send each other messages, and sockets.

The supervisor makes a pair of Unix sockets for each worker before the first one starts. A worker
reads from its own and can write into all others. No process stands between them, and there is
nothing to connect again: a worker that is started anew gets the inbox of the one before it.

One datagram is one frame of the bus, or a carrier's socket with the head of its request: whoever
accepted it passes it on to the worker that has the call (SCM_RIGHTS, unix(7)).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from app.bus import MAX_BYTES

__all__ = ["Inboxes", "make_inbox", "worker_name"]

logger = logging.getLogger(__name__)

_FRAME: Final = b"F"
_SOCKET: Final = b"S"
_AT_ONCE: Final = 64
"""Datagrams that are read before the event loop does something else."""

AdoptSocket = Callable[[socket.socket, bytes], None]


def worker_name(index: int) -> str:
    """The name of a worker on the bus, and in the addresses of its calls' streams."""
    return f"w{index + 1}"


def make_inbox() -> tuple[socket.socket, socket.socket]:
    """The end to read from, and the one that everybody writes into."""
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (reader, writer):
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MAX_BYTES)
    return reader, writer


class Inboxes:
    """The `Link` of the bus between workers; carries sockets as well."""

    degraded = False

    def __init__(
        self,
        index: int,
        reader: socket.socket,
        writers: Sequence[socket.socket],
        is_up: Callable[[int], bool],
    ) -> None:
        """`writers` by worker; nothing is sent to those that are not up."""
        self._index = index
        self._reader = reader
        self._writers = tuple(writers)
        self._is_up = is_up
        self._receive: Callable[[bytes], None] = lambda frame: None
        self._adopt: AdoptSocket = lambda passed, head: passed.close()

    @contextlib.asynccontextmanager
    async def open(self, name: str, receive: Callable[[bytes], None]) -> AsyncIterator[None]:
        assert name == worker_name(self._index)
        self._receive = receive
        loop = asyncio.get_running_loop()
        loop.add_reader(self._reader.fileno(), self._read)
        try:
            yield
        finally:
            loop.remove_reader(self._reader.fileno())

    def on_socket(self, adopt: AdoptSocket) -> None:
        """Give `adopt` every socket that is passed on to this worker, and what was read of it."""
        self._adopt = adopt

    def pass_on(self, to: str, descriptor: int, head: bytes) -> bool:
        """Send a copy of a socket to the worker of that name; False when it cannot take it."""
        index = self._index_of(to)
        if index is None or not self._is_up(index):
            return False
        try:
            socket.send_fds(self._writers[index], [_SOCKET + head], [descriptor])
        except OSError:  # its inbox is full: it does not read
            return False
        return True

    def post(self, frame: bytes, to: str | None = None) -> None:
        index = self._index_of(to) if to is not None else None
        for other in self._others() if to is None else () if index is None else (index,):
            self._send(other, frame)

    async def ask(self, frame: bytes) -> int:
        return sum(self._send(other, frame) for other in self._others())

    def _others(self) -> list[int]:
        everyone = range(len(self._writers))
        return [other for other in everyone if other != self._index and self._is_up(other)]

    def _index_of(self, name: str) -> int | None:
        return next((i for i in range(len(self._writers)) if worker_name(i) == name), None)

    def _send(self, index: int, frame: bytes) -> bool:
        try:
            self._writers[index].send(_FRAME + frame)
        except OSError:  # its inbox is full: it does not read
            logger.warning("worker does not read its messages", extra={"worker": index + 1})
            return False
        return True

    def _read(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                datagram, descriptors, _, _ = socket.recv_fds(self._reader, MAX_BYTES + 1, 1)
            except BlockingIOError:
                return
            kind, content = datagram[:1], datagram[1:]
            if kind == _SOCKET and descriptors:
                self._adopt(socket.socket(fileno=descriptors[0]), content)
                continue
            for descriptor in descriptors:
                os.close(descriptor)
            if kind == _FRAME:
                self._receive(content)
