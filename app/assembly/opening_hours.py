"""Opening hours of a number, in its own time zone.

Written as people write them: days or ranges of days, and ranges of hours which may go on past
midnight. Single dates can have other hours or none. Daylight saving is the time zone's business: a
time that the clock jumps over is as much later, one that comes twice is the first of the two. Pure:
`now` is an argument, and aware of its zone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from app.agents.instructions import DAY_NAMES, MONTH_NAMES
from app.errors import ConfigError

__all__ = ["OpeningHours", "Span", "read_hours"]


_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_LOOK_AHEAD_DAYS: Final = 370
"""A year and a bit: a number that does not open until then never opens."""

_SPAN = re.compile(r"([0-9]{1,2}):([0-9]{2})\s*-\s*([0-9]{1,2}):([0-9]{2})")
_DAY_MINUTES: Final = 24 * 60
_ANY_YEAR: Final = "2024-"  # a leap year: it has every day


@dataclass(frozen=True, slots=True)
class Span:
    """From one minute of the day to another; one that is not later belongs to the next day."""

    opens: int
    closes: int

    @property
    def over_midnight(self) -> bool:
        return self.closes <= self.opens


@dataclass(frozen=True, slots=True, kw_only=True)
class OpeningHours:
    """The times at which somebody is there.

    In `weekly`, Monday is 0. A closed date is closed from 0:00 to 24:00, also for hours that began
    the evening before; `special` dates have their own hours instead.
    """

    zone: ZoneInfo
    weekly: Mapping[int, tuple[Span, ...]]
    closed: frozenset[date] = frozenset()
    closed_yearly: frozenset[tuple[int, int]] = frozenset()
    special: Mapping[date, tuple[Span, ...]] = field(default_factory=dict)

    def is_open(self, now: datetime) -> bool:
        today = now.astimezone(self.zone).date()
        return any(
            opens <= now < closes
            for day in (today - timedelta(days=1), today)
            for opens, closes in self._on(day)
        )

    def next_opening(self, now: datetime) -> datetime | None:
        """The next opening in local time; None when there is none within a year."""
        today = now.astimezone(self.zone).date()
        for ahead in range(_LOOK_AHEAD_DAYS):
            later = [opens for opens, _ in self._on(today + timedelta(days=ahead)) if opens > now]
            for opens in sorted(later):
                # Spans may touch: one that begins while another is open opens nothing.
                if not self.is_open(opens - timedelta(seconds=1)):
                    return opens.astimezone(self.zone)
        return None

    def next_opening_words(self, now: datetime) -> str:
        """For a sentence: "today at 2 PM", "tomorrow at 9:30 AM", "on Monday at 9 AM"."""
        opens = self.next_opening(now)
        if opens is None:
            return "not in the coming year"
        days = (opens.date() - now.astimezone(self.zone).date()).days
        at = f"at {_clock_words(opens.hour * 60 + opens.minute)}"
        if days <= 1:
            return f"{'tomorrow' if days else 'today'} {at}"
        if days < 7:
            return f"on {DAY_NAMES[opens.weekday()]} {at}"
        return f"on {DAY_NAMES[opens.weekday()]}, {MONTH_NAMES[opens.month - 1]} {opens.day}, {at}"

    def weekly_words(self) -> str:
        """For "We are open ...": "Monday to Friday, from 9 AM to 5 PM"; empty if never."""
        runs: list[tuple[int, int, tuple[Span, ...]]] = []
        for day in range(7):
            spans = self.weekly.get(day, ())
            if runs and runs[-1][1] == day - 1 and runs[-1][2] == spans:
                runs[-1] = (runs[-1][0], day, spans)
            elif spans:
                runs.append((day, day, spans))
        parts = [f"{_days_words(first, last)}, {_spans_words(s)}" for first, last, s in runs]
        return ", and ".join((", ".join(parts[:-1]), parts[-1]) if len(parts) > 1 else parts)

    def _on(self, day: date) -> list[tuple[datetime, datetime]]:
        """The spans that begin on a day, in UTC."""
        if self._is_closed(day):
            return []
        found = []
        for span in self.special.get(day, self.weekly.get(day.weekday(), ())):
            next_day = day + timedelta(days=1)
            closes = self._at(next_day if span.over_midnight else day, span.closes)
            if span.over_midnight and self._is_closed(next_day):
                closes = self._at(next_day, 0)
            found.append((self._at(day, span.opens), closes))
        return found

    def _is_closed(self, day: date) -> bool:
        return day in self.closed or (
            (day.month, day.day) in self.closed_yearly and day not in self.special
        )

    def _at(self, day: date, minute: int) -> datetime:
        if minute == _DAY_MINUTES:
            day, minute = day + timedelta(days=1), 0
        clock = time(minute // 60, minute % 60)
        return datetime.combine(day, clock, tzinfo=self.zone).astimezone(UTC)


def read_hours(
    time_zone: str,
    weekly: Mapping[str, str],
    *,
    closed: Sequence[str] = (),
    special: Mapping[str, str] | None = None,
) -> OpeningHours:
    """Opening hours as the settings have them.

    `weekly`: `{"mon-fri": "9:00-12:30, 13:30-17:00", "sat": "22:00-2:00", "sun": "closed"}`.
    `closed`: dates such as `2026-12-24`, or `12-25` for every year. `special`: `{"2026-12-31":
    "9:00-12:00"}`.

    Raises:
        ConfigError: what is wrong, and where.
    """
    try:
        zone = ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(
            f"opening hours: {time_zone[:60]!r} is not a time zone such as America/New_York, or "
            "this system has no time zone data (install tzdata)"
        ) from error
    days: dict[int, tuple[Span, ...]] = {}
    for written, hours in weekly.items():
        for day in _read_days(written):
            if day in days:
                raise ConfigError(f"opening hours: {DAY_NAMES[day]} is given twice")
            days[day] = _read_spans(hours, written)
    yearly = frozenset(_read_yearly(text) for text in closed if text.count("-") == 1)
    single = frozenset(_read_date(text) for text in closed if text.count("-") != 1)
    return OpeningHours(
        zone=zone,
        weekly=days,
        closed=single,
        closed_yearly=yearly,
        special={
            _read_date(day): _read_spans(hours, day) for day, hours in (special or {}).items()
        },
    )


def _days_words(first: int, last: int) -> str:
    if (first, last) == (0, 6):
        return "every day"
    names = DAY_NAMES[first], DAY_NAMES[last]
    return (
        names[0]
        if first == last
        else f"{names[0]} {'and' if last == first + 1 else 'to'} {names[1]}"
    )


def _spans_words(spans: Sequence[Span]) -> str:
    if [(span.opens, span.closes) for span in spans] == [(0, _DAY_MINUTES)]:
        return "around the clock"
    words = [
        f"from {_clock_words(s.opens)} to {_clock_words(s.closes % _DAY_MINUTES)}" for s in spans
    ]
    return " and ".join(words)


def _clock_words(minute: int) -> str:
    hour, rest = divmod(minute, 60)
    return f"{hour % 12 or 12}{f':{rest:02}' if rest else ''} {'AM' if hour < 12 else 'PM'}"


def _read_days(written: str) -> list[int]:
    first, dash, last = (part.strip().lower() for part in written.partition("-"))
    if first not in _DAYS or (dash and last not in _DAYS):
        text = f"opening hours: {written!r} is not a day such as mon, or mon-fri"
        raise ConfigError(text + _or(_near_days(written)))
    start = _DAYS.index(first)
    count = (_DAYS.index(last) - start) % 7 + 1 if dash else 1
    return [(start + number) % 7 for number in range(count)]


def _read_spans(written: str, place: str) -> tuple[Span, ...]:
    if written.strip().lower() == "closed":
        return ()
    spans = sorted((_read_span(part, place) for part in written.split(",")), key=_opens)
    for span, following in pairwise(spans):
        if span.over_midnight or following.opens < span.closes:
            raise ConfigError(f"opening hours, {place}: {written!r} has spans that overlap")
    return tuple(spans)


def _opens(span: Span) -> int:
    return span.opens


def _read_span(written: str, place: str) -> Span:
    found = _SPAN.fullmatch(written.strip())
    problem = f"opening hours, {place}: {written.strip()!r} is not a span such as 9:00-17:30"
    if found is None:
        raise ConfigError(problem + _or(_near_span(written)))
    opens_h, opens_m, closes_h, closes_m = (int(part) for part in found.groups())
    opens, closes = opens_h * 60 + opens_m, closes_h * 60 + closes_m
    if opens_m > 59 or closes_m > 59 or opens >= _DAY_MINUTES or closes > _DAY_MINUTES:
        raise ConfigError(problem)
    if opens == closes:
        raise ConfigError(f"{problem}; for the whole day write 0:00-24:00")
    return Span(opens, closes)


def _read_date(written: str) -> date:
    try:
        return date.fromisoformat(written)
    except ValueError as error:
        text = (
            f"opening hours: {written.removeprefix(_ANY_YEAR)!r} is not a date such as 2026-12-24"
        )
        raise ConfigError(text + _or(_near_date(written))) from error


def _read_yearly(written: str) -> tuple[int, int]:
    day = _read_date(f"{_ANY_YEAR}{written}")
    return day.month, day.day


# Suggestions --------------------------------------------------------------------------------------

_GROUPS: Final = {
    "weekdays": "mon-fri",
    "weekday": "mon-fri",
    "weekend": "sat-sun",
    "weekends": "sat-sun",
    "daily": "mon-sun",
    "everyday": "mon-sun",
}
_CLOCK = re.compile(
    r"([0-9]{1,2})(?:[:.h]?([0-9]{2}))?\s*h?\s*(am|pm|a\.m\.|p\.m\.)?", re.IGNORECASE
)
_TO = re.compile(r"\s*(?:-|\u2013|\u2014|\bto\b|\buntil\b)\s*", re.IGNORECASE)


def _or(near: str | None) -> str:
    return f'; did you mean "{near}"?' if near else ""


def _near_days(written: str) -> str | None:
    text = written.strip().lower()
    if (group := re.sub(r"[\s_-]", "", text)) in _GROUPS:
        return _GROUPS[group]
    found = [
        [day for day in _DAYS if len(part) > 1 and part.isalpha() and day.startswith(part[:3])]
        for part in _TO.split(text)
    ]
    known = [days[0] for days in found if len(days) == 1]
    return "-".join(known) if len(known) == len(found) <= 2 else None


def _near_span(written: str) -> str | None:
    clocks = [_CLOCK.fullmatch(part) for part in _TO.split(written.strip())]
    if len(clocks) != 2 or not all(clocks):
        return None
    near = []
    for clock in clocks:
        hour, minute, half = clock.groups() if clock else ("", "", "")
        hours = int(hour) % 12 + (12 if half[0].lower() == "p" else 0) if half else int(hour)
        if hours > 24 or int(minute or 0) > 59:
            return None
        near.append(f"{hours}:{minute or '00'}")
    return "-".join(near) if near[0] != near[1] else None


def _near_date(written: str) -> str | None:
    """A date of this order of numbers; 3/4 may be March or April, so nothing is said of it."""
    text = written.removeprefix(_ANY_YEAR).strip(" .")
    parts = [part.zfill(2) for part in re.split(r"[./-]\s*", text)]
    if "." in text:  # the day comes first where dots are written
        parts.reverse()
    if len(parts) not in (2, 3) or ("/" in text and len(parts[0]) != 4):
        return None
    whole = "-".join(parts)
    try:
        date.fromisoformat(whole if len(parts) == 3 else f"{_ANY_YEAR}{whole}")
    except ValueError:
        return None
    return whole
