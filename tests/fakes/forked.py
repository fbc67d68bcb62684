"""Programs of this checkout in processes of their own, forked from one that has imported the code.

    process = await start_forked("app.cli", "serve", cwd=folder, env={}, stdout=PIPE)

runs `main()` of a module, in a tenth of the time that a fresh interpreter takes to import a server:
the suite starts a hundred of them. All processes of a test run share the one that forks. It starts
when it is first needed, and ends with the process that started it.

A forked program is like an executed one but for its `/proc/PID/cmdline`. It leads a session, and is
killed when the process that asked for it is gone: a run of tests that is killed leaves no server.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import fcntl
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Mapping
from pathlib import Path
from typing import Final

__all__ = ["ForkedProcess", "start_forked"]

ROOT: Final = Path(__file__).parents[2]
IMPORTED: Final = (
    "app.cli.commands",
    "app.main",
    "mcp.server.mcpserver",
    "tests.fakes.mcp_server",
    "tests.integration.web_server",
)
"""Modules that programs need and that take long to import."""
_RUN: Final = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
_FOLDER: Final = Path(tempfile.gettempdir(), f"trunkline-tests-{os.getuid()}")


class ForkedProcess(asyncio.Protocol):
    """A process that was forked for us: as much of `asyncio.subprocess.Process` as tests need."""

    def __init__(self) -> None:
        self.pid = 0
        self.returncode: int | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self.pipes: list[asyncio.ReadTransport] = []
        self._transport: asyncio.BaseTransport | None = None
        self._told = b""
        self._ended = asyncio.Event()
        self.started = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection to the process that forks."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take its process id, and later its exit code."""
        self._told += data
        lines = self._told.split(b"\n")
        if len(lines) > 1:
            self.pid = int(lines[0])
            self.started.set()
        if len(lines) > 2:
            self.returncode = int(lines[1])
            self._ended.set()
            assert self._transport is not None
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Nobody tells any more what has become of it."""
        if self.returncode is None:
            self.returncode = -signal.SIGKILL
        self.started.set()
        self._ended.set()

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # its end is not told yet
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        """Wait for its end; the exit code, or the signal's number below zero."""
        await self._ended.wait()
        for _ in range(100):  # the end of its pipes, unless it has left a process that holds them
            if all(pipe.is_closing() for pipe in self.pipes):
                break
            await asyncio.sleep(0.01)
        for pipe in self.pipes:
            pipe.close()
        assert self.returncode is not None
        return self.returncode

    async def communicate(self) -> tuple[bytes, bytes]:
        """Wait for its end; what it wrote to each pipe."""
        readers = [reader for reader in (self.stdout, self.stderr) if reader is not None]
        texts = await asyncio.gather(*(reader.read() for reader in readers))
        await self.wait()
        said = dict(zip(map(id, readers), texts, strict=True))
        return said.get(id(self.stdout), b""), said.get(id(self.stderr), b"")


async def start_forked(
    module: str,
    *arguments: str,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    stdin: int = DEVNULL,
    stdout: int = DEVNULL,
    stderr: int = 2,
) -> ForkedProcess:
    """Run `main()` of a module with these arguments, and this environment alone.

    The last three are descriptors, `PIPE`, `DEVNULL` or `STDOUT`, as for `create_subprocess_exec`.
    """
    loop = asyncio.get_running_loop()
    path = await asyncio.to_thread(_forking_process)
    request = json.dumps([module, arguments, str(cwd), dict(env or {})]).encode()
    process = ForkedProcess()
    ours: list[int] = []
    given: list[int] = []
    for number, wanted in enumerate((stdin, stdout, stderr)):
        if wanted == PIPE and number:
            reads, writes = os.pipe()
            reader = asyncio.StreamReader()
            pipe, _ = await loop.connect_read_pipe(
                lambda reader=reader: asyncio.StreamReaderProtocol(reader),  # type: ignore[misc]
                os.fdopen(reads, "rb", 0),
            )
            setattr(process, "stdout" if number == 1 else "stderr", reader)
            process.pipes.append(pipe)
            ours.append(writes)
        elif wanted == DEVNULL:
            ours.append(os.open(os.devnull, os.O_RDWR))
        given.append(wanted if wanted >= 0 else given[1] if wanted == STDOUT else ours[-1])
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
        socket.send_fds(connection, [b"%d\n" % len(request)], given)
        connection.sendall(request)
        connection.setblocking(False)
        await loop.create_unix_connection(lambda: process, sock=connection)
    finally:
        for descriptor in ours:
            os.close(descriptor)
    await process.started.wait()
    return process


def _forking_process() -> str:
    """The address of the process that forks, which is started if there is none."""
    _FOLDER.mkdir(mode=0o700, exist_ok=True)
    path = str(_FOLDER / _RUN)
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(path)
                return path
            except OSError:
                pass
        started = subprocess.Popen(
            [sys.executable, "-m", __name__, path],
            cwd=ROOT,
            env={"PATH": os.environ.get("PATH", ""), "HOME": os.environ.get("HOME", "/")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert started.stdout is not None
        with started.stdout:
            assert started.stdout.readline() == b"ready\n"
        atexit.register(_end, started, path)
    return path


def _end(started: subprocess.Popen[bytes], path: str) -> None:
    assert started.stdin is not None
    started.stdin.close()  # which ends it
    started.wait()
    for left in (path, f"{path}.lock"):
        Path(left).unlink(missing_ok=True)


def _fork_on_request(path: str) -> str:
    """Serve until the standard input is closed; in a process that was forked, its module."""
    Path(path).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    for module in IMPORTED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait
    os.write(1, b"ready\n")
    while True:
        readable, _, _ = select.select([listener.fileno(), 0], [], [])
        if 0 in readable:
            os._exit(0)
        connection, _ = listener.accept()
        if not os.fork():
            listener.close()
            return _start_and_wait(connection)
        connection.close()


def _start_and_wait(connection: socket.socket) -> str:
    """Fork once more, and tell of the process and of its end; in that process, its module."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, descriptors, _, _ = socket.recv_fds(connection, 16, 3)
    if not length:  # it was only asked whether somebody is there
        os._exit(0)
    length, _, request = length.partition(b"\n")
    while len(request) < int(length):
        request += connection.recv(65_536)
    pid = os.fork()
    if pid:
        threading.Thread(target=_kill_when_abandoned, args=(connection, pid), daemon=True).start()
        for descriptor in descriptors:
            os.close(descriptor)
        connection.sendall(f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(BrokenPipeError):
            connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)
    connection.close()
    os.setsid()
    # Whoever runs tests in the background may have them ignore SIGINT, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    module, arguments, cwd, environment = json.loads(request)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:1] = ["", str(ROOT)]
    sys.argv[1:] = arguments
    return str(module)


def _kill_when_abandoned(connection: socket.socket, pid: int) -> None:
    with contextlib.suppress(OSError):
        connection.recv(1)  # returns when the other side is gone
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    importlib.import_module(_fork_on_request(sys.argv[1])).main()
