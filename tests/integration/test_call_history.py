"""The history of calls as a server keeps it: through outages of the database, and erasing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import app.store.writer as writer
from app.events import (
    AgentSaid,
    CallEnded,
    CallId,
    CallNotAnswered,
    CallPlaced,
    CallRinging,
    EndReason,
)
from app.store.base import Outcome
from app.store.codec import Storable, encode
from app.store.files import CallFiles
from app.store.fold import rebuilt
from app.store.history import CallHistory
from app.store.retention import Retention
from app.store.spool import Spool
from app.store.sql.store import SqlStore
from tests.fakes.call_events import BEGAN, call_events
from tests.fakes.postgres import Cluster
from tests.fakes.voice import ScriptedVoiceServer
from tests.fakes.waiting import until
from tests.integration.server import App, trunkline
from tests.integration.store_site import KINDS, new_database, opened, postgres

__all__ = ["postgres"]

OF = CallId("call_1")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a database that does not answer up sooner than a server does."""
    monkeypatch.setattr(writer, "ANSWER_S", 0.5)
    monkeypatch.setattr(writer, "RETRY_S", 0.1)
    monkeypatch.setattr(writer, "TICK_S", 0.1)


def files(state: Path) -> CallFiles:
    return CallFiles(state / "recordings", state / "messages")


@contextlib.asynccontextmanager
async def history(place: Path | str, state: Path, **options: Any) -> AsyncIterator[CallHistory]:
    found = CallHistory(SqlStore(place), state_dir=state, files=files(state), **options)
    async with found.writing():
        yield found


async def take(kept: CallHistory, events: list[Storable]) -> None:
    """Observe events, each a moment after the one before."""
    for event in events:
        kept.observe(event)
        await asyncio.sleep(0.02)


async def all_stored(kept: CallHistory) -> None:
    await until(lambda: not kept.counts()["waiting"], what=kept.counts)


async def check_whole(place: Path | str, calls: dict[str, list[Storable]]) -> None:
    """Every event of these calls is there once and in its order, and the rows fit to them."""
    async with opened(place) as store:
        assert {call.call_id for call in (await store.calls(limit=1_000)).items} == {*calls}
        for call_id, events in calls.items():
            found = await store.events(CallId(call_id))
            assert [record.seq for record in found] == [*range(1, len(events) + 1)]
            assert [record.type for record in found] == [
                encode(event, seq=1, at=BEGAN).type for event in events
            ]
            assert await store.call(CallId(call_id)) == rebuilt(found)


async def test_the_beginning_and_the_end_of_a_call_wait_for_no_full_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.store.writer.BATCH_S", 3_600.0)
    monkeypatch.setattr("app.store.writer.SOON_S", 0.01)
    monkeypatch.setattr(
        "app.store.writer.ANSWER_S", 60.0
    )  # after an outage it would wait for a batch
    begins, *goes_on, ends = call_events()
    async with history(tmp_path / "calls.db", tmp_path) as kept:
        await take(kept, [begins])
        await all_stored(kept)
        await take(kept, goes_on)
        assert kept.counts()["waiting"] == len(goes_on)
        await take(kept, [ends])
        await all_stored(kept)


# Outages ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the SQLite file as another program may."""
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")
    finally:
        other.close()


@contextlib.contextmanager
def frozen(server: Cluster) -> Iterator[None]:
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


@contextlib.contextmanager
def gone(path: Path) -> Iterator[None]:
    """Have something else in the place of the file, which no database can be made of."""
    for extra in ("-wal", "-shm", ""):
        (path.parent / (path.name + extra)).unlink(missing_ok=True)
    path.mkdir()
    yield
    path.rmdir()


