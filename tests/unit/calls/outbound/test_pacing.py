"""The pace of new calls, on a clock of its own."""

from __future__ import annotations

import itertools
import random

import pytest

from app.calls.outbound.pacing import Pace


@pytest.mark.parametrize("per_s", [0.1, 1.0, 7.0])
@pytest.mark.parametrize("most_pause_s", [0.0, 0.2, 30.0])
def test_no_second_has_more_than_nine_tenths_of_the_calls(
    per_s: float, most_pause_s: float
) -> None:
    chance, pace, now_s = random.Random(0), Pace(per_s), 1_000.0
    turns = []
    for _ in range(200):
        turns.append(now_s + pace.take(now_s))
        now_s += chance.uniform(0, most_pause_s)
    gaps = [later - sooner for sooner, later in itertools.pairwise(turns)]
    assert min(gaps) >= 1 / (0.9 * per_s) - 1e-6


def test_those_who_come_when_nobody_waits_go_at_once() -> None:
    pace = Pace(1.0)
    assert [pace.take(now_s) for now_s in (10.0, 20.0, 20.5)] == [
        0.0,
        0.0,
        pytest.approx(0.611, abs=0.001),
    ]
