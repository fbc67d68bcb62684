"""The cost of a call: Trunkline beside two relays, with 1 to 400 calls at once.

    python -m tests.bench calls                 # all numbers of calls, and the limit
    python -m tests.bench.calls 50 200 --seconds 8 --rounds 3
    python -m tests.bench.calls --limit         # only the search for it

The limit is the number of calls before p99 passes 50 ms. `relay` is FastAPI with nothing else
(`tests.bench.relay`), `raw` the least that can carry a call (`tests.bench.lower_bound`). Each
server runs in a process of its own, in turns with the others; the phones and the model run in this
one. CPU is the server process's own time over the seconds in which all calls talk. Latencies hold
what the load itself adds: those of `raw` show how much that is.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

import uvloop

from tests.bench.call_load import Load, spread
from tests.bench.servers import cpu_s, rss_kib, running_process, running_server
from tests.fakes.ports import free_port

__all__ = ["CONFIG", "in_loop", "measure", "median_run", "run"]

CONFIG = """
voice_model: openai
openai_realtime:
  api_key: sk-bench-0123456789
  url: ws://127.0.0.1:{model_port}/v1/realtime
server:
  port: {port}
limits:
  max_calls: 1000
logging:
  level: WARNING
"""

KINDS: Final = ("raw", "relay", "trunkline")
COUNTS: Final = (1, 10, 50, 200, 400)
ROUNDS: Final = 2
"""One run of a server may take a quarter more CPU than the next: who shares the machine decides."""
TOO_LATE_MS: Final = 50.0
FRAME_S: Final = 0.02
LIMIT_STEP: Final = 50
LIMIT_STEP_S: Final = 2.0


def run(
    counts: Sequence[int] = COUNTS,
    seconds: float = 4.0,
    rounds: int = ROUNDS,
    *,
    limit: bool = True,
) -> dict[str, Any]:
    """Measure the servers in turns at each number of calls; ratios are Trunkline over the others.

    Of each server's rounds the one with the median CPU is reported.
    """
    results: dict[str, Any] = {}
    for count in counts:
        runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
        for _ in range(rounds if count > 1 else 1):
            for kind in KINDS:
                runs[kind].append(in_loop(measure(kind, count, seconds)))
        best = {kind: median_run(found) for kind, found in runs.items()}
        ours = best["trunkline"]
        results[str(count)] = {
            **best,
            "cpu_ratio": _ratio(ours, best["relay"]),
            "cpu_ratio_raw": _ratio(ours, best["raw"]),
        }
        _show(count, results[str(count)])
    if limit:
        results["calls_before_p99_passes_50_ms"] = {
            kind: in_loop(_find_limit(kind, start=LIMIT_STEP)) for kind in KINDS
        }
    return results


def in_loop(measuring: Any) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measuring)


def median_run(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return sorted(runs, key=lambda run: float(run["cpu_ms_per_call_second"]))[(len(runs) - 1) // 2]


def _ratio(ours: dict[str, Any], other: dict[str, Any]) -> float:
    ratio: float = ours["cpu_ms_per_call_second"] / other["cpu_ms_per_call_second"]
    return round(ratio, 3)


def _show(count: int, found: dict[str, Any]) -> None:
    """A line for each server while the rest is measured; the results go to standard output."""
    for kind in KINDS:
        row = found[kind]
        p99 = [(row[key] or {}).get("p99", 0.0) for key in ("uplink_ms", "downlink_ms")]
        sys.stderr.write(
            f"{count:4} calls  {kind:10}{row['cpu_ms_per_call_second']:7.2f} ms/call-s"
            f"{row['core_percent']:7.1f} % of a core  p99 up {p99[0]:.1f} down {p99[1]:.1f} ms"
            f"  {row['memory_mb_per_call']:.3f} MB/call\n"
        )
    sys.stderr.write(f"            ratios {found['cpu_ratio']} {found['cpu_ratio_raw']}\n")


async def measure(
    kind: str,
    count: int,
    seconds: float,
    *,
    config: str = CONFIG,
    beside: Callable[[Load], contextlib.AbstractAsyncContextManager[None]] | None = None,
) -> dict[str, Any]:
    """Measure one server with so many calls.

    `config` is that of Trunkline.
    `beside` does something more with the server while the calls talk.
    """
    load = Load()
    async with load.model() as model_port, _server(kind, model_port, load, config) as pid:
        await load.open_calls(1)  # warm: imports, tables, caches
        await load.talk(1.0)
        await load.hang_up(wait_s=0.5)
        idle_kib = rss_kib(pid)
        await load.open_calls(count)
        await load.talk(1.0)
        async with beside(load) if beside is not None else contextlib.nullcontext():
            before_s, began = cpu_s(pid), time.perf_counter()
            result = await load.talk(seconds)
            used_s, lasted_s = cpu_s(pid) - before_s, time.perf_counter() - began
            busy_kib = rss_kib(pid)
        if kind == "trunkline" and count <= 50:
            await load.barge_in()
        await load.hang_up(wait_s=1.0)
    return {
        "cpu_ms_per_call_second": round(used_s / (count * lasted_s) * 1000, 3),
        "cpu_ms_per_carried_second": round(used_s / (result.frames_sent * FRAME_S) * 1000, 3),
        "core_percent": round(used_s / lasted_s * 100, 1),
        "memory_mb_per_call": round((busy_kib - idle_kib) / count / 1024, 3),
        "webhook_ms": spread(load.webhook_s),
        **result.as_json(),
    }


async def _find_limit(kind: str, *, start: int) -> int:
    """The largest number of calls, in steps, whose p99 is under 50 ms each way."""
    load = Load()
    count = 0
    async with load.model() as model_port, _server(kind, model_port, load) as pid:
        while True:
            await load.open_calls(LIMIT_STEP if count else start)
            await load.talk(0.5)
            before_s, began = cpu_s(pid), time.perf_counter()
            found = (await load.talk(LIMIT_STEP_S)).as_json()
            share = (cpu_s(pid) - before_s) / (time.perf_counter() - began)
            late_ms = max(found[key]["p99"] for key in ("uplink_ms", "downlink_ms"))
            asked = count + (LIMIT_STEP if count else start)
            sys.stderr.write(f"{kind:10}{asked:5} calls {share:6.1%} p99 {late_ms:.1f} ms\n")
            if late_ms > TOO_LATE_MS or asked >= 1000:
                return count
            count = asked


@contextlib.asynccontextmanager
async def _server(
    kind: str, model_port: int, load: Load, config: str = CONFIG
) -> AsyncIterator[int]:
    """Start one of the servers and tell the load where it is; gives its pid."""
    if kind != "trunkline":
        port = free_port()
        load.stream_url = f"ws://127.0.0.1:{port}/twilio/media-stream"
        module = "tests.bench.relay" if kind == "relay" else "tests.bench.lower_bound"
        command = ["-m", module, str(port), f"ws://127.0.0.1:{model_port}/"]
        async with running_process(command, port) as pid:
            yield pid
        return
    async with running_server(config, model_port=model_port) as server:
        load.base_url = server.url
        load.stream_url = server.url.replace("http", "ws", 1) + "/twilio/media-stream"
        load.state_dir = server.token_file.parent
        load.auth_token = server.token_file.read_text(encoding="ascii").strip()
        yield server.pid


def main() -> None:
    """`python -m tests.bench.calls [COUNT ...]`"""
    parser = argparse.ArgumentParser()
    parser.add_argument("counts", nargs="*", type=int)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--limit", action="store_true", help="search the limit as well, or alone")
    asked = parser.parse_args()
    counts = asked.counts or ([] if asked.limit else COUNTS)
    found = run(counts, asked.seconds, asked.rounds, limit=asked.limit)
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
