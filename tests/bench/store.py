"""The history of calls: reading it when it is large, and what keeping it costs calls.

    python -m tests.bench store                          # all of it
    python -m tests.bench.store reading 100000           # a SQLite file of so many calls
    python -m tests.bench.store keeping 50 --seconds 8   # with and without it, in turns
    python -m tests.bench.store outage 50 --seconds 60   # a database that is locked for so long

In `keeping` and `outage` each caller says a sentence every 2.2 s. `outage` compares two stretches
of the same calls, and counts what the database has of them afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import secrets
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from app.events import CallId
from app.store.base import CallFilter, Outcome, StoredEvent
from app.store.sql.store import SqlStore
from tests.bench.load import Load, LoadResult
from tests.bench.servers import RunningServer, cpu_s, running_server
from tests.fakes.call_events import call_events, recorded

__all__ = ["run"]

CONFIG: Final = """
voice_model: openai
openai_realtime:
  api_key: sk-bench-0123456789
  url: ws://127.0.0.1:{model_port}/v1/realtime
server:
  port: {port}
limits:
  max_calls: 200
store:
  enabled: {enabled}
logging:
  level: ERROR
"""
ROUNDS: Final = 3
STRETCHES: Final = 3
"""So often is the database locked, in turns: whoever shares the machine disturbs both alike."""
READS: Final = 200
WORDS: Final = [
    "hello",
    "open",
    "close",
    "appointment",
    "monday",
    "tuesday",
    "doctor",
    "invoice",
    "number",
    "please",
    "thank",
    "you",
    "later",
    "change",
    "cancel",
    "address",
    "street",
    "price",
    "order",
    "delivery",
    "today",
    "tomorrow",
    "morning",
    "evening",
]


def run() -> dict[str, Any]:
    """All parts."""
    return {
        "reading": asyncio.run(reading(100_000)),
        "keeping": asyncio.run(keeping(50, 8.0)),
        "outage": asyncio.run(outage(50, 60.0)),
    }


# Reading ------------------------------------------------------------------------------------------


async def reading(count: int) -> dict[str, Any]:
    """Milliseconds of each kind of question to a file of so many calls."""
    with tempfile.TemporaryDirectory() as folder:
        store = SqlStore(Path(folder) / "calls.db")
        try:
            await store.open()
            began = time.perf_counter()
            await _fill(store, count)
            filled_s = time.perf_counter() - began
            status = await store.status()
            return {
                "calls": status.calls,
                "events": status.events,
                "megabytes": round((status.bytes or 0) / 1e6),
                "events_written_per_s": round(status.events / filled_s),
                "ms": {name: await _timed(ask) for name, ask in _questions(store, count).items()},
            }
        finally:
            await store.close()


async def _fill(store: SqlStore, count: int) -> None:
    dice = random.Random(1)
    began = datetime(2026, 1, 1, tzinfo=UTC)
    batch: list[StoredEvent] = []
    for number in range(count):
        said = [" ".join(dice.choices(WORDS, k=8)) for _ in range(3)]
        said[0] += f" reference{number}"
        events = call_events(
            f"call_{number:08}",
            caller=f"+1555{number % 5_000:07}",
            said=said,
            answer=" ".join(dice.choices(WORDS, k=12)),
            ended=number % 1_000 > 0,
        )
        batch += recorded(events, began=began + timedelta(minutes=number))
        if len(batch) > 2_000:
            await store.append(batch, instance="bench")
            batch = []
    await store.append(batch, instance="bench")


def _questions(store: SqlStore, count: int) -> Mapping[str, Callable[[], Awaitable[object]]]:
    dice = random.Random(2)

    async def list_deep() -> None:
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=dice.randrange(count))
        await store.calls(CallFilter(until=at))

    async def open_one() -> None:
        call_id = CallId(f"call_{dice.randrange(count):08}")
        await store.call(call_id)
        await store.events(call_id)
        await store.notes(call_id)
        await store.tags(call_id)

    def number() -> str:
        return f"+1555{dice.randrange(5_000):07}"

    def listed(make: Callable[[], CallFilter]) -> Callable[[], Awaitable[object]]:
        return lambda: store.calls(make())

    def searched(make: Callable[[], str]) -> Callable[[], Awaitable[object]]:
        return lambda: store.search(make())

    return {
        "list": listed(CallFilter),
        "list_from_anywhere": list_deep,
        "list_of_number": listed(lambda: CallFilter(number=number())),
        "list_of_rare_outcome": listed(lambda: CallFilter(outcomes=[Outcome.IN_PROGRESS])),
        "list_of_no_agent": listed(lambda: CallFilter(agent="nobody")),
        "list_with_errors": listed(lambda: CallFilter(with_errors=True)),
        "open": open_one,
        "search_rare": searched(lambda: f"reference{dice.randrange(count)}"),
        "search_common": searched(lambda: dice.choice(WORDS)),
        "search_two": searched(lambda: " ".join(dice.sample(WORDS, 2))),
        "search_phrase": searched(lambda: f'"{" ".join(dice.sample(WORDS, 2))}"'),
        "search_beginning": searched(lambda: f"{dice.choice(WORDS)[:3]}*"),
    }


async def _timed(ask: Callable[[], Awaitable[object]]) -> dict[str, float]:
    took_ms = []
    for _ in range(READS):
        began = time.perf_counter()
        await ask()
        took_ms.append((time.perf_counter() - began) * 1000)
    took_ms.sort()
    return {
        "p50": round(statistics.median(took_ms), 2),
        "p95": round(took_ms[int(len(took_ms) * 0.95)], 2),
    }


# Keeping ------------------------------------------------------------------------------------------


async def keeping(count: int, seconds: float) -> dict[str, Any]:
    """CPU of a call's second with a history and without, in turns; each kind's median round."""
    runs: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for _ in range(ROUNDS):
        for enabled, found in runs.items():
            found.append(await _keep(count, seconds, enabled=enabled))
    medians = {
        enabled: sorted(found, key=lambda one: float(one["cpu_ms_per_call_second"]))[ROUNDS // 2]
        for enabled, found in runs.items()
    }
    with_it, without = medians[True], medians[False]
    ratio = with_it["cpu_ms_per_call_second"] / without["cpu_ms_per_call_second"]
    return {"with": with_it, "without": without, "cpu_ratio": round(ratio, 3)}


async def _keep(count: int, seconds: float, *, enabled: bool) -> dict[str, Any]:
    load = Load()
    load.caller_words = " ".join(WORDS[:10])
    async with (
        load.model() as model_port,
        running_server(CONFIG, model_port=model_port, enabled=str(enabled).lower()) as server,
    ):
        _aim(load, server)
        await load.open_calls(count)
        await load.talk(1.0)  # warm: imports, tables, caches
        before_s, began = cpu_s(server.pid), time.perf_counter()
        result = await load.talk(seconds)
        used_s, lasted_s = cpu_s(server.pid) - before_s, time.perf_counter() - began
        await load.hang_up(wait_s=1.0)
    return {
        "cpu_ms_per_call_second": round(used_s / (count * lasted_s) * 1000, 3),
        **_heard(result),
    }


def _aim(load: Load, server: RunningServer) -> None:
    load.base_url = server.url
    load.stream_url = server.url.replace("http", "ws", 1) + "/twilio/media-stream"
    load.auth_token = server.token_file.read_text(encoding="ascii").strip()


def _heard(result: LoadResult) -> dict[str, Any]:
    shown = result.as_json()
    return {key: shown[key] for key in ("uplink_ms", "downlink_ms", "errors")}


# Outage -------------------------------------------------------------------------------------------


async def outage(count: int, seconds: float) -> dict[str, Any]:
    """The same calls with a SQLite file that answers, and with one that is locked for `seconds`."""
    load = Load()
    load.caller_words = f"canary{secrets.token_hex(4)} {' '.join(WORDS[:10])}"
    async with (
        load.model() as model_port,
        running_server(CONFIG, model_port=model_port, enabled="true") as server,
    ):
        database = server.token_file.parent / "calls.db"
        _aim(load, server)
        await load.open_calls(count)
        await load.talk(1.0)  # warm: imports, tables, caches
        usual, locked = LoadResult(), LoadResult()
        waiting = 0
        with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as other:
            for _ in range(STRETCHES):
                usual.add(await load.talk(seconds / STRETCHES / 2))
                other.execute("BEGIN EXCLUSIVE")
                locked.add(await load.talk(seconds / STRETCHES))
                waiting += await _waiting(load, server.url)
                other.execute("ROLLBACK")
        began = time.perf_counter()
        await _none_waits(load, server.url)
        back_s = time.perf_counter() - began
        await load.hang_up()
        await _none_waits(load, server.url)
        events = _of_each_call(database)
    whole = sum(numbers == [*range(1, len(numbers) + 1)] for numbers in events.values())
    before, during = _heard(usual), _heard(locked)
    return {
        "usual": before,
        "locked": during,
        "p99_ratio": {
            way: round(during[way]["p99"] / before[way]["p99"], 2)
            for way in ("uplink_ms", "downlink_ms")
        },
        "events_that_waited": waiting,
        "back_after_s": round(back_s, 2),
        "calls": len(events),
        "calls_with_every_event_once": whole,
    }


async def _waiting(load: Load, url: str) -> int:
    answer = await load.http.get(f"{url}/metrics")
    [line] = [
        row
        for row in answer.text.splitlines()
        if row.startswith("trunkline_history_waiting_events ")
    ]
    return int(float(line.split()[1]))


async def _none_waits(load: Load, url: str) -> None:
    while await _waiting(load, url):  # noqa: ASYNC110 - the server is another process
        await asyncio.sleep(0.05)


def _of_each_call(database: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    with contextlib.closing(sqlite3.connect(database)) as connection:
        for call_id, seq in connection.execute("SELECT call_id, seq FROM events ORDER BY seq"):
            found.setdefault(call_id, []).append(seq)
    return found


def main() -> None:
    """`python -m tests.bench.store PART [COUNT] [--seconds S]`"""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=["reading", "keeping", "outage"])
    parser.add_argument("count", nargs="?", type=int)
    parser.add_argument("--seconds", type=float, default=8.0)
    asked = parser.parse_args()
    if asked.part == "reading":
        found = asyncio.run(reading(asked.count or 100_000))
    else:
        part = keeping if asked.part == "keeping" else outage
        found = asyncio.run(part(asked.count or 50, asked.seconds))
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
