"""A server in a process of its own, as `trunkline serve` starts it, and what it uses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2

from tests.fakes.ports import free_port

__all__ = ["RunningServer", "cpu_s", "rss_kib", "running_process", "running_server"]


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that answers. `token_file` holds its development token."""

    pid: int
    url: str
    token_file: Path


@contextlib.asynccontextmanager
async def running_server(config: str, **values: object) -> AsyncIterator[RunningServer]:
    """Serve with this `config.yaml`; `{port}` and other `values` in it are filled in."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        path = Path(folder) / "config.yaml"
        path.write_text(config.format(port=port, **values), encoding="utf-8")
        command = ["-c", "from app.cli import main; main()", "serve", "--config", str(path)]
        async with running_process(command, port) as pid:
            token_file = Path(folder) / "var" / "development_token"
            yield RunningServer(pid, f"http://127.0.0.1:{port}", token_file)


@contextlib.asynccontextmanager
async def running_process(arguments: Sequence[str], port: int) -> AsyncIterator[int]:
    """Run Python with these arguments until something answers on the port; gives the pid."""
    environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        await _until_up(f"http://127.0.0.1:{port}/healthz")
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _until_up(url: str) -> None:
    async with httpx2.AsyncClient(trust_env=False) as client:
        for _ in range(300):
            with contextlib.suppress(httpx2.TransportError):
                await client.get(url)
                return
            await asyncio.sleep(0.1)
    raise TimeoutError(f"nothing answers at {url}")


def cpu_s(pid: int) -> float:
    """Time of a process on the processor, Linux only; its children are not in it."""
    # Its clock, as clock_getcpuclockid(3) names it: threads that have ended count too.
    return time.clock_gettime((~pid << 3) | 2)


def rss_kib(pid: int) -> int:
    """Resident memory of a process, Linux only."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0
