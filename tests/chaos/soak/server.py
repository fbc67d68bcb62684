"""The server of the soak, as `trunkline serve` builds it, in a process of its own.

It answers each line on its standard input with one line of JSON: what it holds at that moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import os
import sys
import tempfile
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app import logs
from app.calls.admission import seen_calls, switchboard
from app.main import Trunkline, _tune_garbage_collector, build
from app.settings import carrier_credentials, load
from app.store import writer
from tests.bench.servers import cpu_s, rss_kib

__all__ = ["Holdings", "SoakServer", "soak_server"]

CONFIG: Final = """
voice_model: openai
openai_realtime:
  api_key: sk-soak-0123456789
  url: ws://127.0.0.1:{model_port}/v1/realtime
agents:
  reception:
    instructions: "caller {{caller}}."
    greeting: Hello.
server:
  port: 0
limits:
  max_calls: 400
  claim_s: 2
  stream_start_s: 1
state_dir: {folder}
logging:
  level: ERROR
"""
OURS: Final = ("app.", "audio.")
REMEMBERED: Final = 300
"""Ended calls that the server remembers, in place of thousands."""
ALL_OVER_S: Final = 30.0
"""Time for the last calls to end, a silent model's by its limit."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """The holdings of the server's process while no call is on."""

    tasks: int
    descriptors: int
    registry: int
    """Live calls, media sockets without one and open connections."""
    objects: int
    """Of the server's own classes."""
    rss_kib: int


@dataclass(frozen=True, slots=True)
class SoakServer:
    """A server that answers at `url`."""

    pid: int
    url: str
    auth_token: str
    process: asyncio.subprocess.Process
    log: Path

    @property
    def tracebacks(self) -> int:
        """The number in its log, which is written from the level ERROR on."""
        return self.log.read_text(encoding="utf-8", errors="replace").count("Traceback (most")

    @property
    def cpu_s(self) -> float:
        return cpu_s(self.pid)

    async def holdings(self) -> Holdings:
        """Count, once all calls are over; at the latest after `ALL_OVER_S`."""
        for _ in range(round(ALL_OVER_S * 4)):
            seen = await self._ask()
            if not seen["registry"]:
                break
            await asyncio.sleep(0.25)
        await asyncio.sleep(0.5)  # what was closed just now is gone some turns of the loop later
        seen = await self._ask()
        return Holdings(
            seen["tasks"], self._descriptors(), seen["registry"], seen["objects"], rss_kib(self.pid)
        )

    def _descriptors(self) -> int:
        """Those of the history's files do not count: its pool opens connections as need be."""
        folder, count = Path(f"/proc/{self.pid}/fd"), 0
        for number in os.listdir(folder):
            with contextlib.suppress(OSError):  # one of this very moment
                count += str(self.log.parent) not in os.readlink(folder / number)
        return count

    async def _ask(self) -> dict[str, int]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        async with asyncio.timeout(ALL_OVER_S):
            answer: dict[str, int] = json.loads(await self.process.stdout.readline())
        return answer


@contextlib.asynccontextmanager
async def soak_server(model_port: int) -> AsyncIterator[SoakServer]:
    """Serve against the model at this port."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(CONFIG.format(model_port=model_port, folder=folder), encoding="utf-8")
        log = Path(folder) / "log"
        environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.chaos.soak.server",
                str(path),
                env=environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
            )
        assert process.stdout is not None
        try:
            line = await process.stdout.readline()
            if not line:
                raise RuntimeError(f"the server did not start: {log.read_text()}")
            hello = json.loads(line)
            yield SoakServer(
                process.pid, f"http://127.0.0.1:{hello['port']}", hello["auth_token"], process, log
            )
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.communicate()


# In the server's process --------------------------------------------------------------------------


async def _look(built: Trunkline) -> dict[str, int]:
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc keeps what was freed, else
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    ours = sum(str(type(each).__module__).startswith(OURS) for each in gc.get_objects())
    connections = len(built.server.server_state.connections)
    return {
        "tasks": len(asyncio.all_tasks()),
        "registry": built.switchboard.active + connections,
        "objects": ours,
    }


def _say(facts: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def _answer(built: Trunkline) -> None:
    for _ in sys.stdin:
        loop = built.server._loop
        assert loop is not None
        _say(asyncio.run_coroutine_threadsafe(_look(built), loop).result())


def main() -> None:
    """Serve until SIGTERM."""
    # What is remembered of ended calls is full after the warm-up, and grows no more.
    switchboard.REMEMBERED = writer.ENDED_KEPT = seen_calls.KEPT = REMEMBERED  # type: ignore[misc]
    settings = load(Path(sys.argv[1]), os.environ)
    logs.configure(level="ERROR")
    token = carrier_credentials(settings).auth_tokens[0]

    def announce(port: int) -> None:
        _tune_garbage_collector()
        _say({"port": port, "auth_token": token})

    built = build(settings, announce)
    threading.Thread(target=_answer, args=(built,), daemon=True).start()
    built.server.run()


if __name__ == "__main__":
    main()
