"""The part that the caller has heard, by marks, generations and the clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.calls.media.playout import Chunk, HeardItem, Playout
from audio.format import PCMU_8K

MS = 8  # bytes of mu-law


def heard_ms(playout: Playout, item_id: str, now_ms: int) -> int | None:
    """The part of an item that the caller has heard, in ms; None if it is in another generation."""
    for span in playout._spans:
        if span.item_id == item_id:
            heard = min(playout._heard(now_ms), span.end) - span.start
            return max(0, heard) // MS
    return None


def speech(ms: int) -> bytes:
    return b"\x10" * (ms * MS)


@pytest.fixture
def playout() -> Playout:
    playout = Playout(PCMU_8K)
    playout.start(0)
    return playout


def marks(chunks: list[Chunk]) -> list[str]:
    return [chunk.mark for chunk in chunks if chunk.mark is not None]


def test_audio_goes_out_in_whole_frames_with_a_mark_every_200_ms(playout: Playout) -> None:
    chunks = playout.push("item", 0, speech(450), 0)
    assert [len(chunk.payload) // MS for chunk in chunks] == [200, 200, 40]
    assert [chunk.mark is not None for chunk in chunks] == [True, True, False]
    last = playout.finish("item", 0)
    assert [len(chunk.payload) // MS for chunk in last] == [20]
    assert last[0].payload == speech(10) + b"\xff" * (10 * MS)
    assert last[0].mark is not None


def test_what_was_pushed_before_the_stream_plays_from_its_start_on() -> None:
    playout = Playout(PCMU_8K)
    playout.push("item", 0, speech(2_000), 0)
    playout.finish("item", 0)
    assert not playout.drained(9_999)
    playout.start(10_000)
    assert not playout.drained(12_999)  # two seconds of sound, and one of grace
    assert playout.drained(13_000)


def test_small_pieces_are_not_held_back_for_the_mark(playout: Playout) -> None:
    sent = [playout.push("item", 0, speech(20), 0) for _ in range(10)]
    assert all(len(chunks) == 1 and len(chunks[0].payload) == 160 for chunks in sent)
    assert [bool(marks(chunks)) for chunks in sent] == [False] * 9 + [True]


def test_less_than_a_frame_waits_for_more(playout: Playout) -> None:
    assert playout.push("item", 0, speech(19), 0) == []
    assert playout.push("item", 0, speech(1), 0)[0].payload == speech(20)


def test_the_clock_fills_in_between_marks_but_never_past_the_next(playout: Playout) -> None:
    playout.push("item", 0, speech(600), 0)
    assert heard_ms(playout, "item", 150) == 150
    assert heard_ms(playout, "item", 5_000) == 200


def test_a_mark_moves_what_was_heard(playout: Playout) -> None:
    first, *_ = marks(playout.push("item", 0, speech(600), 0))
    assert playout.mark_reached(first, 260)
    assert heard_ms(playout, "item", 260) == 200
    assert heard_ms(playout, "item", 300) == 240


def test_marks_echoed_by_clear_are_not_heard(playout: Playout) -> None:
    names = marks(playout.push("item", 0, speech(600), 0))
    cut = playout.interrupt(100)
    assert cut.items == (HeardItem(item_id="item", content_index=0, heard_ms=100, sent_ms=600),)
    assert not any(playout.mark_reached(name, 110) for name in names)
    playout.push("next", 0, speech(400), 120)
    assert heard_ms(playout, "next", 120) == 0


def test_marks_echoed_by_clear_count_for_nothing_of_what_was_queued_meanwhile(
    playout: Playout,
) -> None:
    names = marks(playout.push("item", 0, speech(600), 0))
    playout.interrupt(100)
    playout.push("next", 0, speech(600), 120)
    assert not any(playout.mark_reached(name, 130) for name in names)
    assert heard_ms(playout, "next", 130) == 10


def test_items_queued_behind_the_audible_one_were_not_heard(playout: Playout) -> None:
    playout.push("one", 0, speech(200), 0)
    playout.finish("one", 0)
    playout.push("two", 0, speech(400), 0)
    cut = playout.interrupt(100)
    assert [(item.item_id, item.heard_ms) for item in cut.items] == [("one", 100), ("two", 0)]


def test_an_item_that_was_heard_to_its_end_is_not_cut(playout: Playout) -> None:
    names = marks(playout.push("one", 0, speech(200), 0))
    playout.finish("one", 0)
    playout.push("two", 0, speech(400), 0)
    playout.mark_reached(names[0], 210)
    assert [item.item_id for item in playout.interrupt(300).items] == ["two"]


def test_truncation_never_exceeds_what_the_model_has_sent(playout: Playout) -> None:
    playout.push("item", 0, speech(110), 0)
    playout.finish("item", 0)  # padded to 120 ms
    assert heard_ms(playout, "item", 119) == 110
    (over,) = playout.heard_items(119, by_clock=True)
    assert (over.heard_ms, over.sent_ms, over.by_mark) == (110, 110, False)


@pytest.mark.parametrize(
    ("mark_ms", "looked_ms", "by_mark"),
    [
        (None, 119, None),
        (None, 1_100, None),
        (150, 150, True),
        (900, 900, True),
        (None, 1_200, False),
    ],
)
def test_an_item_is_over_by_its_mark_or_once_that_is_overdue(
    playout: Playout, mark_ms: int | None, looked_ms: int, by_mark: bool | None
) -> None:
    playout.push("item", 0, speech(110), 0)
    [name] = marks(playout.finish("item", 0))
    if mark_ms is not None:
        assert playout.heard_items(mark_ms - 10) == []
        playout.mark_reached(name, mark_ms)
    over = playout.heard_items(looked_ms)
    assert [item.by_mark for item in over] == ([] if by_mark is None else [by_mark])


def test_interrupting_an_item_in_generation_names_it_even_when_all_was_heard(
    playout: Playout,
) -> None:
    names = marks(playout.push("item", 0, speech(200), 0))
    playout.mark_reached(names[0], 210)
    (item,) = playout.interrupt(500).items
    assert (item.heard_ms, item.sent_ms) == (200, 200)


def test_heard_items_are_given_once_when_their_last_mark_is_back(playout: Playout) -> None:
    playout.push("item", 0, speech(300), 0)
    (last,) = marks(playout.finish("item", 0))
    assert playout.heard_items(250) == []
    playout.mark_reached(last, 310)
    assert [item.item_id for item in playout.heard_items(310)] == ["item"]
    assert playout.heard_items(320) == []
    assert playout.drained(310)


def test_marks_that_never_return_do_not_keep_the_line_open(playout: Playout) -> None:
    playout.push("item", 0, speech(300), 0)
    playout.finish("item", 0)
    assert not playout.drained(1_299)
    assert playout.drained(1_300)
    assert [item.item_id for item in playout.heard_items(1_300)] == ["item"]


@pytest.mark.parametrize(
    ("returned_at_ms", "now_ms", "expected_ms"),
    [
        (None, 900, 200),  # none came back: not past the first one
        (None, 3_000, 2_000),  # by the clock, a second late
        (None, 9_000, 8_000),
        (0, 0, 1_000),  # all at once: by the clock, a second early
        (0, 3_000, 4_000),
        (500, 3_000, 4_000),
        (9_500, 9_500, 10_000),
    ],
)
def test_the_clock_bounds_what_marks_say_on_both_sides(
    playout: Playout, returned_at_ms: int | None, now_ms: int, expected_ms: int
) -> None:
    sent = playout.push("item", 0, speech(10_000), 0)
    if returned_at_ms is not None:
        for mark in marks(sent):
            playout.mark_reached(mark, returned_at_ms)
    assert heard_ms(playout, "item", now_ms) == expected_ms
    assert playout.drained(now_ms) == (expected_ms == 10_000)


def test_what_is_pushed_before_the_stream_opens_begins_to_play_when_it_does() -> None:
    playout = Playout(PCMU_8K)
    playout.push("item", 0, speech(400), 0)
    assert heard_ms(playout, "item", 5_000) == 0
    assert not playout.drained(60_000)
    playout.start(60_000)
    assert heard_ms(playout, "item", 60_100) == 100


def test_an_empty_item_ends_without_a_mark(playout: Playout) -> None:
    assert playout.finish("item", 0) == []
    assert playout.finish_all(0) == []
    assert playout.drained(0)
    assert heard_ms(playout, "item", 0) is None


def test_finish_closes_only_the_item_that_plays_last(playout: Playout) -> None:
    playout.push("one", 0, speech(80), 0)
    playout.push("two", 0, speech(80), 0)
    assert playout.finish("one", 0) == []
    assert marks(playout.finish_all(0)) != []
    assert playout.finish("two", 0) == []


def test_a_mark_at_the_very_end_is_not_sent_twice(playout: Playout) -> None:
    playout.push("item", 0, speech(200), 0)
    assert playout.finish("item", 0) == []


def test_an_end_without_a_mark_gets_one(playout: Playout) -> None:
    playout.push("item", 0, speech(100), 0)
    (end,) = playout.finish("item", 0)
    assert end.payload == b""
    assert end.mark is not None


def test_the_end_of_audio_that_is_already_heard_needs_no_mark(playout: Playout) -> None:
    (name,) = marks(playout.push("item", 0, speech(200), 0))
    playout.mark_reached(name, 200)
    assert playout.finish("item", 300) == []
    assert playout.heard_items(300)


def test_a_part_frame_of_one_item_goes_out_with_the_next(playout: Playout) -> None:
    playout.push("one", 0, speech(30), 0)
    chunks = playout.push("two", 0, speech(30), 0)
    assert sum(len(chunk.payload) for chunk in chunks) == 40 * MS
    one, two = playout.interrupt(0).items
    assert (one.sent_ms, two.sent_ms) == (30, 30)


@given(st.lists(st.integers(1, 700), min_size=1, max_size=12), st.data())
def test_heard_never_goes_back_and_never_passes_what_was_sent(
    sizes: list[int], data: st.DataObject
) -> None:
    playout = Playout(PCMU_8K)
    playout.start(0)
    now, sent, heard = 0, 0, 0
    names: list[str] = []
    for size in sizes:
        chunks = playout.push("item", 0, b"\x00" * size, now)
        sent += sum(len(chunk.payload) for chunk in chunks)
        names += marks(chunks)
        now += data.draw(st.integers(0, 300))
        if names and data.draw(st.sampled_from([True, False])):
            playout.mark_reached(names.pop(0), now)
        now_heard = heard_ms(playout, "item", now) or 0
        assert heard <= now_heard <= sent // MS
        heard = now_heard
