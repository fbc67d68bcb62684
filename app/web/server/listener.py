"""The listening socket."""

from __future__ import annotations

import errno
import socket
import sys
from typing import Final

from app.errors import ConfigError

__all__ = ["BACKLOG", "bind"]

BACKLOG: Final = 2048


_CURES: Final = {
    errno.EADDRINUSE: (
        ". Another program, perhaps another Trunkline, has it: end that one, or set "
        "server.port (SERVER_PORT) to a free one"
    ),
    errno.EACCES: (
        ". Ports below 1024 are the system's: set server.port (SERVER_PORT) to a higher one"
    ),
    errno.EADDRNOTAVAIL: ". It is not an address of this machine: set server.host",
}


_ASKED_AFTER_S: Final = 60
"""Shorter than any firewall forgets a quiet connection (AWS and Azure: four minutes and more)."""
_ASKED_AGAIN_S: Final = 15


def _ask_whether_peers_live(listener: socket.socket) -> None:
    """Have the system ask quiet peers, of all connections, and close those that do not answer.

    An idle connection is kept for long, and a machine may go without a word.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _ASKED_AFTER_S)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _ASKED_AGAIN_S)


def bind(host: str, port: int) -> socket.socket:
    """A listener on the port; 0 takes a free one.

    Raises:
        ConfigError: the address cannot be bound.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"server.host: {host} is not an address of this machine") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _ask_whether_peers_live(listener)
        listener.bind(address)
        # At once: a port that is only bound, a second server may bind as well (SO_REUSEADDR), and
        # then one of the two hears nothing. Who comes early waits until the application is up.
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        cure = _CURES.get(error.errno or 0, "")
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}{cure}") from error
    return listener
