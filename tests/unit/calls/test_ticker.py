"""One timer for all calls: each ticks in its time, in its context, and nothing ticks for nobody."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from contextvars import ContextVar

from app.calls.ticker import TICK_S, Ticker

LABEL: ContextVar[str] = ContextVar("label")


async def test_each_call_ticks_in_its_time_and_in_its_context() -> None:
    ticker, clock = Ticker(), asyncio.get_running_loop().time
    ticks: dict[str, list[float]] = {}

    async def call(name: str, lasts_s: float) -> None:
        LABEL.set(name)
        began_s, seen = clock(), ticks.setdefault(name, [])

        def tick() -> None:
            assert LABEL.get() == name
            seen.append(clock() - began_s)

        with ticker.each(tick):
            await asyncio.sleep(lasts_s)

    async with asyncio.TaskGroup() as calls:
        for number in range(25):
            calls.create_task(call(f"call {number}", 10 * TICK_S))
        await asyncio.sleep(3.3 * TICK_S)
        calls.create_task(call("late", 10 * TICK_S))
    assert len(ticks) == 26
    for seen in ticks.values():
        assert len(seen) in {9, 10, 11}
        assert 0 <= seen[0] <= 2 * TICK_S
        steps = [later - earlier for earlier, later in itertools.pairwise(seen)]
        assert all(abs(step - TICK_S) < 0.01 for step in steps)
    at_once = {round(seen[0], 2) for seen in ticks.values()}
    assert len(at_once) > 5  # not all of them together


async def test_nothing_ticks_once_the_last_call_is_over_and_again_with_the_next() -> None:
    ticker = Ticker()
    loop = asyncio.get_running_loop()
    for _ in range(2):
        seen: list[float] = []
        with ticker.each(lambda seen=seen: seen.append(loop.time())):  # type: ignore[misc]
            await asyncio.sleep(3 * TICK_S)
        count = len(seen)
        assert count in {2, 3}
        await asyncio.sleep(5 * TICK_S)
        assert len(seen) == count


async def test_a_call_may_end_and_another_begin_in_a_tick() -> None:
    ticker, seen = Ticker(), list[str]()
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:

        def change() -> None:
            first.close()
            second.enter_context(ticker.each(lambda: seen.append("second")))
            seen.append("first")

        first.enter_context(ticker.each(change))
        await asyncio.sleep(4 * TICK_S)
        assert seen[0] == "first"
        assert seen.count("first") == 1
        assert seen.count("second") >= 2
