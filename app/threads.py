"""Functions of others and blocking work, in daemon threads that cannot keep the process alive."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar, cast

from app.errors import ToolFailed

__all__ = ["Slots", "in_thread", "run_function"]


_T = TypeVar("_T")


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


async def in_thread(
    work: Callable[[], _T],
    slots: asyncio.Semaphore | None = None,
    *,
    name: str = "trunkline-tool",
) -> _T:
    """Run work in a daemon thread and wait for it; giving up the wait does not end the thread.

    A slot is taken until the thread is done, so that work which hangs holds up its own tool and
    no other. The pools of the standard library keep the process from ending while anything hangs
    in them.

    Raises:
        ToolFailed: the system has no thread to spare.
    """
    if slots is not None:
        await slots.acquire()
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[tuple[_T, None] | tuple[None, BaseException]] = loop.create_future()
    context = copy_context()

    def finish(found: tuple[_T, None] | tuple[None, BaseException]) -> None:
        if slots is not None:
            slots.release()
        if not outcome.done():
            outcome.set_result(found)

    def run() -> None:
        found: tuple[_T, None] | tuple[None, BaseException]
        try:
            found = context.run(work), None
        except BaseException as raised:  # of whatever kind: it belongs to the waiting task
            found = None, raised
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(finish, found)

    try:
        threading.Thread(target=run, daemon=True, name=name).start()
    except RuntimeError as error:
        if slots is not None:
            slots.release()
        raise ToolFailed("The tool could not be started.") from error
    value, raised = await outcome
    if raised is not None:
        raise raised
    return cast(_T, value)


async def run_function(
    function: Callable[..., Any], slots: Slots, /, *args: Any, **keywords: Any
) -> Any:
    """Run an async function in this loop and any other in a thread of `slots`.

    An awaitable that a plain function returns, as a decorated one does, is awaited in this loop.
    """
    if inspect.iscoroutinefunction(function):
        return await function(*args, **keywords)
    returned = await in_thread(partial(function, *args, **keywords), slots.here)
    return await returned if inspect.isawaitable(returned) else returned
