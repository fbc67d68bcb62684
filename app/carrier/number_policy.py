"""The kinds of numbers, and which of them may be called and texted.

Pure. `classify` gives the kind of an address and the country that it is in; `DialPolicy` says which
kinds and countries are allowed. A SIP address is judged as the number before its `@`: a trunk dials
it, and it costs what the number costs.

Follows ITU-T E.164 (the country codes of worldwide services in its list of assigned codes), RFC
3261 section 19.1 for SIP addresses, 3GPP TS 22.101 section 10.1 for emergency numbers, and the
metadata of `phonenumbers` for what a range costs and which short codes are an emergency's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import unquote

import phonenumbers
from phonenumbers import PhoneNumber, PhoneNumberType
from phonenumbers.shortnumberinfo import is_emergency_number

from app.carrier.withheld import is_withheld

__all__ = [
    "COSTLY",
    "DialPolicy",
    "NumberClass",
    "NumberKind",
    "classify",
    "countries_of",
    "is_assigned",
]


class NumberKind(StrEnum):
    """The kinds of addresses that a call can come from or go to."""

    ORDINARY = "ordinary"
    TOLL_FREE = "toll_free"
    PREMIUM = "premium"
    SHARED_COST = "shared_cost"
    SATELLITE = "satellite"
    WORLDWIDE = "worldwide"
    PERSONAL = "personal"
    PAGER = "pager"
    SHORT_CODE = "short_code"
    EMERGENCY = "emergency"
    SIP = "sip"
    CLIENT = "client"
    WITHHELD = "withheld"
    INVALID = "invalid"


COSTLY: Final = frozenset(
    {
        NumberKind.PREMIUM,
        NumberKind.SHARED_COST,
        NumberKind.SATELLITE,
        NumberKind.WORLDWIDE,
        NumberKind.PERSONAL,
        NumberKind.PAGER,
    }
)
"""Kinds that cost whoever calls them extra; a policy may allow them one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberClass:
    """An address as it was judged.

    `number` is E.164, or empty where the address is not a whole number. `region` is an ISO
    3166 code, or empty where the number belongs to no country. `reason` goes on after the address:
    "is a premium-rate number".
    """

    kind: NumberKind
    reason: str
    number: str = ""
    region: str = ""


# Country codes that belong to no country.
_WORLDWIDE: Final = {
    800: (NumberKind.TOLL_FREE, "is a freephone number of no country"),
    808: (NumberKind.SHARED_COST, "is a shared-cost number"),
    870: (NumberKind.SATELLITE, "is a satellite number"),
    878: (NumberKind.PERSONAL, "is a personal number"),
    881: (NumberKind.SATELLITE, "is a satellite number"),
    882: (NumberKind.WORLDWIDE, "is a number of a worldwide network"),
    883: (NumberKind.WORLDWIDE, "is a number of a worldwide network"),
    888: (NumberKind.WORLDWIDE, "is a number for disaster relief"),
    979: (NumberKind.PREMIUM, "is a premium-rate number"),
}
_OF_TYPES: Final = {
    PhoneNumberType.PREMIUM_RATE: (NumberKind.PREMIUM, "is a premium-rate number"),
    PhoneNumberType.SHARED_COST: (NumberKind.SHARED_COST, "is a shared-cost number"),
    PhoneNumberType.PAGER: (NumberKind.PAGER, "is a pager"),
    PhoneNumberType.PERSONAL_NUMBER: (NumberKind.PERSONAL, "is a personal number"),
    PhoneNumberType.TOLL_FREE: (NumberKind.TOLL_FREE, "is a freephone number"),
}
_ORDINARY: Final = (NumberKind.ORDINARY, "is an ordinary number")
_PLUS_ONE: Final = 1
"""In the North American plan personal numbers (5xx) cost what any other number does."""

