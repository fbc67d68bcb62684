"""The supervisor: starts the workers of a server, replaces those that end, passes signals on.

It holds what the workers share - the listener, the scoreboard, the inboxes - and answers no call
itself. Each worker is a process of its own that runs the same command, so that it reads the
configuration and the operator's code as a single server does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, Final

from prometheus_client.multiprocess import mark_process_dead

from app.workers.control_socket import DRAIN, FORCE
from app.workers.inboxes import make_inbox
from app.workers.scoreboard import Scoreboard, WorkerState
from app.workers.worker_process import VARIABLE

__all__ = ["supervise"]

logger = logging.getLogger(__name__)

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
STEADY_S: Final = 60.0
"""A worker that has run for this long is started anew at once when it ends."""
LOOK_S: Final = 0.05


def supervise(
    command: Sequence[str], *, count: int, listener: socket.socket, announce: Callable[[], None]
) -> int:
    """Run `count` workers, each by `command`, until they have drained after a signal.

    `announce` is called once all take calls. The result is 0 when every call had its time; the
    exit code of a worker that did not come up at the start; else 1.
    """
    return asyncio.run(_Supervisor(command, count, listener, announce).run())


class _Supervisor:
    def __init__(
        self,
        command: Sequence[str],
        count: int,
        listener: socket.socket,
        announce: Callable[[], None],
    ) -> None:
        self._command = tuple(command)
        self._count = count
        self._listener = listener
        self._announce = announce
        self._scoreboard = Scoreboard.make(count)
        self._inboxes = [make_inbox() for _ in range(count)]
        self._control_sockets: dict[int, socket.socket] = {}
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._folder = ""
        self._first_up = asyncio.Event()
        self._up = False
        self._stopping = asyncio.Event()
        self._forced = False
        self._code = 0

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        loop.add_signal_handler(signal.SIGHUP, self._on_reload)
        with tempfile.TemporaryDirectory(prefix="trunkline-metrics-") as self._folder:
            async with asyncio.TaskGroup() as tasks:
                watch = tasks.create_task(self._watch_start())
                keepers = [tasks.create_task(self._keep(index)) for index in range(self._count)]
                await asyncio.wait(keepers)
                watch.cancel()
        self._scoreboard.close()
        return self._code

    def _on_signal(self) -> None:
        if self._stopping.is_set():
            self._forced = True
        else:
            logger.info("stopping the workers", extra={"workers": len(self._processes)})
        self._stop()

    def _on_reload(self) -> None:
        """Have one worker reload the configuration, which has the others follow."""
        for index, process in self._processes.items():
            if self._is_ready(index) and process.returncode is None:
                process.send_signal(signal.SIGHUP)
                return

    def _stop(self) -> None:
        self._stopping.set()
        self._first_up.set()
        for control_socket in self._control_sockets.values():
            with contextlib.suppress(OSError):  # it has just ended
                control_socket.send(FORCE if self._forced else DRAIN)

    async def _watch_start(self) -> None:
        await self._until_ready(1)
        self._first_up.set()
        await self._until_ready(self._count)
        self._up = True
        self._announce()

    async def _until_ready(self, count: int) -> None:
        # It is other processes that write there.
        while sum(self._is_ready(index) for index in range(self._count)) < count:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)

    def _is_ready(self, index: int) -> bool:
        return self._scoreboard.row(index)[0] is WorkerState.READY

    async def _keep(self, index: int) -> None:
        """Keep one worker running until the server stops.

        The first one is alone at the start: what is wrong for all of them is said once.
        """
        if index > 0:
            await self._first_up.wait()
        pause_s = FIRST_PAUSE_S
        while not self._stopping.is_set():
            began_s = asyncio.get_running_loop().time()
            code = await self._run(index)
            if self._stopping.is_set():
                self._on_exit(code)
                return
            if not self._up:
                logger.error("worker did not start", extra={"worker": index + 1, "code": code})
                self._code = code if code > 0 else 1
                self._stop()
                return
            if asyncio.get_running_loop().time() - began_s > STEADY_S:
                pause_s = FIRST_PAUSE_S
            logger.error(
                "worker ended, starting another",
                extra={"worker": index + 1, "code": code, "pause_s": pause_s},
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _on_exit(self, code: int) -> None:
        """Take the end of a worker that was told to stop."""
        came_too_early = code == -signal.SIGTERM and not self._up  # it had no handler yet
        if code and not came_too_early:
            self._code = self._code or (code if code > 0 else 1)

    async def _run(self, index: int) -> int:
        """Run one worker to its end, and return its exit code."""
        ours, theirs = socket.socketpair()
        self._control_sockets[index] = ours
        writers = [writer.fileno() for _, writer in self._inboxes]
        inherited: dict[str, Any] = {
            "index": index,
            "count": self._count,
            "listener": self._listener.fileno(),
            "scoreboard": self._scoreboard.descriptor,
            "inbox": self._inboxes[index][0].fileno(),
            "inboxes": writers,
            "control_socket": theirs.fileno(),
        }
        process = await asyncio.create_subprocess_exec(
            *self._command,
            env={
                **os.environ,
                VARIABLE: json.dumps(inherited),
                "PROMETHEUS_MULTIPROC_DIR": self._folder,
            },
            pass_fds=[
                *writers,
                *(inherited[key] for key in ("listener", "scoreboard", "inbox", "control_socket")),
            ],
            process_group=0,  # Ctrl-C in a terminal is for the supervisor
        )
        theirs.close()
        self._processes[index] = process
        try:
            return await process.wait()
        finally:
            self._scoreboard.write(index, WorkerState.GONE, 0)
            del self._processes[index], self._control_sockets[index]
            ours.close()
            mark_process_dead(process.pid, self._folder)  # type: ignore[no-untyped-call]
