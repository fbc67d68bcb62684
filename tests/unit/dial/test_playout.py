"""The carrier's queue: what is heard when, and which marks come back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dial.playout import CallerPlayout, Heard, MarkBack

TWENTY_MS = b"\x10" * 160


def test_audio_plays_in_real_time_from_the_moment_it_arrives() -> None:
    playout = CallerPlayout(1_000)
    playout.advance(1_100)
    playout.push(TWENTY_MS, 1_100)
    assert playout.advance(1_105) == [Heard(800, TWENTY_MS[:40])]
    assert playout.queued_ms == 15
    assert playout.advance(1_200) == [Heard(840, TWENTY_MS[40:])]
    assert not playout.playing


def test_audio_sent_ahead_plays_one_after_the_other() -> None:
    playout = CallerPlayout(0)
    playout.push(b"a" * 80, 0)
    playout.push(b"b" * 80, 0)
    assert playout.advance(20) == [Heard(0, b"a" * 80), Heard(80, b"b" * 80)]


def test_a_pause_in_sending_is_a_pause_for_the_caller() -> None:
    playout = CallerPlayout(0)
    playout.push(b"a" * 80, 0)
    playout.advance(50)
    playout.push(b"b" * 80, 50)
    assert playout.advance(60) == [Heard(400, b"b" * 80)]


def test_a_mark_comes_back_when_all_before_it_has_been_played() -> None:
    playout = CallerPlayout(0)
    playout.push(TWENTY_MS, 0)
    assert playout.mark("one", 0) is None
    assert playout.advance(19) == [Heard(0, TWENTY_MS[:152])]
    assert playout.advance(20) == [Heard(152, TWENTY_MS[:8]), MarkBack("one", 20, cleared=False)]


def test_a_mark_with_nothing_queued_before_it_comes_back_at_once() -> None:
    playout = CallerPlayout(0)
    assert playout.mark("now", 5) == MarkBack("now", 5, cleared=False)
    playout.push(TWENTY_MS, 5)
    playout.advance(25)
    assert playout.mark("after", 25) == MarkBack("after", 25, cleared=False)


def test_a_mark_tells_when_its_audio_ended_and_not_when_that_was_noticed() -> None:
    playout = CallerPlayout(0)
    playout.push(TWENTY_MS, 0)
    playout.mark("one", 0)
    playout.push(TWENTY_MS, 0)
    assert MarkBack("one", 20, cleared=False) in playout.advance(38)


def test_clear_empties_the_queue_and_returns_every_mark_in_order() -> None:
    playout = CallerPlayout(0)
    for name in ("one", "two", "three"):
        playout.push(TWENTY_MS, 0)
        playout.mark(name, 0)
    assert playout.advance(25)[1] == MarkBack("one", 20, cleared=False)
    assert playout.clear(25) == [
        MarkBack("two", 25, cleared=True),
        MarkBack("three", 25, cleared=True),
    ]
    assert (playout.queued_ms, playout.unheard) == (0, b"")
    assert playout.advance(100) == []


def test_audio_after_a_clear_plays_at_once() -> None:
    playout = CallerPlayout(0)
    playout.push(TWENTY_MS * 50, 0)
    playout.advance(30)
    playout.clear(30)
    playout.push(b"b" * 8, 30)
    assert playout.advance(31) == [Heard(240, b"b" * 8)]


def test_a_clear_of_nothing_is_harmless() -> None:
    assert CallerPlayout(0).clear(10) == []


def test_more_than_the_queue_holds_is_discarded_and_told() -> None:
    playout = CallerPlayout(0, limit_ms=30)
    assert playout.push(TWENTY_MS, 0) == 0
    assert playout.push(TWENTY_MS, 0) == 80
    assert playout.push(TWENTY_MS, 0) == 160
    assert playout.queued_ms == 30
    playout.advance(20)
    assert playout.push(TWENTY_MS, 20) == 0


def test_what_was_not_heard_is_known() -> None:
    playout = CallerPlayout(0)
    playout.push(b"a" * 80, 0)
    playout.mark("m", 0)
    playout.push(b"b" * 80, 0)
    playout.advance(4)
    assert playout.unheard == b"a" * 48 + b"b" * 80
    assert playout.outstanding_marks == ("m",)


def test_forgetting_to_advance_is_refused_and_not_guessed() -> None:
    playout = CallerPlayout(0)
    playout.push(TWENTY_MS, 0)
    with pytest.raises(ValueError, match="advance"):
        playout.push(TWENTY_MS, 10)


@given(
    st.lists(st.tuples(st.sampled_from(["push", "mark", "clear"]), st.integers(0, 40)), max_size=30)
)
def test_every_mark_comes_back_exactly_once_and_in_order(steps: list[tuple[str, int]]) -> None:
    playout, now_ms = CallerPlayout(0), 0
    sent: list[str] = []
    back: list[MarkBack] = []
    heard = pushed = dropped = 0
    for kind, number in steps:
        now_ms += number
        for event in playout.advance(now_ms):
            if isinstance(event, MarkBack):
                back.append(event)
            else:
                heard += len(event.payload)
        if kind == "push":
            pushed += number * 7
            playout.push(b"x" * (number * 7), now_ms)
        elif kind == "mark":
            sent.append(f"m{len(sent)}")
            at_once = playout.mark(sent[-1], now_ms)
            back += [at_once] if at_once else []
        else:
            dropped += len(playout.unheard)
            back += playout.clear(now_ms)
    for event in playout.advance(now_ms + 100_000):
        if isinstance(event, MarkBack):
            back.append(event)
        else:
            heard += len(event.payload)
    assert [mark.name for mark in back] == sent
    assert [mark.at_ms for mark in back] == sorted(mark.at_ms for mark in back)
    assert heard + dropped == pushed