@pytest.mark.parametrize("kind", KINDS)
async def test_an_outage_of_the_database_costs_no_event(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    outage: Callable[[], contextlib.AbstractContextManager[None]]
    if kind == "sqlite":
        place: Path | str = tmp_path / "calls.db"
        outage = lambda: locked(tmp_path / "calls.db")  # noqa: E731
    else:
        server = request.getfixturevalue("postgres")
        place = await new_database(server)
        outage = lambda: frozen(server)  # noqa: E731
    calls = {f"call_{number}": call_events(f"call_{number}") for number in range(30)}
    parts = [*calls.values()]
    async with history(place, tmp_path) as kept:
        before = [events[:3] for events in parts[:10]]
        await take(kept, [event for events in before for event in events])
        await all_stored(kept)
        await until(lambda: not kept.degraded())  # making the tables may have taken long
        caplog.clear()
        with outage():
            await take(kept, [event for events in parts[:10] for event in events[3:]])
            await take(kept, [event for events in parts[10:20] for event in events])
            await until(lambda: kept.degraded() == ["call_history_unavailable"], what=kept.counts)
            [spool] = (tmp_path / "spool").glob("*.jsonl")
            await until(lambda: spool.stat().st_size > 0, what=kept.counts)
        await take(kept, [event for events in parts[20:] for event in events])
        await all_stored(kept)
        await until(lambda: not kept.degraded())
        assert spool.stat().st_size == 0
        assert kept.counts()["dropped"] == 0
    await check_whole(place, calls)
    lines = [record.getMessage() for record in caplog.records]
    assert lines.count("call history unavailable") == 1
    assert lines.count("call history is written again") == 1
    assert "+15550001111" not in caplog.text


async def test_events_of_an_outage_that_outlives_the_process_are_read_by_the_next(
    tmp_path: Path,
) -> None:
    place = tmp_path / "calls.db"
    calls = {f"call_{number}": call_events(f"call_{number}") for number in range(3)}
    async with history(place, tmp_path) as kept:
        await take(kept, calls["call_0"])
        await all_stored(kept)
        with locked(place):
            await take(kept, calls["call_1"])
            await until(lambda: kept.counts()["spooled"] == len(calls["call_1"]))
            kept._writer._up = False  # as it is known to be after the first try
            await take(kept, calls["call_2"][:2])
            await kept._writer.close()
    assert len([*(tmp_path / "spool").glob("*.jsonl")]) == 1
    told: list[str] = []
    following = CallHistory(SqlStore(place), state_dir=tmp_path, files=files(tmp_path))
    following.on_lost(lambda record: told.append(record.call_id))
    async with following.writing():
        await until(lambda: not following.degraded())
    assert [*(tmp_path / "spool").glob("*.jsonl")] == []
    assert told == ["call_2"]
    async with opened(place) as store:
        assert (await store.call(CallId("call_1"))).outcome is Outcome.ANSWERED
        assert (await store.call(CallId("call_2"))).outcome is Outcome.LOST


async def test_a_call_that_is_taken_over_again_and_again_keeps_all_its_events(
    tmp_path: Path,
) -> None:
    begun_at = datetime.now(UTC)
    placed = CallPlaced(call_id=OF, caller_number="+1", called_number="+2", agent="caller")
    again = replace(placed, taken_over=True)
    ringing = CallRinging(call_id=OF, carrier_call_id="CA1", after_ms=100)
    over = CallNotAnswered(
        call_id=OF, carrier_call_id="CA1", outcome="busy", code="busy", reason="busy", after_ms=200
    )
    lives: list[list[Storable]] = [[placed], [again, ringing], [again, over]]
    for nth, events in enumerate(lives):
        async with history(tmp_path / "calls.db", tmp_path / f"process{nth}") as kept:
            if nth:
                kept.resume(OF, begun_at)
            await take(kept, events)
            await all_stored(kept)
            stored = await kept.store.events(OF)
    assert [event.type for event in stored] == [
        "call_placed", "call_placed", "call_ringing", "call_placed", "call_not_answered"
    ]  # fmt: skip
    found = rebuilt(stored)
    assert found is not None and found.ended_at is not None


async def test_a_process_that_is_hurried_at_its_end_leaves_its_events_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "ANSWER_S", 30)
    monkeypatch.setattr(writer, "LAST_ANSWER_S", 30)
    place = tmp_path / "calls.db"
    kept = CallHistory(SqlStore(place), state_dir=tmp_path, files=files(tmp_path))
    async with kept.writing():
        with locked(place):
            for event in call_events():
                kept.observe(event)
            closing = asyncio.create_task(kept._writer.close())
            await asyncio.sleep(0.05)
            closing.cancel()
            await asyncio.wait([closing])
            assert kept.counts()["waiting"] == 5
            [spool] = (tmp_path / "spool").glob("*.jsonl")
            assert spool.read_bytes().count(b"\n") == 5


