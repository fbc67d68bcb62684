"""One timer for what all live calls do by time alone.

Calls share the slots of a wheel: those of one slot tick together, and calls do not all tick at
once. The loop is woken for slots that hold a call, and not at all while there is none.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from typing import Final

__all__ = ["TICK_S", "Ticker"]

TICK_S: Final = 0.2
SLOTS: Final = 10


class Ticker:
    """Calls back every `TICK_S` seconds, until the block that asked for it is left."""

    def __init__(self) -> None:
        self._slots: list[dict[object, tuple[Context, Callable[[], None]]]] = [
            {} for _ in range(SLOTS)
        ]
        self._at = 0  # the slot that is due next
        self._due_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @contextlib.contextmanager
    def each(self, tick: Callable[[], None]) -> Iterator[None]:
        """Call `tick`, which may not raise, in the context of the caller."""
        key = object()
        slot = min(self._slots, key=len)
        slot[key] = (copy_context(), tick)
        if self._timer is not None:
            self._timer.cancel()
        else:
            self._due_s = asyncio.get_running_loop().time() + TICK_S
        self._wait()
        try:
            yield
        finally:
            del slot[key]

    def _turn(self) -> None:
        self._timer = None
        slot = self._slots[self._at]
        self._step(1)
        # A loop that was late does not make up for it.
        self._due_s = max(self._due_s, asyncio.get_running_loop().time())
        for context, tick in list(slot.values()):
            context.run(tick)
        if self._timer is None:
            self._wait()

    def _wait(self) -> None:
        """Set the timer for the next slot that holds a call, if there is one."""
        for steps in range(SLOTS):
            if self._slots[(self._at + steps) % SLOTS]:
                self._step(steps)
                loop = asyncio.get_running_loop()
                self._timer = loop.call_at(self._due_s, self._turn)
                return

    def _step(self, steps: int) -> None:
        self._at = (self._at + steps) % SLOTS
        self._due_s += steps * TICK_S / SLOTS
