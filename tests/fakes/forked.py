"""Programs of this checkout in processes of their own, forked from one that has imported the code.

    process = await start_forked("app.cli", "serve", cwd=folder, env={}, stdout=PIPE)

runs `main()` of a module, in a tenth of the time that a fresh interpreter takes to import a server:
the suite starts a hundred of them. All processes of a test run share the one that forks. It starts
when it is first needed, and ends with the process that started it.

A forked program is like an executed one but for its `/proc/PID/cmdline`, and for the end of its
interpreter, which takes no modules apart. It leads a session, and is killed when the process that
asked for it is gone: a run of tests that is killed leaves no server.
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
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import httpcore2

import app
from tests.fakes.covered import VARIABLE, measure
from tests.fakes.shared_parts import share_parts

__all__ = ["KEPT", "ForkedProcess", "start_forked"]

ROOT: Final = Path(__file__).parents[2]
IMPORTED: Final = (
    "mcp.server.mcpserver",
    "tests.chaos.killed_server",
    "tests.fakes.mcp_server",
    "tests.integration.web_server",
)
"""Modules that programs need and that take long to import, besides all of `app`."""
LEFT_OUT: Final = {"app.tracing"}
"""Modules that a program imports itself, since a package of theirs may be missing."""
COUNTED: Final = signal.SIGUSR1
"""Ends a process that coverage counts, as SIGKILL does, but not before its counts are written."""
TO_COUNT_S: Final = 10.0
KEPT: Final[set[int]] = set()
"""Descriptors that stay open until this process ends; none of them is a test's."""
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

    async def end(self) -> None:
        """End it at once and wait for it; what coverage counts there is written down first."""
        if VARIABLE in os.environ:
            self.send_signal(COUNTED)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TO_COUNT_S):
                    await self.wait()
        self.kill()
        await self.wait()

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
            env={
                "PATH": os.environ.get("PATH", ""),
                "HOME": os.environ.get("HOME", "/"),
                **_measured(),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert started.stdin is not None
        assert started.stdout is not None
        KEPT.add(started.stdin.fileno())
        with started.stdout:
            assert started.stdout.readline() == b"ready\n"
        atexit.register(_end, started, path)
    return path


def _measured() -> dict[str, str]:
    """The variable that has coverage count a process, where this one is counted."""
    return {VARIABLE: os.environ[VARIABLE]} if VARIABLE in os.environ else {}


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
    modules = {found.name for found in pkgutil.walk_packages(app.__path__, "app.")} - LEFT_OUT
    for module in (*sorted(modules), *IMPORTED):
        importlib.import_module(module)
    share_parts()
    measure()
    _build_a_server()
    gc.collect()
    gc.freeze()
    ended, told = socket.socketpair()
    for end in (ended, told):
        end.setblocking(False)
    signal.set_wakeup_fd(told.fileno())
    signal.signal(signal.SIGCHLD, lambda number, frame: None)  # the descriptor is told
    asking: dict[int, socket.socket] = {}
    """The connections of those who asked for a process, by its id."""
    os.write(1, b"ready\n")
    while True:
        waited_for: list[Any] = [0, listener, ended, *asking.values()]
        readable, _, _ = select.select(waited_for, [], [])
        if 0 in readable:
            os._exit(0)
        for pid in [pid for pid, connection in asking.items() if connection in readable]:
            asking.pop(pid).close()  # nobody asks for it any more
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if ended in readable:
            ended.recv(4_096)
            _report_ends(asking)
        if listener in readable:
            connection, _ = listener.accept()
            descriptors, request = _receive(connection)
            pid = os.fork() if request else 0
            if not request:  # it was only asked whether somebody is there
                connection.close()
            elif pid:
                connection.sendall(f"{pid}\n".encode())
                asking[pid] = connection
            else:
                for left in (listener, ended, told, connection, *asking.values()):
                    left.close()
                return _become(request, descriptors)
            for descriptor in descriptors:
                os.close(descriptor)


def _build_a_server() -> None:
    """Leave the parts that servers share, for all that are forked."""
    from app.engine.assembly import missing_parts
    from app.main import build
    from app.settings import load

    httpcore2.default_ssl_context()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.yaml")
        voice = "openai" if missing_parts() else "offline"
        path.write_text(f"{{voice_model: {voice}, server: {{port: 0}}, store: 'off'}}")
        build(load(path, {"OPENAI_API_KEY": "sk-of-tests"})).server._listener.close()


def _report_ends(asking: dict[int, socket.socket]) -> None:
    """Give the exit codes of processes that have ended."""
    with contextlib.suppress(ChildProcessError):  # there is none left
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            connection = asking.pop(found[0], None)
            if connection is not None:
                with connection, contextlib.suppress(OSError):
                    connection.sendall(f"{os.waitstatus_to_exitcode(found[1])}\n".encode())


def _receive(connection: socket.socket) -> tuple[list[int], bytes]:
    """A request and the standard streams for its process; an empty one from a probe."""
    length, descriptors, _, _ = socket.recv_fds(connection, 16, 3)
    length, _, request = length.partition(b"\n")
    while len(request) < int(length or 0):
        request += connection.recv(65_536)
    return descriptors, request


def _become(request: bytes, descriptors: list[int]) -> str:
    """Take the place that an executed process would have; returns the module to run."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Whoever runs tests in the background may have them ignore SIGINT, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    module, arguments, cwd, environment = json.loads(request)
    os.chdir(cwd)
    if measured := _measured():
        signal.signal(COUNTED, lambda number, frame: os._exit(1))
    os.environ.clear()
    os.environ.update(environment | measured)
    sys.path[:1] = ["", str(ROOT)]
    sys.argv[1:] = arguments
    return str(module)


def _run_and_exit(main: Callable[[], Any]) -> None:
    """Run a program, and leave as the interpreter does, but without taking its modules apart."""
    code: object = 0
    try:
        main()
    except SystemExit as left:
        code = left.code
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = 120  # as Python has it
    os._exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    program = importlib.import_module(_fork_on_request(sys.argv[1]))
    _run_and_exit(program.main)
