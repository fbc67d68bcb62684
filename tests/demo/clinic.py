"""The clinic's own server, for the demo: takes appointments by HTTP."""

from __future__ import annotations

import json
import secrets
from asyncio import StreamWriter
from collections.abc import Callable
from typing import Any, Final

from tests.fakes.web_service import Asked, WebService, answer

__all__ = ["Clinic"]

TIMES: Final = {"Tuesday": "10:00", "Thursday": "09:30"}


class Clinic(WebService):
    """`POST /appointments` books; `tell` hears of each request."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(self._take)
        self.appointments: list[dict[str, Any]] = []
        self._tell = tell

    async def _take(self, asked: Asked, writer: StreamWriter) -> None:
        status, body = self._booked(asked)
        shown = asked.body.decode(errors="replace")
        self._tell(f"the clinic's server: {asked.method} {asked.target} {shown} -> {status}")
        await answer(json.dumps(body).encode(), status=status)(asked, writer)

    def _booked(self, asked: Asked) -> tuple[int, dict[str, Any]]:
        if (asked.method, asked.target) != ("POST", "/appointments"):
            return 404, {"error": "there is nothing here"}
        wanted = json.loads(asked.body)
        if wanted.get("day") not in TIMES:
            return 422, {"error": "we are closed that day"}
        appointment = {
            **wanted,
            "time": TIMES[wanted["day"]],
            "reference": secrets.token_hex(2).upper(),
        }
        self.appointments.append(appointment)
        return 201, {"appointment": appointment}
