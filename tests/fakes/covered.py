"""`make cover` counts what other processes run: coverage starts in each that has its variable.

Most programs of tests get an environment of their own, and so do the speech processes of a server.
A process that is killed has counted nothing.
"""

from __future__ import annotations

import os
from typing import Final

from app.engine.speech import worker

__all__ = ["VARIABLE", "measure_speech"]

VARIABLE: Final = "COVERAGE_PROCESS_CONFIG"
"""Set by coverage itself, which `[tool.coverage.run]` tells to."""


def measure_speech() -> None:
    """Let the variable through to the speech processes that this process starts."""
    if VARIABLE in os.environ:
        vars(worker)["_KEPT_ENVIRONMENT"] = (*worker._KEPT_ENVIRONMENT, VARIABLE)
