"""Names in messages: where a setting stands, and which name was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Final

__all__ = ["NEAR_MISS", "did_you_mean", "dotted", "nearest", "no_such"]

NEAR_MISS: Final = 0.85
"""The likeness from which a name of a variable is a slip of the pen, as `nearest` counts it."""


def dotted(path: tuple[str | int, ...]) -> str:
    """A path as people write it: `twilio.numbers[1]`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
            continue
        shown = step if step.isprintable() else ascii(step)  # no control reaches the terminal
        text += f".{shown}" if text else shown
    return text


def nearest(name: str, known: Collection[str], *, cutoff: float = 0.6) -> str | None:
    """The known name that `name` was probably meant to be."""
    by_small = {one.lower(): one for one in known}
    matches = difflib.get_close_matches(name.lower(), list(by_small), n=1, cutoff=cutoff)
    return by_small[matches[0]] if matches else None


def did_you_mean(name: str, known: Collection[str]) -> str:
    """The end of a sentence about an unknown name; empty when nothing is near."""
    match = nearest(name, known)
    return f'; did you mean "{match}"?' if match else ""


def no_such(kind: str, name: str, known: Collection[str]) -> str:
    """The sentence about a name that leads nowhere."""
    hint = did_you_mean(name, known)
    if not hint:
        hint = f"; there is {', '.join(sorted(known))}" if known else "; there is none yet"
    return f"there is no {kind} {name[:64]!r}{hint}"
