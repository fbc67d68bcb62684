"""Ctrl-C in a demo: the server inside of it must not keep it to itself, and wait for the calls."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.fakes.waiting import time_limit

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("demo", ["tests.demo", "tests.demo.pipeline", "tests.demo.outbound"])
async def test_ctrl_c_ends_a_demo_in_the_middle_of_a_call(demo: str, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", demo),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        # What runs in the background of a shell ignores the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    async with time_limit():
        while "is connected" not in (line := (await process.stdout.readline()).decode()):
            assert line, "the demo is over"
            if "verdict" in line:  # a call that was placed
                break
        process.send_signal(signal.SIGINT)
        rest = (await process.stdout.read()).decode()
        assert await process.wait() == 128 + signal.SIGINT
    assert "Traceback" not in rest
