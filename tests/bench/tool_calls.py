"""Calls whose model keeps a slow tool busy, and calls without: tools must not move the sound.

One server, the same calls: they talk for a while without tools, then with them, and again. While
the tools run, each call's model has an HTTP tool called every 2.2 s whose answer takes 2 s, so that
nearly always one is on its way. The figures of both rounds are put together; what counts is their
difference.

    python -m tests.bench tools             # 50 calls
    python -m tests.bench.tool_calls 5 4    # so many calls, for so many seconds each time
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any, Final

from tests.bench.call_load import Load, LoadResult
from tests.bench.servers import cpu_s, running_server
from tests.fakes.web_service import Asked, WebService, answer

__all__ = ["run"]

TOOL_S: Final = 2.0
ROUNDS: Final = 2

CONFIG: Final = """
voice_model: openai
openai_realtime:
  api_key: sk-bench-0123456789
  url: ws://127.0.0.1:{model_port}/v1/realtime
server:
  port: {port}
limits:
  max_calls: 200
agents:
  bench:
    tools: [look_up]
tools:
  look_up:
    description: Takes its time
    timeout_ms: 8000
    http:
      method: GET
      url: http://127.0.0.1:{tool_port}/
      allow_private: true
logging:
  level: WARNING
"""


def run(count: int = 50, seconds: float = 8.0) -> dict[str, Any]:
    """Measure `count` calls; `added_*` is with tools less without."""
    return {str(count): asyncio.run(_measure(count, seconds))}


async def _measure(count: int, seconds: float) -> dict[str, Any]:
    load = Load()
    phases = {"without_tools": _Phase(), "with_tools": _Phase()}
    service = WebService(_slowly)
    async with (
        load.model() as model_port,
        service,
        running_server(CONFIG, model_port=model_port, tool_port=service.port) as server,
    ):
        load.base_url = server.url
        load.stream_url = server.url.replace("http", "ws", 1) + "/twilio/media-stream"
        load.auth_token = server.token_file.read_text(encoding="ascii").strip()
        await load.open_calls(count)
        await load.talk(1.0)  # warm: imports, tables, caches
        for _ in range(ROUNDS):
            for name, phase in phases.items():
                load.tool = "look_up" if name == "with_tools" else ""
                if load.tool:
                    await load.talk(0.5)  # until the first tools are on their way
                await phase.measure(load, server.pid, seconds)
        load.tool = ""
        asked = len(service.asked)
        await load.talk(TOOL_S + 0.5)  # the last tools answer
        await load.hang_up()
    without, with_tools = (phase.as_json(count) for phase in phases.values())
    return {
        "without_tools": without,
        "with_tools": {**with_tools, "tools_called": asked, "tools_answered": load.tool_outputs},
        "added_uplink_ms": _added(without, with_tools, "uplink_ms"),
        "added_downlink_ms": _added(without, with_tools, "downlink_ms"),
    }


class _Phase:
    """Measurements with tools or without, over all rounds."""

    def __init__(self) -> None:
        self.result = LoadResult()
        self._cpu_s = 0.0
        self._lasted_s = 0.0

    async def measure(self, load: Load, pid: int, seconds: float) -> None:
        before_s, began = cpu_s(pid), time.perf_counter()
        found = await load.talk(seconds)
        self._cpu_s += cpu_s(pid) - before_s
        self._lasted_s += time.perf_counter() - began
        self.result.add(found)

    def as_json(self, count: int) -> dict[str, Any]:
        per_call = round(self._cpu_s / (count * self._lasted_s) * 1000, 3)
        told = self.result.as_json()
        kept = ("uplink_ms", "downlink_ms", "frames_sent", "batched_appends", "errors")
        return {"cpu_ms_per_call_second": per_call, **{key: told[key] for key in kept}}


def _added(without: dict[str, Any], with_tools: dict[str, Any], key: str) -> dict[str, float]:
    return {
        share: round(with_tools[key][share] - without[key][share], 3) for share in ("p50", "p99")
    }


async def _slowly(asked: Asked, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(TOOL_S)
    await answer(b'{"found": true}')(asked, writer)


if __name__ == "__main__":
    counts, lengths = (sys.argv[1:2] or ["50"]), (sys.argv[2:3] or ["8"])
    sys.stdout.write(json.dumps(run(int(counts[0]), float(lengths[0])), indent=2) + "\n")
