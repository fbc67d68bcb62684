"""Named destinations, and the rules for what may be dialed, keyed and texted.

Pure. A model chooses a name; the address behind it comes from configuration and is checked here
when it is read. `app.carrier.number_policy` says which numbers may be called: what costs the
account extra is refused wherever it comes from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypedDict, Unpack

from app.carrier.base import CallerIdPolicy, Destination, DestinationKind
from app.carrier.number_policy import DialPolicy, NumberKind, classify, countries_of
from app.errors import CarrierRefused, ConfigError

__all__ = [
    "MAX_DIGITS",
    "MAX_SMS_CHARS",
    "TO_CALLER",
    "DestinationOptions",
    "Destinations",
    "destination",
    "digits_fault",
    "sms_fault",
]

MAX_DIGITS: Final = 64
MAX_SMS_CHARS: Final = 480
"""Three segments: enough for an address and a time, too little for a bill. Twilio takes 1600."""

TO_CALLER: Final = "caller"
"""The name that stands for the caller; no destination may have it."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)
_SIP: Final = re.compile(
    r"sips?:(?P<user>[A-Za-z0-9_.!~*'()&=+$,;/%-]{1,64})@"
    r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?)(?::[0-9]{1,5})?"
    r"(?:;[A-Za-z0-9_.!~*'()=+$%-]{1,64}){0,4}",
    re.ASCII,
)
_MAX_SIP_CHARS: Final = 255  # Twilio voice/twiml/sip
_QUEUE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,63}", re.ASCII)
_EXTENSION: Final = re.compile(r"[0-9*#wW]{1,32}", re.ASCII)
_DIGITS: Final = re.compile(rf"[0-9*#wW]{{1,{MAX_DIGITS}}}", re.ASCII)
_RING_S: Final = (5, 600)  # Twilio voice/twiml/dial: timeout


class DestinationOptions(TypedDict, total=False):
    """The options of a destination besides its name and address; see `Destination`."""

    spoken: str
    description: str
    announcement: str
    caller_id: CallerIdPolicy
    ring_s: int
    extension: str
    screened: bool
    detect_voicemail: bool
    warm: bool


def destination(
    name: str,
    target: str,
    *,
    policy: DialPolicy | None = None,
    **options: Unpack[DestinationOptions],
) -> Destination:
    """A destination of the configuration; `target` is a number, a SIP address or `queue:name`.

    Raises:
        ConfigError: what is wrong, with the destination's name.
    """
    kind, address = _kind_of(target.strip())
    made = Destination(name=name, kind=kind, address=address, **options)
    if not made.spoken.strip():
        made = replace(made, spoken=name.replace("_", " ").replace("-", " "))
    faults = [
        *_name_faults(name),
        *_address_faults(kind, address, policy or DialPolicy()),
        *_option_faults(made),
    ]
    if faults:
        raise ConfigError(f"destination {name!r}: {'; '.join(faults)}")
    return made


def _kind_of(target: str) -> tuple[DestinationKind, str]:
    scheme, colon, rest = target.partition(":")
    if colon and scheme.lower() == "queue":
        return DestinationKind.QUEUE, rest.strip()
    if colon and scheme.lower() in ("sip", "sips"):
        return DestinationKind.SIP, f"{scheme.lower()}:{rest}"
    return DestinationKind.NUMBER, target


def _name_faults(name: str) -> Iterator[str]:
    if not _NAME.fullmatch(name):
        yield "a name is made of small letters, digits, - and _, up to 64"
    elif name == TO_CALLER:
        yield f"the name {TO_CALLER} stands for the caller"


def _address_faults(kind: DestinationKind, address: str, policy: DialPolicy) -> Iterator[str]:
    if kind is DestinationKind.QUEUE:
        if not _QUEUE.fullmatch(address):
            yield "a queue's name is made of letters, digits, spaces and . - _, up to 64"
        return
    if kind is DestinationKind.NUMBER:
        if fault := policy.fault(address):
            yield f"{address} {fault}"
        return
    parts = _SIP.fullmatch(address)
    if parts is None or len(address) > _MAX_SIP_CHARS:
        yield "expected a SIP address such as sip:anna@pbx.example.com, without headers"
        return
    if fault := policy.fault(address):
        yield f"{parts['user'].partition(';')[0]} {fault}"


