"""The cost of keeping calls, and how calls fare while their database is away.

    python -m tests.bench kept
    python -m tests.bench.kept_calls cost --seconds 60
    python -m tests.bench.kept_calls sqlite --seconds 60      # a locked file
    python -m tests.bench.kept_calls postgres --seconds 60    # a stopped server

50 callers say a sentence every 2.2 s. Always two servers are compared, at the very same time: each
window of a few seconds gives one ratio, and what else the machine does disturbs both alike. `cost`
compares servers with the history, with recordings and with both to one with neither. The others
compare a server whose database goes away to one whose database stays. Ratios are the median
window's. Those between two servers that do the same (`neither`, `ratio_before`) say what the others
are worth.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sqlite3
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg

from tests.bench.call_load import Load, spread
from tests.bench.calls import CONFIG, in_loop
from tests.bench.servers import RunningServer, cpu_s, running_server
from tests.bench.store import WORDS
from tests.fakes.postgres import Cluster, cluster

__all__ = ["run"]

_STORE_OFF: Final = "store: off\n"
_RECORDING: Final = 'recording: {{enabled: true, notice: ""}}\n'  # of a template: doubled braces
_NEITHER: Final = CONFIG + _STORE_OFF
CONFIGS: Final = {
    "neither": _NEITHER,
    "history": CONFIG,
    "recorded": CONFIG + _STORE_OFF + _RECORDING,
    "both": CONFIG + _RECORDING,
}
GOAL: Final = 1.10
SENTENCE: Final = " ".join(WORDS[:10])
WINDOW_S: Final = 5.0


def run() -> dict[str, Any]:
    """All parts."""
    return {"cost": cost(), "sqlite": outage("sqlite"), "postgres": outage("postgres")}


# The cost -----------------------------------------------------------------------------------------


def cost(
    count: int = 50, seconds: float = 60.0, kinds: Sequence[str] = tuple(CONFIGS)
) -> dict[str, Any]:
    """Ratios of each kind of server to one that keeps nothing."""
    found = {}
    for kind in kinds:
        found[kind] = in_loop(_cost(CONFIGS[kind], count, seconds))
        sys.stderr.write(f"{kind:10}{found[kind]}\n")
    return {"calls": count, "goal": GOAL, "ratio": found}


async def _cost(config: str, count: int, seconds: float) -> Window:
    async with _calls(config, count) as tried, _calls(_NEITHER, count) as other:
        return _ratios(await _windows(tried, other, count, seconds))


# An outage ----------------------------------------------------------------------------------------


class _Sqlite:
    """A file that another program locks."""

    config = CONFIG

    def __init__(self) -> None:
        self.path = Path()

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            yield
            other.execute("ROLLBACK")

    async def events(self) -> Sequence[tuple[str, int]]:
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            return connection.execute("SELECT call_id, seq FROM events ORDER BY seq").fetchall()


class _Postgres:
    """A server whose processes are all stopped."""

    def __init__(self, server: Cluster) -> None:
        self.server = server
        self.config = f"{CONFIG}store:\n  url: {server.url()}\n"
        self.path = Path()

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        self.server.freeze()
        try:
            yield
        finally:
            self.server.thaw()

    async def events(self) -> Sequence[tuple[str, int]]:
        connection = await asyncpg.connect(self.server.url())
        try:
            rows = await connection.fetch("SELECT call_id, seq FROM events ORDER BY seq")
        finally:
            await connection.close()
        return [(row["call_id"], row["seq"]) for row in rows]


def outage(kind: str, count: int = 50, seconds: float = 60.0) -> dict[str, Any]:
    """Calls while their database is away for so many seconds, beside calls whose database stays."""
    if kind == "sqlite":
        found: dict[str, Any] = in_loop(_outage(_Sqlite(), count, seconds))
    else:
        with cluster() as server:
            found = in_loop(_outage(_Postgres(server), count, seconds))
    return found


async def _outage(database: _Sqlite | _Postgres, count: int, seconds: float) -> dict[str, Any]:
    async with _calls(database.config, count) as tried, _calls(CONFIG, count) as other:
        database.path = tried.server.token_file.parent / "calls.db"
        before = await _windows(tried, other, count, seconds / 2)
        with database.away():
            during = await _windows(tried, other, count, seconds)
            waited = await _waiting(tried)
        began = time.perf_counter()
        await _until_fewer_wait(tried, waited // 10)  # they still talk: it is seldom none
        back_s = time.perf_counter() - began
        await tried.load.hang_up()
        await _until_fewer_wait(tried, 0)
        events = await database.events()
    both = [window for pair in (*before, *during) for window in pair]
    return {
        "away": _medians([mine for mine, _ in during]),
        "there": _medians([theirs for _, theirs in during]),
        "ratio": _ratios(during),
        "ratio_before": _ratios(before),
        "windows": len(during),
        "calls_cut": sum(window["errors"] for window in both),
        "events_that_waited": waited,
        "back_after_s": round(back_s, 2),
        "calls": len({call_id for call_id, _ in events}),
        "calls_with_every_event_once": _whole(events),
    }


@dataclass(frozen=True, slots=True)
class _Calls:
    """Calls that go on, and their server."""

    load: Load
    server: RunningServer


@contextlib.asynccontextmanager
async def _calls(config: str, count: int) -> AsyncIterator[_Calls]:
    load = Load()
    load.caller_words = SENTENCE
    async with (
        load.model() as model_port,
        running_server(config, model_port=model_port) as server,
    ):
        load.base_url = server.url
        load.stream_url = server.url.replace("http", "ws", 1) + "/twilio/media-stream"
        load.auth_token = server.token_file.read_text(encoding="ascii").strip()
        await load.open_calls(count)
        await load.talk(1.0)  # warm: imports, tables, caches
        try:
            yield _Calls(load, server)
        finally:
            await load.hang_up(wait_s=1.0)


Window = dict[str, float]


async def _windows(
    tried: _Calls, other: _Calls, count: int, seconds: float
) -> list[tuple[Window, Window]]:
    """Each part of so many seconds, as both servers fared in it at the same time."""
    found: list[tuple[Window, Window]] = []
    while len(found) < max(1, round(seconds / WINDOW_S)):
        mine, theirs = await asyncio.gather(_window(tried, count), _window(other, count))
        found.append((mine, theirs))
    return found


async def _window(calls: _Calls, count: int) -> Window:
    before_s, began = cpu_s(calls.server.pid), time.perf_counter()
    result = await calls.load.talk(WINDOW_S)
    used_s, lasted_s = cpu_s(calls.server.pid) - before_s, time.perf_counter() - began
    window: Window = {"errors": result.errors}
    for way, values_s in (("up", result.uplink_s), ("down", result.downlink_s)):
        spreads = spread(values_s) or {}
        window |= {f"{way}_{name}_ms": spreads[name] for name in ("p50", "p99")}
    window["cpu_ms_per_call_second"] = used_s / (count * lasted_s) * 1000
    return window


def _medians(windows: Sequence[Window]) -> Window:
    return {
        name: round(statistics.median(window[name] for window in windows), 3)
        for name in windows[0]
        if name != "errors"
    }


def _ratios(windows: Sequence[tuple[Window, Window]]) -> Window:
    ratios = [{name: a[name] / b[name] for name in a if name != "errors"} for a, b in windows]
    return _medians(ratios)


def _whole(events: Sequence[tuple[str, int]]) -> int:
    """The calls whose events have each number from 1 on, once."""
    found: dict[str, list[int]] = {}
    for call_id, seq in events:
        found.setdefault(call_id, []).append(seq)
    return sum(numbers == [*range(1, len(numbers) + 1)] for numbers in found.values())


async def _waiting(calls: _Calls) -> int:
    answer = await calls.load.http.get(f"{calls.server.url}/metrics")
    [line] = [
        row
        for row in answer.text.splitlines()
        if row.startswith("trunkline_history_waiting_events ")
    ]
    return int(float(line.split()[1]))


async def _until_fewer_wait(calls: _Calls, most: int) -> None:
    while await _waiting(calls) > most:  # noqa: ASYNC110 - the server is another process
        await asyncio.sleep(0.05)


def main() -> None:
    """`python -m tests.bench.kept_calls PART [COUNT]`"""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=["cost", "sqlite", "postgres"])
    parser.add_argument("count", nargs="?", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--kinds", nargs="+", choices=list(CONFIGS), default=list(CONFIGS))
    asked = parser.parse_args()
    if asked.part == "cost":
        found = cost(asked.count, asked.seconds, asked.kinds)
    else:
        found = outage(asked.part, asked.count, asked.seconds)
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