async def test_a_server_whose_database_cannot_be_made_takes_calls_and_keeps_them_on_disk(
    tmp_path: Path,
) -> None:
    place = tmp_path / "calls.db"
    with gone(place):
        async with history(place, tmp_path) as kept:
            assert kept.degraded() == ["call_history_unavailable"]
            await take(kept, call_events())
            await until(lambda: kept.counts()["spooled"] == 5)
    async with history(place, tmp_path) as kept:
        await until(lambda: not kept.degraded())
    await check_whole(place, {"call_1": call_events()})


async def test_a_disk_that_takes_nothing_loses_no_event_while_memory_holds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writer, "MAX_WAITING", 8)
    place = tmp_path / "calls.db"
    with gone(place):
        async with history(place, tmp_path) as kept:
            spool = kept._writer._spool
            assert spool is not None
            spool._max_bytes = 10
            await take(kept, call_events(said=("one",)))
            await until(lambda: "the call history's spool takes no more" in caplog.text)
            assert kept.counts() == {"stored": 0, "spooled": 0, "dropped": 0, "waiting": 5}
            await take(kept, call_events("call_2"))
            assert kept.counts()["dropped"] == 2
            assert kept.degraded() == ["call_history_loses_events"]
            spool._max_bytes = 100_000
            await until(lambda: kept.counts()["spooled"] == 8)
            assert kept.degraded() == ["call_history_unavailable"]


async def test_a_folder_that_cannot_be_written_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    state = tmp_path / "file" / "state"
    async with history(state / "calls.db", state) as kept:
        await take(kept, call_events())
        assert kept.degraded() == ["call_history_unavailable"]
    lines = [record.getMessage() for record in caplog.records]
    assert {*lines} >= {"no spool for the call history", "call history unavailable"}


async def test_a_fault_of_the_writer_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("a bug")

    async with history(tmp_path / "calls.db", tmp_path) as kept:
        with monkeypatch.context() as patched:
            patched.setattr(SqlStore, "append", fails)
            await take(kept, call_events())
            await until(lambda: kept.degraded())
        await all_stored(kept)
    await check_whole(tmp_path / "calls.db", {"call_1": call_events()})


@pytest.mark.parametrize("kind", KINDS)
async def test_an_event_that_the_database_cannot_take_holds_up_no_other(
    kind: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
) -> None:
    place: Path | str = tmp_path / "calls.db"
    if kind == "postgresql":
        place = await new_database(request.getfixturevalue("postgres"))
    names = ("call_1", "call_2", "call_3")
    calls = {name: call_events(name) for name in names}
    async with history(place, tmp_path) as kept:
        for name, events in calls.items():
            for event in events:
                if name == "call_2" and isinstance(event, AgentSaid):
                    kept.observe(replace(event, at_ms=2**63))
                else:
                    kept.observe(event)
        await all_stored(kept)
        assert kept.counts()["dropped"] == 1
        assert not kept.degraded()
    refused = [line for line in caplog.records if "refuses an event" in line.message]
    assert [vars(line)["call_id"] for line in refused] == ["call_2"]
    assert str(2**63) not in caplog.text
    async with opened(place) as store:
        assert len(await store.events(CallId("call_2"))) == len(calls.pop("call_2")) - 1
        await store.erase([CallId("call_2")])
    await check_whole(place, calls)


# A server -----------------------------------------------------------------------------------------


async def stored(app: App) -> SqlStore:
    kept = app.trunkline.history
    assert kept is not None
    await all_stored(kept)
    assert isinstance(kept.store, SqlStore)
    return kept.store


