"""The feed of all calls: order, continuation, what is missed."""

from __future__ import annotations

import asyncio

import pytest

from app.calls.observers.live_feed import FeedReader, LiveFeed, plain
from app.carrier.base import CarrierCallId
from app.events import CallId, FirstSound


def event(number: int) -> dict[str, int]:
    return {"number": number}


async def read(reader: FeedReader, count: int) -> list[object]:
    found: list[object] = []
    for _ in range(count):
        entry = await reader.next(60)
        assert entry is not None
        found.append(None if entry.event is None else entry.event["number"])
    return found


async def test_readers_get_what_comes_each_at_its_own_pace() -> None:
    feed = LiveFeed()
    feed.put(event(0))
    one, two = feed.reader(None), feed.reader(None)
    for number in (1, 2, 3):
        feed.put(event(number))
    assert await read(one, 3) == [1, 2, 3]
    waiting = asyncio.create_task(one.next(60))
    await asyncio.sleep(0)
    assert await read(two, 2) == [1, 2]
    feed.put(event(4))
    entry = await waiting
    assert entry is not None
    assert entry.event == event(4)
    assert await read(two, 2) == [3, 4]


async def test_a_reader_that_comes_back_gets_what_it_missed_while_that_is_kept() -> None:
    feed = LiveFeed(kept=3)
    reader = feed.reader(None)
    feed.put(event(1))
    entry = await reader.next(60)
    assert entry is not None
    feed.put(event(2))
    assert await read(feed.reader(entry.id), 1) == [2]
    for number in range(3, 8):
        feed.put(event(number))
    assert await read(feed.reader(entry.id), 4) == [None, 5, 6, 7]
    assert await read(reader, 4) == [None, 5, 6, 7], "a slow one misses the oldest"


@pytest.mark.parametrize("last_id", ["", "x", "-1", "other-1", "NAME-2", "NAME--1", "NAME-²"])
async def test_an_id_that_is_not_of_this_feed_begins_with_a_gap(last_id: str) -> None:
    feed = LiveFeed()
    feed.put(event(1))
    reader = feed.reader(last_id.replace("NAME", feed._name))
    feed.put(event(2))
    assert (await read(reader, 1)) == [None]
    feed.put(event(3))
    assert (await read(reader, 1)) == [3]


async def test_a_reader_is_told_that_nothing_has_come_and_that_nothing_will() -> None:
    feed = LiveFeed()
    reader = feed.reader(None)
    assert await reader.next(0.01) is None
    assert not reader.over
    waiting = asyncio.create_task(reader.next(60))
    await asyncio.sleep(0)
    feed.close()
    assert await waiting is None
    assert reader.over


def test_an_event_becomes_its_type_its_time_and_its_fields() -> None:
    shown = plain(FirstSound(call_id=CallId("call_1"), at_ms=5, after_ms=3))
    assert shown.pop("at").endswith("Z")
    assert shown == {"type": "first_sound", "call_id": "call_1", "at_ms": 5, "after_ms": 3}


def told(kind: str, call_id: str = "call_1", **fields: object) -> dict[str, object]:
    return {"type": kind, "call_id": call_id, **fields}


ADMITTED = told("call_admitted", carrier_call_id="CA1")


async def test_one_call_is_followed_from_its_beginning_to_its_end() -> None:
    feed = LiveFeed()
    other, before, after = told("first_sound", "other"), told("first_sound"), told("call_ended")
    for one in (other, ADMITTED, before, other):
        feed.put(one)
    followed: list[object] = []

    async def follow() -> None:
        async for one in feed.follow(CarrierCallId("CA1")):
            followed.append(one)

    following = asyncio.create_task(follow())
    await asyncio.sleep(0)
    assert followed == [ADMITTED, before]
    feed.put(other)
    feed.put(after)
    await following
    assert followed == [ADMITTED, before, after]


def test_a_call_whose_beginning_was_forgotten_is_unknown() -> None:
    feed = LiveFeed(kept=2)
    feed.put(ADMITTED)
    feed.follow(CarrierCallId("CA1"))
    for _ in range(2):
        feed.put(told("first_sound", "other"))
    for unknown in ("CA1", "CA2"):
        with pytest.raises(KeyError):
            feed.follow(CarrierCallId(unknown))
