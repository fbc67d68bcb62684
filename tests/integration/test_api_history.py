"""The history of calls over the API: a real server, its SQLite file, calls that were made."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from app.credentials.api_keys import Scope
from app.errors import StoreUnavailable
from app.events import AgentSaid, CallAdmitted, CallerSaid
from app.store.codec import EVENT_TYPES
from tests.fakes.carrier import FakeCall
from tests.fakes.postgres import Cluster
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import time_limit, until
from tests.integration.server import GREETING, App, trunkline
from tests.integration.store_site import new_database, postgres
from tests.integration.test_api import TOKEN, client, is_problem, new_key

__all__ = ["postgres"]

CALLER = "+15005550077"
WORDS = "A table for two on Friday."


@contextlib.asynccontextmanager
async def kept(**sections: Any) -> AsyncIterator[tuple[App, httpx2.AsyncClient]]:
    """A server that keeps its calls, and an admin."""
    replies = [Reply(text=GREETING, audio_ms=200), Reply(text="Booked.", audio_ms=200)] * 3
    voice = ScriptedVoiceServer(replies=replies, heard=[WORDS] * 6)
    sections = {"server": TOKEN, "store": {}, "api": {"requests_per_s": 1_000}, **sections}
    async with (
        voice,
        trunkline(voice, **sections) as app,
        client(app, new_key(app, Scope.ADMIN, "an admin")) as admin,
    ):
        yield app, admin


async def one_call(app: App, *, caller: str = CALLER, over: bool = True) -> tuple[str, FakeCall]:
    """A call in which both sides have spoken; its id."""
    ringing = await app.phones[0].ring(app.url, caller_number=caller)
    call = await ringing.connect()
    await app.event(call, AgentSaid)
    await call.speak(0.5)
    await app.event(call, AgentSaid, lambda said: said.text == "Booked.")
    await app.event(call, CallerSaid)
    admitted = await app.event(call, CallAdmitted)
    if over:
        await call.hang_up()
        await app.ended(call)
    return admitted.call_id, call


async def stored(admin: httpx2.AsyncClient, call_id: str, outcome: str = "answered") -> Any:
    """The row of a call, once it is there."""
    async with time_limit():
        while True:
            answer = await admin.get(f"/calls/{call_id}")
            if answer.status_code == 200 and answer.json()["outcome"] == outcome:
                return answer.json()
            await asyncio.sleep(0.05)


async def test_a_call_that_was_made_is_listed_read_noted_and_erased() -> None:
    async with kept() as (app, admin), app.twilio():
        call_id, _ = await one_call(app)
        row = await stored(admin, call_id)
        assert (row["caller_number"], row["reason"]) == (CALLER, "caller_hung_up")
        assert row["recording"] is False
        listed = (await admin.get("/calls")).json()
        assert [call["call_id"] for call in listed["calls"]] == [call_id]
        assert listed["next"] is None

        events = (await admin.get(f"/calls/{call_id}/events")).json()["events"]
        assert [event["seq"] for event in events] == [*range(1, len(events) + 1)]
        assert (events[0]["type"], events[-1]["type"]) == ("call_admitted", "call_ended")
        assert {event["type"] for event in events} <= set(EVENT_TYPES)
        assert {"turn_timed", "model_told", "voice_ready"} <= {event["type"] for event in events}
        some = await admin.get(f"/calls/{call_id}/events?after=2&limit=3")
        assert [event["seq"] for event in some.json()["events"]] == [3, 4, 5]

        lines = (await admin.get(f"/calls/{call_id}/transcript")).json()["lines"]
        assert [(line["party"], line["text"]) for line in lines] == [
            ("agent", GREETING),
            ("caller", WORDS),
            ("agent", "Booked."),
        ]
        cost = (await admin.get(f"/calls/{call_id}/cost")).json()
        assert set(cost) >= {"cost_usd", "costs", "usage"}
        explained = (await admin.get(f"/calls/{call_id}/explain")).json()
        assert explained["problem"] is None
        text = (await admin.get(f"/calls/{call_id}/explain?format=text")).text
        assert "turn 1: the caller waited" in text
        assert WORDS in (await admin.get(f"/calls/{call_id}/export?format=text")).text

        note = await admin.post(f"/calls/{call_id}/notes", json={"text": "Call back."})
        assert (note.status_code, note.json()["author"]) == (201, "an admin")
        tags = await admin.put(f"/calls/{call_id}/tags", json={"tags": ["vip", "friday"]})
        assert sorted(tags.json()["tags"]) == ["friday", "vip"]
        whole = (await admin.get(f"/calls/{call_id}/export")).json()
        assert [n["text"] for n in whole["notes"]] == ["Call back."]
        assert len(whole["events"]) == len(events)

        assert (await admin.delete(f"/calls/{call_id}")).json() == {"erased": [call_id]}
        for path in ("", "/events", "/transcript", "/cost", "/explain", "/export"):
            is_problem(await admin.get(f"/calls/{call_id}{path}"), 404, "call_not_found")
        assert (await admin.get("/search?q=table")).json()["hits"] == []


async def test_calls_are_filtered_paged_searched_and_given_as_csv() -> None:
    other = "+15005550088"
    async with kept() as (app, admin), app.twilio():
        first, _ = await one_call(app)
        second, _ = await one_call(app, caller=other)
        await stored(admin, second)
        await admin.put(f"/calls/{first}/tags", json={"tags": ["vip"]})
        for query, wanted in (
            ("", [second, first]),
            (f"number={other}", [second]),  # its plus becomes a blank
            ("number=%2B15005550088", [second]),
            ("outcome=answered&outcome=busy", [second, first]),
            ("outcome=busy", []),
            ("direction=outbound", []),
            ("agent=agent&reason=caller_hung_up", [second, first]),
            ("tag=vip", [first]),
            ("errors=true", []),
            ("since=2000-01-01T00:00:00&until=2000-01-02T00:00:00Z", []),
            ("since=2000-01-01", [second, first]),
        ):
            found = (await admin.get(f"/calls?{query}")).json()
            assert [call["call_id"] for call in found["calls"]] == wanted, query
        page = (await admin.get("/calls?limit=1")).json()
        assert [call["call_id"] for call in page["calls"]] == [second]
        page = (await admin.get(f"/calls?limit=1&cursor={page['next']}")).json()
        assert [call["call_id"] for call in page["calls"]] == [first]
        is_problem(await admin.get("/calls?cursor=nonsense"), 400, "bad_cursor")
        for wrong in ("limit=0", "limit=9999", "outcome=odd", "since=yesterday", "errors=x"):
            is_problem(await admin.get(f"/calls?{wrong}"), 422, "request_invalid")
        hits = (await admin.get("/search?q=table+fri*")).json()["hits"]
        assert {hit["call_id"] for hit in hits} == {first, second}
        answer = await admin.get("/calls.csv")
        assert answer.headers["content-type"].startswith("text/csv")
        rows = [*csv.DictReader(io.StringIO(answer.text))]
        assert [row["call_id"] for row in rows] == [second, first]
        erased = (await admin.post("/erase", json={"number": other})).json()
        assert erased == {"erased": [second], "still_live": []}


async def test_a_live_call_takes_notes_and_tags_and_is_not_erased() -> None:
    async with kept() as (app, admin), app.twilio():
        call_id, call = await one_call(app, over=False)
        await stored(admin, call_id, "in_progress")
        note = await admin.post(f"/calls/{call_id}/notes", json={"text": "Angry."})
        assert note.status_code == 201
        assert (await admin.put(f"/calls/{call_id}/tags", json={"tags": []})).status_code == 200
        is_problem(await admin.delete(f"/calls/{call_id}"), 409, "call_goes_on")
        cost = (await admin.get(f"/calls/{call_id}/cost")).json()
        assert cost["live"] is True
        assert set(cost["costs"]) <= {"text_in", "text_out", "audio_in", "audio_out"}
        await call.hang_up()
        await app.ended(call)


async def test_the_recording_is_played_in_ranges_and_nothing_else_is() -> None:
    recording = {"recording": {"enabled": True, "notice": ""}}
    async with kept(**recording) as (app, admin), app.twilio():
        call_id, _ = await one_call(app)
        await stored(admin, call_id)
        path = app.settings.state_dir / "recordings" / f"{call_id}.wav"
        await until(path.exists)
        answer = await admin.get(f"/calls/{call_id}/recording")
        assert answer.headers["content-type"] == "audio/wav"
        assert answer.content[:4] == b"RIFF"
        part = await admin.get(f"/calls/{call_id}/recording", headers={"range": "bytes=8-11"})
        assert (part.status_code, part.content) == (206, b"WAVE")
        for asked, status, code in RANGES_REFUSED:
            bad = await admin.get(f"/calls/{call_id}/recording", headers={"range": asked})
            is_problem(bad, status, code)
        for asked in ("bytes=-4", "Bytes=0-3, 8-11", "bytes=0-", "bytes=0-0"):
            part = await admin.get(f"/calls/{call_id}/recording", headers={"range": asked})
            assert part.status_code == 206, asked
        (app.settings.state_dir / "secret.wav").write_bytes(b"SECRET")
        link = path.with_name("call_link.wav")
        link.symlink_to(app.settings.state_dir / "secret.wav")
        for name in TRAVERSALS:
            answer = await admin.get(f"/calls/{name}/recording")
            assert answer.status_code in (404, 422), name
            assert b"SECRET" not in answer.content
        await admin.delete(f"/calls/{call_id}")
        assert not path.exists()


RANGES_REFUSED = [
    ("bytes=9999999-", 416, "range_invalid"),
    ("bytes=0-1,9999999-", 416, "range_invalid"),
    ("bytes=-0", 416, "range_invalid"),
    ("bytes=", 400, "range_malformed"),
    ("bytes", 400, "range_malformed"),
    ("bytes=-", 400, "range_malformed"),
    ("bytes=5-2", 400, "range_malformed"),
    ("bytes=a-b", 400, "range_malformed"),
    ("bytes=1-2-3", 400, "range_malformed"),
    ("bytes=0-1,", 400, "range_malformed"),
    ("seconds=0-1", 400, "range_malformed"),
    ("bytes=" + "9" * 40 + "-", 400, "range_malformed"),
]


TRAVERSALS = [
    "call_link",
    "..%2f..%2fsecret",
    "..%2fsecret",
    "%2e%2e/secret",
    "..%5csecret",
    "secret%00",
    "%2fetc%2fpasswd",
    "call_%252e%252e%252fsecret",
    "\uff0e\uff0e\uff0fsecret",
    "..",
    "CON",
    "x" * 65,
]


async def test_without_a_history_its_routes_say_so_and_live_calls_work() -> None:
    async with kept(store={"enabled": False}) as (_app, admin):
        for path in ("/calls", "/calls/call_1", "/search?q=x", "/calls/call_1/recording"):
            is_problem(await admin.get(path), 404, "history_off")
        assert (await admin.get("/live/calls")).status_code == 200


@pytest.mark.parametrize("path", ["/calls", "/calls/call_1", "/calls/call_1/explain"])
async def test_a_history_that_cannot_be_read_is_unavailable(path: str) -> None:
    async with kept() as (app, admin):
        await until(lambda: (app.settings.state_dir / "calls.db").exists())
        assert (await admin.get("/calls")).status_code == 200

        async def fails(*_: object, **__: object) -> None:
            raise StoreUnavailable("the database is locked")

        store: Any = app.trunkline.history
        for name in ("calls", "call"):
            setattr(store.store, name, fails)
        is_problem(await admin.get(path), 503, "store_unavailable")


async def test_a_frozen_database_is_a_problem_within_seconds(postgres: Cluster) -> None:
    """In real time: the driver's own limit of a statement is a minute."""
    hook = {"url": "https://crm.example.com/", "secret": "x" * 24}
    history = {"url": await new_database(postgres)}
    reads = ("/calls", "/calls/call_1/explain", "/do_not_call", "/webhooks/deliveries")
    async with kept(store=history, webhooks={"crm": hook}) as (app, admin):
        kept_calls = app.trunkline.history
        assert kept_calls is not None
        await until(lambda: not kept_calls.degraded())
        postgres.freeze()
        try:
            began_s = time.monotonic()
            answers = await asyncio.gather(
                admin.delete("/calls/call_1"), *(admin.get(path) for path in reads)
            )
            took_s = time.monotonic() - began_s
        finally:
            postgres.thaw()
        for answer in answers:
            is_problem(answer, 503, "store_unavailable")
        assert took_s < 30


async def test_the_feed_and_the_history_tell_an_event_alike() -> None:
    async with kept() as (app, admin), app.twilio():
        before = len(app.trunkline.feed._events)
        call_id, _ = await one_call(app)
        await stored(admin, call_id)
        told = [dict(event) for event in app.trunkline.feed._events][before:]
        events = (await admin.get(f"/calls/{call_id}/events")).json()["events"]
        for live, kept_event in zip(told, events, strict=True):
            shown = json.loads(json.dumps(live))
            assert shown.pop("call_id") == call_id
            for name in ("at", "seq"):
                kept_event.pop(name)
            shown.pop("at")
            assert shown == kept_event