_WHOLE: Final = re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII)
_INTERNATIONAL: Final = re.compile(r"\+[0-9]{1,15}", re.ASCII)
_DIGITS: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_SEPARATORS: Final = re.compile(r"[-.() ]")  # RFC 3966, section 5.1.1: they mean nothing
_SCHEME: Final = re.compile(r"(sips?|tel|client):", re.IGNORECASE)
_EXIT_CODES: Final = re.compile(r"(?:00|011)(?=[1-9])")
"""The codes that are dialed before a country code: in most of the world, and in North America."""
_LONGEST_SHORT: Final = 6
_CODED: Final = re.compile(r"(?=.*[^0-9+])[^A-Za-z]+")
"""A user that is neither a name nor a plain number."""
_LONGEST_CODE: Final = 4
_ANYWHERE: Final = frozenset({"112", "911"})
"""Emergency calls on any mobile network. The others are known by their country."""
_NOT_WHOLE: Final = "is not a whole number with + and country code, such as +15551234567"


def classify(address: str, home: Iterable[str] = ()) -> NumberClass:
    """The kind and the country of an address: a number, or one with `sip:`, `tel:` or `client:`.

    `home` are the countries (ISO 3166) in which a number without country code is dialed. Of several
    readings, the one that costs most counts.
    """
    address = address.strip()
    if is_withheld(address):
        return NumberClass(kind=NumberKind.WITHHELD, reason="is withheld")
    found = _SCHEME.match(address)
    scheme = found[1].lower() if found else ""
    if scheme == "client":
        return NumberClass(kind=NumberKind.CLIENT, reason="is an app and no phone")
    if not scheme:
        return _of_number(address, home)
    # Parameters such as ;ext=12 may stand on either side of the @.
    user, at, _host = unquote(address[len(scheme) + 1 :]).partition("@")
    user = _SEPARATORS.sub("", user.partition(";")[0].partition(":")[0])
    if not at and scheme != "tel":
        return NumberClass(kind=NumberKind.SIP, reason="is a SIP address without a user")
    judged = max((_of_number(one, home) for one in _dialed_in(user)), key=_rank)
    if scheme != "tel" and judged.kind in (NumberKind.INVALID, NumberKind.SHORT_CODE):
        if user.startswith("+") and _INTERNATIONAL.fullmatch(user):
            return judged
        # A name or an extension: it leads no further than the telephone system that is named.
        return NumberClass(kind=NumberKind.SIP, reason="is a SIP address")
    return judged


def _dialed_in(user: str) -> Iterator[str]:
    """The user of an address, and the numbers that it may dial behind a code such as `*67`."""
    yield user
    if not _CODED.fullmatch(user):
        return
    digits = re.sub("[^0-9]", "", user)
    yield from (digits[at:] for at in range(1 + _LONGEST_CODE))


def _rank(found: NumberClass) -> int:
    """Larger for what costs more, and for whatever is a number at all."""
    if found.kind in COSTLY or found.kind is NumberKind.EMERGENCY:
        return 2
    return 0 if found.kind in (NumberKind.INVALID, NumberKind.SHORT_CODE) else 1


def countries_of(numbers: Iterable[str]) -> frozenset[str]:
    """The countries (ISO 3166) of numbers."""
    return frozenset(region for number in numbers if (region := classify(number).region))


def is_assigned(number: str) -> bool:
    """True when an E.164 number is of a range that its country has given out."""
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number, None))
    except phonenumbers.NumberParseException:
        return False


def _of_number(text: str, home: Iterable[str]) -> NumberClass:
    if _INTERNATIONAL.fullmatch(text):
        return _of_international(text)
    if not _DIGITS.fullmatch(text):
        return NumberClass(kind=NumberKind.INVALID, reason=_NOT_WHOLE)
    home = frozenset(home)
    if text in _ANYWHERE or any(is_emergency_number(text, region) for region in home):
        return _emergency()
    if len(text) <= _LONGEST_SHORT:
        return NumberClass(kind=NumberKind.SHORT_CODE, reason="is a short code")
    readings = list(_national_readings(text, home))
    if exit_code := _EXIT_CODES.match(text):
        readings.append(_of_international(f"+{text[exit_code.end() :]}"))
    elif not readings:
        readings.append(_of_international(f"+{text}"))
    known = [one for one in readings if one.kind is not NumberKind.INVALID]
    if not known:
        return NumberClass(kind=NumberKind.INVALID, reason=_NOT_WHOLE)
    return next((one for one in known if one.kind in COSTLY), known[0])


