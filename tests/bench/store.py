"""The history of calls when it is large: how long each kind of question takes.

    python -m tests.bench store                # a SQLite file of 100,000 calls
    python -m tests.bench.store 10000

`tests.bench.kept_calls` measures what keeping calls costs them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from app.events import CallId
from app.explain import explain, render
from app.store.base import CallFilter, Direction, Outcome, Problem, StoredEvent
from app.store.codec import decode
from app.store.sql.store import SqlStore
from tests.fakes.call_events import call_events, recorded

__all__ = ["WORDS", "run"]

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


def run(count: int = 100_000) -> dict[str, Any]:
    """Milliseconds of each kind of question to a file of so many calls."""
    return asyncio.run(_reading(count))


async def _reading(count: int) -> dict[str, Any]:
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

    async def explain_one() -> None:
        call_id = CallId(f"call_{dice.randrange(count):08}")
        await store.call(call_id)
        render(explain([decode(record) for record in await store.events(call_id)]))

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
        "list_of_main_number": listed(lambda: CallFilter(number="+15552223333")),
        "list_of_failed_transfers": listed(lambda: CallFilter(problems=[Problem.TRANSFER_FAILED])),
        "list_of_rare_outcome": listed(lambda: CallFilter(outcomes=[Outcome.IN_PROGRESS])),
        "list_of_no_agent": listed(lambda: CallFilter(agent="nobody")),
        "list_of_no_reason": listed(lambda: CallFilter(reason="nothing")),
        "list_of_no_direction": listed(lambda: CallFilter(direction=Direction.OUTBOUND)),
        "list_of_no_cost": listed(lambda: CallFilter(over_usd=1_000.0)),
        "list_with_errors": listed(lambda: CallFilter(with_errors=True)),
        "open": open_one,
        "explain": explain_one,
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


def main() -> None:
    """`python -m tests.bench.store [COUNT]`"""
    parser = argparse.ArgumentParser()
    parser.add_argument("count", nargs="?", type=int, default=100_000)
    found = run(parser.parse_args().count)
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
