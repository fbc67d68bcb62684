"""The plan of our phone numbers: who answers where, until when, and who else where nobody does."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from app.agents.agent import Agent
from app.agents.roster import Roster
from app.assembly.agents import AgentParts, make_book, make_keypads
from app.assembly.destinations import DestinationBook
from app.assembly.opening_hours import OpeningHours, read_hours
from app.assembly.problems import Problems
from app.assembly.sessions import call_policy, with_limits
from app.calls.keypad.menu import KeypadMap
from app.calls.policy import CallPolicy
from app.carrier.base import Destination, IncomingCall
from app.events import Party
from app.settings import NumberSettings, Settings
from app.settings.numbers import HoursSettings

__all__ = ["Diversion", "Number", "Route", "RoutingTable", "make_plan"]


CLOSED: Final = "We are closed at the moment. We open {next_opening}. Goodbye."
"""What is said outside of the hours where the settings say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Who answers a call, with all that holds for it.

    `book` holds the agents that may take over, as they are on this number. `policy` is `None` where
    nothing differs from the limits of all calls; `model` where the voice model's name does not.
    """

    agent: Agent
    book: Roster
    policy: CallPolicy | None = None
    keypads: Mapping[str, KeypadMap] = field(default_factory=dict)
    model: str | None = None
    fallback: Destination | None = None


@dataclass(frozen=True, slots=True)
class Diversion:
    """No agent answers this call: something is said, or it is put through, or both."""

    code: str
    say: str | None = None
    to: Destination | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A number of ours, and what happens outside of its hours.

    Then `closed_seat` answers with `closed_say` as its first words, or the words are all there is,
    or the caller is put through to `closed_to` behind them.
    """

    seat: Route
    hours: OpeningHours | None = None
    closed_seat: Route | None = None
    closed_say: str | None = None
    closed_to: Destination | None = None
    percent: int = 100

    def at(self, now: datetime, incoming: IncomingCall) -> Route | Diversion:
        """Who answers a call to this number."""
        if self.hours is not None and not self.hours.is_open(now):
            return self._closed(self.hours.next_opening_words(now))
        # By the call and not by chance: a webhook that is sent again is answered the same.
        if zlib.crc32(incoming.carrier_call_id.encode()) % 100 >= self.percent:
            return Diversion("not_in_percent", to=self.seat.fallback)
        return self.seat

    def _closed(self, next_opening: str) -> Route | Diversion:
        say = self.closed_say and self.closed_say.replace("{next_opening}", next_opening)
        if self.closed_seat is None:
            return Diversion("closed", say, self.closed_to)
        if say is None:
            return self.closed_seat
        agent = replace(self.closed_seat.agent, greeting=say, speaks_first=Party.AGENT)
        return replace(self.closed_seat, agent=agent)


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """Seats by the number that was called; calls to any other number go to `default`."""

    default: Route
    numbers: Mapping[str, Number] = field(default_factory=dict)

    def seat(self, incoming: IncomingCall, now: datetime) -> Route | Diversion:
        """Who answers a call that comes in now; `now` is aware of its zone."""
        number = self.numbers.get(incoming.called_number)
        return self.default if number is None else number.at(now, incoming)


def make_plan(
    settings: Settings, talents: AgentParts, places: DestinationBook, problems: Problems
) -> RoutingTable | None:
    """The plan; `None` when something is wrong with it."""
    keypads = make_keypads(settings, problems)
    hours = _all_hours(settings, problems)
    book = make_book(settings, talents, problems)
    if book is None:
        return None  # what is wrong with agents would be told again for each number
    agent = book.first
    default = Route(agent=agent, book=book, policy=_policy(settings, agent.name), keypads=keypads)
    numbers: dict[str, Number] = {}
    for number, own in settings.numbers.items():
        _find_circles(number, own, places, problems)
        own_book = make_book(settings, talents, problems, number)
        if own_book is not None:
            agent = own_book.first
            seat = Route(
                agent=agent,
                book=own_book,
                policy=_policy(settings, agent.name, own),
                keypads=keypads,
                model=own.model,
                fallback=places.destinations.by_name.get(own.fallback or ""),
            )
            numbers[number] = _number(settings, own, seat, hours.get(number), places)
    return None if problems else RoutingTable(default, numbers)


def _number(
    settings: Settings,
    own: NumberSettings,
    seat: Route,
    hours: OpeningHours | None,
    places: DestinationBook,
) -> Number:
    closed = own.closed
    nothing_said = closed.say is None and closed.agent is None and closed.transfer is None
    closed_seat = None
    if closed.agent is not None:
        policy = _policy(settings, closed.agent, own)
        closed_seat = replace(seat, agent=seat.book[closed.agent], policy=policy)
    return Number(
        seat=seat,
        hours=hours,
        closed_seat=closed_seat,
        closed_say=CLOSED if nothing_said else closed.say,
        closed_to=places.destinations.by_name.get(closed.transfer or ""),
        percent=own.percent,
    )


def _find_circles(
    number: str, own: NumberSettings, places: DestinationBook, problems: Problems
) -> None:
    """A number that sends its callers to itself: each round is a call that somebody pays for."""
    ways = {("fallback",): own.fallback, ("closed", "transfer"): own.closed.transfer}
    for way, name in ways.items():
        place = places.destinations.by_name.get(name or "")
        if place is not None and place.address == number:
            text = f"{name} is this number itself: callers would come back to it for ever"
            problems.add(("numbers", number, *way), text)


def _all_hours(settings: Settings, problems: Problems) -> dict[str, OpeningHours]:
    """The opening hours of each number that has some."""
    found = {}
    for number, own in settings.numbers.items():
        if own.hours is not None and _read_in_parts(number, own.hours, problems):
            with problems.at("numbers", number, "hours", prefix="opening hours: "):
                found[number] = _hours(own.hours)
    return found


def _read_in_parts(number: str, written: HoursSettings, problems: Problems) -> bool:
    """Whether each line of the hours can be read, so that each mistake is told with its line."""
    before, place, zone = len(problems), ("numbers", number, "hours"), written.time_zone
    for day, spans in written.open.items():
        with problems.at(*place, "open", day, prefix=_prefixes(day)):
            read_hours(zone, {day: _spans(spans)})
    for index, date in enumerate(written.closed):
        with problems.at(*place, "closed", index, prefix="opening hours: "):
            read_hours(zone, {}, closed=(date,))
    for date, spans in written.special.items():
        with problems.at(*place, "special", date, prefix=_prefixes(date)):
            read_hours(zone, {}, special={date: _spans(spans)})
    return len(problems) == before


def _prefixes(day: str) -> tuple[str, ...]:
    return "opening hours: ", f"opening hours, {day}: "


def _hours(written: HoursSettings) -> OpeningHours:
    return read_hours(
        written.time_zone,
        {day: _spans(spans) for day, spans in written.open.items()},
        closed=written.closed,
        special={day: _spans(spans) for day, spans in written.special.items()},
    )


def _spans(written: str | tuple[str, ...]) -> str:
    return written if isinstance(written, str) else ", ".join(written)


def _policy(
    settings: Settings, agent_name: str, own: NumberSettings | None = None
) -> CallPolicy | None:
    """The limits of a seat's calls; `None` when they are those of all calls."""
    limits, preset_name = settings.limits, None
    agent = settings.agents.get(agent_name)
    for section in (agent, own):
        if section is not None:
            limits = with_limits(limits, section.limits, section.preset)
            preset_name = section.preset or preset_name
    policy = call_policy(limits, preset_name)
    return None if policy == call_policy(settings.limits) else policy
