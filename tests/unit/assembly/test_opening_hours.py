"""Opening hours: spans, midnight, closed days, daylight saving, and the words for callers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from app.assembly.opening_hours import OpeningHours, Span, read_hours
from app.errors import ConfigError

NEW_YORK = ZoneInfo("America/New_York")
OFFICE = {"mon-fri": "9:00-12:30, 13:30-17:00", "sat": "22:00-2:00", "sun": "closed"}


def hours(**more: object) -> OpeningHours:
    return read_hours("America/New_York", OFFICE, **more)  # type: ignore[arg-type]


def local(text: str) -> datetime:
    """A local time in New York, as UTC: what the server's clock says."""
    return datetime.fromisoformat(text).replace(tzinfo=NEW_YORK).astimezone(UTC)


# 2026-11-16 is a Monday.
@pytest.mark.parametrize(
    ("now", "is_open"),
    [
        ("2026-11-16T08:59:59", False),
        ("2026-11-16T09:00", True),
        ("2026-11-16T12:30", False),
        ("2026-11-16T13:30", True),
        ("2026-11-16T16:59:59", True),
        ("2026-11-16T17:00", False),
        ("2026-11-21T21:59", False),
        ("2026-11-21T22:00", True),
        ("2026-11-22T01:59", True),
        ("2026-11-22T02:00", False),
        ("2026-11-22T12:00", False),
    ],
)
def test_it_is_open_from_the_first_minute_to_before_the_last(now: str, is_open: bool) -> None:
    assert hours().is_open(local(now)) is is_open


def test_the_zone_of_the_clock_does_not_matter() -> None:
    tokyo = local("2026-11-16T09:00").astimezone(ZoneInfo("Asia/Tokyo"))
    assert hours().is_open(tokyo)


def test_a_closed_date_ends_the_hours_of_the_evening_before() -> None:
    closed = hours(closed=["2026-11-22"])
    assert closed.is_open(local("2026-11-21T23:59"))
    assert not closed.is_open(local("2026-11-22T00:00"))
    assert not hours(closed=["2026-11-21"]).is_open(local("2026-11-22T01:00"))


def test_a_yearly_holiday_is_closed_every_year_unless_it_has_hours_of_its_own() -> None:
    holiday = hours(closed=["12-25"], special={"2029-12-25": "10:00-11:00"})
    assert not holiday.is_open(local("2026-12-25T10:00"))
    assert not holiday.is_open(local("2028-12-25T10:00"))
    assert holiday.is_open(local("2029-12-25T10:00"))
    assert not holiday.is_open(local("2029-12-25T11:00"))


def test_a_special_date_has_its_own_hours_instead_of_the_weeks() -> None:
    special = hours(special={"2026-11-16": "14:00-24:00"})
    assert not special.is_open(local("2026-11-16T10:00"))
    assert special.is_open(local("2026-11-16T23:59"))
    assert not special.is_open(local("2026-11-17T00:00"))


def test_hours_keep_to_the_wall_clock_when_daylight_saving_changes() -> None:
    daily = read_hours("America/New_York", {"mon-sun": "9:00-17:00"})
    assert daily.is_open(datetime(2026, 10, 31, 13, 0, tzinfo=UTC))  # UTC-4
    assert not daily.is_open(datetime(2026, 11, 1, 13, 59, tzinfo=UTC))  # UTC-5
    assert daily.is_open(datetime(2026, 11, 1, 14, 0, tzinfo=UTC))


def test_a_time_that_the_clock_jumps_over_is_as_much_later() -> None:
    night = read_hours("America/New_York", {"sun": "2:30-5:00"})  # 2026-03-08, from 2:00 to 3:00
    assert not night.is_open(local("2026-03-08T03:29"))
    assert night.is_open(local("2026-03-08T03:30"))


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ("2026-11-16T07:00", "today at 9 AM"),
        ("2026-11-16T12:45", "today at 1:30 PM"),
        ("2026-11-16T18:00", "tomorrow at 9 AM"),
        ("2026-11-20T18:00", "tomorrow at 10 PM"),
        ("2026-11-21T22:30", "on Monday at 9 AM"),
        ("2026-11-16T09:00", "today at 1:30 PM"),
    ],
)
def test_the_next_opening_in_words(now: str, words: str) -> None:
    assert hours().next_opening_words(local(now)) == words


def test_an_opening_far_away_is_named_by_its_date() -> None:
    away = hours(closed=[f"2026-12-{day}" for day in range(21, 32)] + ["01-01"])
    assert away.next_opening_words(local("2026-12-20T12:00")) == "on Saturday, January 2, at 10 PM"


@pytest.mark.parametrize(
    ("weekly", "words"),
    [
        ({"mon-fri": "9:00-17:00"}, "Monday to Friday, from 9 AM to 5 PM"),
        (
            {"mon-thu": "9:00-12:30, 13:30-17:00", "fri": "9:00-12:30", "sun": "closed"},
            "Monday to Thursday, from 9 AM to 12:30 PM and from 1:30 PM to 5 PM,"
            " and Friday, from 9 AM to 12:30 PM",
        ),
        (
            {"mon": "8:00-9:00", "wed": "8:00-9:00", "sat-sun": "22:00-2:00"},
            "Monday, from 8 AM to 9 AM, Wednesday, from 8 AM to 9 AM,"
            " and Saturday and Sunday, from 10 PM to 2 AM",
        ),
        ({"mon-sun": "0:00-24:00"}, "every day, around the clock"),
        ({"sat": "18:00-24:00"}, "Saturday, from 6 PM to 12 AM"),
        ({}, ""),
    ],
)
def test_the_hours_of_the_week_in_words(weekly: dict[str, str], words: str) -> None:
    assert read_hours("UTC", weekly).weekly_words() == words


