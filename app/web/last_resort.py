"""The end of the process where something keeps it: a tool that ignores its cancellation, a thread.

A thread of its own waits for a deadline, since the event loop may be what hangs. Python runs signal
handlers in the main thread, between two bytecodes: code that stays in C is not reached.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Final

__all__ = ["LastResort"]

logger = logging.getLogger(__name__)

LAST_LINES_S: Final = 1.5


class LastResort:
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
        while True:
            left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
            try:
                found_s = self._deadlines.get(timeout=left_s)
            except queue.Empty:
                break
            deadline_s = found_s if deadline_s is None else min(deadline_s, found_s)
        others = [thread.name for thread in threading.enumerate() if not thread.daemon]
        logger.warning("process did not end by itself", extra={"threads": ", ".join(others)})
        # The reader that holds the log up may hold this thread up as well.
        last_lines = threading.Thread(target=logging.shutdown, daemon=True)
        last_lines.start()
        last_lines.join(LAST_LINES_S)
        os._exit(self._code())
