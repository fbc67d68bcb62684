"""Idempotency keys: a request that is sent again gets the first answer, and acts once.

As draft-ietf-httpapi-idempotency-key-header says, with two choices of its own: only answers that
say that something was done are kept, since after any other one a client is right to try again; and
a request that comes while the first one runs waits for its answer. Answers are kept in memory, by
the process that has acted; the others ask for them over the bus.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from starlette.responses import Response

from app.bus import Bus, Message
from app.web.api.problem import Problem

__all__ = ["Replays"]

KEPT: Final = 2_000
LIFE_S: Final = 86_400.0
OTHERS_S: Final = 5.0
REPLAYED: Final = "idempotency-replayed"

_TOPIC: Final = "idempotency"

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(slots=True)
class _Kept:
    """One request: its body's hash, and its answer once there is one."""

    body: bytes
    expires_s: float
    response: Response | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Replays:
    """The answers of the last day, at most `KEPT`."""

    def __init__(self, bus: Bus) -> None:
        self._kept: OrderedDict[tuple[str, str, str], _Kept] = OrderedDict()
        self._bus = bus
        if bus.shared:
            bus.respond(_TOPIC, self._answer)

    async def once(
        self, owner: str, route: str, key: str, body: bytes, run: Callable[[], Awaitable[Response]]
    ) -> Response:
        """Give the kept answer, or run the request and keep it. Keys of two owners never meet.

        Raises:
            Problem: the key is malformed, or was used for another body.
        """
        if not _KEY.fullmatch(key):
            text = "Idempotency-Key has 1 to 255 visible ASCII characters"
            raise Problem(HTTPStatus.BAD_REQUEST, "idempotency_key_invalid", text)
        place, digest = (owner, route, key), hashlib.sha256(body).digest()
        while (kept := self._find(place)) is not None:
            if kept.body != digest:
                raise _reused()
            await kept.done.wait()
            if kept.response is not None:
                return _again(kept.response)
        if (
            self._bus.shared
            and (answered := await self._of_another_process(place, digest)) is not None
        ):
            return answered
        kept = self._kept[place] = _Kept(digest, time.monotonic() + LIFE_S)
        try:
            response = await run()
            if response.status_code < HTTPStatus.BAD_REQUEST:
                kept.response = response
            return response
        finally:
            if kept.response is None:
                self._kept.pop(place, None)
            kept.done.set()

    async def _of_another_process(
        self, place: tuple[str, str, str], digest: bytes
    ) -> Response | None:
        asked = {"place": list(place), "body": digest.hex(), "from": self._bus.name}
        answer = await self._bus.request(_TOPIC, asked, deadline_s=OTHERS_S)
        if answer is None:
            return None
        if "text" not in answer:
            raise _reused()
        headers = {REPLAYED: "true", "cache-control": "no-store"}
        kind = "application/json"
        return Response(answer["text"], answer["status"], headers, media_type=kind)

    async def _answer(self, asked: Message) -> Message | None:
        """Another process asks whether a request was answered here."""
        owner, route, key = asked["place"]
        kept = None if asked["from"] == self._bus.name else self._find((owner, route, key))
        if kept is None:
            return None
        if kept.body.hex() != asked["body"]:
            return {}
        await kept.done.wait()
        if kept.response is None:
            return None
        return {"status": kept.response.status_code, "text": bytes(kept.response.body).decode()}

    def _find(self, place: tuple[str, str, str]) -> _Kept | None:
        now_s = time.monotonic()
        while self._kept:
            oldest, kept = next(iter(self._kept.items()))
            if kept.expires_s > now_s and len(self._kept) < KEPT:
                break
            del self._kept[oldest]
        return self._kept.get(place)


def _reused() -> Problem:
    text = "This Idempotency-Key was used with another body: take a fresh one"
    return Problem(HTTPStatus.CONFLICT, "idempotency_key_reused", text)


def _again(response: Response) -> Response:
    again = Response(response.body, response.status_code)
    again.raw_headers = [*response.raw_headers, (REPLAYED.encode(), b"true")]
    return again
