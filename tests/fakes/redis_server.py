"""A real Redis on a free port, from Debian's package `redis-server`; `.ci/run` installs it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tests.fakes.ports import free_port
from tests.fakes.waiting import time_limit

__all__ = ["RedisServer", "redis_server"]


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A Redis that runs, and can be frozen."""

    port: int
    process: asyncio.subprocess.Process

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def freeze(self) -> None:
        """It takes connections and answers nothing, as a machine that hangs does."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@contextlib.asynccontextmanager
async def redis_server() -> AsyncIterator[RedisServer]:
    """Run a Redis that keeps nothing; skips the test where there is none."""
    if shutil.which("redis-server") is None:
        pytest.skip("Redis is not installed: apt-get install redis-server")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="trunkline-redis-") as folder:
        process = await asyncio.create_subprocess_exec(
            *("redis-server", "--bind", "127.0.0.1", "--port", str(port)),
            *("--save", "", "--appendonly", "no", "--dir", folder),
            stdout=asyncio.subprocess.DEVNULL,
        )
        server = RedisServer(port, process)
        try:
            await _until_up(port)
            yield server
        finally:
            server.thaw()
            process.terminate()
            await process.wait()


async def _until_up(port: int) -> None:
    async with time_limit():
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.02)
