"""Calls from the page: a ticket admits one as a carrier's webhook does, and opens its stream."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Final, Protocol

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from app.calls.route import Diversion
from app.carrier.base import IncomingCall
from app.carrier.browser import new_browser_call_id
from app.credentials.api_keys import Scope
from app.events import CallId
from app.web.api.guard import client_of, needs
from app.web.api.problem import Problem
from app.web.tickets import TICKET_PROTOCOL, TICKET_S, SocketTickets

__all__ = ["BrowserPhone", "add_phone_routes"]

NO_NUMBER: Final = "client:browser"
"""The number that is called where the configuration has none: the default agent answers."""


class Admission(Protocol):
    """A call that was let in."""

    @property
    def token(self) -> str: ...
    @property
    def call_id(self) -> CallId: ...


class BrowserPhone:
    """Lets in calls of this process that come from a page."""

    def __init__(
        self,
        admit: Callable[[IncomingCall], Admission | Diversion],
        tickets: SocketTickets,
        *,
        account_id: str,
        stream_path: str,
        numbers: Callable[[], Sequence[str]],
    ) -> None:
        """`account_id` stands in the stream's start message, as the carrier's does."""
        self._admit = admit
        self._tickets = tickets
        self._account_id = account_id
        self._stream_path = stream_path
        self._numbers = numbers

    def call(self, number: str | None, by: str) -> dict[str, Any]:
        """Admit a call to one of our numbers; the facts that its stream begins with.

        Raises:
            CapacityError: as `Switchboard.admit`.
            Problem: the number is not ours, or no agent answers there now.
        """
        numbers = self._numbers()
        if number is not None and number not in numbers:
            text = "That is none of our numbers: /numbers lists them"
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "number_unknown", text)
        incoming = IncomingCall(
            carrier_call_id=new_browser_call_id(),
            account_id=self._account_id,
            caller_number=f"client:{_slug(by)}",
            called_number=number or next(iter(numbers), NO_NUMBER),
            carried=False,
        )
        admitted = self._admit(incoming)
        if isinstance(admitted, Diversion):
            text = admitted.say or "No agent answers this number now"
            raise Problem(HTTPStatus.CONFLICT, admitted.code, text)
        return {
            "call_id": admitted.call_id,
            "carrier_call_id": incoming.carrier_call_id,
            "account_id": self._account_id,
            "number": incoming.called_number,
            "token": admitted.token,
            "ticket": self._tickets.issue(),
            "protocol": TICKET_PROTOCOL,
            "path": self._stream_path,
            "expires_in_s": TICKET_S,
        }


class PhoneCall(BaseModel):
    """The number of ours to call; without one, the first."""

    model_config = ConfigDict(extra="forbid", strict=True)
    number: Annotated[str, Field(min_length=1, max_length=255)] | None = None


def add_phone_routes(router: APIRouter, phone: BrowserPhone) -> None:
    """Add the route that browsers call through."""

    @router.post("/phone/tickets", openapi_extra=needs(Scope.OPERATOR))
    async def ticket(request: Request, body: PhoneCall) -> dict[str, Any]:
        """Begin a call from the browser: its media stream opens with the ticket, once."""
        return phone.call(body.number, client_of(request).name)


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:60] or "browser"
