"""The cost of a call: Trunkline beside a bare relay, with 1, 10 and 50 calls at once.

Each server runs in a process of its own and serves nothing else; the phones and the model run in
this one. CPU is the server process's own time over the seconds in which all calls talk.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any, Final

from tests.bench.load import Load, spread
from tests.bench.servers import cpu_s, rss_kib, running_process, running_server
from tests.fakes.ports import free_port

__all__ = ["run"]

CONFIG = """
voice_model: openai
openai_realtime:
  api_key: sk-bench-0123456789
  url: ws://127.0.0.1:{model_port}/v1/realtime
server:
  port: {port}
limits:
  max_calls: 200
logging:
  level: WARNING
"""


ROUNDS: Final = 3
"""One run of a server may take a quarter more CPU than the next: who shares the machine decides."""


def run(counts: tuple[int, ...] = (1, 10, 50), seconds: float = 12.0) -> dict[str, Any]:
    """Measure both servers in turns at each number of calls; ratios are Trunkline over relay.

    Of each server's rounds the one with the median CPU is reported.
    """
    results: dict[str, Any] = {}
    for count in counts:
        rounds = [
            [asyncio.run(_measure(kind, count, seconds)) for kind in ("relay", "trunkline")]
            for _ in range(ROUNDS)
        ]
        relay, ours = (_median(list(runs)) for runs in zip(*rounds, strict=True))
        results[str(count)] = {
            "relay": relay,
            "trunkline": ours,
            "cpu_ratio": round(ours["cpu_ms_per_call_second"] / relay["cpu_ms_per_call_second"], 3),
            "added_uplink_p50_ms": _difference(ours, relay, "uplink_ms"),
            "added_downlink_p50_ms": _difference(ours, relay, "downlink_ms"),
        }
    return results


def _median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return sorted(runs, key=lambda run: float(run["cpu_ms_per_call_second"]))[len(runs) // 2]


def _difference(ours: dict[str, Any], relay: dict[str, Any], key: str) -> float | None:
    if not ours[key] or not relay[key]:
        return None
    added_ms: float = ours[key]["p50"] - relay[key]["p50"]
    return round(added_ms, 3)


async def _measure(kind: str, count: int, seconds: float) -> dict[str, Any]:
    load = Load()
    async with load.model() as model_port, _server(kind, model_port, load) as pid:
        await load.open_calls(1)  # warm: imports, tables, caches
        await load.talk(1.0)
        await load.hang_up(wait_s=0.5)
        idle_kib = rss_kib(pid)
        await load.open_calls(count)
        await load.talk(1.0)
        before_s, began = cpu_s(pid), time.perf_counter()
        result = await load.talk(seconds)
        used_s, lasted_s = cpu_s(pid) - before_s, time.perf_counter() - began
        busy_kib = rss_kib(pid)
        batched = result.batched_appends
        if kind == "trunkline":
            await load.barge_in()
        await load.hang_up()
    return {
        "cpu_ms_per_call_second": round(used_s / (count * lasted_s) * 1000, 3),
        "memory_mb_per_call": round((busy_kib - idle_kib) / count / 1024, 3),
        "webhook_ms": spread(load.webhook_s),
        **result.as_json(),
        # While all keeps up; the pause after a barge-in is filled with one long append.
        "batched_appends": batched,
    }


@contextlib.asynccontextmanager
async def _server(kind: str, model_port: int, load: Load) -> AsyncIterator[int]:
    """Start one of the two servers and tell the load where it is; gives its pid."""
    if kind == "relay":
        port = free_port()
        load.stream_url = f"ws://127.0.0.1:{port}/twilio/media-stream"
        command = ["-m", "tests.bench.relay", str(port), f"ws://127.0.0.1:{model_port}/"]
        async with running_process(command, port) as pid:
            yield pid
        return
    async with running_server(CONFIG, model_port=model_port) as server:
        load.base_url = server.url
        load.stream_url = server.url.replace("http", "ws", 1) + "/twilio/media-stream"
        load.auth_token = server.token_file.read_text(encoding="ascii").strip()
        yield server.pid
