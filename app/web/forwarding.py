"""Has the carrier's requests answered by the process that has the call.

Any process may get any request. Its signature is checked where it arrives. If the call that it is
about is not known there, the others are asked over the bus: the one that knows the call answers
with the very response of its own route. If none does, it is a new call, or one that nobody knows.
Of several workers, a new call goes to the one that has the fewest; of several servers, to the one
that was asked, unless only another has room for it.

A process that does not answer in time is as one that does not know: callers are not kept waiting.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

from fastapi import FastAPI, Request
from fastapi.responses import Response

from app.bus import MAX_BYTES, Bus, Message
from app.carrier.base import CarrierCallId, TransferId

__all__ = ["CHECKED_FORM", "Forwarded", "Forwarding", "answer_within", "on_forwarded"]

CHECKED_FORM: Final = "trunkline.checked_form"
"""The key of a request's scope under which stands a form that another process has checked."""
TOPIC: Final = "carrier_request"
ROOM: Final = "room_for_a_call"
PLACING_S: Final = 3.0
"""The wait for the process that a new call was given to: it may have let the call in, which is then
not to be let in a second time here. The carrier waits for 15 s."""

Form = Sequence[tuple[str, str]]


class Forwarded(Exception):
    """The response that another process has given."""

    def __init__(self, response: Response) -> None:
        super().__init__("answered by another process")
        self.response = response


async def on_forwarded(_request: Request, answered: Exception) -> Response:
    """The handler that the application needs for `Forwarded`."""
    assert isinstance(answered, Forwarded)
    return answered.response


class Forwarding:
    """Sends requests about calls to the process that has them, and answers those of others."""

    def __init__(
        self,
        bus: Bus,
        *,
        call_of: Callable[[Form], CarrierCallId | None],
        knows: Callable[[CarrierCallId | None, TransferId], bool],
        new_call_path: str,
        placement: Callable[[], str],
        knows_placed: Callable[[str], bool] = lambda reference: False,
        has_room: Callable[[], bool] = lambda: True,
        active: Callable[[], int] = lambda: 0,
    ) -> None:
        """`placement` names the process that should take a new call.

        `has_room` tells whether this one would take it, and `active` how many it has.
        """
        self._bus = bus
        self._call_of = call_of
        self._knows = knows
        self._new_call_path = new_call_path
        self._placement = placement
        self._knows_placed = knows_placed
        self._has_room = has_room
        self._active = active

    async def forward(self, request: Request, form: Form) -> Response | None:
        """The answer of another process to a checked request; None when it is for this one."""
        if CHECKED_FORM in request.scope:
            return None
        wanted: dict[str, Any] = {
            "method": request.method,
            "path": request.url.path,
            "query": request.scope["query_string"].decode("ascii", "replace"),
            "form": [list(field) for field in form],
        }
        if self._is_known(wanted) or len(json.dumps(wanted)) > MAX_BYTES // 2:
            return None
        answer = await self._bus.request(TOPIC, wanted)
        if answer is None and wanted["path"] == self._new_call_path:
            place = await self._place()
            if place != self._bus.name:
                asked = {**wanted, "place": place}
                answer = await self._bus.request(TOPIC, asked, deadline_s=PLACING_S)
        return None if answer is None else _response(answer)

    def answer_with(self, app: FastAPI) -> None:
        """Answer the requests of other processes by the routes of `app`."""

        async def answer(wanted: Message) -> Message | None:
            placed_here = wanted.get("place") == self._bus.name
            if not placed_here and not self._is_known(wanted):
                return None
            return await answer_within(app, wanted)

        async def offer(_wanted: Message) -> Message | None:
            return {"name": self._bus.name, "active": self._active()} if self._has_room() else None

        self._bus.respond(TOPIC, answer)
        self._bus.respond(ROOM, offer)

    async def _place(self) -> str:
        """The name of the process that a new call is given to."""
        place = self._placement()
        if place != self._bus.name or self._has_room():
            return place
        offers = await self._bus.gather(ROOM, {})
        best = min(offers, key=lambda offer: int(offer["active"]), default={"name": place})
        return str(best["name"])

    def _is_known(self, wanted: Message) -> bool:
        form = [(name, value) for name, value in wanted["form"]]
        query = dict(parse_qsl(wanted["query"]))
        if placed := query.get("placed"):
            return self._knows_placed(placed)
        transfer = query.get("transfer", "")
        return self._knows(self._call_of(form), TransferId(transfer))


def _response(answer: Message) -> Response:
    return Response(
        answer["body"],
        status_code=answer["status"],
        headers=dict(answer["headers"]),
    )


async def answer_within(app: Callable[..., Awaitable[None]], wanted: Message) -> Message:
    """Run the application on a request that came by no socket of HTTP."""
    path = wanted["path"]
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": wanted["method"],
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8"),
        "root_path": "",
        "query_string": wanted["query"].encode("ascii", "replace"),
        "headers": [],
        "client": None,
        "server": None,
        "state": {},
        CHECKED_FORM: [(name, value) for name, value in wanted["form"]],
    }
    started: dict[str, Any] = {}
    body = bytearray()

    async def receive() -> Mapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            started.update(message)
        else:
            body.extend(message.get("body", b""))

    await app(scope, receive, send)
    headers = [
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in started["headers"]
    ]
    return {
        "status": started["status"],
        "headers": [pair for pair in headers if pair[0] != "content-length"],
        "body": body.decode("utf-8"),
    }
