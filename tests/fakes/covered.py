"""`make cover` counts what other processes run: coverage starts in each that has its variable.

Most programs of tests get an environment of their own, and so do the speech processes of a server.
A process that is killed has counted nothing.
"""

from __future__ import annotations

import os
import sys
import weakref
from typing import Any, Final

from app.engine.speech import worker

__all__ = ["VARIABLE", "measure"]

VARIABLE: Final = "COVERAGE_PROCESS_CONFIG"
"""Set by coverage itself, which `[tool.coverage.run]` tells to."""


def measure() -> None:
    """Have what this process starts counted, if it is counted itself."""
    if VARIABLE not in os.environ:
        return
    # To the speech processes that this process starts.
    vars(worker)["_KEPT_ENVIRONMENT"] = (*worker._KEPT_ENVIRONMENT, VARIABLE)
    if sys.version_info < (3, 12):
        vars(weakref)["WeakKeyDictionary"] = _ForgetsInC


class _ForgetsInC(weakref.WeakKeyDictionary[Any, Any]):
    """Runs no Python when a key is gone.

    Coverage keeps the greenlet of each thread in one of these. The interpreter drops that greenlet
    when the thread has ended, in between two instructions of another one, and there Python 3.11
    now and then repeats the first traced instruction for ever.
    """

    def __init__(self, given: Any = None) -> None:
        super().__init__(given)
        vars(self)["_remove"] = vars(self)["data"].pop
