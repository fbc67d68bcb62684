"""The decision that a number may be called now, or the reason why not. Pure.

`decide` asks in this order, so that the reason that is given is the one that no waiting heals:
whether the server places calls at all, the number, the do-not-call list, consent, the day's caps,
and the hours where the callee is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from app.carrier.number_policy import DialPolicy, NumberKind, classify, is_assigned
from app.carrier.time_zones import time_zones_of
from app.store.outbound import CalleeFacts

__all__ = [
    "ALLOWED",
    "NOT_ENABLED",
    "CallingHours",
    "DialDecision",
    "OutboundPolicy",
    "Purpose",
    "Refusal",
    "decide",
]


class Purpose(StrEnum):
    """The reasons for a call that the law tells apart."""

    SERVICE = "service"
    """About something that the callee has asked for: an appointment, an order."""
    MARKETING = "marketing"


class Refusal(StrEnum):
    """The codes of refusals, a closed set."""

    NOT_ENABLED = "outbound_not_enabled"
    NUMBER_INVALID = "number_invalid"
    NUMBER_KIND = "number_kind_refused"
    EMERGENCY = "emergency_number"
    COUNTRY = "country_refused"
    OWN_NUMBER = "own_number"
    DO_NOT_CALL = "do_not_call"
    NO_CONSENT = "no_consent"
    CALLED_NOW = "called_already"
    AT_CAPACITY = "outbound_at_capacity"
    NUMBER_CAP = "number_cap"
    DAY_CAP = "day_cap"
    NO_TIME_ZONE = "time_zone_unknown"
    HOURS = "outside_calling_hours"


@dataclass(frozen=True, slots=True)
class CallingHours:
    """The hours of the day between which people may be called, where they are."""

    start: time = time(8)
    end: time = time(21)

    @classmethod
    def parse(cls, text: str) -> CallingHours:
        """Hours such as 08:00-21:00; 24:00 is the end of the day. Raises ValueError."""
        start, _, end = text.partition("-")
        try:
            found = cls(
                time.fromisoformat(start), time.max if end == "24:00" else time.fromisoformat(end)
            )
        except ValueError:
            found = None
        if found is None or found.start >= found.end:
            raise ValueError(f"{text[:20]!r} are not hours of one day such as 08:00-21:00")
        return found

    def within(self, others: CallingHours | None) -> CallingHours:
        """The hours that are in both."""
        if others is None:
            return self
        return CallingHours(max(self.start, others.start), min(self.end, others.end))

    def include(self, local: datetime) -> bool:
        return self.start <= local.time() < self.end


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundPolicy:
    """The numbers and hours that the operator allows. Caps of 0 do not bound.

    `numbers` says which numbers may be called at all; without countries in it, none may.
    `unassigned` allows ranges that the metadata of numbers does not know: new ones, or made up.
    """

    enabled: bool = False
    numbers: DialPolicy = field(default_factory=DialPolicy)
    any_country: bool = False
    unassigned: bool = False
    own_numbers: frozenset[str] = frozenset()
    hours: CallingHours = field(default_factory=CallingHours)
    per_number_per_day: int = 3
    per_day: int = 500
    max_calls: int = 0
    """Calls at once, of all processes that share a store."""


@dataclass(frozen=True, slots=True)
class DialDecision:
    """Allowed where `code` is None; else `reason` is a sentence, safe to show.

    `not_before` is there where waiting helps.
    """

    code: Refusal | None = None
    reason: str = ""
    not_before: datetime | None = None

    @property
    def allowed(self) -> bool:
        return self.code is None


ALLOWED: Final = DialDecision()
NOT_ENABLED: Final = (
    "This server places no calls: set outbound.enabled to true in config.yaml, and restart it"
)
_STEP: Final = timedelta(minutes=15)
_LOOK_AHEAD: Final = timedelta(days=2)


def decide(
    number: str,
    purpose: Purpose,
    now: datetime,
    policy: OutboundPolicy,
    facts: CalleeFacts,
    time_zone: str | None = None,
) -> DialDecision:
    """Decide on one call. `now` is aware of its zone; `time_zone` is the callee's, where known."""
    if not policy.enabled:
        return DialDecision(Refusal.NOT_ENABLED, NOT_ENABLED)
    refused = _check_number(number, policy)
    if refused is not None:
        return refused
    if facts.do_not_call:
        return DialDecision(Refusal.DO_NOT_CALL, "The number is on the do-not-call list")
    if purpose is Purpose.MARKETING and not facts.has_consent:
        text = "A marketing call needs consent on record: trunkline do-not-call consent NUMBER"
        return DialDecision(Refusal.NO_CONSENT, text)
    if facts.live_calls:
        return DialDecision(Refusal.CALLED_NOW, "A call to this number is under way already")
    if policy.max_calls and facts.all_live_calls >= policy.max_calls:
        text = f"{facts.all_live_calls} placed calls are under way (outbound.max_calls)"
        return DialDecision(Refusal.AT_CAPACITY, text)
    day = timedelta(days=1)
    if policy.per_number_per_day and facts.calls_today >= policy.per_number_per_day:
        text = f"The number was called {facts.calls_today} times in 24 hours"
        return DialDecision(
            Refusal.NUMBER_CAP, f"{text} (outbound.per_number_per_day)", now + day / 24
        )
    if policy.per_day and facts.all_calls_today >= policy.per_day:
        text = f"{facts.all_calls_today} calls were placed in 24 hours (outbound.per_day)"
        return DialDecision(Refusal.DAY_CAP, text, now + day / 24)
    if time_zone and not is_time_zone(time_zone):
        text = f"There is no time zone {time_zone[:64]}; one is such as America/Denver"
        return DialDecision(Refusal.NO_TIME_ZONE, text)
    zones = (time_zone,) if time_zone else time_zones_of(number)
    return _check_hours(zones, now, policy.hours)


