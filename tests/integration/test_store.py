"""The behavior of a store of calls, the same in SQLite and in PostgreSQL."""

from __future__ import annotations

import asyncio
import importlib
import json
import pkgutil
import random
from dataclasses import replace
from datetime import time, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.dialects import sqlite

from app.errors import CallNotFound, StoreError, StoreUnavailable
from app.events import CallId, CallLost, CallTurnedAway, ToolRan, TransferEnded
from app.store import sql as tables
from app.store.base import (
    LOST_SEQ,
    CallFilter,
    Direction,
    Outcome,
    Problem,
    StoredCall,
    StoredEvent,
)
from app.store.codec import encode
from app.store.fold import rebuilt
from app.store.outbound import Contact
from app.store.retention import WORDS
from app.store.sql.database import BUSY_MS
from app.store.sql.lists import listed_calls
from app.store.sql.outbound import SqlOutbound
from app.store.sql.store import SqlStore
from app.store.sql.tables import metadata
from tests.fakes.call_events import BEGAN, call_events, recorded
from tests.fakes.postgres import Cluster
from tests.fakes.waiting import time_limit
from tests.integration.store_site import KINDS, new_database, opened, postgres, store

__all__ = ["postgres", "store"]

OF = CallId("call_1")


def as_put(records: list[StoredEvent]) -> list[StoredEvent]:
    return [replace(record, position=0) for record in records]


async def calls_of(store: SqlStore, *call_ids: str, **facts: Any) -> None:
    """Put calls there, each an hour after the one before."""
    for number, call_id in enumerate(call_ids):
        began = BEGAN + timedelta(hours=number)
        await store.append(recorded(call_events(call_id, **facts), began=began), instance="me")


async def ids(store: SqlStore, wanted: CallFilter) -> list[str]:
    return [call.call_id for call in (await store.calls(wanted)).items]


# Events and rows ----------------------------------------------------------------------------------


async def test_events_are_kept_as_they_came_and_the_row_is_made_of_them(store: SqlStore) -> None:
    records = recorded(call_events(said=("Grüße \U0001f600 \0", "and \ud800 this")))
    await store.append(records[:3], instance="me")
    assert (await store.call(OF)).outcome is Outcome.IN_PROGRESS
    await store.append(records[3:], instance="me")
    # Half of a character, which no answer can be sent with, comes back as a question mark.
    whole = recorded(call_events(said=("Grüße \U0001f600 \0", "and ? this")))
    assert as_put([*await store.events(OF)]) == whole
    assert await store.call(OF) == rebuilt(records)


async def test_events_that_come_again_are_kept_once(store: SqlStore) -> None:
    records = recorded(call_events(said=("one", "two", "three")))
    for part in (records, records[2:5], records[:3], records):
        await store.append(part, instance="me")
    assert as_put([*await store.events(OF)]) == records
    assert await store.call(OF) == rebuilt(records)
    assert len((await store.search("two")).items) == 1


async def test_events_that_come_out_of_order_make_the_same_row(store: SqlStore) -> None:
    records = recorded(call_events(said=("one", "two", "three")))
    shuffled = random.Random(7).sample(records, len(records))
    for record in shuffled:
        await store.append([record], instance="me")
    assert as_put([*await store.events(OF)]) == records
    assert await store.call(OF) == rebuilt(records)


async def test_a_batch_holds_events_of_many_calls(store: SqlStore) -> None:
    calls = [recorded(call_events(f"call_{number}")) for number in range(20)]
    mixed = [record for records in zip(*calls, strict=True) for record in records]
    await store.append(mixed, instance="me")
    for records in calls:
        assert await store.call(records[0].call_id) == rebuilt(records)
    assert len((await store.calls(CallFilter(), limit=100)).items) == 20


