"""Real processes end with the right exit code, whatever tools, pipes and disks do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest

from tests.fakes.forked import ForkedProcess, start_forked
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import TIME_LIMIT_S, time_limit, until
from tests.integration.test_command import ROOT, live

TOOLS = """
import asyncio, pathlib, threading, time
from trunkline import Agent, tool

@tool
async def swallows() -> str:
    "Goes on when it is cancelled."
    pathlib.Path("begun").touch()
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

@tool
def leaves_a_thread() -> str:
    "Leaves a thread behind that keeps the process."
    pathlib.Path("begun").touch()
    threading.Thread(target=time.sleep, args=(3600,), daemon=False).start()
    return "ok"

@tool
async def blocks_a_pool() -> str:
    "Never ends, in the pool of the standard library."
    pathlib.Path("begun").touch()
    await asyncio.to_thread(time.sleep, 3600)
    return ""

@tool
async def blocks_the_loop() -> str:
    "Lets nothing else run."
    pathlib.Path("begun").touch()
    while True:
        time.sleep(0.1)

@tool
async def cancels_all() -> str:
    "As programs do that end."
    for task in asyncio.all_tasks():
        task.cancel()
    return ""

desk = Agent(
    name="Desk", instructions="Be brief.", greeting="Hello.",
    tools=[swallows, leaves_a_thread, blocks_a_pool, blocks_the_loop, cancels_all],
)
"""


@pytest.mark.parametrize(
    ("tool", "code"),
    [
        ("swallows", 0),
        ("leaves_a_thread", 0),
        ("blocks_a_pool", 0),
        ("blocks_the_loop", 1),
    ],
)
async def test_what_a_tool_leaves_behind_does_not_keep_the_process(
    tool: str, code: int, tmp_path: Path
) -> None:
    (tmp_path / "stubborn.py").write_text(TOOLS)
    replies = [Reply(text="Hello."), Reply(text="One moment.", tool=(tool, "{}"))]
    voice = ScriptedVoiceServer(replies=replies, heard=["Go."])
    async with voice, live(tmp_path, voice, "stubborn:desk") as (server, phone, _api):
        call = await phone.call(server.url)
        await call.hear(ms=200)
        await call.speak(0.5)
        await until((tmp_path / "begun").exists)
        await call.hang_up()
        server.process.send_signal(signal.SIGTERM)
        if code:  # the drain's limit is minutes away
            await asyncio.sleep(0.2)  # or the two would be one
            server.process.send_signal(signal.SIGTERM)
        assert await server.ended() == code


async def test_a_tool_that_cancels_all_tasks_ends_the_process_with_a_line_that_says_so(
    tmp_path: Path,
) -> None:
    (tmp_path / "stubborn.py").write_text(TOOLS)
    replies = [Reply(text="Hello."), Reply(text="One moment.", tool=("cancels_all", "{}"))]
    voice = ScriptedVoiceServer(replies=replies, heard=["Go."])
    async with voice, live(tmp_path, voice, "stubborn:desk") as (server, phone, _api):
        call = await phone.call(server.url)
        await call.hear(ms=200)
        await call.speak(0.5)
        assert await server.ended() == 1
        await server.until_logged("something cancelled all tasks of the process")
        assert all(line["level"] for line in server.lines())  # without a bare traceback


BROKEN = """
from app.calls.admission.switchboard import Switchboard
from trunkline import Agent

class Broken(BaseException):
    pass

async def hold(self, call):
    raise Broken("the group of all calls ends")

