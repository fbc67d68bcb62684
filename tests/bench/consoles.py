"""The cost of people who watch: 50 calls with 20 consoles open on them, and without.

    python -m tests.bench consoles
    python -m tests.bench.consoles 50 --seconds 8 --rounds 5

A console asks for what its live view asks for, with a key of its own: the feed with events and
levels, and the list of live calls every five seconds. The servers run in turns, each in a process
of its own. The goal is a ratio of 1.15. CPU is for each second of sound that went up: on a machine
that is short of time, calls carry less than the clock says.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import sys
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import urlsplit

from app.credentials.api_keys import ApiKeys, Scope
from tests.bench.call_load import Load
from tests.bench.calls import in_loop, measure, median_run

__all__ = ["run"]

CONSOLES: Final = 20
ASK_EVERY_S: Final = 5.0
GOAL: Final = 1.15


class _Console:
    """One page with the live view: what it has got, in bytes."""

    def __init__(self, load: Load, number: int) -> None:
        split = urlsplit(load.base_url)
        self._host, self._port = split.hostname, split.port
        self._key = ApiKeys(load.state_dir).create(f"console {number}", Scope.VIEWER)[1]
        self.feed_bytes = 0

    async def _ask(self, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        self._send(writer, path)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        return reader, writer, head

    def _send(self, writer: asyncio.StreamWriter, path: str) -> None:
        lines = f"GET /api/v1{path} HTTP/1.1", f"Host: {self._host}:{self._port}"
        writer.write("\r\n".join((*lines, f"Authorization: Bearer {self._key}", "", "")).encode())

    async def follow(self) -> None:
        reader, writer, _ = await self._ask("/live?levels=true")
        try:
            while data := await reader.read(65_536):
                self.feed_bytes += len(data)
        finally:
            writer.close()

    async def list_calls(self) -> None:
        await asyncio.sleep(random.uniform(0, ASK_EVERY_S))
        while True:
            reader, writer, head = await self._ask("/live/calls")
            length = re.search(rb"content-length: (\d+)", head.lower())
            assert length is not None, head
            await reader.readexactly(int(length[1]))
            writer.close()
            await asyncio.sleep(ASK_EVERY_S)


@contextlib.asynccontextmanager
async def watched(load: Load) -> AsyncIterator[None]:
    """Have the consoles open inside the block."""
    consoles = [_Console(load, number) for number in range(CONSOLES)]
    async with asyncio.TaskGroup() as tasks:
        work = [tasks.create_task(do()) for one in consoles for do in (one.follow, one.list_calls)]
        await asyncio.sleep(1.0)
        yield
        for each in work:
            each.cancel()
    assert all(one.feed_bytes > 1_000 for one in consoles), "a console saw nothing"


def run(count: int = 50, seconds: float = 10.0, rounds: int = 5) -> dict[str, Any]:
    """Measure in turns; of each kind's rounds the one with the median CPU is reported."""
    runs: dict[str, list[dict[str, Any]]] = {"without": [], "with": []}
    for _ in range(rounds):
        for kind, beside in (("without", None), ("with", watched)):
            found = in_loop(measure("trunkline", count, seconds, beside=beside))
            sys.stderr.write(f"{kind:10}{found['cpu_ms_per_carried_second']:7.3f} ms/call-s\n")
            runs[kind].append(found)
    medians = {kind: median_run(found) for kind, found in runs.items()}
    used = {kind: found["cpu_ms_per_carried_second"] for kind, found in medians.items()}
    late = {kind: (found["downlink_ms"] or {}).get("p99") for kind, found in medians.items()}
    return {
        "calls": count,
        "consoles": CONSOLES,
        "cpu_ms_per_carried_second": used,
        "cpu_ratio": round(used["with"] / used["without"], 3),
        "goal": GOAL,
        "downlink_p99_ms": late,
    }


def main() -> None:
    """`python -m tests.bench.consoles [COUNT]`"""
    parser = argparse.ArgumentParser()
    parser.add_argument("count", nargs="?", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    found = run(asked.count, asked.seconds, asked.rounds)
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