def test_midnight_and_noon_are_twelve() -> None:
    at = read_hours("UTC", {"mon": "0:00-1:00", "tue": "12:00-13:00"})
    sunday = datetime(2026, 11, 15, 10, tzinfo=UTC)
    assert at.next_opening_words(sunday) == "tomorrow at 12 AM"
    assert at.next_opening_words(sunday + timedelta(days=1)) == "tomorrow at 12 PM"


def test_spans_that_touch_are_one() -> None:
    touching = read_hours("UTC", {"mon-sun": "8:00-12:00, 12:00-24:00"})
    monday = datetime(2026, 11, 16, 9, tzinfo=UTC)
    assert touching.next_opening(monday) == datetime(2026, 11, 17, 8, tzinfo=UTC)


def test_hours_without_a_gap_or_without_an_opening_have_no_next_opening() -> None:
    now = datetime(2026, 11, 16, 9, tzinfo=UTC)
    for weekly in ({}, {"mon-sun": "0:00-24:00"}):
        assert read_hours("UTC", weekly).next_opening(now) is None
    assert read_hours("UTC", {}).next_opening_words(now) == "not in the coming year"


def test_days_may_go_round_the_weekend_and_are_written_in_any_case() -> None:
    weekly = read_hours("UTC", {"Fri - Mon": "9:00-10:00"}).weekly
    assert weekly == dict.fromkeys((4, 5, 6, 0), (Span(540, 600),))


@pytest.mark.parametrize(
    ("weekly", "problem"),
    [
        ({"montag": "9:00-10:00"}, "'montag' is not a day"),
        ({"mon-": "9:00-10:00"}, "not a day"),
        ({"mon-xyz": "9:00-10:00"}, "not a day"),
        ({"mon-tue": "9:00-10:00", "tue": "9:00-10:00"}, "Tuesday is given twice"),
        ({"mon": "9-17"}, "not a span"),
        ({"mon": ""}, "not a span"),
        ({"mon": "9:60-10:00"}, "not a span"),
        ({"mon": "9:00-10:60"}, "not a span"),
        ({"mon": "24:00-1:00"}, "not a span"),
        ({"mon": "9:00-24:01"}, "not a span"),
        ({"mon": "9:00-9:00"}, "write 0:00-24:00"),
        ({"mon": "9:00-12:00, 11:00-13:00"}, "overlap"),
        ({"mon": "22:00-2:00, 23:00-23:30"}, "overlap"),
    ],
)
def test_hours_that_cannot_be_read_are_refused(weekly: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        read_hours("UTC", weekly)


@pytest.mark.parametrize(
    ("written", "near"),
    [
        ("9-17", "9:00-17:00"),
        ("9am-5pm", "9:00-17:00"),
        ("9 a.m. - 5:30 p.m.", "9:00-17:30"),
        ("12am-12pm", "0:00-12:00"),
        ("9.00-17.30", "9:00-17:30"),
        ("0900-1730", "9:00-17:30"),
        ("9:00\u201317:00", "9:00-17:00"),
        ("9:00 to 17:00", "9:00-17:00"),
        ("9h-17h30", "9:00-17:30"),
        ("9:00", None),
        ("25-26", None),
        ("9-9", None),
        ("nine to five", None),
    ],
)
def test_hours_get_their_nearest_form(written: str, near: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        read_hours("UTC", {"mon": written})
    assert caught.value.message.partition("; did you mean ")[2] == (f'"{near}"?' if near else "")
    if near:
        read_hours("UTC", {"mon": near})


@pytest.mark.parametrize(
    ("written", "near"),
    [
        ("monday", "mon"),
        ("Tues", "tue"),
        ("Monday - Friday", "mon-fri"),
        ("mon\u2013fri", "mon-fri"),
        ("mo-fr", "mon-fri"),
        ("sat to sun", "sat-sun"),
        ("weekdays", "mon-fri"),
        ("weekend", "sat-sun"),
        ("every day", "mon-sun"),
        ("montag", "mon"),
        ("m", None),
        ("mon,tue", None),
        ("holiday", None),
    ],
)
def test_days_get_their_nearest_form(written: str, near: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        read_hours("UTC", {written: "9:00-17:00"})
    assert caught.value.message.partition("; did you mean ")[2] == (f'"{near}"?' if near else "")


@pytest.mark.parametrize(
    ("written", "near"),
    [
        ("25.12.", "12-25"),
        ("24.12.2026", "2026-12-24"),
        ("1. 5. 2026", "2026-05-01"),
        ("2026/12/24", "2026-12-24"),
        ("2026-2-3", "2026-02-03"),
        ("5-1", "05-01"),
        ("3/4/2026", None),
        ("30.2.", None),
        ("2026-02-30", None),
        ("christmas", None),
    ],
)
def test_dates_get_their_nearest_form(written: str, near: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        read_hours("UTC", {}, closed=[written])
    assert f"{written!r} is not a date" in caught.value.message
    assert caught.value.message.partition("; did you mean ")[2] == (f'"{near}"?' if near else "")


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", "America"])
def test_a_time_zone_must_exist(zone: str) -> None:
    with pytest.raises(ConfigError, match="time zone"):
        read_hours(zone, OFFICE)


@pytest.mark.parametrize("closed", ["2026-02-29", "02-30", "christmas", "25.12.", "2026-1-1-1"])
def test_a_closed_date_must_exist(closed: str) -> None:
    with pytest.raises(ConfigError, match="not a date"):
        hours(closed=[closed])
    with pytest.raises(ConfigError, match="not a date"):
        hours(special={closed: "9:00-10:00"})


def test_the_leap_day_may_be_closed_every_year() -> None:
    assert hours(closed=["02-29"]).closed_yearly == {(2, 29)}
