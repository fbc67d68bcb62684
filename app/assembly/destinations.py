"""Makes destinations, and the limits of callers, of what the settings say."""

from __future__ import annotations

from app.assembly.problems import Problems
from app.calls.admission.allowances import Allowance, Allowances
from app.carrier.base import CallerIdPolicy, Destination, DestinationKind
from app.carrier.destinations import Destinations, destination
from app.carrier.number_policy import DialPolicy, countries_of
from app.errors import ConfigError
from app.settings import DestinationSettings, Mode, Settings

__all__ = ["make_allowances", "make_destinations"]


def make_destinations(settings: Settings, problems: Problems) -> Destinations:
    """The destinations; those with problems are left out."""
    policy = _dial_policy(settings)
    found: list[Destination] = []
    for name, written in settings.destinations.items():
        with problems.at("destinations", name, prefix=f"destination {name!r}: "):
            made = _destination(name, written, DialPolicy())
            is_queue = made.kind is DestinationKind.QUEUE
            if not is_queue and (fault := policy.fault(made.address)):
                raise ConfigError(f"{made.address} {fault}: see twilio.allowed_countries")
            found.append(made)
    return Destinations.of(found, policy)


def _dial_policy(settings: Settings) -> DialPolicy:
    """Without a list, calls and messages stay in the countries of our own numbers."""
    allowed, own = settings.twilio.allowed_countries, countries_of(settings.all_numbers)
    regions = frozenset[str]() if allowed == "any" else frozenset(allowed) or own
    return DialPolicy(regions, home=own)


def _destination(name: str, written: DestinationSettings, policy: DialPolicy) -> Destination:
    queue = f"queue:{written.queue}" if written.queue else ""
    return destination(
        name,
        written.number or written.sip or queue,
        policy=policy,
        spoken=written.spoken,
        description=written.description,
        announcement=written.announcement or "",
        caller_id=CallerIdPolicy(written.caller_id),
        ring_s=written.ring_s,
        extension=written.extension,
        screened=written.screened,
        detect_voicemail=written.detect_voicemail,
        warm=written.mode == "warm",
    )


def make_allowances(settings: Settings) -> Allowances:
    """The limits per caller and per number; in development only those that were changed."""
    limits = settings.limits
    made = []
    for given in (limits.per_caller, limits.per_number):
        is_free = settings.mode is Mode.DEVELOPMENT and given == type(given)()
        made.append(Allowance() if is_free else Allowance(**given.model_dump()))
    return Allowances(*made)
