"""The history of calls over the API: lists, one call and what belongs to it, export, erasing.

A store that does not answer is a 503 after some seconds, and steering live calls does not need it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from app.credentials.api_keys import Scope
from app.events import AgentSaid, CallEnded, CallerSaid, CallId
from app.explain import explain, render
from app.store.base import (
    CallFilter,
    CallStore,
    Direction,
    Outcome,
    Page,
    StoredCall,
    StoredEvent,
)
from app.store.base import Problem as Mishap
from app.store.codec import decode
from app.store.export import as_csv, as_json, as_text, event_json
from app.store.history import CallHistory
from app.threads import in_thread
from app.web.api.guard import client_of, needs
from app.web.api.live import Live, Text
from app.web.api.problem import Problem, store_problems

__all__ = ["add_history_routes"]

MAX_PAGE: Final = 500
MAX_EVENTS: Final = 100_000
CSV_PAGE: Final = 500
MAX_FIGURES: Final = 2_000
_COST: Final = ("cost_usd", "costs", "cost_unknown", "cost_estimated", "usage", "carrier")

KeptCallId = Annotated[str, Path(max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
Cursor = Annotated[str | None, Query(max_length=400, description="`next` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
Ahead = Annotated[
    int, Query(ge=-1440, le=1440, description="Days begin at midnight so far ahead of UTC.")
]
Tag = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]


class NewNote(BaseModel):
    """A note about a call."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: Text


class Tags(BaseModel):
    """The tags of a call, which replace those that it had."""

    model_config = ConfigDict(extra="forbid", strict=True)

    tags: Annotated[list[Tag], Field(max_length=50)]


class Erase(BaseModel):
    """A number whose calls are erased."""

    model_config = ConfigDict(extra="forbid", strict=True)

    number: Annotated[str, Field(min_length=1, max_length=64)]


def _wanted(  # noqa: PLR0913 - one parameter for each filter of the query
    since: datetime | None = None,
    until: datetime | None = None,
    outcome: Annotated[list[Outcome] | None, Query()] = None,
    direction: Direction | None = None,
    agent: Annotated[str | None, Query(max_length=200)] = None,
    reason: Annotated[str | None, Query(max_length=64)] = None,
    number: Annotated[str | None, Query(max_length=64, description="Caller's or called.")] = None,
    tag: Annotated[str | None, Query(max_length=64)] = None,
    errors: Annotated[bool, Query(description="Only calls in which something failed.")] = False,
    problem: Annotated[list[Mishap] | None, Query(description="All of these happened.")] = None,
    over_usd: Annotated[float | None, Query(ge=0, description="Only what cost more.")] = None,
) -> CallFilter:
    return CallFilter(
        since=_aware(since),
        until=_aware(until),
        outcomes=tuple(outcome or ()),
        direction=direction,
        agent=agent,
        reason=reason,
        number=None if number is None else _number(number),
        tag=tag,
        with_errors=errors,
        problems=tuple(problem or ()),
        over_usd=over_usd,
    )


Wanted = Annotated[CallFilter, Depends(_wanted)]


def add_history_routes(
    router: APIRouter, history: CallHistory | None, live: Live | None = None
) -> None:
    """Add the routes; without a `history`, they say that none is kept.

    `live` knows what calls that go on have cost so far.
    """
    kept = _Kept(history)
    _add_lists(router, kept)
    _add_parts(router, kept)
    _add_cost(router, kept, live)
    _add_changes(router, kept)


class _Kept:
    """The store, asked within a time."""

    def __init__(self, history: CallHistory | None) -> None:
        self._history = history

    @property
    def history(self) -> CallHistory:
        if self._history is None:
            text = "No history of calls is kept: store is off"
            raise Problem(HTTPStatus.NOT_FOUND, "history_off", text)
        return self._history

    @property
    def store(self) -> CallStore:
        return self.history.store

    @contextlib.asynccontextmanager
    async def asked(self) -> AsyncIterator[CallStore]:
        """The store for one request.

        Raises:
            Problem: it does not answer, or has no such call.
        """
        store = self.store
        async with store_problems():
            yield store

    @contextlib.asynccontextmanager
    async def erasing(self) -> AsyncIterator[None]:
        """The same for what may take long, and begins only where the store answers."""
        async with self.asked() as store:
            await store.calls(limit=1)
        async with store_problems(answer_s=None):
            yield

    async def events(self, call_id: str) -> Sequence[StoredEvent]:
        """All events of a call.

        Raises:
            Problem: there is no such call.
        """
        async with self.asked() as store:
            await store.call(CallId(call_id))
            return await store.events(CallId(call_id), limit=MAX_EVENTS)


