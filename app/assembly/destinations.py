"""Makes destinations of what the settings say."""

from __future__ import annotations

from app.assembly.problems import Problems
from app.carrier.base import CallerIdPolicy, Destination
from app.carrier.destinations import Destinations, DialPolicy, destination
from app.settings import DestinationSettings, Settings

__all__ = ["make_destinations"]


def make_destinations(settings: Settings, problems: Problems) -> Destinations:
    """The destinations; those with problems are left out."""
    policy = DialPolicy(frozenset(settings.twilio.allowed_countries))
    found: list[Destination] = []
    for name, written in settings.destinations.items():
        with problems.at("destinations", name, prefix=f"destination {name!r}: "):
            found.append(_destination(name, written, policy))
    return Destinations.of(found, policy)


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
