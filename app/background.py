"""Small work that outlives a call: bounded, in one group, ended with the process.

Nothing about a call outlives its task group, so what follows the call (a summary, a webhook) runs
here. Jobs wait in memory: those unfinished at the end of the process's grace are lost, and logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from app.threads import in_own_task

__all__ = ["BackgroundJobs"]


logger = logging.getLogger(__name__)


class BackgroundJobs:
    """Runs jobs until the context ends, and then for at most `grace_ms`."""

    def __init__(self, *, max_waiting: int = 1_000, grace_ms: int = 5_000) -> None:
        self._max_waiting = max_waiting
        self._grace_ms = grace_ms
        self._running: dict[str, asyncio.Task[None]] = {}
        self._group = asyncio.TaskGroup()
        self._closing = False
        self.refused = 0
        self.unfinished = 0

    def __len__(self) -> int:
        return len(self._running)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._grace_ms / 1000):
                    while self._running:
                        await asyncio.wait(self._running.values())
        finally:
            self._closing = True
            for key, task in self._running.items():
                logger.warning("background job was not finished", extra={"job": key})
                self.unfinished += 1
                task.cancel()
            await self._group.__aexit__(None, None, None)

    def put(self, key: str, work: Callable[[], Awaitable[None]]) -> bool:
        """Start a job; False when it cannot be done. One key runs once at a time.

        Jobs may start others, also while the grace of the context runs.
        """
        if key in self._running:
            return True
        if self._closing or len(self._running) >= self._max_waiting:
            self.refused += 1
            logger.error(
                "background job was refused", extra={"job": key, "waiting": len(self._running)}
            )
            return False
        self._running[key] = self._group.create_task(self._run(key, work))
        return True

    async def _run(self, key: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await in_own_task(work)
        except Exception as error:
            logger.exception(
                "background job failed", extra={"job": key, "error_type": type(error).__name__}
            )
        finally:
            del self._running[key]
