"""Waiting for what happens on real sockets: for the event itself, with one generous limit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

__all__ = ["TIME_LIMIT_S", "time_limit", "until", "within"]

T = TypeVar("T")

TIME_LIMIT_S: Final = 60.0
"""Longer than anything that works takes, on a machine that is busy with other things as well."""

LOOK_S: Final = 0.005


def time_limit() -> asyncio.Timeout:
    """A block that ends by itself, unless something hangs."""
    return asyncio.timeout(TIME_LIMIT_S)


async def until(
    holds: Callable[[], object],
    *,
    within_s: float = TIME_LIMIT_S,
    what: Callable[[], object] = lambda: "what was waited for",
) -> None:
    """Look every few milliseconds until something holds.

    The limit counts looks, not the clock: on a busy machine each look comes late, and so does the
    server that it waits for. A server's promise ("over within 2 s") holds there all the same.
    """
    for _ in range(round(within_s / LOOK_S)):
        if holds():
            return
        await asyncio.sleep(LOOK_S)
    assert holds(), f"not within {within_s} s: {what()}"


async def within(limit_s: float, result: Awaitable[T]) -> T:
    """The awaited result, if it is there within the limit; this counts looks too."""
    task = asyncio.ensure_future(result)
    try:
        await until(task.done, within_s=limit_s, what=lambda: task)
        return task.result()
    finally:
        task.cancel()
