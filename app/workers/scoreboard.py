"""The scoreboard: the state and the load of each worker of one server.

A few words of shared memory, named as in Apache. Each worker writes its own state and its number of
calls; all read. A call is let in under a lock, so that the capacity of the server holds exactly
however many webhooks arrive at once. The system takes the lock from a process that dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import tempfile
import time
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

__all__ = ["Scoreboard", "WorkerState"]

_ROW: Final = struct.Struct("=II")
_TRIES: Final = 20
_PAUSE_S: Final = 0.001


class WorkerState(IntEnum):
    """The states of a worker."""

    GONE = 0
    READY = 1
    DRAINING = 2
    DRAINED = 3


class Scoreboard:
    """The states and calls of `count` workers, numbered from 0."""

    def __init__(self, descriptor: int, count: int) -> None:
        """Map the scoreboard behind a descriptor that was inherited from its maker."""
        self.descriptor = descriptor
        self.count = count
        self._memory = mmap.mmap(descriptor, _ROW.size * count)

    @classmethod
    def make(cls, count: int) -> Scoreboard:
        """A scoreboard on which all workers are gone; its descriptor may be inherited."""
        descriptor, path = tempfile.mkstemp(prefix="trunkline-")
        os.unlink(path)
        os.ftruncate(descriptor, _ROW.size * count)
        return cls(descriptor, count)

    def close(self) -> None:
        """Unmap it."""
        self._memory.close()
        os.close(self.descriptor)

    def row(self, index: int) -> tuple[WorkerState, int]:
        """The state of a worker, and how many calls it has."""
        state, active = _ROW.unpack_from(self._memory, index * _ROW.size)
        return WorkerState(state), active

    def write(self, index: int, state: WorkerState, active: int) -> None:
        """Set a worker's row; it is that worker's, and its supervisor's once it is gone."""
        _ROW.pack_into(self._memory, index * _ROW.size, state, active)

    def drained(self) -> bool:
        """True when no worker has anything left to do."""
        over = (WorkerState.DRAINED, WorkerState.GONE)
        return all(self.row(index)[0] in over for index in range(self.count))

    def calls_of_others(self, index: int) -> int:
        """The calls of all workers but one."""
        return sum(self.row(other)[1] for other in range(self.count) if other != index)

    def least_busy(self, index: int) -> int:
        """The worker that a new call should go to: this one, unless another has fewer calls."""
        ready = [
            (active, other != index, other)
            for other in range(self.count)
            for state, active in (self.row(other),)
            if state is WorkerState.READY
        ]
        return min(ready)[2] if ready else index

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep others out; for as long as it takes to let one call in.

        A worker that was stopped while it held the lock keeps nobody out for longer than 20 ms.
        """
        held = False
        for _ in range(_TRIES):
            try:
                fcntl.lockf(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                time.sleep(_PAUSE_S)
            else:
                held = True
                break
        try:
            yield
        finally:
            if held:
                fcntl.lockf(self.descriptor, fcntl.LOCK_UN)