@pytest.mark.parametrize(
    "odd",
    [
        {"at_ms": 2**63},
        {"at_ms": "later"},
        {"at_ms": None},
        {"seq": 2**63},
        {"type": "t" * 65},
        {"type": "\0"},
        {"type": "\ud800"},
        {"at": "today"},
        {"call_id": 3},
    ],
    ids=str,
)
async def test_what_a_database_can_never_take_does_not_count_as_an_outage(
    odd: dict[str, Any], store: SqlStore
) -> None:
    """It is refused or kept, and what comes behind it is kept; no refusal repeats a value."""
    records = recorded(call_events())
    try:
        await store.append([records[0], replace(records[1], **odd)], instance="me")
    except StoreUnavailable:
        raise
    except StoreError as error:
        assert not {str(value) for value in odd.values()} & {*error.message.split()}
    await store.append(recorded(call_events("call_2")), instance="me")
    assert (await store.call(CallId("call_2"))).outcome is Outcome.ANSWERED


async def test_a_right_that_the_database_withholds_is_an_outage(postgres: Cluster) -> None:
    """An operator can give it, and no event may be lost until then."""
    place = await new_database(postgres)
    role = f"reader_{place.rpartition('_')[2]}"
    async with opened(place) as store:
        with pytest.raises(StoreUnavailable):
            async with store.database.writing() as connection:
                await connection.execute(text(f"CREATE ROLE {role}"))
                await connection.execute(text(f"SET LOCAL ROLE {role}"))
                await connection.execute(text("DELETE FROM events"))


async def test_a_call_that_nobody_knows_is_not_found(store: SqlStore) -> None:
    for asked in (store.call(OF), store.add_note(OF, "x", author="me"), store.set_tags(OF, ["x"])):
        with pytest.raises(CallNotFound):
            await asked
    assert await store.events(OF) == []


async def test_a_part_of_a_calls_events_can_be_read(store: SqlStore) -> None:
    await calls_of(store, "call_1")
    assert [one.seq for one in await store.events(OF, after_seq=1, limit=2)] == [2, 3]


# Lists --------------------------------------------------------------------------------------------


async def test_calls_are_listed_the_newest_first_page_by_page(store: SqlStore) -> None:
    names = [f"call_{number:02}" for number in range(11)]
    await calls_of(store, *names)
    # Those that began in the same millisecond are told apart by their ids.
    await store.append(recorded(call_events("call_10b"), began=BEGAN + timedelta(hours=10)),
                       instance="me")  # fmt: skip
    for wanted in (CallFilter(), CallFilter(number="+15552223333")):
        found, cursor = [], None
        for _ in range(4):
            page = await store.calls(wanted, cursor=cursor, limit=3)
            found += [call.call_id for call in page.items]
            cursor = page.cursor
        assert cursor is None
        assert found == ["call_10b", *reversed(names)]


async def test_calls_are_filtered(store: SqlStore) -> None:
    await calls_of(store, "call_1", "call_2")
    await store.append(recorded(call_events("call_3", caller="+15559", ended=False)), instance="me")
    away = CallTurnedAway(
        call_id=CallId("call_4"),
        carrier_call_id="CA4",
        caller_number="+15558",
        called_number="+15559",
        reason="closed",
    )
    await store.append([encode(away, seq=1, at=BEGAN)], instance="me")
    failed = ToolRan(
        call_id=CallId("call_2"), at_ms=1, name="x", duration_ms=1, error="tool_failed"
    )
    await store.append([encode(failed, seq=6, at=BEGAN)], instance="me")
    refused = TransferEnded(
        call_id=CallId("call_1"), at_ms=1, destination="desk", outcome="busy", evidence="486"
    )
    await store.append([encode(refused, seq=60, at=BEGAN)], instance="me")
    await store.set_tags(OF, ["vip", "later"])
    table: list[tuple[CallFilter, set[str]]] = [
        (CallFilter(outcomes=[Outcome.ANSWERED]), {"call_2", "call_1"}),
        (CallFilter(outcomes=[Outcome.REFUSED, Outcome.IN_PROGRESS]), {"call_4", "call_3"}),
        (CallFilter(number="+15559"), {"call_4", "call_3"}),
        (CallFilter(agent="reception"), {"call_1", "call_2", "call_3"}),
        (CallFilter(reason="closed"), {"call_4"}),
        (CallFilter(tag="vip"), {"call_1"}),
        (CallFilter(tag="another"), set()),
        (CallFilter(with_errors=True), {"call_2"}),
        (CallFilter(since=BEGAN + timedelta(minutes=30)), {"call_2"}),
        (CallFilter(until=BEGAN + timedelta(milliseconds=500)), {"call_4"}),
        (CallFilter(agent="reception", number="+15559"), {"call_3"}),
        (CallFilter(problems=[Problem.TOOL_FAILED]), {"call_2"}),
        (CallFilter(problems=[Problem.TRANSFER_FAILED]), {"call_1"}),
        (CallFilter(problems=[Problem.TRANSFER_FAILED, Problem.TOOL_FAILED]), set()),
        (CallFilter(problems=[Problem.BARGE_IN]), set()),
        (CallFilter(problems=[Problem.WENT_SILENT]), {"call_1", "call_2"}),
        (CallFilter(over_usd=0.2), {"call_1", "call_2"}),
        (CallFilter(over_usd=0.25), set()),
    ]
    for wanted, expected in table:
        assert {*await ids(store, wanted)} == expected, wanted
        counted = await store.figures(wanted, each=timedelta(hours=1))
        assert sum(one.calls for one in counted) == len(expected), wanted


