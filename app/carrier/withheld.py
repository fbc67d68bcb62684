"""Callers who withhold their number, in the ways in which networks say so.

Pure. Some say it in a word, as a SIP user or where a number would be; some spell the word on a
phone's keys, so that it looks like one: +266696687 is ANONYMOUS (Twilio, "Why are calls coming from
these strange numbers?"). Such a number must not be dialed, shown or texted.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["ANONYMOUS", "is_withheld"]

ANONYMOUS: Final = "anonymous"
"""Stands for a number that is withheld."""

_WORDS: Final = (
    ANONYMOUS,
    "blocked",
    "private",
    "restricted",
    "unavailable",
    "unknown",
    "withheld",
)
_PHRASES: Final = frozenset(
    {*_WORDS, "anonymus", "callerunknown", "nocallerid", "nonumber", "notavailable", "null"}
    | {f"{word}{what}" for word in _WORDS for what in ("number", "caller", "callerid")}
)
_KEYS: Final = str.maketrans("abcdefghijklmnopqrstuvwxyz", "22233344455566677778889999")  # E.161
# With +1, RESTRICTED has the form of a number in Texas: networks that put a country code before ten
# digits make it of the word. One number that nobody texts is a small price.
_SPELLED: Final = frozenset(
    prefix + word.translate(_KEYS) for word in _WORDS for prefix in ("", "1", "00", "001", "011")
)
_SCHEME: Final = re.compile(r"(?:sips?|tel|client):", re.IGNORECASE)
_HOST: Final = "anonymous.invalid"  # RFC 3323, section 4.1


def is_withheld(address: str) -> bool:
    """True where a caller's address says that it is not told."""
    user, _, host = _SCHEME.sub("", address.strip(), count=1).partition("@")
    if host.partition(";")[0].partition(":")[0].lower().rstrip(".>") == _HOST:
        return True
    said = re.sub(r"[\W_]+", "", user.partition(";")[0]).lower()
    return not said or said in _PHRASES or said in _SPELLED
