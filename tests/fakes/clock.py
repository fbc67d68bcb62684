"""Call time that runs faster than the wall: for simulated calls against a live server."""

from __future__ import annotations

import asyncio
import time

__all__ = ["FastClock"]


class FastClock:
    """A `app.dial.leg.Clock` that runs `speed` times as fast as real time.

    The server is not told: to it the caller simply sends and hears that much faster. What it
    measures in frames or timestamps stays right, what it measures by its own clock does not.
    """

    def __init__(self, speed: float = 1.0) -> None:
        self._speed = speed
        self._origin_s = time.monotonic()

    def now_ms(self) -> int:
        return int((time.monotonic() - self._origin_s) * 1000 * self._speed)

    async def sleep_until(self, at_ms: int) -> None:
        await asyncio.sleep(max(0.0, at_ms - self.now_ms()) / 1000 / self._speed)