async def test_calls_are_counted_by_stretches_of_time(store: SqlStore) -> None:
    await calls_of(store, "call_1", "call_2")  # an hour apart
    await store.append(recorded(call_events("call_3", ended=False)), instance="me")
    first, second = await store.figures(CallFilter(), each=timedelta(hours=1))
    assert second.at - first.at == timedelta(hours=1)
    assert first.at <= BEGAN < first.at + timedelta(hours=1)
    assert (first.calls, first.outcomes) == (2, {"answered": 1, "in_progress": 1})
    assert (second.calls, second.outcomes) == (1, {"answered": 1})
    assert (second.cost_usd, second.duration_ms) == (0.25, 3_000)
    assert second.turn_latency_p50_ms is None
    for hours in (0, 12.5, -9):  # of a clock ahead of UTC, or behind it
        ahead = timedelta(hours=hours)
        days = await store.figures(CallFilter(), each=timedelta(days=1), ahead=ahead)
        assert {(day.at + ahead).time() for day in days} == {time(0)}, hours
        assert [day.at for day in days if day.at <= BEGAN < day.at + timedelta(days=1)], hours


@pytest.mark.parametrize("cursor", ["", "x", "!!!", "OTk5OTk5OTk5OTk5OTk5OTk5OTk6eA", "\u00e9"])
async def test_a_cursor_that_was_not_given_out_is_refused(cursor: str, store: SqlStore) -> None:
    await calls_of(store, "call_1")
    for asked in (store.calls(CallFilter(), cursor=cursor), store.search("we", cursor=cursor)):
        with pytest.raises(StoreError) as refused:
            await asked
        assert refused.value.code == "bad_cursor"


# Search -------------------------------------------------------------------------------------------

SEARCHES = {
    "OPEN": 1,
    "nine CLOSE": 4,  # the agent's answers
    '"close at nine"': 4,
    '"nine at close"': 0,
    "when nine": 0,  # two turns hold one each
    "strasse": 1,
    "straß*": 1,
    "stra": 0,
    "cafe": 1,
    "don't": 1,
    "555-0100": 1,
    "example.com": 1,
    "1e5": 1,
    "0x1f": 1,
    "3.14": 1,
    "\u65e5\u672c*": 1,
    "' OR 1=1 --": 0,
    '"; DROP TABLE events; --': 0,
    "NEAR(close nine)": 0,
    "close NOT nine": 0,
    "words:close": 0,
    "close & ! nine": 4,
    "a:*b <-> c": 0,
    "never said": 0,
    "*": 0,
    "": 0,
}


async def test_words_are_found_in_what_was_said_and_nothing_else_happens(store: SqlStore) -> None:
    said = (
        "When do you OPEN?",
        "Die Straße beim Café, don't hang up",
        "Call 555-0100 or write to me@example.com, a/b 1e5 0x1F 3.14",
        "\u65e5\u672c\u8a9e please",
    )
    await store.append(recorded(call_events(said=said, answer="We close at nine.")), instance="me")
    for query, count in SEARCHES.items():
        assert len((await store.search(query)).items) == count, query


