"""Makes the policy of placed calls of what the settings say."""

from __future__ import annotations

from typing import Final

from app.calls.outbound.dial_policy import CallingHours, OutboundPolicy
from app.carrier.number_policy import DialPolicy, NumberKind, countries_of
from app.settings import Settings

__all__ = ["from_number_of", "make_outbound_policy"]

_UNASSIGNED: Final = "unassigned"


def make_outbound_policy(settings: Settings) -> OutboundPolicy:
    """The policy. Without a list of countries, calls stay in those of our own numbers."""
    wanted, own = settings.outbound, settings.all_numbers
    allowed = wanted.allowed_countries or settings.twilio.allowed_countries
    regions = frozenset[str]() if allowed == "any" else frozenset(allowed) or countries_of(own)
    costly = frozenset(NumberKind(kind) for kind in wanted.allowed_kinds if kind != _UNASSIGNED)
    return OutboundPolicy(
        enabled=wanted.enabled,
        numbers=DialPolicy(regions, costly, countries_of(own)),
        any_country=allowed == "any",
        unassigned=_UNASSIGNED in wanted.allowed_kinds,
        own_numbers=frozenset(own),
        hours=CallingHours.parse(wanted.hours),
        per_number_per_day=wanted.per_number_per_day,
        per_day=wanted.per_day,
        max_calls=wanted.max_calls,
    )


def from_number_of(settings: Settings) -> str:
    """The number that calls are placed from; empty where there is none."""
    return settings.outbound.from_number or next(iter(settings.all_numbers), "")
