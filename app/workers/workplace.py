"""The place of a worker: its number, the listener, the board, the inboxes, by its supervisor.

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

from app.workers.board import Board, WorkerState
from app.workers.inboxes import Inboxes, worker_name

__all__ = ["VARIABLE", "Workplace"]

VARIABLE: Final = "TRUNKLINE_WORKER"
LOOK_S: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """The place of one worker among `count`."""

    index: int
    count: int
    listener: socket.socket
    board: Board
    inboxes: Inboxes
    lifeline: int
    """Readable once the supervisor is gone."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Workplace | None:
        """The place that a supervisor has given this process; None where there is none."""
        if VARIABLE not in environment:
            return None
        given = json.loads(environment[VARIABLE])
        board = Board(given["board"], given["count"])
        inboxes = Inboxes(
            given["index"],
            _inherited(given["inbox"]),
            [_inherited(descriptor) for descriptor in given["inboxes"]],
            lambda other: board.row(other)[0] is not WorkerState.GONE,
        )
        return cls(
            index=given["index"],
            count=given["count"],
            listener=_inherited(given["listener"]),
            board=board,
            inboxes=inboxes,
            lifeline=given["lifeline"],
        )

    @property
    def name(self) -> str:
        return worker_name(self.index)

    def placement(self) -> str:
        """The name of the worker that should take a new call."""
        return worker_name(self.board.least_busy(self.index))

    def set_state(self, state: WorkerState) -> None:
        """Tell the others."""
        self.board.write(self.index, state, self.board.row(self.index)[1])

    async def all_drained(self) -> None:
        """Wait for the calls of all workers: their reports may come to any of them."""
        self.set_state(WorkerState.DRAINED)
        while not self.board.drained():  # noqa: ASYNC110 - it is other processes that write there
            await asyncio.sleep(LOOK_S)

    # The neighbors of the switchboard ------------------------------------------------------------

    @property
    def active(self) -> int:
        """The calls of the others."""
        return self.board.calls_of_others(self.index)

    @contextlib.contextmanager
    def deciding(self) -> Iterator[None]:
        """Nobody else lets a call in inside this block."""
        with self.board.lock():
            yield

    def report(self, active: int) -> None:
        """Tell the others how many calls are here."""
        self.board.write(self.index, self.board.row(self.index)[0], active)


def _inherited(descriptor: int) -> socket.socket:
    inherited = socket.socket(fileno=descriptor)
    inherited.setblocking(False)
    return inherited
