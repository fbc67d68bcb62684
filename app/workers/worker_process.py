"""This process as one of several workers: its number, and what its supervisor has opened for it.

Everything is inherited as open descriptors; their numbers come by the environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from app.workers.inboxes import Inboxes, worker_name
from app.workers.scoreboard import Scoreboard, WorkerState

__all__ = ["VARIABLE", "WorkerProcess"]

VARIABLE: Final = "TRUNKLINE_WORKER"
LOOK_S: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerProcess:
    """One worker among `count`, as it sees itself."""

    index: int
    count: int
    listener: socket.socket
    scoreboard: Scoreboard
    inboxes: Inboxes
    control_socket: int
    """Brings what the supervisor wants, and its end."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> WorkerProcess | None:
        """This process as a worker; None where no supervisor has started it."""
        if VARIABLE not in environment:
            return None
        given = json.loads(environment[VARIABLE])
        scoreboard = Scoreboard(given["scoreboard"], given["count"])
        inboxes = Inboxes(
            given["index"],
            _inherited(given["inbox"]),
            [_inherited(descriptor) for descriptor in given["inboxes"]],
            lambda other: scoreboard.row(other)[0] is not WorkerState.GONE,
        )
        return cls(
            index=given["index"],
            count=given["count"],
            listener=_inherited(given["listener"]),
            scoreboard=scoreboard,
            inboxes=inboxes,
            control_socket=given["control_socket"],
        )

    @property
    def name(self) -> str:
        return worker_name(self.index)

    def placement(self) -> str:
        """The name of the worker that should take a new call."""
        return worker_name(self.scoreboard.least_busy(self.index))

    def set_state(self, state: WorkerState) -> None:
        """Tell the others."""
        self.scoreboard.write(self.index, state, self.scoreboard.row(self.index)[1])

    async def all_drained(self) -> None:
        """Wait for the calls of all workers: their reports may come to any of them."""
        self.set_state(WorkerState.DRAINED)
        while not self.scoreboard.drained():  # noqa: ASYNC110 - it is other processes that write there
            await asyncio.sleep(LOOK_S)

    # The other workers: `PeerProcesses` of the switchboard ----------------------------------------

    @property
    def active(self) -> int:
        """The calls of the others."""
        return self.scoreboard.calls_of_others(self.index)

    @contextlib.contextmanager
    def deciding(self) -> Iterator[None]:
        """Nobody else lets a call in inside this block."""
        with self.scoreboard.lock():
            yield

    def report(self, active: int) -> None:
        """Tell the others how many calls are here."""
        self.scoreboard.write(self.index, self.scoreboard.row(self.index)[0], active)


def _inherited(descriptor: int) -> socket.socket:
    inherited = socket.socket(fileno=descriptor)
    inherited.setblocking(False)
    return inherited
