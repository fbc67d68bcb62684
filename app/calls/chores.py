"""The tasks that a call has beside its sockets: tools, guardrails, a brain.

They end with the call; but the call does not wait for them. A tool is the operator's code, and one
that ignores its cancellation must not keep a caller on the line.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Generator
from contextvars import Context
from typing import Any, TypeVar

__all__ = ["Chores"]

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


class Chores(asyncio.TaskGroup):
    """A group whose tasks can be ended before the group is."""

    def __init__(self) -> None:
        super().__init__()
        self._begun: set[asyncio.Task[Any]] = set()

    def create_task(
        self,
        coro: Generator[Any, None, _T] | Coroutine[Any, Any, _T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[_T]:
        """As of any group."""
        task = super().create_task(coro, name=name, context=context)
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)
        return task

    def cancel(self) -> None:
        """End all tasks; those that do so at once are over when others have had their turn."""
        for task in self._begun:
            task.cancel()

    async def gone(self, within_s: float) -> None:
        """Wait for the tasks that were ended, but not for long."""
        if self._begun:
            _, left = await asyncio.wait(self._begun, timeout=within_s)
            for task in left:
                logger.warning("task goes on after its call", extra={"task": task.get_name()})
