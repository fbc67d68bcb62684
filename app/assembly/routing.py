"""The routing table: which agent answers which number, when, and what happens instead."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Final

from app.agents.analysis.live_analysis import AnalysisPlan
from app.assembly.agents.agents import AgentParts, make_keypads, make_roster
from app.assembly.agents.sessions import call_policy, with_first_words, with_given, with_limits
from app.assembly.opening_hours import OpeningHours, read_hours
from app.assembly.prices import CallPrices
from app.assembly.problems import Problems
from app.assembly.voice_models import VoiceModels
from app.calls.observers.message_files import can_keep
from app.calls.policy import CallPolicy
from app.calls.route import Diversion, Route
from app.carrier.base import Destination, IncomingCall
from app.carrier.destinations import Destinations
from app.events import Party
from app.settings import NumberSettings, Settings
from app.settings.sections.numbers import HoursSettings

__all__ = ["Number", "RoutingTable", "make_routing_table"]


CLOSED: Final = "We are closed at the moment. We open {next_opening}. Goodbye."
"""Said outside of the hours where the settings say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """One of our numbers, with its hours.

    Outside of them `closed_route` answers with `closed_say` as its first words; or the words are
    said and the call ends; or the caller is put through to `closed_to` after them.
    """

    route: Route
    hours: OpeningHours | None = None
    closed_route: Route | None = None
    closed_say: str | None = None
    closed_to: Destination | None = None
    percent: int = 100

    def at(self, now: datetime, incoming: IncomingCall) -> Route | Diversion:
        """The route of a call to this number."""
        if self.hours is not None and not self.hours.is_open(now):
            return self._closed(self.hours.next_opening_words(now))
        # By the call and not by chance: a webhook that is sent again is answered the same.
        if zlib.crc32(incoming.carrier_call_id.encode()) % 100 >= self.percent:
            return Diversion("not_in_percent", to=self.route.fallback)
        return self.route

    def _closed(self, next_opening: str) -> Route | Diversion:
        say = self.closed_say and self.closed_say.replace("{next_opening}", next_opening)
        if self.closed_route is None:
            return Diversion("closed", say, self.closed_to)
        if say is None:
            return self.closed_route
        agent = replace(self.closed_route.agent, greeting=say, speaks_first=Party.AGENT)
        return replace(self.closed_route, agent=agent)


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """Routes by the number that was called; calls to any other number take `default`."""

    default: Route
    numbers: Mapping[str, Number] = field(default_factory=dict)

    def prices(self) -> list[CallPrices]:
        """The prices of each route."""
        routes = (self.default, *(number.route for number in self.numbers.values()))
        return [route.price for route in routes if isinstance(route.price, CallPrices)]

    def route(self, incoming: IncomingCall, now: datetime) -> Route | Diversion:
        """The route of a call that comes in now; `now` is aware of its zone."""
        number = self.numbers.get(incoming.called_number)
        return self.default if number is None else number.at(now, incoming)


def make_routing_table(
    settings: Settings,
    parts: AgentParts,
    destinations: Destinations,
    models: VoiceModels,
    analysis: AnalysisPlan | None,
    problems: Problems,
) -> RoutingTable | None:
    """The routing table; `None` when something is wrong with it."""
    keypads = make_keypads(settings)
    hours = _all_hours(settings, problems)
    told = {number: known.weekly_words() for number, known in hours.items()}
    roster = make_roster(settings, parts, problems)
    if roster is None:
        return None  # each number would report the same mistakes again
    default = Route(
        agent=roster.first,
        roster=roster,
        model=models.named(hours="" if settings.offline.hours else next(iter(told.values()), "")),
        policy=_policy(settings, roster.first.name),
        keypads=keypads,
        destinations=destinations,
        price=models.prices(roster.first),
        analysis=analysis,
        can_keep_messages=partial(can_keep, settings.offline.messages_dir),
    )
    numbers: dict[str, Number] = {}
    for number, own in settings.numbers.items():
        _find_circles(number, own, destinations, problems)
        own_roster = make_roster(settings, parts, problems, number)
        if own_roster is not None:
            route = replace(
                default,
                agent=own_roster.first,
                roster=own_roster,
                model=models.named(own.model, told.get(number, "")),
                policy=_policy(settings, own_roster.first.name, own),
                fallback=destinations.by_name.get(own.fallback or ""),
                price=models.prices(own_roster.first, own.model),
            )
            numbers[number] = _number(settings, own, route, hours.get(number))
    _check_prices(settings, (default, *(number.route for number in numbers.values())), problems)
    return None if problems else RoutingTable(default, numbers)


def _check_prices(settings: Settings, routes: Iterable[Route], problems: Problems) -> None:
    """Refuse limits in dollars on calls whose model has no price: they would hold nothing."""
    for route in routes:
        prices = route.price
        if not isinstance(prices, CallPrices) or prices.model_known:
            continue
        limited = {
            ("budget", "per_day_usd"): settings.budget.per_day_usd,
            ("limits", "max_cost_usd"): route.policy.max_cost_usd,
        }
        for place, dollars in limited.items():
            if dollars:
                text = f"cannot hold: {prices.model[:64]} has no price. Add it to prices"
                problems.add(place, text)


def _number(
    settings: Settings,
    own: NumberSettings,
    route: Route,
    hours: OpeningHours | None,
) -> Number:
    closed = own.closed
    nothing_said = closed.say is None and closed.agent is None and closed.transfer is None
    closed_route = None
    if closed.agent is not None:
        policy = _policy(settings, closed.agent, own)
        closed_route = replace(route, agent=route.roster[closed.agent], policy=policy)
    return Number(
        route=route,
        hours=hours,
        closed_route=closed_route,
        closed_say=CLOSED if nothing_said else closed.say,
        closed_to=route.destinations.by_name.get(closed.transfer or ""),
        percent=own.percent,
    )


def _find_circles(
    number: str, own: NumberSettings, destinations: Destinations, problems: Problems
) -> None:
    """Refuse a number that sends its callers to itself: each round is a call that costs."""
    ways = {("fallback",): own.fallback, ("closed", "transfer"): own.closed.transfer}
    for way, name in ways.items():
        destination = destinations.by_name.get(name or "")
        if destination is not None and destination.address == number:
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
    """True when each line of the hours can be read; each mistake is reported with its line."""
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


def _policy(settings: Settings, agent_name: str, own: NumberSettings | None = None) -> CallPolicy:
    """The limits of a route's calls."""
    limits, recording, preset_name = settings.limits, settings.recording, None
    agent = settings.agents.get(agent_name)
    for section in (agent, own):
        if section is not None:
            limits = with_limits(limits, section.limits, section.preset)
            recording = with_given(recording, section.recording)
            preset_name = section.preset or preset_name
    policy = call_policy(limits, recording, preset_name)
    return with_first_words(policy, settings.compliance, settings.outbound.answered_by)