def _option_faults(made: Destination) -> Iterator[str]:
    least, most = _RING_S
    if not least <= made.ring_s <= most:
        yield f"it may ring for {least} to {most} seconds, not {made.ring_s}"
    numeric = made.kind is DestinationKind.NUMBER
    if made.extension and not (numeric and _EXTENSION.fullmatch(made.extension)):
        yield "an extension is up to 32 keys (0-9 * # w W) behind a phone number"
    if made.kind is DestinationKind.QUEUE and (made.screened or made.detect_voicemail):
        yield "nobody is called for a queue, so there is nobody to ask for a key"
    if made.kind is DestinationKind.QUEUE and made.warm:
        yield "nobody is called for a queue: it cannot be warm"
    if made.warm and made.caller_id is CallerIdPolicy.CALLER:
        yield "in a warm transfer we call, from one of our numbers: caller_id must be ours"


@dataclass(frozen=True, slots=True)
class Destinations:
    """All destinations by name. A model may choose one of `names`, and nothing else."""

    by_name: Mapping[str, Destination] = field(default_factory=dict)
    policy: DialPolicy = field(default_factory=DialPolicy)

    @classmethod
    def of(cls, found: Iterable[Destination], policy: DialPolicy | None = None) -> Destinations:
        """Collect destinations.

        Raises:
            ConfigError: two have the same name.
        """
        by_name: dict[str, Destination] = {}
        for one in found:
            if one.name in by_name:
                raise ConfigError(f"destination {one.name!r} is there twice")
            by_name[one.name] = one
        return cls(by_name, policy or DialPolicy())

    @property
    def names(self) -> tuple[str, ...]:
        """The names that a model may choose from."""
        return tuple(self.by_name)

    def resolve(self, name: object) -> Destination:
        """The destination of a name, whatever a model sent in its place.

        Raises:
            CarrierRefused: no such name (`destination_unknown`).
        """
        found = self.by_name.get(name) if isinstance(name, str) else None
        if found is None:
            raise CarrierRefused("there is no such destination", code="destination_unknown")
        return found

    def sms_number(self, name: object, caller_number: str, our_number: str = "") -> str:
        """The number for a text message to `TO_CALLER` or to a named destination.

        Where the policy names no countries, callers of the country of `our_number` get messages.

        Raises:
            CarrierRefused: no such name, or nothing that takes messages (`sms_not_possible`).
        """
        if name == TO_CALLER:
            # The network vouches for no caller's number: it is checked like any other.
            regions = self.policy.regions or countries_of([our_number])
            caller = classify(caller_number, regions)
            if caller.kind is NumberKind.WITHHELD:
                raise CarrierRefused("the caller withholds their number", code="sms_not_possible")
            fault = replace(self.policy, regions=regions).fault_of(caller)
            if fault is None and not caller.number:
                fault = "takes no messages"
            if fault is not None:
                raise CarrierRefused(f"the caller's number {fault}", code="sms_not_possible")
            return caller.number
        found = self.resolve(name)
        if found.kind is not DestinationKind.NUMBER:
            raise CarrierRefused("this destination takes no messages", code="sms_not_possible")
        return found.address


def digits_fault(digits: str) -> str | None:
    """The reason why `digits` cannot be sent as tones; `w` waits half a second, `W` a whole one."""
    if not _DIGITS.fullmatch(digits):
        return f"tones are up to {MAX_DIGITS} of 0-9 * #, with w and W for pauses"
    if not digits.strip("wW"):
        return "there is no key among the pauses"
    return None


def sms_fault(body: str) -> str | None:
    """The reason why `body` cannot be sent as a text message."""
    if not body.strip():
        return "the message is empty"
    if len(body) > MAX_SMS_CHARS:
        return f"the message has more than {MAX_SMS_CHARS} characters"
    return None
