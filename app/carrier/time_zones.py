"""The time zones in which a phone number may be, by the metadata of `phonenumbers`. Pure."""

from __future__ import annotations

from typing import Final

import phonenumbers
from phonenumbers.timezone import time_zones_for_geographical_number, time_zones_for_number

__all__ = ["time_zones_of"]

_UNKNOWN: Final = "Etc/Unknown"


def time_zones_of(number: str) -> tuple[str, ...]:
    """The zones of an E.164 number; several where its prefix does not tell, none where unknown."""
    try:
        parsed = phonenumbers.parse(number, None)
    except phonenumbers.NumberParseException:
        return ()
    zones = time_zones_for_number(parsed)
    if zones == (_UNKNOWN,):  # of a range that the metadata does not know: by its prefix alone
        zones = time_zones_for_geographical_number(parsed)
    return tuple(zone for zone in zones if zone != _UNKNOWN)
