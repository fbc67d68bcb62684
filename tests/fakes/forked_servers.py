"""Servers in processes of their own, each forked from one that has imported everything: in a tenth
of the time that `trunkline serve` takes, and to be killed.

    async with forked_servers() as servers:
        pid, port = await servers.start(config_path)
        servers.kill(pid)

They miss one that died, and look for its placed calls, within half a second. What the caller has
heard they know by the carrier's marks alone, however late a busy machine brings them.

As a program it is the process that forks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

__all__ = ["ForkedServers", "forked_servers"]


@dataclass(frozen=True, slots=True)
class ForkedServers:
    """A process that forks servers."""

    process: asyncio.subprocess.Process
    one: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def start(self, config: Path) -> tuple[int, int]:
        """Start a server with this `config.yaml`; its process and its port, once it answers."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        async with self.one:
            self.process.stdin.write(f"{config}\n".encode())
            line = await self.process.stdout.readline()
        pid, port = line.decode().split()
        return int(pid), int(port)

    def kill(self, pid: int) -> None:
        """End a server without a word."""
        os.kill(pid, signal.SIGKILL)


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
            start_new_session=True,
        )
    servers = ForkedServers(process)
    try:
        yield servers
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its servers hold its pipes open
        await process.wait()


def _change(function: Callable[..., None], **defaults: object) -> None:
    """Give a function other defaults."""
    changed: Any = function
    changed.__kwdefaults__.update(defaults)


def _main() -> None:
    from app.calls.media import playout
    from app.calls.outbound.campaigns import Campaigns
    from app.calls.outbound.dialer import DialerOptions
    from app.main import serve
    from app.settings import load

    soon = timedelta(seconds=0.4)
    _change(DialerOptions.__init__, lease=soon, look_up_s=(0.05, 0.1))
    _change(Campaigns.__init__, lease=soon, tick_s=0.05)
    vars(playout)["MARK_GRACE_MS"] = 20_000
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