async def test_a_server_keeps_its_calls() -> None:
    voice = ScriptedVoiceServer()
    async with voice, trunkline(voice, store={}) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await app.event(call, AgentSaid)
        await call.hang_up()
        summary = await app.ended(call)
        store = await stored(app)
        row = await store.call(summary.call_id)
        assert (row.outcome, row.reason) == (Outcome.ANSWERED, EndReason.CALLER_HUNG_UP.value)
        assert (row.model, row.duration_ms) == (summary.model, summary.duration_ms)
        assert row.caller_number == call.ringing.caller.caller_number
        [hit] = (await store.search("how can I help")).items
        assert (hit.call_id, hit.party) == (summary.call_id, "agent")
        assert await app_is_well(app)


async def app_is_well(app: App) -> bool:
    answer: dict[str, Any] = (await app.get("/readyz")).json()
    return bool(answer["degraded"] == [] and answer["ready"])


async def test_calls_that_no_agent_took_are_kept_once() -> None:
    voice = ScriptedVoiceServer()
    async with (
        voice,
        trunkline(voice, store={}, limits={"max_calls": 1, "claim_s": 1}) as app,
        app.twilio() as twilio,
    ):
        unclaimed = await twilio.ring(app.url)
        for _ in range(2):  # a webhook that comes twice
            await twilio.ring(app.url, call_sid="CA" + "1" * 32)
        await app.ended(unclaimed, within_s=10)
        assert (
            'trunkline_calls_turned_away_total{reason="at_capacity"} 1.0'
            in (await app.get("/metrics")).text
        )
        store = await stored(app)
        found = {(one.outcome, one.reason) for one in (await store.calls()).items}
        assert found == {(Outcome.BUSY, "at_capacity"), (Outcome.NEVER_CLAIMED, "carrier_lost")}
        assert len((await store.calls()).items) == 2


# Erasing ------------------------------------------------------------------------------------------

CANARY = "heliotrope"
NUMBER = "+15557654321"


async def test_nothing_of_an_erased_number_is_left_in_the_folder(tmp_path: Path) -> None:
    place = tmp_path / "calls.db"
    async with history(place, tmp_path) as kept:
        for number in range(40):  # enough that pages are shared, split and freed
            mine = number % 2
            events = call_events(
                f"call_{number:02}",
                caller=NUMBER if mine else "+15550001111",
                said=(f"{CANARY} {number}" if mine else "others stay", "x" * 400),
            )
            for event in events:
                kept.observe(event)
        await all_stored(kept)
        for number in (1, 3):
            call_id = f"call_{number:02}"
            await kept.store.add_note(CallId(call_id), f"note on {CANARY}", author="me")
            await kept.store.set_tags(CallId(call_id), [CANARY])
            for path in (
                tmp_path / "recordings" / f"{call_id}.wav",
                tmp_path / "messages" / f"20261130T120000000000Z-{call_id}.json",
                tmp_path / "messages" / f"20261130T120000Z-item_{call_id}_0.wav",
            ):
                path.parent.mkdir(exist_ok=True)
                path.write_text(CANARY)
        assert places_of(tmp_path, CANARY, NUMBER)
        with locked(place):
            late = CallEnded(call_id=CallId("call_01"), at_ms=1, summary=summary_of("call_01"))
            kept.observe(late)
            for event in call_events("call_99", caller=NUMBER, said=(CANARY,)):
                kept.observe(event)
            await until(lambda: kept.counts()["spooled"])
        await until(lambda: not kept.degraded())
        await all_stored(kept)
        erased = await kept.erase_number(NUMBER)
        assert len(erased.call_ids) == 21
        assert places_of(tmp_path, CANARY, NUMBER) == []
        assert len((await kept.store.calls(limit=100)).items) == 20
        assert len((await kept.store.search("others", limit=100)).items) == 20
    assert places_of(tmp_path, CANARY, NUMBER) == []


def summary_of(call_id: str) -> Any:
    end = call_events(call_id)[-1]
    assert isinstance(end, CallEnded)
    return end.summary


def places_of(folder: Path, *canaries: str) -> list[str]:
    """The files whose bytes hold one of them."""
    return [
        path.name
        for path in folder.rglob("*")
        if path.is_file() and any(canary.encode() in path.read_bytes() for canary in canaries)
    ]


