"""A worker's control socket: its supervisor tells it to stop, and it learns when that is gone.

Signals would not do: a service manager or a terminal may send one to every process of a service, so
that a worker could not tell the second signal to the supervisor from the supervisor's first to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Final

__all__ = ["DRAIN", "FORCE", "obeying"]

DRAIN: Final = b"d"
FORCE: Final = b"f"


@contextlib.contextmanager
def obeying(
    control_socket: int, *, drain: Callable[[], None], force: Callable[[], None]
) -> Iterator[None]:
    """Obey the supervisor inside the block; once it is gone, drain as after a signal."""
    loop = asyncio.get_running_loop()

    def obey() -> None:
        told = os.read(control_socket, 16)
        if not told:
            loop.remove_reader(control_socket)
        if FORCE in told:
            force()
        else:
            drain()

    loop.add_reader(control_socket, obey)
    try:
        yield
    finally:
        loop.remove_reader(control_socket)
