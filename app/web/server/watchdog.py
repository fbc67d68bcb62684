"""Ends the process where something keeps it: a tool that ignores its cancellation, a thread.

A thread of its own waits for a deadline, since the event loop may be what hangs. Python runs signal
handlers in the main thread, between two bytecodes, and code that stays in C, such as a search for a
regular expression, lets no other thread run either. A timer of the system, which that thread sets
back again and again, ends a process that is stuck so: its callers hear nothing, and its sockets
hold them. The timer counts the processor's time: by the clock, a container that was paused would be
stuck as well, as would a process that the machine has no time or memory for. Code that waits in C
and lets nothing else run is not noticed.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from typing import Final

__all__ = ["Watchdog"]

logger = logging.getLogger(__name__)

LAST_LINES_S: Final = 1.5

STUCK_S: Final = 30.0
"""The processor's time for which no code in Python has run."""
LOOK_S: Final = 1.0


class Watchdog:
    """Ends the process with `code()` when it has not ended by itself by a deadline."""

    def __init__(self, code: Callable[[], int]) -> None:
        self._code = code
        # The queue that may be put to from a signal handler, also within another one.
        self._deadlines: queue.SimpleQueue[float] = queue.SimpleQueue()
        self._started = False

    def start(self) -> None:
        """Begin to wait for deadlines; from the main thread."""
        if not self._started:
            self._started = True
            threading.Thread(target=self._wait, name="last resort", daemon=True).start()

    def within(self, limit_s: float) -> None:
        """End the process that long from now at the latest; an earlier deadline stands."""
        self._deadlines.put(time.monotonic() + limit_s)

    def _wait(self) -> None:
        deadline_s: float | None = None
        # Code in C that lets others run may keep all cores busy from one look to the next.
        stuck_s = max(STUCK_S, 2 * LOOK_S * (os.cpu_count() or 1))
        _end_by(signal.SIGPROF)
        while deadline_s is None or time.monotonic() < deadline_s:
            signal.setitimer(signal.ITIMER_PROF, stuck_s)
            left_s = LOOK_S if deadline_s is None else deadline_s - time.monotonic()
            try:
                found_s = self._deadlines.get(timeout=max(0.0, min(left_s, LOOK_S)))
            except queue.Empty:
                continue
            deadline_s = found_s if deadline_s is None else min(deadline_s, found_s)
        others = [thread.name for thread in threading.enumerate() if not thread.daemon]
        logger.warning("process did not end by itself", extra={"threads": ", ".join(others)})
        # The reader that holds the log up may hold this thread up as well.
        last_lines = threading.Thread(target=logging.shutdown, daemon=True)
        last_lines.start()
        last_lines.join(LAST_LINES_S)
        os._exit(self._code())


def _end_by(number: int) -> None:
    """Have a signal write all stacks and end the process, in C, without the interpreter."""
    libc = ctypes.CDLL(None)
    # By what a signal does of itself, the first process of a container does not end.
    libc.signal(number, libc._exit)
    faulthandler.register(number, file=_log_that_holds_nobody_up(), chain=True)


def _log_that_holds_nobody_up() -> int:
    """Standard error, for a writer that must not wait for whoever reads it."""
    with contextlib.suppress(OSError):
        return os.open("/proc/self/fd/2", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
    return 2  # a socket