async def test_events_that_wait_in_the_spool_are_erased_too(tmp_path: Path) -> None:
    place = tmp_path / "calls.db"
    async with history(place, tmp_path) as kept:
        for event in call_events(said=(CANARY,), ended=False):
            kept.observe(event)
        for event in call_events("call_2"):
            kept.observe(event)
        await all_stored(kept)
        spool = kept._writer._spool
        assert isinstance(spool, Spool)
        # The end of the call waits, and the database has it as open still.
        async with opened(place) as other:
            await other.close_lost(of=[kept._writer._instance])
        spool.put([encode(call_events(said=(CANARY,))[2], seq=9, at=BEGAN)])
        kept._writer._next_try_s = float("inf")
        await kept.erase([OF])
        assert spool.first(10)[0] == []
        assert places_of(tmp_path, CANARY) == []


async def test_a_call_that_goes_on_is_not_erased(tmp_path: Path) -> None:
    async with history(tmp_path / "calls.db", tmp_path) as kept:
        await until(lambda: not kept.degraded())  # its tables are made
        for event in call_events(ended=False):
            kept.observe(event)
        erased = await kept.erase([OF])
        assert ([*erased.call_ids], [*erased.still_live]) == ([], [OF])
        assert (await kept.store.call(OF)).outcome is Outcome.IN_PROGRESS


# Retention ----------------------------------------------------------------------------------------


async def test_each_kind_goes_when_it_is_too_old(tmp_path: Path) -> None:
    today = BEGAN
    kept = CallHistory(
        SqlStore(tmp_path / "calls.db"),
        state_dir=tmp_path,
        files=files(tmp_path),
        retention=Retention(calls_days=30, transcripts_days=10),
        now=lambda: today,
    )
    async with kept.writing():
        for days in (40, 31, 20, 11, 5):
            today = BEGAN - timedelta(days=days)
            for event in call_events(f"call_{days}", said=(f"{CANARY} {days}",)):
                kept.observe(event)
            await all_stored(kept)
        today = BEGAN
        for _ in range(2):
            await kept.clean()
            left = {call.call_id for call in (await kept.store.calls()).items}
            assert left == {"call_20", "call_11", "call_5"}
            [hit] = (await kept.store.search(CANARY)).items
            assert hit.call_id == "call_5"
        await kept.store.compact()
    assert places_of(tmp_path, f"{CANARY} 5") == ["calls.db"]
    assert places_of(tmp_path, *(f"{CANARY} {days}" for days in (40, 31, 20, 11))) == []


async def test_old_files_go_by_their_age(tmp_path: Path) -> None:
    options = Retention(recordings_days=10, messages_days=20)
    async with history(tmp_path / "calls.db", tmp_path, retention=options) as kept:
        now_s = kept._now().timestamp()
        for folder in ("recordings", "messages"):
            (tmp_path / folder).mkdir()
            for days in (5, 15, 25):
                path = tmp_path / folder / f"{days}.wav"
                path.write_text("x")
                os.utime(path, (now_s - days * 86_400,) * 2)
        await kept.clean()
    assert {path.name for path in (tmp_path / "recordings").iterdir()} == {"5.wav"}
    assert {path.name for path in (tmp_path / "messages").iterdir()} == {"5.wav", "15.wav"}


async def test_a_store_that_falls_behind_loses_no_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MAX_BEHIND", 40)
    monkeypatch.setattr(writer, "MAX_WAITING", 400)
    monkeypatch.setattr(writer, "BATCH_EVENTS", 10)
    calls = {f"call_{number}": call_events(f"call_{number}") for number in range(60)}
    place = tmp_path / "calls.db"
    async with history(place, tmp_path) as kept:
        for events in calls.values():
            for event in events:
                kept.observe(event)
            await asyncio.sleep(0.01)
        await all_stored(kept)
        counted = kept.counts()
        assert counted["dropped"] == 0
        assert counted["spooled"] > 0
    await check_whole(place, calls)