def _national_readings(text: str, home: Iterable[str]) -> Iterator[NumberClass]:
    """The readings of digits without a country code, in each country where they are a number."""
    for region in sorted(home):
        try:
            parsed = phonenumbers.parse(text, region)
        except phonenumbers.NumberParseException:
            continue
        if phonenumbers.is_valid_number(parsed):
            yield _of_parsed(parsed)


def _of_international(text: str) -> NumberClass:
    try:
        parsed = phonenumbers.parse(text, None)
    except phonenumbers.NumberParseException:
        whole = _WHOLE.fullmatch(text)
        reason = "has no known country code" if whole else _NOT_WHOLE
        return NumberClass(kind=NumberKind.INVALID, reason=reason)
    return _of_parsed(parsed)


def _of_parsed(parsed: PhoneNumber) -> NumberClass:
    code = parsed.country_code or 0
    number = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
    if code in _WORLDWIDE:
        kind, reason = _WORLDWIDE[code]
        return NumberClass(kind=kind, reason=reason, number=number)
    national = phonenumbers.national_significant_number(parsed)
    regions = phonenumbers.region_codes_for_country_code(code)
    if national in _ANYWHERE or any(is_emergency_number(national, one) for one in regions):
        return _emergency()
    if not _WHOLE.fullmatch(number):
        return NumberClass(kind=NumberKind.INVALID, reason=_NOT_WHOLE)
    of_type = phonenumbers.number_type(parsed)
    kind, reason = _OF_TYPES.get(of_type, _ORDINARY)
    if kind is NumberKind.PERSONAL and code == _PLUS_ONE:
        kind, reason = _ORDINARY
    # Possible, not valid: ranges change too often for a table that is updated now and then.
    if kind is NumberKind.ORDINARY and not phonenumbers.is_possible_number(parsed):
        reason = "is too short or too long for its country"
        return NumberClass(kind=NumberKind.INVALID, reason=reason)
    region = phonenumbers.region_code_for_number(parsed)
    region = region or phonenumbers.region_code_for_country_code(code)
    return NumberClass(kind=kind, reason=reason, number=number, region=region)


def _emergency() -> NumberClass:
    return NumberClass(kind=NumberKind.EMERGENCY, reason="is an emergency number")


@dataclass(frozen=True, slots=True)
class DialPolicy:
    """The numbers that may be called at all. `regions` are ISO 3166 codes; empty means any.

    Regions and not country codes: +1 is also the Caribbean, where call fraud likes to go.
    Emergency numbers are never called: nobody there could call back, or find the caller.
    """

    regions: frozenset[str] = frozenset()
    costly: frozenset[NumberKind] = frozenset()
    """Kinds of `COSTLY` that may be called all the same."""
    home: frozenset[str] = frozenset()
    """Countries in which numbers without a country code are dialed; `regions` if empty."""

    def fault(self, address: str) -> str | None:
        """The reason why an address may not be called, in words after it; None when it may.

        SIP addresses without a number pass: they lead to the telephone system that they name.
        """
        found = classify(address, self.home or self.regions)
        is_sip = address.lower().startswith(("sip:", "sips:"))
        if found.number and found.number != address and not is_sip:
            return _NOT_WHOLE  # it is dialed as it is written
        return self.fault_of(found)

    def fault_of(self, found: NumberClass) -> str | None:
        """As `fault`, of an address that was classified."""
        match found.kind:
            case NumberKind.SIP:
                return None
            case NumberKind.INVALID:
                return found.reason
            case NumberKind.SHORT_CODE:
                return _NOT_WHOLE
            case kind if kind in COSTLY and kind not in self.costly:
                return f"{found.reason}, which is not called from here"
            case NumberKind.EMERGENCY | NumberKind.WITHHELD | NumberKind.CLIENT:
                return f"{found.reason}, which is not called from here"
        if self.regions and not found.region and found.kind is NumberKind.TOLL_FREE:
            return f"{found.reason}, which is not called from here"
        if self.regions and found.region and found.region not in self.regions:
            return f"is in a country ({found.region}) that may not be called"
        return None
