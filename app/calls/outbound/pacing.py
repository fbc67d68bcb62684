"""The pace of new calls: nine tenths of what the account may place, evenly.

A call beyond the account's rate would wait in the carrier's queue, for up to a day, and then ring
at an hour that nobody has chosen. Here it waits where it can still be given up.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Pace"]

SHARE: Final = 0.9


class Pace:
    """Gives turns, one call after the other."""

    def __init__(self, per_s: float) -> None:
        self._pause_s = 1 / (per_s * SHARE)
        self._next_s = 0.0

    def take(self, now_s: float) -> float:
        """Seconds until the next turn, which belongs to whoever asks."""
        at_s = max(now_s, self._next_s)
        self._next_s = at_s + self._pause_s
        return at_s - now_s
