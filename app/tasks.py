"""Task groups that can be cancelled as a whole, without an error."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import Context
from typing import Any, TypeVar

__all__ = ["CancellableGroup", "pass_cancellation_on"]

_T = TypeVar("_T")


class CancellableGroup(asyncio.TaskGroup):
    """A group whose tasks can be cancelled, so that its block ends with the last of them.

    A task that is created afterwards is cancelled too.
    """

    def __init__(self) -> None:
        super().__init__()
        self._running: set[asyncio.Task[Any]] = set()
        self._cancelled = False

    def create_task(
        self,
        coro: Generator[Any, None, _T] | Coroutine[Any, Any, _T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[_T]:
        """As of any group."""
        task = super().create_task(coro, name=name, context=context)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        if self._cancelled:
            task.cancel()
        return task

    def cancel(self) -> None:
        """Cancel all tasks; the block goes on."""
        self._cancelled = True
        for task in self._running:
            task.cancel()

    async def gone(self, within_s: float | None = None) -> set[asyncio.Task[Any]]:
        """Wait until the tasks are over, for `within_s` at most; returns those that are not."""
        if not self._running:
            return set()
        _, left = await asyncio.wait(self._running, timeout=within_s)
        return left


def pass_cancellation_on() -> None:
    """Raise the cancellation that a failing TaskGroup forgets (until Python 3.13)."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
