"""`make soak`: mixed calls against one server, then floods beside calls; what is left of them.

The server, the floods and everybody else run in processes of their own. Prints tables, writes
`soak-results.json`, and fails when tasks, descriptors or calls are left, when the second half of
the calls took memory, or when a stranger got in. Times are this machine's: what counts is a flood
beside the quiet seconds of the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.bench.call_load import spread
from tests.chaos.soak.floods import FLOODS, flood_deltas
from tests.chaos.soak.mix import Callers
from tests.chaos.soak.server import Holdings, SoakServer, soak_server

OUTPUT: Final = Path("soak-results.json")
CALLS: Final = 10_000
WARM_UP: Final = 0.06
"""Of the calls, to fill pools and what is remembered of ended calls."""
AT_A_TIME: Final = 160
BYSTANDERS: Final = 8
FLOOD_S: Final = 2.5
QUIET: Final = "none"
LEAST_FOR_MEMORY: Final = 4_000
"""Calls: with fewer, pools and tables still fill in the second half."""
GROWN_KIB: Final = 5 * 1_024
"""Memory that the second half of the calls may take."""
GROWN_OBJECTS: Final = 100
"""Of the server's own classes: the last calls' events are kept for readers."""


@dataclass(slots=True)
class Report:
    """The figures of one run."""

    calls: dict[str, int] = field(default_factory=dict)
    oddities: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    server_cpu_s: float = 0.0
    held: dict[str, Holdings] = field(default_factory=dict)
    floods: dict[str, dict[str, Any]] = field(default_factory=dict)
    tracebacks: int = 0

    def faults(self) -> list[str]:
        """Sentences about what must not be."""
        seen = list(self.held.items())
        _, first = seen[0]
        faults = [f"{oddity}: {count}" for oddity, count in self.oddities.items()]
        for name, held in seen[1:]:
            for what in ("tasks", "descriptors", "registry"):
                left = getattr(held, what) - getattr(first, what)
                if left > 0:
                    faults.append(f"{left} {what} left {name}")
        if self.tracebacks:
            faults.append(f"{self.tracebacks} tracebacks in the server's log")
        if sum(self.calls.values()) < LEAST_FOR_MEMORY:
            return faults
        half, whole = self.held["after the first half"], self.held["after all calls"]
        # What is given back later, as beside the floods, was not kept.
        floods = self.held["after the floods"]
        kept_kib = min(whole.rss_kib, floods.rss_kib) - half.rss_kib
        if kept_kib >= GROWN_KIB:
            faults.append(f"{kept_kib} KiB taken by the second half")
        kept = min(whole.objects, floods.objects) - half.objects
        if kept >= GROWN_OBJECTS:
            faults.append(f"{kept} objects left by the second half")
        return faults


async def soak(calls: int, seed: int) -> Report:
    """Place all calls in two halves, then flood; count after each."""
    report = Report()
    callers = Callers(seed)
    load = callers.load
    async with load.model() as model_port, soak_server(model_port) as server:
        load.base_url, load.auth_token = server.url, server.auth_token
        load.stream_url = server.url.replace("http", "ws", 1) + "/twilio/media-stream"
        await callers.place(max(100, round(calls * WARM_UP)), AT_A_TIME)
        report.held["after the warm-up"] = await _count(callers, server)
        callers.placed.clear()
        cpu_s, began = server.cpu_s, time.perf_counter()
        for name in ("after the first half", "after all calls"):
            await callers.place(calls // 2, AT_A_TIME)
            report.held[name] = await _count(callers, server)
        report.seconds = round(time.perf_counter() - began, 1)
        report.server_cpu_s = round(server.cpu_s - cpu_s, 1)
        report.calls = {kind.value: count for kind, count in callers.placed.items()}
        report.oddities = dict(callers.oddities)
        load.bystanders = True
        for kind in (QUIET, *FLOODS, "tiny deltas", QUIET + " again"):
            report.floods[kind] = await _beside(kind, callers, server)
        report.held["after the floods"] = await _count(callers, server)
        report.tracebacks = server.tracebacks
    return report


async def _count(callers: Callers, server: SoakServer) -> Holdings:
    await callers.load.renew_http()  # or its idle connections would count
    return await server.holdings()


async def _beside(kind: str, callers: Callers, server: SoakServer) -> dict[str, Any]:
    """Talk beside a flood; how late sound was at the other end, and how much was sent."""
    load = callers.load
    await load.open_calls(BYSTANDERS)
    await load.talk(0.5)
    process = None
    deltas: asyncio.Task[int] | None = None
    if kind in FLOODS:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.chaos.soak.floods",
            kind,
            server.url,
            server.auth_token,
            str(FLOOD_S),
            stdout=asyncio.subprocess.PIPE,
            preexec_fn=lambda: os.nice(10),
        )
        await asyncio.sleep(1.0)  # its imports
    elif kind == "tiny deltas":
        wire = await load.open_flooder()
        deltas = asyncio.create_task(flood_deltas(wire, FLOOD_S))
    result = await load.talk(FLOOD_S)
    sent = 0
    if process is not None:
        output, _ = await process.communicate()
        sent = int(output or 0)
    elif deltas is not None:
        sent = await deltas
    await load.hang_up(wait_s=0.2)
    await _count(callers, server)  # what waits in its buffers must not count for the next flood
    late_s = result.uplink_s + result.downlink_s
    return {"sent": sent, "late_ms": spread(late_s), "lost": result.errors}


def _show(report: Report) -> None:
    say = sys.stdout.write
    say(f"\n{sum(report.calls.values())} calls in {report.seconds} s, ")
    say(f"{report.server_cpu_s} s of the server's CPU\n")
    for kind, count in report.calls.items():
        say(f"  {kind:<22}{count:>8}\n")
    say(f"\n{'what the server holds':<24}{'tasks':>8}{'files':>8}{'calls':>8}")
    say(f"{'objects':>9}{'memory':>11}\n")
    for name, held in report.held.items():
        say(f"  {name:<22}{held.tasks:>8}{held.descriptors:>8}{held.registry:>8}")
        say(f"{held.objects:>9}{held.rss_kib / 1024:>8.1f} MB\n")
    say(f"\n{report.tracebacks} tracebacks in the server's log\n")
    say(f"\n{'lateness beside':<24}{'sent':>9}{'p50':>8}{'p99':>8}{'longest':>9} ms\n")
    for kind, seen in report.floods.items():
        late = seen["late_ms"] or {"p50": 0, "p99": 0, "max": 0}
        say(f"  {kind:<22}{seen['sent']:>9}{late['p50']:>8.1f}{late['p99']:>8.1f}")
        say(f"{late['max']:>9.1f}\n")


def main() -> None:
    """Run it; exit code 1 for what must not be."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--calls", type=int, default=CALLS, help=f"default {CALLS}")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    report = asyncio.run(soak(options.calls, options.seed))
    OUTPUT.write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
    _show(report)
    faults = report.faults()
    for fault in faults:
        sys.stdout.write(f"FAULT: {fault}\n")
    raise SystemExit(1 if faults else 0)


if __name__ == "__main__":
    main()