def _add_lists(router: APIRouter, kept: _Kept) -> None:
    viewer = needs(Scope.VIEWER)

    @router.get("/calls", openapi_extra=viewer)
    async def calls(wanted: Wanted, cursor: Cursor = None, limit: Limit = 50) -> dict[str, Any]:
        """List calls that were kept, the newest first. `next` is the cursor of the next page."""
        async with kept.asked() as store:
            page = await store.calls(wanted, cursor=cursor, limit=limit)
        return {"calls": [_row(call) for call in page.items], "next": page.cursor}

    @router.get("/figures", openapi_extra=viewer)
    async def figures(
        wanted: Wanted, each: Literal["hour", "day"] = "day", ahead_min: Ahead = 0
    ) -> dict[str, Any]:
        """Count calls of a filter by hours or days, with outcomes, latency and cost."""
        stretch = timedelta(hours=1) if each == "hour" else timedelta(days=1)
        async with kept.asked() as store:
            found = await store.figures(wanted, each=stretch, ahead=timedelta(minutes=ahead_min))
        return {"figures": [{**asdict(one), "at": _iso(one.at)} for one in found[-MAX_FIGURES:]]}

    @router.get("/calls.csv", openapi_extra=viewer, response_class=StreamingResponse)
    async def calls_csv(wanted: Wanted) -> StreamingResponse:
        """List all calls of a filter as CSV, for spreadsheets."""
        async with kept.asked() as store:
            first = await store.calls(wanted, limit=CSV_PAGE)
        headers = _download("calls.csv")
        lines = _csv_lines(kept, wanted, first)
        return StreamingResponse(lines, media_type="text/csv; charset=utf-8", headers=headers)

    @router.get("/search", openapi_extra=viewer)
    async def search(
        q: Annotated[str, Query(min_length=1, max_length=400)],
        cursor: Cursor = None,
        limit: Limit = 50,
    ) -> dict[str, Any]:
        """Find turns that hold all words; "words in quotes" stand together, wor* begins one."""
        async with kept.asked() as store:
            page = await store.search(q, cursor=cursor, limit=limit)
        hits = [{**asdict(hit), "at": _iso(hit.at)} for hit in page.items]
        return {"hits": hits, "next": page.cursor}


def _add_parts(router: APIRouter, kept: _Kept) -> None:
    viewer = needs(Scope.VIEWER)

    @router.get("/calls/{call_id}", openapi_extra=viewer)
    async def call(call_id: KeptCallId) -> dict[str, Any]:
        """Show one call with its notes and tags."""
        async with kept.asked() as store:
            found = await store.call(CallId(call_id))
            notes, tags = await store.notes(found.call_id), await store.tags(found.call_id)
        shown = as_json(found, (), notes, tags)
        del shown["events"]
        shown["recording"] = await in_thread(kept.history.files.recording(call_id).is_file)
        return shown

    @router.get("/calls/{call_id}/events", openapi_extra=viewer)
    async def events(
        call_id: KeptCallId,
        after: Annotated[int, Query(ge=0, le=2**31)] = 0,
        limit: Annotated[int, Query(ge=1, le=5_000)] = 1_000,
    ) -> dict[str, Any]:
        """List the events of a call behind the number `after`."""
        async with kept.asked() as store:
            await store.call(CallId(call_id))
            found = await store.events(CallId(call_id), after_seq=after, limit=limit)
        return {"events": [event_json(event) for event in found]}

    @router.get("/calls/{call_id}/transcript", openapi_extra=viewer)
    async def transcript(call_id: KeptCallId) -> dict[str, Any]:
        """List what was said, with what the caller has heard of it."""
        lines = [_said(record) for record in await kept.events(call_id)]
        return {"lines": [line for line in lines if line is not None]}

    @router.get("/calls/{call_id}/explain", openapi_extra=viewer, response_model=None)
    async def explanation(
        call_id: KeptCallId, format: Literal["json", "text"] = "json"
    ) -> Response | dict[str, Any]:
        """Explain a call: a timeline in plain words, the first problem on top."""
        found = explain([decode(record) for record in await kept.events(call_id)])
        if format == "text":
            return PlainTextResponse(render(found))
        return asdict(found)

    @router.get("/calls/{call_id}/export", openapi_extra=viewer, response_model=None)
    async def export(
        call_id: KeptCallId, format: Literal["json", "text"] = "json"
    ) -> Response | dict[str, Any]:
        """Give everything that is kept of a call, to store it elsewhere."""
        async with kept.asked() as store:
            found = await store.call(CallId(call_id))
            records = await store.events(found.call_id, limit=MAX_EVENTS)
            notes, tags = await store.notes(found.call_id), await store.tags(found.call_id)
        if format == "text":
            return PlainTextResponse(as_text(found, records), headers=_download(f"{call_id}.txt"))
        return as_json(found, records, notes, tags)

    @router.get("/calls/{call_id}/recording", openapi_extra=viewer, response_class=FileResponse)
    async def recording(request: Request, call_id: KeptCallId) -> FileResponse:
        """Play the recording: a stereo WAV, the caller left. Takes ranges."""
        path = kept.history.files.recording(call_id)
        if not await in_thread(lambda: path.is_file() and not path.is_symlink()):
            text = "There is no recording of this call"
            raise Problem(HTTPStatus.NOT_FOUND, "recording_not_found", text)
        if (wanted := request.headers.get("range")) is not None:
            _check_range(wanted, await in_thread(lambda: path.stat().st_size))
        return FileResponse(path, media_type="audio/wav", headers=_download(path.name))


