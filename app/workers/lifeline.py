"""The lifeline: how a supervisor tells a worker to stop, and how a worker learns that it is alone.

Signals would not do: a service manager or a terminal may send one to every process of a service, so
that a worker could not tell the second signal to the supervisor from the supervisor's first to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Final

__all__ = ["DRAIN", "FORCE", "hold"]

DRAIN: Final = b"d"
FORCE: Final = b"f"


@contextlib.contextmanager
def hold(lifeline: int, *, drain: Callable[[], None], force: Callable[[], None]) -> Iterator[None]:
    """Obey inside the block. A worker whose supervisor is gone drains, as after a signal."""
    loop = asyncio.get_running_loop()

    def obey() -> None:
        told = os.read(lifeline, 16)
        if not told:
            loop.remove_reader(lifeline)
        if FORCE in told:
            force()
        else:
            drain()

    loop.add_reader(lifeline, obey)
    try:
        yield
    finally:
        loop.remove_reader(lifeline)
