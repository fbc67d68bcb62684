"""Servers in processes of their own, each forked from one that has imported everything: in a tenth
of the time that `trunkline serve` takes, and to be killed.

    async with forked_servers() as servers:
        pid, port = await servers.start(config_path)
        servers.kill(pid)

As a program it is the process that forks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["ForkedServers", "forked_servers"]


@dataclass(frozen=True, slots=True)
class ForkedServers:
    """A process that forks servers."""

    process: asyncio.subprocess.Process
    alive: set[int] = field(default_factory=set)
    one: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def start(self, config: Path) -> tuple[int, int]:
        """Start a server with this `config.yaml`; its process and its port, once it answers."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        async with self.one:
            self.process.stdin.write(f"{config}\n".encode())
            line = await self.process.stdout.readline()
        pid, port = line.decode().split()
        self.alive.add(int(pid))
        return int(pid), int(port)

    def kill(self, pid: int) -> None:
        """End a server without a word."""
        os.kill(pid, signal.SIGKILL)
        self.alive.discard(pid)


@contextlib.asynccontextmanager
async def forked_servers(log: Path) -> AsyncIterator[ForkedServers]:
    """Fork servers for as long as the block lasts; `log` takes what they write."""
    environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            __name__,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env=environment,
        )
    servers = ForkedServers(process)
    try:
        yield servers
    finally:
        process.kill()
        for pid in [*servers.alive]:  # they hold its pipes open
            servers.kill(pid)
        await process.wait()


def _main() -> None:
    from app.main import serve
    from app.settings import load

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that are killed
    for line in sys.stdin:
        if os.fork():
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

        def announce(port: int) -> None:
            sys.stdout.write(f"{os.getpid()} {port}\n")
            sys.stdout.flush()

        os._exit(serve(load(Path(line.strip()), {}), announce))


if __name__ == "__main__":
    _main()
