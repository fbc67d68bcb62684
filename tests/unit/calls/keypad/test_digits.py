"""Entries of digits: how they end, and what may be recorded of them."""

from __future__ import annotations

import pytest

from app.calls.keypad.digits import MASK, Collected, CollectionEnd, DigitCollection, DigitRequest


def keyed(collection: DigitCollection, keys: str, now_ms: int = 0) -> list[Collected | None]:
    return [collection.on_key(key, now_ms) for key in keys]


def test_the_last_digit_of_a_fixed_length_ends_the_entry() -> None:
    entry = DigitCollection(DigitRequest(min_digits=4, max_digits=4))
    *before, last = keyed(entry, "1234")
    assert before == [None] * 3
    assert last == Collected(digits="1234", end=CollectionEnd.COMPLETE)
    assert keyed(entry, "5#") == [None, None], "what comes later belongs to somebody else"
    assert entry.on_tick(99_999) is None
    assert entry.cancel() is None


@pytest.mark.parametrize(
    ("keys", "end"),
    [
        ("123#", CollectionEnd.COMPLETE),
        ("1#", CollectionEnd.TOO_SHORT),
        ("#", CollectionEnd.NOTHING),
        ("99*123#", CollectionEnd.COMPLETE),
    ],
)
def test_the_terminator_ends_the_entry(keys: str, end: CollectionEnd) -> None:
    last = keyed(DigitCollection(DigitRequest(min_digits=3, max_digits=10)), keys)[-1]
    assert last is not None
    assert last.end is end
    assert (last.end is CollectionEnd.COMPLETE) == (last.digits == "123")


def test_a_pause_ends_the_entry() -> None:
    entry = DigitCollection(DigitRequest(min_digits=2))
    entry.start(0)
    entry.on_key("1", 7_999)
    entry.start(8_000)  # the question was heard to its end only now: the caller is ahead of it
    entry.on_key("2", 11_998)
    assert entry.on_tick(15_997) is None
    ended = entry.on_tick(15_998)
    assert ended is not None
    assert (ended.digits, ended.end) == ("12", CollectionEnd.COMPLETE)
    entry.start(16_000)
    assert entry.on_tick(99_999) is None


def test_the_first_digit_has_a_time_of_its_own_also_after_clearing() -> None:
    entry = DigitCollection(DigitRequest())
    assert entry.on_tick(99_999) is None, "the question was not heard yet"
    entry.start(0)
    assert entry.on_tick(7_999) is None
    keyed(entry, "12*", 7_999)
    assert entry.on_tick(15_998) is None
    ended = entry.on_tick(15_999)
    assert ended is not None
    assert ended.end is CollectionEnd.NOTHING


def test_without_special_keys_star_and_hash_are_digits() -> None:
    entry = DigitCollection(DigitRequest(max_digits=3, terminator="", clear=""))
    assert keyed(entry, "A*#1")[-1] == Collected(digits="*#1", end=CollectionEnd.COMPLETE)


def test_an_entry_can_be_cancelled() -> None:
    entry = DigitCollection(DigitRequest(min_digits=4))
    keyed(entry, "123")
    assert entry.cancel() == Collected(digits="123", end=CollectionEnd.CANCELLED)


def test_digits_are_recorded_nowhere() -> None:
    entry = DigitCollection(DigitRequest(min_digits=16, max_digits=16))
    last = keyed(entry, "4111111111111234")[-1]
    assert last is not None
    assert "4111" not in repr(last)
    assert [entry.shown(key) for key in "4*#"] == [MASK, "*", "#"]