async def test_found_turns_come_the_newest_first_page_by_page(store: SqlStore) -> None:
    await store.append(recorded(call_events(said=("a one", "a two", "a three"))), instance="me")
    first = await store.search("a", limit=2)
    assert [hit.text for hit in first.items] == ["a three", "a two"]
    rest = await store.search("a", limit=2, cursor=first.cursor)
    [last] = rest.items
    assert (last.text, last.party, last.seq, last.call_id) == ("a one", "caller", 3, OF)
    assert rest.cursor is None


# Notes, tags --------------------------------------------------------------------------------------


async def test_people_add_notes_and_tags(store: SqlStore) -> None:
    await calls_of(store, "call_1")
    first = await store.add_note(OF, "Called back", author="Ada")
    second = await store.add_note(OF, "Settled", author="Bob")
    assert [(one.note_id, one.text) for one in await store.notes(OF)] == [
        (first.note_id, "Called back"),
        (second.note_id, "Settled"),
    ]
    await store.set_tags(OF, ["b", "a", "b"])
    assert await store.tags(OF) == ["a", "b"]
    await store.set_tags(OF, [])
    assert await store.tags(OF) == []


# Calls of processes that are gone -----------------------------------------------------------------


async def test_calls_of_a_process_that_is_gone_are_closed_as_lost(store: SqlStore) -> None:
    for name, instance in (("call_1", "gone"), ("call_2", "here"), ("call_3", "silent")):
        await store.append(recorded(call_events(name, ended=False)), instance=instance)
    await store.append(recorded(call_events("call_4")), instance="gone")
    await store.renew("here", BEGAN + timedelta(hours=1))
    await store.renew("silent", BEGAN)
    [lost] = await store.close_lost(of=["gone"])
    assert (lost.call_id, lost.seq, lost.type) == ("call_1", LOST_SEQ, "call_lost")
    row = await store.call(OF)
    assert (row.outcome, row.ended_at) == (Outcome.LOST, BEGAN + timedelta(seconds=4))
    [lost] = await store.close_lost(unseen_since=BEGAN + timedelta(minutes=1))
    assert lost.call_id == "call_3"
    assert await store.close_lost(of=["gone"], unseen_since=BEGAN + timedelta(minutes=1)) == []
    assert await ids(store, CallFilter(outcomes=[Outcome.IN_PROGRESS])) == ["call_2"]


async def test_the_end_of_a_call_that_was_taken_for_lost_is_kept(store: SqlStore) -> None:
    records = recorded(call_events())
    await store.append(records[:3], instance="gone")
    await store.close_lost(of=["gone"])
    await store.append(records[3:], instance="gone")
    found = await store.call(OF)
    assert (found.outcome, found.reason) == (Outcome.ANSWERED, "caller_hung_up")
    lost = encode(CallLost(call_id=OF), seq=LOST_SEQ, at=records[2].at)
    assert found == rebuilt([*records, lost])


# Removing -----------------------------------------------------------------------------------------


async def test_an_erased_call_leaves_nothing_and_does_not_come_back(store: SqlStore) -> None:
    await calls_of(store, "call_1", "call_2")
    await store.append(recorded(call_events("call_3", ended=False)), instance="me")
    await store.add_note(OF, "a note", author="me")
    await store.set_tags(OF, ["tag"])
    names = [CallId(f"call_{number}") for number in (1, 3, 9)]
    erased = await store.erase(names)
    assert (erased.still_live, [*erased.call_ids]) == ([CallId("call_3")], [names[0], names[2]])
    await store.append(recorded(call_events("call_1")), instance="me")
    assert await store.events(OF) == []
    assert await store.notes(OF) == []
    assert await store.tags(OF) == []
    assert await ids(store, CallFilter()) == ["call_2", "call_3"]
    assert {hit.call_id for hit in (await store.search("open")).items} == {"call_2", "call_3"}
    with pytest.raises(CallNotFound):
        await store.call(OF)


async def test_a_number_that_is_erased_leaves_lists_but_stays_uncallable(store: SqlStore) -> None:
    lists, number = SqlOutbound(store.database), "+15557770001"
    people = [Contact(campaign_id="c", number=one, next_at=BEGAN) for one in (number, "+1666")]
    assert await lists.add_contacts(people) == 2
    await lists.add_consent(number, BEGAN, "a form")
    await lists.list_number(number, BEGAN, "asked", "a call")
    await store.forget_number(number)
    assert [one.number for one in await lists.contacts("c")] == ["+1666"]
    assert not await lists.remove_consent(number)
    assert await lists.unlist_number(number)
    await store.compact()
    path = Path(store.database.path)
    files = path.parent.glob("calls.db*") if store.database.is_sqlite else ()
    assert all(number.encode() not in file.read_bytes() for file in files)


