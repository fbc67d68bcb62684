"""The budget of a day: each amount in its own day, told of once, kept over a restart."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from app.calls.admission.budget import Budget, BudgetNews, DayBudget


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "now", "day"),
    [
        ("UTC", "2026-11-30T23:59:59.999", date(2026, 11, 30)),
        ("UTC", "2026-12-01T00:00:00", date(2026, 12, 1)),
        ("Europe/Zurich", "2026-11-30T22:59:59", date(2026, 11, 30)),
        ("Europe/Zurich", "2026-11-30T23:00:00", date(2026, 12, 1)),
        ("America/New_York", "2026-12-01T04:59:59", date(2026, 11, 30)),
        ("America/New_York", "2026-12-01T05:00:00", date(2026, 12, 1)),
        # The days on which the clocks change have 23 and 25 hours.
        ("Europe/Zurich", "2026-03-28T23:00:00", date(2026, 3, 29)),
        ("Europe/Zurich", "2026-03-29T21:59:59", date(2026, 3, 29)),
        ("Europe/Zurich", "2026-03-29T22:00:00", date(2026, 3, 30)),
        ("Europe/Zurich", "2026-10-24T22:00:00", date(2026, 10, 25)),
        ("Europe/Zurich", "2026-10-25T00:30:00", date(2026, 10, 25)),  # 2:30 in summer time
        ("Europe/Zurich", "2026-10-25T01:30:00", date(2026, 10, 25)),  # 2:30 in winter time
        ("Europe/Zurich", "2026-10-25T22:59:59", date(2026, 10, 25)),
        ("Europe/Zurich", "2026-10-25T23:00:00", date(2026, 10, 26)),
    ],
)
def test_a_day_is_that_of_the_time_zone(zone: str, now: str, day: date) -> None:
    budget = DayBudget(1.0, time_zone=zone)
    assert budget.day(at(now)) == day
    budget.spend(1.0, at(now))
    assert budget.by_day() == {day: 1.0}
    assert budget.exhausted(at(now))


@pytest.mark.parametrize(
    ("amounts", "news", "exhausted"),
    [
        ([0.79], [None], False),
        ([0.8], [BudgetNews.NEARLY_SPENT], False),
        ([0.8, 0.1], [BudgetNews.NEARLY_SPENT, None], False),
        ([0.5, 0.5], [None, BudgetNews.SPENT], True),
        ([0.9, 0.1, 0.5], [BudgetNews.NEARLY_SPENT, BudgetNews.SPENT, None], True),
        ([0.1] * 10, [None] * 7 + [BudgetNews.NEARLY_SPENT, None, BudgetNews.SPENT], True),
        ([2.0], [BudgetNews.SPENT], True),
    ],
)
def test_news_comes_once(
    amounts: list[float], news: list[BudgetNews | None], exhausted: bool
) -> None:
    budget, now = DayBudget(1.0), at("2026-11-30T12:00:00")
    assert [budget.spend(usd, now) for usd in amounts] == news
    assert budget.exhausted(now) is exhausted


def test_a_call_over_midnight_is_paid_for_by_both_of_its_days() -> None:
    budget = DayBudget(1.0)
    before, after = at("2026-11-30T23:59:58"), at("2026-12-01T00:00:02")
    assert budget.spend(1.5, before) is BudgetNews.SPENT
    assert budget.exhausted(before) and not budget.exhausted(after)
    assert budget.spend(0.25, after) is None
    assert budget.spent_usd(after) == 0.25
    assert budget.spend(0.75, after) is BudgetNews.SPENT  # told of on each day
    assert budget.exhausted(before)  # a clock that was set back finds the sum of its day


def test_only_the_last_days_are_kept() -> None:
    budget = DayBudget(1.0)
    for day in range(1, 6):
        budget.spend(0.1, at(f"2026-12-0{day}T12:00:00"))
    assert set(budget.by_day()) == {date(2026, 12, 4), date(2026, 12, 5)}


def test_no_budget_is_never_spent() -> None:
    budget, now = DayBudget(0.0), at("2026-11-30T12:00:00")
    assert budget.spend(1_000.0, now) is None and not budget.exhausted(now)
    assert budget.spent_usd(now) == 1_000.0


async def test_what_was_spent_survives_a_restart(tmp_path: Path) -> None:
    path, now = tmp_path / "state" / "budget.json", at("2026-11-30T12:00:00")
    async with Budget(1.0, path, now=lambda: now).open() as budget:
        await asyncio.gather(*(asyncio.to_thread(lambda: None) for _ in range(3)))
        for _ in range(10):  # as many calls that run at the same time
            budget.spend(0.1)
        assert budget.exhausted
    assert path.stat().st_mode & 0o777 == 0o600
    again = Budget(1.0, path, now=lambda: now)
    assert again.exhausted and again.spent_usd == pytest.approx(1.0)
    assert not Budget(1.0, path, now=lambda: at("2026-12-01T00:00:00")).exhausted


@pytest.mark.parametrize("text", ["", "[]", '{"2026-11-30": "much"}', '{"today": 1}', "\xff"])
def test_a_file_that_cannot_be_read_is_a_day_that_begins_anew(text: str, tmp_path: Path) -> None:
    path = tmp_path / "budget.json"
    path.write_text(text, encoding="latin-1")
    assert Budget(1.0, path).spent_usd == 0.0
