"""Token buckets: what may be taken at once, what comes back, and which names are remembered."""

from __future__ import annotations

import pytest

from app.web.token_bucket import TokenBucket, TokenBuckets


@pytest.mark.parametrize(
    ("at_s", "taken"),
    [
        ([0, 0, 0, 0], [True, True, True, False]),
        ([0, 0, 0, 0.4, 0.5], [True, True, True, False, True]),
        ([0, 0, 0, 0.5, 0.5], [True, True, True, True, False]),
        ([0, 0, 0, 100, 100, 100, 100], [True] * 6 + [False]),  # no more than the most come back
    ],
)
def test_tokens_are_taken_at_once_and_come_back_by_the_second(
    at_s: list[float], taken: list[bool]
) -> None:
    bucket = TokenBucket(3, 2, 0)
    assert [bucket.take(now_s) for now_s in at_s] == taken


def test_a_bucket_tells_how_long_to_wait_for_the_next_token() -> None:
    bucket = TokenBucket(1, 0.25, 0)
    bucket.take(0)
    assert not bucket.take(1)
    assert bucket.wait_s == 3
    assert not bucket.take(3.75)
    assert bucket.take(4)


def test_a_token_that_is_given_back_can_be_taken_again_but_adds_none() -> None:
    bucket = TokenBucket(1, 0.001, 0)
    bucket.take(0)
    bucket.give_back()
    assert bucket.take(0) and not bucket.take(0)
    bucket.give_back()
    bucket.give_back()
    assert bucket.take(0) and not bucket.take(0)


def test_the_name_that_was_not_seen_for_longest_is_forgotten() -> None:
    buckets = TokenBuckets(1, 0.001, remembered=2)
    for name in ("ann", "bob"):
        assert buckets.of(name, 0).take(0)
    assert not buckets.of("ann", 1).take(1)
    assert buckets.of("eve", 1).take(1)  # in the place of bob
    assert buckets.of("bob", 1).take(1) and not buckets.of("eve", 1).take(1)