Switchboard._hold = hold
desk = Agent(name="Desk", instructions="Be brief.")
"""


async def test_a_server_whose_calls_end_by_themselves_says_so_and_ends_with_code_1(
    tmp_path: Path,
) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    voice = ScriptedVoiceServer()
    async with voice, live(tmp_path, voice, "broken:desk") as (server, phone, _api):
        await phone.ring(server.url)
        assert await server.ended() == 1
        await server.until_logged("server failed")
    [line] = [line for line in server.lines() if line["message"] == "server failed"]
    assert line["level"] == "critical"
    assert "Broken: the group of all calls ends" in line["exception"]


def full_pipe() -> tuple[int, int]:
    """A pipe that takes nothing more: its ends for reading and for writing."""
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writes, b"x" * 4096)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writes, b"x")
    os.set_blocking(writes, True)
    return reads, writes


@contextlib.contextmanager
def nowhere(kind: str) -> Iterator[int]:
    """A descriptor that takes nothing."""
    reads = None
    if kind == "full disk":
        writes = os.open("/dev/full", os.O_WRONLY)
    else:
        reads, writes = full_pipe()
        if kind == "reader gone":
            os.close(reads)
            reads = None
    try:
        yield writes
    finally:
        os.close(writes)
        if reads is not None:
            os.close(reads)


@contextlib.asynccontextmanager
async def process(
    folder: Path, *arguments: str, out: int, errors: int
) -> AsyncIterator[ForkedProcess]:
    started = await start_forked(
        "app.cli",
        *arguments,
        cwd=folder,
        env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(ROOT)},
        stdout=out,
        stderr=errors,
    )
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.kill()
        await started.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


NOWHERE = ["full disk", "pipe that nobody reads", "reader gone"]


@pytest.mark.parametrize(
    ("out", "errors"), [*zip(NOWHERE, NOWHERE, strict=True), (NOWHERE[1], NOWHERE[0])]
)
async def test_a_server_answers_and_ends_well_where_nothing_takes_what_it_says(
    out: str, errors: str, tmp_path: Path
) -> None:
    model = "{url: 'ws://127.0.0.1:1', api_key: sk-nobody-listens-there}"
    (tmp_path / "config.yaml").write_text(f"openai_realtime: {model}\nlogging: {{level: DEBUG}}\n")
    port = free_port()
    with nowhere(out) as out_end, nowhere(errors) as errors_end:
        arguments = ("serve", "--port", str(port))
        async with process(tmp_path, *arguments, out=out_end, errors=errors_end) as served:
            await until_ready(port)
            served.send_signal(signal.SIGTERM)
            async with time_limit():
                assert await served.wait() == 0


@pytest.mark.parametrize("kind", NOWHERE)
async def test_a_start_that_is_refused_has_its_exit_code_where_nothing_takes_the_reason(
    kind: str, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text("nothing: 1\n")
    with nowhere(kind) as end:
        async with process(tmp_path, "serve", out=end, errors=end) as refused, time_limit():
            assert await refused.wait() == 2


async def until_ready(port: int) -> None:
    async with time_limit(), httpx2.AsyncClient(trust_env=False, timeout=TIME_LIMIT_S) as client:
        while True:
            with contextlib.suppress(httpx2.HTTPError):
                if (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200:
                    return
            await asyncio.sleep(0.02)


HANGS = """
import os, pathlib, time
parent = os.getppid()
pathlib.Path("begun").touch()
while os.getppid() == parent:
    try:
        time.sleep(0.2)
    except BaseException:
        pass
"""


async def test_a_signal_during_a_start_that_hangs_ends_the_process(tmp_path: Path) -> None:
    (tmp_path / "hangs.py").write_text(HANGS)
    server = {"command": sys.executable, "args": ["hangs.py"]}
    config = {
        "openai_realtime": {"url": "ws://127.0.0.1:1", "api_key": "sk-nobody-listens-there"},
        "mcp_servers": {"slow": server},
        "agents": {"desk": {"mcp_servers": ["slow"]}},
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    out = os.open(os.devnull, os.O_WRONLY)
    try:
        async with process(tmp_path, "serve", "--port", "0", out=out, errors=out) as started:
            await until((tmp_path / "begun").exists)
            started.send_signal(signal.SIGTERM)
            async with time_limit():
                assert await started.wait() == 1
    finally:
        os.close(out)
