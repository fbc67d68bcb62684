"""Two workers beside one: how many calls the second one adds.

    python -m tests.bench.workers 50 --seconds 6 --rounds 3

One process holds COUNT calls, two hold twice as many, in turns. `calls_ratio` is how many calls the
two carry with the processor time for which one carries one: 2 would be perfect. The time of the
supervisor counts as well. `evenness` is the share of the less busy worker's time in the other's.
It needs no idle core, since it compares processor time; latencies are those of the whole machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Final

import uvloop

from tests.bench.call_load import Load
from tests.bench.servers import cpu_s, running_server

__all__ = ["run"]

CONFIG: Final = """
voice_model: openai
openai_realtime:
  api_key: sk-bench-0123456789
  url: ws://127.0.0.1:{model_port}/v1/realtime
server:
  port: {port}
  workers: {workers}
limits:
  max_calls: 1000
  per_caller:
    calls_per_minute: 0
logging:
  level: WARNING
store: off
"""


def run(count: int = 50, seconds: float = 6.0, rounds: int = 3) -> dict[str, Any]:
    """Measure one and two workers in turns, with `count` calls for each worker."""
    found: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    for _ in range(rounds):
        for workers, runs in found.items():
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runs.append(runner.run(_measure(workers, workers * count, seconds)))
    cost = {
        workers: statistics.median(run["cpu_ms_per_call_second"] for run in runs)
        for workers, runs in found.items()
    }
    return {
        "calls_per_worker": count,
        "one": found[1],
        "two": found[2],
        "calls_ratio": round(2 * cost[1] / cost[2], 3),
    }


async def _measure(workers: int, count: int, seconds: float) -> dict[str, Any]:
    load = Load()
    async with (
        load.model() as model_port,
        running_server(CONFIG, model_port=model_port, workers=workers) as server,
    ):
        load.base_url = server.url
        load.stream_url = server.url.replace("http", "ws", 1) + "/twilio/media-stream"
        load.auth_token = server.token_file.read_text(encoding="ascii").strip()
        await _until_all_are_up(server.pid, workers)
        await load.open_calls(count)
        await load.talk(1.0)
        pids = [server.pid, *_children(server.pid)]
        before_s, began = [cpu_s(pid) for pid in pids], time.perf_counter()
        result = await load.talk(seconds)
        lasted_s = time.perf_counter() - began
        used_s = [cpu_s(pid) - before for pid, before in zip(pids, before_s, strict=True)]
        await load.hang_up(wait_s=1.0)
    busy_s = used_s[1:] if workers > 1 else used_s
    latencies = result.as_json()
    return {
        "cpu_ms_per_call_second": round(sum(used_s) / (count * lasted_s) * 1000, 3),
        "evenness": round(min(busy_s) / max(busy_s), 3),
        "uplink_ms": latencies["uplink_ms"],
        "errors": latencies["errors"],
    }


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def _until_all_are_up(pid: int, workers: int) -> None:
    """The first worker answers before the second one is there, and has done with its imports."""
    if workers == 1:
        return
    before_s = 0.0
    while True:
        children = _children(pid)
        now_s = sum(cpu_s(child) for child in children)
        if len(children) == workers and now_s - before_s < 0.02:
            return
        before_s = now_s
        await asyncio.sleep(1.0)


def main() -> None:
    """`python -m tests.bench.workers [COUNT]`"""
    parser = argparse.ArgumentParser()
    parser.add_argument("count", nargs="?", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    sys.stdout.write(json.dumps(run(asked.count, asked.seconds, asked.rounds), indent=2) + "\n")


if __name__ == "__main__":
    main()
