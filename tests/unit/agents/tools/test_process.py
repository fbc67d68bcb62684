"""Tools in processes of their own. Each test spawns one: they take about a second."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.agents.tools.invocation import ToolInvoker
from app.agents.tools.tool import Tool, ToolContext, ToolResult, run_in_process, tool
from app.errors import ConfigError, ToolFailed
from app.events import CallId
from tests.fakes.waiting import time_limit, until


@dataclass
class Point:
    x: int
    y: int


class Unreadable(Exception):
    """An error that ends its process when it is written down, pickled or not."""

    def __str__(self) -> str:
        sys.exit(4)

    def __reduce__(self) -> Any:
        sys.exit(4)


@tool(run_in="process", timeout_ms=60_000)
def act(context: ToolContext, what: str, at: Point | None = None) -> Any:
    """Do something odd."""
    match what:
        case "say":
            return {"pid": os.getpid(), "call": context.call_id, "x": at.x if at else None}
        case "refuse":
            raise ToolFailed("Not on Sundays.", code="closed")
        case "raise":
            raise ValueError("a secret of the function")
        case "exit":
            sys.exit(3)
        case "die":
            os._exit(1)
        case "return a million":
            return [{"row": number} for number in range(200_000)]
        case "raise a million":
            raise ValueError("x" * 2_000_000)
        case "raise what cannot be read":
            raise Unreadable
        case "return a function":
            return lambda: None
    return what


@tool(run_in="process", timeout_ms=60_000)
def compute(path: str) -> str:
    """Compute for ever."""
    Path(path).write_text(str(os.getpid()))
    while True:
        pass


@tool(run_in="process", timeout_ms=60_000)
async def later() -> str:
    """Wait a little."""
    await asyncio.sleep(0.01)
    return "waited"


async def invoke(one: Tool, **arguments: Any) -> ToolResult:
    context = ToolContext(call_id=CallId("call_1"), tool_call_id=os.urandom(4).hex())
    return await ToolInvoker([one]).invoke(one.name, json.dumps(arguments), context)


async def test_a_function_gets_its_arguments_and_gives_its_result_from_a_process_that_stays() -> (
    None
):
    first = json.loads((await invoke(act, what="say", at={"x": 3, "y": 4})).output)["result"]
    assert first["pid"] != os.getpid()
    assert (first["call"], first["x"]) == ("call_1", 3)
    # Whatever it raises, the process goes on; what is in the error stays here.
    for what, code in {
        "refuse": "closed",
        "raise": "tool_failed",
        "exit": "tool_failed",
        "return a function": "tool_failed",
        "return a million": "tool_output_too_large",
        "raise a million": "tool_failed",
        "raise what cannot be read": "tool_failed",
    }.items():
        result = await invoke(act, what=what)
        assert result.error == code
        assert "secret" not in result.output
    again = json.loads((await invoke(act, what="say")).output)["result"]
    assert again["pid"] == first["pid"]
    # A process that dies costs one answer.
    assert (await invoke(act, what="die")).error == "process_died"
    fresh = json.loads((await invoke(act, what="say")).output)["result"]
    assert fresh["pid"] != first["pid"]


async def test_a_function_that_computes_holds_nothing_up_and_is_killed_when_it_is_given_up(
    tmp_path: Path,
) -> None:
    path = tmp_path / "pid"
    waiting = asyncio.ensure_future(invoke(compute, path=str(path)))
    await until(lambda: path.exists() and path.read_text())
    for _ in range(20):  # the loop goes on beside it
        await asyncio.sleep(0.01)
    assert not waiting.done()
    pid = int(path.read_text())
    assert _runs(pid)
    waiting.cancel()  # as the tool's time-out does
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await until(lambda: not _runs(pid))


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def test_an_async_function_runs_in_a_loop_of_its_process() -> None:
    assert json.loads((await invoke(later)).output) == {"result": "waited"}


async def test_the_processes_end_with_the_program(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PROGRAM)
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        "mine.py",
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        stdout=asyncio.subprocess.PIPE,
    )
    async with time_limit():
        out, _ = await program.communicate()
    assert program.returncode == 0
    pid = int(json.loads(out)["result"])
    await until(lambda: not _runs(pid))


PROGRAM = """
import asyncio, os
from trunkline import tool, ToolContext
from app.agents.tools.invocation import ToolInvoker

@tool(run_in="process", timeout_ms=60_000)
def who() -> int:
    "Say who."
    return os.getpid()

if __name__ == "__main__":
    context = ToolContext(call_id="c", tool_call_id="t")
    print(asyncio.run(ToolInvoker([who]).invoke("who", "{}", context)).output)
"""


def test_a_function_that_no_process_finds_is_refused() -> None:
    def inner() -> str:
        """Do it."""
        return ""

    with pytest.raises(ConfigError, match="tool inner: run_in process: a process needs a function"):
        tool(run_in="process")(inner)
    with pytest.raises(ConfigError, match="is for Python functions"):
        run_in_process(Tool(name="t", description="d", parameters={"type": "object"}, run=_run))


async def _run(context: ToolContext, arguments: Any) -> str:
    return ""