def _add_cost(router: APIRouter, kept: _Kept, live: Live | None) -> None:
    @router.get("/calls/{call_id}/cost", openapi_extra=needs(Scope.VIEWER))
    async def cost(call_id: KeptCallId) -> dict[str, Any]:
        """Show what a call has cost by class, so far or in all; and its usage at the end."""
        for call in [] if live is None else await live.listed():
            if call["call_id"] == call_id:
                return {name: call.get(name) for name in _COST} | {"live": True}
        for record in await kept.events(call_id):
            ended = decode(record)
            if isinstance(ended, CallEnded):
                summary = asdict(ended.summary)
                return {name: summary[name] for name in _COST} | {"live": False}
        raise Problem(
            HTTPStatus.CONFLICT, "call_not_over", "The call goes on elsewhere, or was lost"
        )


def _add_changes(router: APIRouter, kept: _Kept) -> None:
    operator, admin = needs(Scope.OPERATOR), needs(Scope.ADMIN)

    @router.post("/calls/{call_id}/notes", openapi_extra=operator, status_code=HTTPStatus.CREATED)
    async def add_note(request: Request, call_id: KeptCallId, body: NewNote) -> dict[str, Any]:
        """Add a note to a call, live or over."""
        author = client_of(request).name
        async with kept.asked() as store:
            note = await store.add_note(CallId(call_id), body.text, author=author)
        return {**asdict(note), "at": _iso(note.at)}

    @router.put("/calls/{call_id}/tags", openapi_extra=operator)
    async def set_tags(call_id: KeptCallId, body: Tags) -> dict[str, Any]:
        """Give a call these tags, and no others."""
        async with kept.asked() as store:
            await store.set_tags(CallId(call_id), body.tags)
            return {"tags": list(await store.tags(CallId(call_id)))}

    @router.delete("/calls/{call_id}", openapi_extra=admin)
    async def erase(call_id: KeptCallId) -> dict[str, Any]:
        """Erase a call that is over, with its recording, words and messages."""
        async with kept.erasing():
            erased = await kept.history.erase([CallId(call_id)])
        if erased.still_live:
            text = "The call goes on: erase it when it is over"
            raise Problem(HTTPStatus.CONFLICT, "call_goes_on", text)
        if not erased.call_ids:
            raise Problem(HTTPStatus.NOT_FOUND, "call_not_found", "There is no such call")
        return {"erased": list(erased.call_ids)}

    @router.post("/erase", openapi_extra=admin)
    async def erase_number(body: Erase) -> dict[str, Any]:
        """Erase all calls from or to a number. Those that go on are named, and stay."""
        async with kept.erasing():
            erased = await kept.history.erase_number(_number(body.number))
        return {"erased": list(erased.call_ids), "still_live": list(erased.still_live)}


async def _csv_lines(kept: _Kept, wanted: CallFilter, page: Page[StoredCall]) -> AsyncIterator[str]:
    yield as_csv(page.items)
    while page.cursor is not None:
        async with kept.asked() as store:
            page = await store.calls(wanted, cursor=page.cursor, limit=CSV_PAGE)
        yield as_csv(page.items, header=False)


def _row(call: StoredCall) -> dict[str, Any]:
    row = as_json(call, ())
    for name in ("events", "notes", "tags"):
        del row[name]
    return row


def _said(record: StoredEvent) -> dict[str, Any] | None:
    """A line of the transcript."""
    event = decode(record)
    match event:
        case CallerSaid():
            who, heard = "caller", event.text
        case AgentSaid():
            who, heard = "agent", event.heard_text
        case _:
            return None
    return {
        "at_ms": event.at_ms,
        "party": who,
        "item_id": event.item_id,
        "text": event.text,
        "heard_text": heard,
        "cut_off": getattr(event, "cut_off", False),
        "failed": getattr(event, "failed", False),
        "unverified": getattr(event, "unverified", False),
    }


def _check_range(header: str, size: int) -> None:
    """Refuse what the response would refuse with a page of its own (RFC 9110, 14.1.2).

    Raises:
        Problem: the header is malformed, or asks for what lies behind the end.
    """
    unit, _, ranges = header.partition("=")
    for one in ranges.split(","):
        found = re.fullmatch(r"\s*(\d{0,18})-(\d{0,18})\s*", one, re.ASCII)
        first, last = (found[1], found[2]) if found is not None else ("", "")
        backwards = first and last and int(last) < int(first)
        if unit.strip().lower() != "bytes" or not (first or last) or backwards:
            text = "The header Range is malformed: write bytes=FIRST-LAST"
            raise Problem(HTTPStatus.BAD_REQUEST, "range_malformed", text)
        if int(first) >= size if first else int(last) == 0:
            text = f"The recording has {size} bytes"
            headers = {"content-range": f"bytes */{size}"}
            status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            raise Problem(status, "range_invalid", text, headers=headers)


def _number(text: str) -> str:
    """A number as it is kept: in a query, its plus was a blank."""
    stripped = text.strip()
    return f"+{stripped}" if stripped.isdigit() and stripped.isascii() else stripped


def _aware(at: datetime | None) -> datetime | None:
    """A time without a zone is one of UTC."""
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _download(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
