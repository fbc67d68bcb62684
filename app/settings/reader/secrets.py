"""Finds secrets in text where none belongs, so that no message or log repeats them.

A secret is known by its variable or its place; these are the others: a key in the query of a URL,
a token as phone number, a password among the arguments of a command. A word counts as one if it
looks random, follows a prefix that vendors give their keys, or belongs to a name such as `token`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

__all__ = ["HIDDEN", "SHORTEST_SECRET", "hide_secrets", "is_secret_label", "secrets_in"]

HIDDEN: Final = "****"
SHORTEST_SECRET: Final = 8
"""Shorter values, such as a version or a language, would blacken half of a text."""

_LONG: Final = 20  # keys and tokens are at least this long, and few names are
_NAMES: Final = (
    r"(?:api-?_?key|key|token|secret|password|passwd|pwd|sig|signature|auth|authorization|"
    r"credentials?)"
)
_LABEL = re.compile(rf"-{{0,2}}(?:[\w.-]*[_.-])?{_NAMES}", re.IGNORECASE)
_ACCOUNT = re.compile(r"AC[0-9a-f]{32}")  # the name of an account, which is not a secret
_SECRETS = re.compile(
    # The value of `?token=value` or `--token=value`, but not of a place for one (`{token}`).
    rf"(?:(?<=[?&;])|(?<!\S)--?)(?:[\w.-]*[_.-])?{_NAMES}=(?P<value>[^&#\s{{}}$\"']+)"
    r"|://[^/\s:@]*:(?P<password>[^/\s@]+)@"
    r"|(?<![A-Za-z0-9])(?P<prefixed>(?:sk|rk|pk|ek|ghp|gho|xox[a-z]|whsec)[-_][\w+/=-]{8,})"
    r"|(?P<word>[A-Za-z0-9]+)",
    re.IGNORECASE,
)


def is_secret_label(name: str) -> bool:
    """True for a name that says of its value that it is secret."""
    return _LABEL.fullmatch(name) is not None


def secrets_in(text: str) -> Iterator[str]:
    """The parts of a text that are likely secrets."""
    for found in _SECRETS.finditer(text):
        if (span := _span(found)) is not None:
            yield text[slice(*span)]


def hide_secrets(text: str, known: Iterable[str] = ()) -> str:
    """`text` without the `known` secrets and those that it is likely to hold."""
    for secret in sorted({one for one in known if len(one) >= SHORTEST_SECRET}, key=len)[::-1]:
        text = text.replace(secret, HIDDEN).replace(repr(secret)[1:-1], HIDDEN)

    def hide(found: re.Match[str]) -> str:
        span = _span(found)
        if span is None:
            return found[0]
        begin, end = span
        return f"{text[found.start() : begin]}{HIDDEN}{text[end : found.end()]}"

    return _SECRETS.sub(hide, text)


def _span(found: re.Match[str]) -> tuple[int, int] | None:
    """The position of a match's secret, if it is one."""
    kind = found.lastgroup or ""
    if kind in ("value", "password") or _is_random(found[0], prefixed=kind == "prefixed"):
        return found.span(kind)
    return None


def _is_random(word: str, *, prefixed: bool) -> bool:
    digits = sum(map(str.isdigit, word))
    if prefixed:
        return digits > 0
    mixed = digits > 0 and word.lower() != word != word.upper()
    return len(word) >= _LONG and (digits >= 3 or mixed) and not _ACCOUNT.fullmatch(word)
