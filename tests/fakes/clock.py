"""Call time that runs faster than the wall, and time that a busy machine does not steal."""

from __future__ import annotations

import asyncio
import math
import selectors
import threading
import time
from collections.abc import Coroutine

__all__ = ["FastClock", "OwnTime", "in_virtual_time"]

_real_ns = time.monotonic_ns
_select = selectors.DefaultSelector.select
_ROUNDING_NS = 2_000_000
"""A selector sleeps for whole milliseconds."""


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


class _SkippingSelector(selectors.SelectSelector):
    """Waits for nothing: the time that a loop means to sleep passes at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout:
            self.now_s += timeout
        return ready


def in_virtual_time(main: Coroutine[object, object, None]) -> None:
    """Run a coroutine on a loop whose clock begins at 0 and skips all pauses. For pure parts."""
    selector = _SkippingSelector()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now_s  # type: ignore[method-assign]
    try:
        loop.run_until_complete(main)
    finally:
        loop.close()


class OwnTime:
    """`time.monotonic` without the time in which this thread could run, and others ran instead.

    It passes while the thread computes and while its event loop sleeps, for as long as the loop
    meant to. Server and callers of a test share that loop: on a busy machine all of them become
    slow together, and no deadline, pause or stall comes of it.
    """

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._now_ns = _real_ns()
        self._cpu_ns = time.thread_time_ns()
        self._asleep: tuple[int, int | None] | None = None  # since when, for how long at most

    def install(self) -> None:
        """Take the place of the clock that event loops and programs read, for good."""

        def select(
            selector: selectors.DefaultSelector, timeout: float | None = None
        ) -> list[tuple[selectors.SelectorKey, int]]:
            looks_only = timeout is not None and timeout <= 0
            if looks_only or threading.get_ident() != self._thread:
                return _select(selector, timeout)
            self._begin_sleep(timeout)
            try:
                return _select(selector, timeout)
            finally:
                self._end_sleep()

        selectors.DefaultSelector.select = select  # type: ignore[method-assign, assignment]
        time.monotonic_ns = self.now_ns
        time.monotonic = lambda: self.now_ns() / 1e9

    def now_ns(self) -> int:
        asleep = self._asleep
        if threading.get_ident() == self._thread:
            cpu_ns = time.thread_time_ns()
            self._now_ns += cpu_ns - self._cpu_ns
            self._cpu_ns = cpu_ns
        elif asleep is not None:
            return self._now_ns + self._slept_ns(*asleep)
        return self._now_ns

    def _begin_sleep(self, timeout_s: float | None) -> None:
        self.now_ns()
        most_ns = None if timeout_s is None else math.ceil(max(0.0, timeout_s) * 1e9)
        self._asleep = (_real_ns(), most_ns)

    def _end_sleep(self) -> None:
        assert self._asleep is not None
        slept_ns, self._asleep = self._slept_ns(*self._asleep), None
        self._now_ns += slept_ns
        self._cpu_ns = time.thread_time_ns()

    def _slept_ns(self, since_ns: int, most_ns: int | None) -> int:
        slept_ns = _real_ns() - since_ns
        if most_ns is None or slept_ns <= most_ns + _ROUNDING_NS:
            return slept_ns
        return most_ns
