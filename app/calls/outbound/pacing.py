"""The pace of new calls: nine tenths of what the account may place, evenly.

A call beyond the account's rate would wait in the carrier's queue, for up to a day, and then ring
at an hour that nobody has chosen. Here it waits where it can still be given up.
"""

from __future__ import annotations

import asyncio
from typing import Final

__all__ = ["Pace"]

SHARE: Final = 0.9


class Pace:
    """Lets one call after the other go."""

    def __init__(self, per_s: float) -> None:
        self._pause_s = 1 / (per_s * SHARE)
        self._next_s = 0.0

    async def take(self) -> None:
        """Wait for a turn; turns are given in the order in which they were asked for."""
        now_s = asyncio.get_running_loop().time()
        at_s = max(now_s, self._next_s)
        self._next_s = at_s + self._pause_s
        await asyncio.sleep(at_s - now_s)
