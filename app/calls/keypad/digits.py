"""An entry of several digits on the keypad: its time, its end and its result. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

__all__ = ["KEYS", "Collected", "CollectionEnd", "DigitCollection", "DigitRequest"]


KEYS: Final = frozenset("0123456789*#")
"""The keys of telephones; A to D (ITU-T Q.23) are not on callers' keypads."""

MASK: Final = "\u2022"


@dataclass(frozen=True, slots=True, kw_only=True)
class DigitRequest:
    """The limits of an entry.

    With `min_digits` equal to `max_digits` the last digit ends it; else the terminator does, or a
    pause of `between_ms`. The clear key begins anew.
    """

    min_digits: int = 1
    max_digits: int = 20
    terminator: str = "#"
    clear: str = "*"
    first_ms: int = 8_000
    between_ms: int = 4_000


class CollectionEnd(StrEnum):
    """The way an entry ended."""

    COMPLETE = "complete"
    TOO_SHORT = "too_short"
    NOTHING = "nothing"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """A finished entry, whose digits are in no log."""

    digits: str = field(repr=False)
    end: CollectionEnd


class DigitCollection:
    """One entry of digits, from the question to the result."""

    def __init__(self, request: DigitRequest) -> None:
        self.request = request
        self._digits = ""
        self._deadline_ms: int | None = None
        self._done = False

    @property
    def begun(self) -> bool:
        """Some digits are there, and the others come or do not."""
        return bool(self._digits)

    def start(self, now_ms: int) -> None:
        """The question was heard; the time for the first digit begins, if none came before."""
        if not self._digits and not self._done:
            self._deadline_ms = now_ms + self.request.first_ms

    def on_key(self, key: str, now_ms: int) -> Collected | None:
        """Take a key; the result when it was the last."""
        request = self.request
        if self._done or key not in KEYS:
            return None
        if request.terminator and key == request.terminator:
            return self._end()
        self._deadline_ms = now_ms + request.between_ms
        if request.clear and key == request.clear:
            self._digits = ""
            self._deadline_ms = now_ms + request.first_ms
            return None
        self._digits += key
        return self._end() if len(self._digits) == request.max_digits else None

    def on_tick(self, now_ms: int) -> Collected | None:
        """The result when the caller has stopped pressing keys."""
        if self._done or self._deadline_ms is None or now_ms < self._deadline_ms:
            return None
        return self._end()

    def cancel(self) -> Collected | None:
        """Something else ends it: the caller speaks, the call ends."""
        return None if self._done else self._end(cancelled=True)

    def shown(self, key: str) -> str:
        """Return what may be recorded of a key: digits are masked."""
        return MASK if key.isdecimal() else key

    def _end(self, *, cancelled: bool = False) -> Collected:
        self._done = True
        digits = self._digits
        if cancelled:
            end = CollectionEnd.CANCELLED
        elif not digits:
            end = CollectionEnd.NOTHING
        elif len(digits) < self.request.min_digits:
            end = CollectionEnd.TOO_SHORT
        else:
            end = CollectionEnd.COMPLETE
        return Collected(digits=digits, end=end)
