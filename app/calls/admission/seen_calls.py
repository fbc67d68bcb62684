"""The carrier's calls that have had a stream, in this process and in the ones before it.

A signed webhook is good for ever: Twilio signs neither a time nor a number used once. What tells a
copy of it from a call is that the carrier lets a call ring once: a webhook of a call that rings,
and whose stream was open already, is an old one (docs/decisions/0019). The ids are appended to a
file, and at the start the last of them are read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Final

from app.carrier.base import CarrierCallId
from app.tasks import running
from app.threads import in_thread

__all__ = ["SeenCalls"]

logger = logging.getLogger(__name__)

KEPT: Final = 10_000
"""The calls of some days; older copies are let in again."""


class SeenCalls:
    """Remembers calls; adding one never waits. Without a path they are of this process only."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._ids: dict[CarrierCallId, None] = dict.fromkeys(_read(path))
        self._fresh: list[CarrierCallId] = []
        self._added = asyncio.Event()
        self._complained = False

    def __contains__(self, call_id: CarrierCallId) -> bool:
        return call_id in self._ids

    def add(self, call_id: CarrierCallId) -> None:
        """The call's stream is open."""
        if call_id in self._ids:
            return
        self._ids[call_id] = None
        if len(self._ids) > KEPT:
            del self._ids[next(iter(self._ids))]
        if self._path is not None:
            self._fresh.append(call_id)
            self._added.set()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[SeenCalls]:
        """Keep what is added, as soon as it is and at the end."""
        async with running(self._keep_on()):
            yield self
        await self._keep()

    async def _keep_on(self) -> None:
        while True:
            await self._added.wait()
            self._added.clear()
            await self._keep()

    async def _keep(self) -> None:
        if not self._fresh or self._path is None:
            return
        fresh, self._fresh = self._fresh, []
        try:
            await in_thread(partial(_append, self._path, fresh))
        except asyncio.CancelledError:
            self._fresh = [*fresh, *self._fresh]  # they may have been written, or not
            raise
        except OSError as error:
            if not self._complained:
                logger.warning(
                    "ended calls cannot be kept",
                    extra={"file": str(self._path), "error": error.strerror},
                )
            self._complained = True


def _read(path: Path | None) -> list[CarrierCallId]:
    """Read the last ids, and shorten a file that has many more."""
    try:
        ids = [] if path is None else path.read_text(encoding="ascii").split()
        if path is not None and len(ids) > 2 * KEPT:
            draft = path.with_name(f"{path.name}.{os.getpid()}")
            _append(draft, ids[-KEPT:])
            os.replace(draft, path)
    except FileNotFoundError:
        return []
    except (OSError, ValueError):
        logger.warning("ended calls cannot be read", extra={"file": str(path)})
        return []
    return [CarrierCallId(each) for each in ids[-KEPT:]]


def _append(path: Path, ids: list[CarrierCallId] | list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Several processes append to one file: a short write of one line after the other is whole.
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write("".join(f"{each}\n" for each in ids))
