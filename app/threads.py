"""Blocking work in daemon threads, which cannot keep the process alive."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any

from app.errors import ToolFailed

__all__ = ["Slots", "in_thread"]


class Slots:
    """At most so many at a time. Made for whichever event loop runs: tools outlive loops."""

    __slots__ = ("_limit", "_loop", "_semaphore")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._loop: asyncio.AbstractEventLoop | None = None
        self._semaphore = asyncio.Semaphore(limit)

    @property
    def here(self) -> asyncio.Semaphore:
        """The semaphore of the running loop."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._semaphore = loop, asyncio.Semaphore(self._limit)
        return self._semaphore


async def in_thread(slots: asyncio.Semaphore, work: Callable[[], Any]) -> Any:
    """Run work in a thread and wait for it; giving up the wait does not end the thread.

    The slot is taken until the thread is done, so that work which hangs holds up its own tool and
    no other. A daemon: the pools of the standard library keep the process from ending for as long
    as anything hangs in them.
    """
    await slots.acquire()
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
    context = copy_context()

    def finish(value: Any, error: BaseException | None) -> None:
        slots.release()
        if not outcome.done():
            outcome.set_result((value, error))

    def body() -> None:
        value: Any = None
        error: BaseException | None = None
        try:
            value = context.run(work)
        except BaseException as raised:  # of whatever kind: it belongs to the waiting task
            error = raised
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(finish, value, error)

    try:
        threading.Thread(target=body, daemon=True, name="trunkline-tool").start()
    except RuntimeError as error:
        slots.release()
        raise ToolFailed("The tool could not be started.") from error
    value, raised = await outcome
    if raised is not None:
        raise raised
    return value
