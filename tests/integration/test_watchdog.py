"""A process that is stuck in C ends all the same, whoever reads its log."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.fakes.waiting import time_limit

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no such timer")

ROOT: Final = Path(__file__).parents[2]
STUCK: Final = """
import os, re, time
from app.web import watchdog

watchdog.STUCK_S, watchdog.LOOK_S = 1.0, 0.2
watchdog.Watchdog(lambda: 0).start()
while len(os.listdir("/proc/self/task")) < 3:  # its thread, and the timer's
    time.sleep(0.01)
re.match(r"(a+)+$", "a" * 60 + "b")
"""


async def ended(stderr: int) -> tuple[int | None, bytes]:
    """The exit code of a process that is stuck, and what it has said about it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STUCK, cwd=ROOT, stderr=stderr
    )
    async with time_limit():
        _, told = await process.communicate()
    return process.returncode, told


async def test_a_process_that_is_stuck_in_c_ends_and_says_where() -> None:
    code, told = await ended(asyncio.subprocess.PIPE)
    assert code == 1
    assert b"Timeout" in told
    assert b'File "<string>", line 9' in told


async def test_a_log_that_nobody_reads_keeps_no_stuck_process() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, bytes(4_096))
    except BlockingIOError:
        os.set_blocking(writing, True)
    assert (await ended(writing))[0] == 1
    os.close(reading)
    os.close(writing)
