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
_RUN = re.compile(rf"[A-Za-z0-9_-]{{{_LONG},}}")
_TURNS: Final = 0.3
"""The share of a name's or key's characters before which a new word or number begins. It is 0.44
in random base64, and seldom above 0.25 where people have chosen a name."""
_ACCOUNT = re.compile(r"AC[0-9a-f]{32}")  # the name of an account, which is not a secret
_SECRETS = re.compile(
    # The value of `?token=value` or `--token=value`, but not of a place for one (`{token}`).
    rf"(?:(?<=[?&;])|(?<!\S)--?)(?:[\w.-]*[_.-])?{_NAMES}=(?P<value>[^&#\s{{}}$\"']+)"
    r"|://[^/\s:@]*:(?P<password>[^/\s@]+)@"
    r"|(?<![A-Za-z0-9])(?P<prefixed>(?:sk|rk|pk|ek|ghp|gho|xox[a-z]|whsec)[-_][\w+/=-]{8,})"
    r"|(?<![A-Za-z0-9])(?P<uuid>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?![A-Za-z0-9])"
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
    yield from filter(_is_shuffled, _RUN.findall(text))


def hide_secrets(text: str, known: Iterable[str] = ()) -> str:
    """`text` without the `known` secrets and those that it is likely to hold."""
    for secret in sorted({one for one in known if len(one) >= SHORTEST_SECRET}, key=len)[::-1]:
        text = text.replace(secret, HIDDEN).replace(repr(secret)[1:-1], HIDDEN)

    text = _RUN.sub(lambda found: HIDDEN if _is_shuffled(found[0]) else found[0], text)

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
    if kind in ("value", "password", "uuid") or _is_random(found[0], prefixed=kind == "prefixed"):
        return found.span(kind)
    return None


def _is_random(word: str, *, prefixed: bool) -> bool:
    digits = sum(map(str.isdigit, word))
    if prefixed:
        return digits > 0
    mixed = digits > 0 and word.lower() != word != word.upper()
    return len(word) >= _LONG and (digits >= 3 or mixed) and not _ACCOUNT.fullmatch(word)


def _is_shuffled(run: str) -> bool:
    """True for a key in base64, whose parts between `-` and `_` may be short."""
    kinds = re.sub("[a-z]", "a", re.sub("[A-Z]", "A", re.sub("[0-9]", "0", run)))
    turns = sum(kinds.count(pair) for pair in ("aA", "a0", "0a", "A0", "0A"))
    return {*"0Aa"} <= {*kinds} and turns >= _TURNS * len(run)
