"""A worker process that is kept alive, spoken to in frames over its pipes.

The engine burns CPU in such processes only, so that a call's audio never waits for speech work,
and a crash in a C library costs one turn and not the server. A worker that dies is started again,
after a growing pause if it dies before it is ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable
from typing import Final

from app.engine.speech.frames import HEADER_BYTES, Frame, Kind, pack, unpack_header
from app.errors import ConfigError, VoiceUnavailable

__all__ = ["Worker"]


logger = logging.getLogger(__name__)

_CLOSE_S: Final = 2.0
_START_S: Final = 30.0
"""A process that is not ready by then hangs; it takes a second on a machine that has time."""
_RESTART_PAUSES_S: Final = (0.0, 0.5, 1.0, 2.0, 5.0, 15.0)
_KEPT_ENVIRONMENT: Final = (
    "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "SYSTEMROOT", "TEMP",
    "TMP", "TMPDIR", "VIRTUAL_ENV",
)  # fmt: skip
"""The variables that a worker gets: enough to start, no key and no token."""


class Worker:
    """One process running `python -m <module>`.

    `on_frame` gets every frame that is not about starting; `on_lost` is called when the process
    is gone and everything that it was asked is lost.
    """

    def __init__(
        self,
        module: str,
        *,
        setup: bytes,
        on_frame: Callable[[Frame], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._module = module
        self._setup = setup
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._hung = False
        self._refusal: str | None = None
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def ready(self) -> bool:
        """The worker is up and takes work."""
        return self._ready.is_set() and self._refusal is None

    async def until_ready(self, timeout_s: float) -> bool:
        """Wait for a worker that is starting again; False when it takes longer than that."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._ready.wait()
        except TimeoutError:
            return False
        return self.ready

    async def start(self, *, timeout_s: float) -> None:
        """Start the process and wait until it can work.

        Raises:
            ConfigError: the worker refused what it was set up with, and says why.
            VoiceUnavailable: it is not ready in time.
        """
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self._module}")
        ready = await self.until_ready(timeout_s)
        if self._refusal is not None:
            await self.close()
            raise ConfigError(self._refusal)
        if not ready:
            await self.close()
            raise VoiceUnavailable(f"{self._module} is not ready after {timeout_s:g} s")

    def send(self, kind: Kind, number: int = 0, body: bytes = b"") -> None:
        """Hand the worker a frame; without effect while it is down."""
        process = self._process
        if process is not None and process.stdin is not None and not process.stdin.is_closing():
            process.stdin.write(pack(kind, number, body))

    def kill(self) -> None:
        """End a process that does not answer; it is started again, and not ready from now on."""
        self._hung = self._hung or self._ready.is_set()
        self._ready.clear()
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def close(self) -> None:
        """End the process and wait until it is gone."""
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        if self._refusal is None:  # else it ends by itself, and tidies up
            keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper

    async def _keep(self) -> None:
        early_deaths = 0
        while True:
            await asyncio.sleep(_RESTART_PAUSES_S[min(early_deaths, len(_RESTART_PAUSES_S) - 1)])
            try:
                await self._live_once()
            except OSError as error:
                self._on_not_started(error)
            finally:
                was_ready, self._hung = self._ready.is_set() or self._hung, False
                self._on_lost()
            if self._refusal is not None:
                return
            self._ready.clear()
            early_deaths = 0 if was_ready else early_deaths + 1
            self.restarts += 1
            logger.warning("speech worker died", extra={"worker": self._module})

    def _on_not_started(self, error: OSError) -> None:
        """The system made no process: at first that is final, later it may pass."""
        logger.warning(
            "speech worker not started", extra={"worker": self._module, "errno": error.errno}
        )
        if self.restarts == 0:
            self._refusal = f"{self._module} cannot be started: {error.strerror or error}"
            self._ready.set()

    async def _live_once(self) -> None:
        """Run the process until it dies or we are cancelled; leave none behind."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self._module,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ},
            # Ctrl-C goes to the whole process group: calls that drain still need their recognizer.
            # A server that is killed closes our stdin, and that ends the worker.
            start_new_session=True,
        )
        self._process = process
        try:
            self.send(Kind.SETUP, 0, self._setup)
            async with asyncio.timeout(_START_S) as limit:
                await self._read(process, limit)
        except TimeoutError:
            logger.warning("speech worker does not start", extra={"worker": self._module})
        finally:
            self._process = None
            await _end(process)

    async def _read(self, process: asyncio.subprocess.Process, limit: asyncio.Timeout) -> None:
        assert process.stdout is not None  # piped above
        while True:
            try:
                kind, number, length = unpack_header(await process.stdout.readexactly(HEADER_BYTES))
                body = await process.stdout.readexactly(length)
            except asyncio.IncompleteReadError:
                return
            if kind is Kind.READY:
                limit.reschedule(None)
                self._ready.set()
            elif kind is Kind.REFUSED:
                self._refusal = body.decode()
                self._ready.set()
                return
            else:
                self._on_frame(Frame(kind, number, body))


async def _end(process: asyncio.subprocess.Process) -> None:
    """Close the pipe, which is how a worker is told to go; kill it when it does not.

    What it still says is read to the end: a pipe that is left open outlives a loop that ends now.
    """
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(_CLOSE_S):
            await process.communicate()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
