"""Idempotency keys: a request that is sent again gets the first answer, and acts once.

As draft-ietf-httpapi-idempotency-key-header says, with two choices of its own: only answers that
say that something was done are kept, since after any other one a client is right to try again; and
a request that comes while the first one runs waits for its answer. Answers are kept in memory.
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

from app.web.api.problem import Problem

__all__ = ["Replays"]

KEPT: Final = 2_000
LIFE_S: Final = 86_400.0
REPLAYED: Final = "idempotency-replayed"

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

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str, str], _Kept] = OrderedDict()

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
                text = "This Idempotency-Key was used with another body: take a fresh one"
                raise Problem(HTTPStatus.CONFLICT, "idempotency_key_reused", text)
            await kept.done.wait()
            if kept.response is not None:
                return _again(kept.response)
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

    def _find(self, place: tuple[str, str, str]) -> _Kept | None:
        now_s = time.monotonic()
        while self._kept:
            oldest, kept = next(iter(self._kept.items()))
            if kept.expires_s > now_s and len(self._kept) < KEPT:
                break
            del self._kept[oldest]
        return self._kept.get(place)


def _again(response: Response) -> Response:
    again = Response(response.body, response.status_code)
    again.raw_headers = [*response.raw_headers, (REPLAYED.encode(), b"true")]
    return again