async def test_calls_of_a_number_are_those_from_it_and_to_it(store: SqlStore) -> None:
    await calls_of(store, "call_1", caller="+1555", called="+1666")
    await calls_of(store, "call_2", caller="+1666", called="+1777")
    await calls_of(store, "call_3", caller="+16660", called="+1777")
    assert sorted(await store.calls_with("+1666")) == ["call_1", "call_2"]


async def test_words_can_be_removed_and_the_call_stays(store: SqlStore) -> None:
    await calls_of(store, "call_1", "call_2")
    before = await store.call(OF)
    assert await store.blank([OF], WORDS) == 2
    assert await store.blank([OF], WORDS) == 0
    assert await store.call(OF) == before
    assert "nine" not in str(await store.events(OF))
    assert {hit.call_id for hit in (await store.search("open")).items} == {"call_2"}


async def test_what_was_cleaned_is_remembered(store: SqlStore) -> None:
    assert await store.cleaned_until("words") is None
    for hour in (1, 2):
        await store.set_cleaned_until("words", BEGAN + timedelta(hours=hour))
    assert await store.cleaned_until("words") == BEGAN + timedelta(hours=2)
    assert await store.older_than(BEGAN) == []


async def test_old_calls_are_found_once_they_are_over(store: SqlStore) -> None:
    await calls_of(store, "call_1", "call_2")
    await store.append(recorded(call_events("call_3", ended=False)), instance="me")
    assert await store.older_than(BEGAN + timedelta(minutes=30)) == ["call_1"]


# Made anew ----------------------------------------------------------------------------------------


async def all_rows(store: SqlStore) -> list[StoredCall]:
    return [*(await store.calls(CallFilter(), limit=1_000)).items]


async def test_rows_that_are_made_anew_of_the_events_are_the_same(store: SqlStore) -> None:
    for number in range(410):  # more than are made anew at a time
        events = call_events(f"call_{number:03}", ended=number % 3 > 0)
        await store.append(recorded(events), instance="me")
    await store.append(recorded(call_events("lost", ended=False)), instance="gone")
    await store.close_lost(of=["gone"])
    rows = await all_rows(store)
    found = [(hit.call_id, hit.seq) for hit in (await store.search("open", limit=1_000)).items]
    await spoil(store)
    assert await store.rebuild() == 411
    assert await all_rows(store) == rows
    again = [(hit.call_id, hit.seq) for hit in (await store.search("open", limit=1_000)).items]
    assert sorted(again) == sorted(found)


async def spoil(store: SqlStore) -> None:
    async with store.database.writing() as connection:
        await connection.execute(text("UPDATE calls SET agent = 'x', outcome = 'answered'"))
        await connection.execute(text("DELETE FROM calls WHERE call_id > 'call_2'"))
        await connection.execute(text("DELETE FROM transcript WHERE call_id > 'call_1'"))


async def test_writers_of_one_process_wait_for_their_turn(tmp_path: Path) -> None:
    async def write(store: SqlStore) -> None:
        async with store.database.writing() as connection:
            await connection.execute(text("DELETE FROM notes"))
            await asyncio.sleep(BUSY_MS / 1000 / 6)

    async with opened(tmp_path / "calls.db") as store, time_limit():
        await asyncio.gather(*(write(store) for _ in range(10)))


# Tables -------------------------------------------------------------------------------------------


async def empty_place(kind: str, folder: Path, request: pytest.FixtureRequest) -> Path | str:
    if kind == "sqlite":
        return folder / "calls.db"
    return await new_database(request.getfixturevalue("postgres"))


