"""Tickets of supervisors, issued by the process that has the call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Request

from app.bus import Bus, Message
from app.credentials.api_keys import Scope
from app.events import CallId
from app.web.api.guard import client_of, needs
from app.web.api.live import LiveCallId
from app.web.api.problem import Problem
from app.web.supervisor_socket import SupervisedCall, supervise
from app.web.tickets import TICKET_PROTOCOL, TICKET_S, SocketTickets

__all__ = ["Supervision", "add_supervision_routes"]

_SUPERVISE: Final = "supervise"
ASK_S: Final = 2.0


class Supervision:
    """Opens the calls of all processes to supervisors."""

    def __init__(
        self,
        find: Callable[[CallId], SupervisedCall | None],
        tickets: SocketTickets,
        bus: Bus,
        *,
        stream_path: str,
    ) -> None:
        """`stream_path` leads to this process: sockets of its calls open there."""
        self._find = find
        self._tickets = tickets
        self._bus = bus
        self._stream_path = stream_path
        bus.respond(_SUPERVISE, self._own_ticket)

    async def ticket(self, call_id: CallId, by: str) -> Message | None:
        """The facts that a supervisor's socket opens with; None for a call that is not live."""
        asked = {"call_id": call_id, "by": by}
        return await self._bus.request(_SUPERVISE, asked, deadline_s=ASK_S)

    async def _own_ticket(self, asked: Message) -> Message | None:
        call = self._find(CallId(asked["call_id"]))
        if call is None or call.ending:
            return None
        return {
            "call_id": call.call_id,
            "ticket": self._tickets.issue(partial(supervise, call, asked["by"])),
            "protocol": TICKET_PROTOCOL,
            "path": self._stream_path,
            "expires_in_s": TICKET_S,
        }


def add_supervision_routes(router: APIRouter, supervision: Supervision) -> None:
    """Add the route that supervisors listen in through."""

    @router.post("/calls/{call_id}/supervise", openapi_extra=needs(Scope.OPERATOR))
    async def supervise_call(request: Request, call_id: LiveCallId) -> Any:
        """Listen in to a live call, and perhaps speak: its socket opens with the ticket, once."""
        found = await supervision.ticket(CallId(call_id), client_of(request).name)
        if found is None:
            text = "There is no such call, or it is over"
            raise Problem(HTTPStatus.NOT_FOUND, "call_not_live", text)
        return found