def is_time_zone(name: str) -> bool:
    """Tell whether there is a time zone of this name."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder of zones
        return False
    return True


def _check_number(number: str, policy: OutboundPolicy) -> DialDecision | None:
    # A whole number and nothing else: no SIP address, no tones behind a comma, no spelling that
    # the carrier might read in another way.
    found = classify(number, ())
    match found.kind:
        case NumberKind.EMERGENCY:
            return DialDecision(Refusal.EMERGENCY, "Emergency numbers are never called")
        case NumberKind.INVALID | NumberKind.SHORT_CODE | NumberKind.WITHHELD:
            return DialDecision(Refusal.NUMBER_INVALID, f"The number {found.reason}")
        case NumberKind.SIP | NumberKind.CLIENT:
            return DialDecision(
                Refusal.NUMBER_KIND, f"The address {found.reason}, and no phone number"
            )
    if found.number != number:
        text = "The number is not a whole number with + and country code, such as +15551234567"
        return DialDecision(Refusal.NUMBER_INVALID, text)
    if number in policy.own_numbers:
        return DialDecision(Refusal.OWN_NUMBER, "The number is one of our own")
    if not policy.any_country and not policy.numbers.regions:
        text = "No country may be called: set outbound.allowed_countries"
        return DialDecision(Refusal.COUNTRY, text)
    if (fault := policy.numbers.fault(number)) is not None:
        abroad = found.kind in (NumberKind.ORDINARY, NumberKind.TOLL_FREE)
        code = Refusal.COUNTRY if abroad else Refusal.NUMBER_KIND
        return DialDecision(code, f"The number {fault}")
    if not policy.unassigned and not is_assigned(number):
        return DialDecision(Refusal.NUMBER_KIND, "The number is of a range that is not in use")
    return None


def _check_hours(zones: Sequence[str], now: datetime, hours: CallingHours) -> DialDecision:
    if not zones:
        text = "The time of day at the number is not known: give its time_zone"
        return DialDecision(Refusal.NO_TIME_ZONE, text)
    outside = next((zone for zone in zones if not hours.include(_local(now, zone))), None)
    if outside is None:
        return ALLOWED
    local = _local(now, outside)
    span = f"{hours.start:%H:%M}-{hours.end:%H:%M}"
    where = outside if len(zones) == 1 else f"{outside}, one of {len(zones)} zones it may be in"
    text = f"It is {local:%H:%M} at the number ({where}); calls go out {span} (outbound.hours)"
    return DialDecision(Refusal.HOURS, text, _next_inside(zones, now, hours))


def _next_inside(zones: Sequence[str], now: datetime, hours: CallingHours) -> datetime | None:
    """The next time at which it is inside the hours in all zones; None where there is none."""
    # Zones are quarters of an hour apart, and so are nearly all hours that people write.
    at = now - timedelta(minutes=now.minute % 15, seconds=now.second, microseconds=now.microsecond)
    while at < now + _LOOK_AHEAD:
        at += _STEP
        if all(hours.include(_local(at, zone)) for zone in zones):
            return at
    return None


def _local(now: datetime, zone: str) -> datetime:
    return now.astimezone(ZoneInfo(zone))
