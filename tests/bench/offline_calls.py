"""The offline engine on the phone: several demo calls at once against the server of `make run`.

Each call is `trunkline dial` with its packaged script, in real time; calls begin a little apart, as
real ones do. A turn's latency runs from the caller's last sound to the agent's first, at the
caller's ear.
"""

from __future__ import annotations

import asyncio
import statistics
from pathlib import Path
from typing import Any

from app.dial.command import DialOptions, dial
from app.dial.report import DialReport
from tests.bench.servers import cpu_s, running_server

__all__ = ["run"]

CONFIG = """
voice_model: offline
server:
  port: {port}
limits:
  max_calls: 50
logging:
  level: WARNING
"""


def run(counts: tuple[int, ...] = (1, 8)) -> dict[str, Any]:
    """Measure so many calls at once."""
    return {str(count): asyncio.run(_measure(count)) for count in counts}


async def _measure(count: int) -> dict[str, Any]:
    async with running_server(CONFIG) as server:
        before_s = cpu_s(server.pid)
        async with asyncio.TaskGroup() as group:
            calls = [
                group.create_task(_call(server.url, server.token_file, number))
                for number in range(count)
            ]
        used_s = cpu_s(server.pid) - before_s
    reports = [call.result() for call in calls]
    turns = sorted(
        latency
        for report in reports
        for stream in report.streams
        for latency in stream.turn_latencies_ms
        if latency is not None
    )
    reactions = [
        barge_in.reaction_ms
        for report in reports
        for stream in report.streams
        for barge_in in stream.barge_ins
        if barge_in.reaction_ms is not None
    ]
    seconds = sum(report.duration_ms for report in reports) / 1000
    return {
        "calls_without_fault": sum(report.ok for report in reports),
        "ended_by_the_agent": sum(report.ended_by == "agent" for report in reports),
        "turns": len(turns),
        "turn_latency_p50_ms": statistics.median(turns),
        "turn_latency_p95_ms": turns[min(len(turns) - 1, int(len(turns) * 0.95))],
        "barge_in_reaction_max_ms": max(reactions),
        "server_cpu_ms_per_call_second": round(used_s / seconds * 1000, 2),
    }


async def _call(url: str, token_file: Path, number: int) -> DialReport:
    await asyncio.sleep(number * 0.37)
    return await dial(DialOptions(to=url, token_file=token_file, out=None))
