"""A process that is stuck in C ends, whoever reads its log; one that was paused goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Final

from tests.fakes.waiting import time_limit

ROOT: Final = Path(__file__).parents[2]
WATCHED: Final = """
import re, signal, time
from app.web.server import watchdog

watchdog.STUCK_S, watchdog.LOOK_S = 1.0, 0.1
watchdog.Watchdog(lambda: 0).start()
while not signal.getitimer(signal.ITIMER_PROF)[0]:
    time.sleep(0.01)
"""
STUCK: Final = f"""{WATCHED}
re.match(r"(a+)+$", "a" * 60 + "b")
"""
PAUSED: Final = f"""{WATCHED}
while True:
    print("alive", flush=True)
    input()
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
    assert code == signal.SIGPROF
    assert b"(most recent call first)" in told
    assert b'File "<string>", line 10 in <module>' in told


async def test_a_log_that_nobody_reads_keeps_no_stuck_process() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, bytes(4_096))
    except BlockingIOError:
        os.set_blocking(writing, True)
    assert (await ended(writing))[0] == signal.SIGPROF
    os.close(reading)
    os.close(writing)


async def test_a_process_that_was_paused_for_longer_goes_on() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PAUSED),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    async with time_limit():
        assert await process.stdout.readline() == b"alive\n"
        for _ in range(3):  # what came first after the pause was left to chance
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(1.1)  # what it takes to be stuck, and more
            process.send_signal(signal.SIGCONT)
            process.stdin.write(b"\n")
            assert await process.stdout.readline() == b"alive\n"
    process.kill()
    assert await process.wait() == -signal.SIGKILL  # and not by itself


async def test_work_on_all_cores_beside_the_interpreter_is_not_stuck() -> None:
    code = f"""{WATCHED}
import hashlib, os, threading
def work():
    while time.process_time() < 2:
        hashlib.sha256(bytes(10_000_000)).digest()  # leaves the interpreter free
threads = [threading.Thread(target=work) for _ in range(os.cpu_count() or 1)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, cwd=ROOT)
    async with time_limit():
        assert await process.wait() == 0