@pytest.mark.parametrize("kind", KINDS)
async def test_several_processes_make_the_tables_at_once(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = await empty_place(kind, tmp_path, request)
    several = [SqlStore(place) for _ in range(5)]
    await asyncio.gather(*(one.open() for one in several))
    await calls_of(several[0], "call_1")
    assert (await several[4].call(OF)).agent == "reception"
    for one in several:
        await one.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_tables_of_an_older_version_are_brought_up_to_date(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    old = SqlStore(await empty_place(kind, tmp_path, request))
    await old.database.upgrade("calls_001")
    record = recorded(call_events())[-1]
    row = {"call_id": OF, "started_at": 1, "last_seq": 1, "outcome": "answered"}
    row |= dict.fromkeys(("turns", "barge_ins", "tool_calls", "tool_errors"), 0)
    row |= dict.fromkeys(("voice_errors", "messages"), 0) | {"direction": "inbound"}
    row |= dict.fromkeys(("reason", "carrier_call_id", "caller_number", "called_number"), "")
    row |= dict.fromkeys(("model", "transferred_to"), "") | {"agent": "reception"}
    event = {"call_id": OF, "seq": 1, "at": 1, "at_ms": 0, "type": record.type}
    event["body"] = json.dumps(record.body)
    async with old.database.writing() as connection:
        for table, values in (("calls", row), ("events", event)):
            names = ", ".join(values)
            places = ", ".join(f":{name}" for name in values)
            await connection.execute(
                text(f"INSERT INTO {table} ({names}) VALUES ({places})"),
                values,
            )
    assert "calls_005" in (await old.status()).missing_revisions
    await old.open()
    assert (await old.status()).missing_revisions == []
    found = await old.call(OF)
    assert (found.agent, found.costs, found.cost_unknown) == ("reception", {}, ())
    assert await old.rebuild() == 1
    assert (await old.call(OF)).costs == {"model_audio": 0.2, "carrier": 0.05}
    await old.close()


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (CallFilter(), "calls_by_time"),
        (CallFilter(direction=Direction.OUTBOUND), "calls_by_direction"),
        (CallFilter(reason="voice_lost"), "calls_by_reason"),
        (CallFilter(outcomes=[Outcome.LOST]), "calls_by_outcome"),
        (CallFilter(agent="nobody"), "calls_by_agent"),
        (CallFilter(with_errors=True), "calls_with_errors"),
        (CallFilter(problems=[Problem.TOOL_FAILED]), "calls_with_errors"),
    ],
)
async def test_a_list_that_matches_nothing_looks_at_no_call(
    wanted: CallFilter, index: str, tmp_path: Path
) -> None:
    store = SqlStore(tmp_path / "calls.db")  # PostgreSQL's plans go by what tables hold
    await store.open()
    query = listed_calls(wanted, None, 50).compile(
        dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}
    )
    async with store.database.reading() as connection:
        plan = (await connection.execute(text(f"EXPLAIN QUERY PLAN {query}"))).all()
    await store.close()
    assert f"USING INDEX {index}" in plan[0].detail, plan
    assert len(plan) == 1, plan  # nothing is sorted


async def test_the_revisions_make_the_tables_that_the_code_declares(store: SqlStore) -> None:
    for module in pkgutil.iter_modules(tables.__path__):  # each feature declares its own
        importlib.import_module(f"{tables.__name__}.{module.name}")

    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection)
        found: list[Any] = compare_metadata(context, metadata)
        # The full-text index is SQL of its own; webhooks leave their indexes to their revision.
        of_others = ("transcript_words", "table=<webhook_")
        return [one for one in found if not any(name in repr(one) for name in of_others)]

    async with store.database.reading() as connection:
        assert await connection.run_sync(differences) == []


async def test_tables_of_a_newer_version_are_left_alone(store: SqlStore) -> None:
    async with store.database.writing() as connection:
        await connection.execute(text("INSERT INTO alembic_version VALUES ('calls_999')"))
    other = SqlStore(store.database._url.render_as_string(hide_password=False))
    with pytest.raises(StoreError) as refused:
        await other.open()
    assert refused.value.code == "store_newer"
    await other.close()


async def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    async with opened(folder / "calls.db") as store:
        await calls_of(store, "call_1")
        assert {path.name for path in folder.iterdir()} >= {"calls.db", "calls.db-wal"}
        for path in folder.iterdir():
            assert path.stat().st_mode & 0o777 == 0o600, path
    assert folder.stat().st_mode & 0o777 == 0o700
