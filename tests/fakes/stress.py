"""Tests whose proof is the number of their repetitions: a few in `make test`, all in `make stress`.

KILLS = few_or(12, 52)
pytestmark = pytest.mark.stress
"""

from __future__ import annotations

import os
from typing import Final, TypeVar

__all__ = ["EXAMPLES", "STRESS", "few_or"]

_T = TypeVar("_T")

STRESS: Final = os.environ.get("STRESS") == "1"


def few_or(few: _T, many: _T) -> _T:
    """The fewer of two, unless the tests run under `make stress`."""
    return many if STRESS else few


EXAMPLES: Final = few_or(40, 200)
"""Values that a property is tried with, where its test does not say how many."""
