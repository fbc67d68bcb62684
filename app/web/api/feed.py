"""The live feed: events of all calls as server-sent events (WHATWG HTML, section 9.2).

A client that reconnects sends `Last-Event-ID`, as browsers do by themselves, and gets what it has
missed. `gap` says that some of that is not kept any more: read `/live/calls` again. Clients are
counted; one that does not read is cut off by the listener, and comes back with its last id.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from app.calls.admission.levels import LEVELS_EVERY_S, LiveLevels
from app.calls.observers.live_feed import FeedEntry, LiveFeed
from app.credentials.api_keys import Scope
from app.json_text import whole_text
from app.web.api.guard import needs
from app.web.api.problem import Problem

__all__ = ["add_feed_route"]

COMMENT_EVERY_S: Final = 15.0
"""Proxies close what is quiet; a comment also finds out that the client is gone."""
RETRY_MS: Final = 2_000
_HEADERS: Final = {"cache-control": "no-store", "x-accel-buffering": "no"}

LastId = Annotated[str | None, Query(max_length=64, description="As `Last-Event-ID`.")]
WithLevels = Annotated[
    bool, Query(description="Also `levels`: of each live call, how loud both sides are, in dBFS.")
]
OfCall = Annotated[str | None, Query(max_length=64, description="Only the events of this call.")]


def add_feed_route(
    router: APIRouter, feed: LiveFeed, live_levels: LiveLevels, *, clients: int
) -> None:
    """Add `/live`, for so many clients at a time."""
    count = 0
    last: tuple[FeedEntry | None, str] = (None, "")

    def text_of(entry: FeedEntry) -> str:
        """An entry on the wire, made once for all clients: most are at the same place."""
        nonlocal last
        if last[0] is None or last[0].id != entry.id or last[0].event is not entry.event:
            last = (entry, _text(entry))
        return last[1]

    @router.get("/live", openapi_extra=needs(Scope.VIEWER), response_class=StreamingResponse)
    async def live(
        request: Request,
        call_id: OfCall = None,
        last_event_id: LastId = None,
        levels: WithLevels = False,
    ) -> StreamingResponse:
        """Follow the events of all calls, or of one, as server-sent events."""
        nonlocal count
        if count >= clients:
            text = f"{clients} clients follow the feed already (api.live_clients)"
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "too_many_clients",
                text,
                headers={"retry-after": "5"},
            )
        reader = feed.reader(request.headers.get("last-event-id") or last_event_id)

        async def lines() -> AsyncIterator[str]:
            nonlocal count
            count += 1
            clock_s = asyncio.get_running_loop().time
            every_s = LEVELS_EVERY_S if levels else COMMENT_EVERY_S
            due_s, comment_s, shown = clock_s() + every_s, clock_s() + COMMENT_EVERY_S, ""
            try:
                yield f"retry: {RETRY_MS}\n\n"
                while not reader.over:
                    entry = await reader.next(max(0.0, due_s - clock_s()))
                    if entry is not None and _concerns(entry, call_id):
                        yield text_of(entry)
                    if clock_s() < due_s:
                        continue
                    due_s = clock_s() + every_s
                    before, shown = shown, await live_levels.shown() if levels else ""
                    if shown != before:
                        yield f"event: levels\ndata: {shown}\n\n"
                    elif clock_s() >= comment_s:
                        comment_s = clock_s() + COMMENT_EVERY_S
                        yield ": still here\n\n"
            finally:
                count -= 1

        return StreamingResponse(lines(), media_type="text/event-stream", headers=_HEADERS)


def _concerns(entry: FeedEntry, call_id: str | None) -> bool:
    return call_id is None or entry.event is None or entry.event.get("call_id") == call_id


def _text(entry: FeedEntry) -> str:
    if entry.event is None:
        return f"id: {entry.id}\nevent: gap\ndata: {{}}\n\n"
    data: Mapping[str, Any] = entry.event
    # It has no line breaks, and no half of a character, as a word from Python may hold.
    text = whole_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")))
    return f"id: {entry.id}\nevent: {data['type']}\ndata: {text}\n\n"
