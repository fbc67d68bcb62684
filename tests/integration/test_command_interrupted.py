"""Ctrl-C while the command still imports its code: it ends, and prints nothing."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from tests.fakes.waiting import time_limit

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "module",
    ["numpy", "pydantic", "app.events", "trunkline", "app.cli.commands", "uvicorn", "app.main"],
)
async def test_an_interrupted_start_shows_no_traceback(module: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{}")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "importtime", "-m", "trunkline_command", "serve", "--port", "0"),
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # Whoever runs tests in the background may have them ignore it, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    said = []
    try:
        async with time_limit():
            async for line in process.stderr:
                _, _, name = line.decode().rpartition("|")
                if name.strip() == module:
                    process.send_signal(signal.SIGINT)
                if not line.startswith(b"import time:"):
                    said.append(line.decode())
            code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code == 0:  # a busy machine: the signal has found a server that is up, which has drained
        said = [line for line in said if '"message"' not in line]
    # By the signal itself where it came inside of an `eval`, as typer's are: Python then passes it
    # on at its end, whatever code it was given. A shell makes 130 of it.
    assert (code in (130, -signal.SIGINT, 0), code, said) == (True, code, [])
