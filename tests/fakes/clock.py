"""Call time that runs faster than the wall: for simulated calls against a live server."""

from __future__ import annotations

import asyncio
import time

__all__ = ["FastClock"]


STEP_MS = 20
"""The most that passes between two looks: a frame of sound."""


class FastClock:
    """A `app.dial.leg.Clock` that runs `speed` times as fast as real time.

    The server is not told: to it the caller simply sends and hears that much faster. What it
    measures in frames or timestamps stays right, what it measures by its own clock does not.

    Time in which a busy machine did not let us run does not pass: a call becomes slower then, and
    its frames do not come in a burst.
    """

    def __init__(self, speed: float = 1.0) -> None:
        self._speed = speed
        self._now_ms = 0.0
        self._looked_s = time.monotonic()

    def now_ms(self) -> int:
        return self._look(STEP_MS)

    async def sleep_until(self, at_ms: int) -> None:
        wait_ms = max(0, at_ms - self.now_ms())
        await asyncio.sleep(wait_ms / 1000 / self._speed)
        self._look(max(STEP_MS, at_ms - self._now_ms))

    def _look(self, most_ms: float) -> int:
        now_s = time.monotonic()
        self._now_ms += min((now_s - self._looked_s) * 1000 * self._speed, most_ms)
        self._looked_s = now_s
        return int(self._now_ms)
