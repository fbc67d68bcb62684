"""Tickets with which a page of ours opens a websocket at the path of the carrier's streams.

A browser can neither sign a handshake nor send a header with it. It asks the API for a ticket
first, and offers that as a subprotocol: in a URL it would stand in logs. A ticket lives for
`TICKET_S`, in the process that issued it, and opens one socket, once, of a page with our Origin.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from starlette.requests import HTTPConnection

from app.errors import SignatureError
from app.web.clients import is_foreign_site
from app.web.server.sockets import MessageTransport

__all__ = ["TICKET_PROTOCOL", "TICKET_S", "Serve", "SocketTickets", "offers_ticket"]

TICKET_PROTOCOL: Final = "trunkline.ticket"
"""Offered first, and accepted; the ticket itself follows it in the offer."""
TICKET_S: Final = 30
MAX_TICKETS: Final = 1_000
"""More than that are never open at once; the oldest goes."""

Serve = Callable[[MessageTransport], Awaitable[None]]
"""Serves a socket that was accepted, and returns when it is closed."""


class SocketTickets:
    """The tickets of one process that are still good for a socket."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._issued: dict[str, tuple[float, Serve | None]] = {}

    def issue(self, serve: Serve | None = None) -> str:
        """A ticket for a socket that `serve` takes; without it, for a media stream."""
        while len(self._issued) >= MAX_TICKETS:
            del self._issued[next(iter(self._issued))]
        ticket = secrets.token_urlsafe(24)
        self._issued[ticket] = (self._clock_s() + TICKET_S, serve)
        return ticket

    def redeem(self, websocket: HTTPConnection) -> Serve | None:
        """The server of a socket, by its ticket, which opens nothing any more.

        Raises:
            SignatureError: an unknown, used or old ticket, or none; no Origin, or another site's.
        """
        offered: Sequence[str] = websocket.scope.get("subprotocols", [])
        found = self._issued.pop(offered[1], None) if len(offered) == 2 else None
        if found is None:
            raise SignatureError("the ticket is not known", code="ticket_unknown")
        until_s, serve = found
        if self._clock_s() > until_s:
            raise SignatureError("the ticket is too old", code="ticket_expired")
        if "origin" not in websocket.headers or is_foreign_site(websocket.headers):
            raise SignatureError("the page is not ours", code="ticket_origin")
        return serve


def offers_ticket(websocket: HTTPConnection) -> bool:
    """True for the handshake of a browser, which is not signed."""
    offered: Sequence[str] = websocket.scope.get("subprotocols", [])
    return TICKET_PROTOCOL in offered[:1]
