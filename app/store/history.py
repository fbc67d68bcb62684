"""The history of calls of one server: its store, the writer, and what is removed from it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from app.errors import StoreError
from app.events import CallId, CallLost
from app.store.base import CallFilter, CallStore, Erased, StoredEvent
from app.store.codec import Storable
from app.store.files import CallFiles, remove
from app.store.retention import MESSAGES, WORDS, Retention
from app.store.writer import StoreWriter, instance_name
from app.tasks import running
from app.threads import in_thread

__all__ = ["CallHistory"]

logger = logging.getLogger(__name__)

FIRST_CLEANING_S: Final = 300.0
CLEANING_S: Final = 86_400.0
_OVERLAP: Final = timedelta(days=2)
"""Looked at again: events that came late, out of a spool."""


class CallHistory:
    """Everything that is kept of calls."""

    def __init__(
        self,
        store: CallStore,
        *,
        state_dir: Path,
        files: CallFiles,
        retention: Retention = Retention(),  # noqa: B008 - frozen
        spool_mb: int = 256,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Opens nothing: `writing` does."""
        self.store = store
        self._retention = retention
        self._now = now
        self.files = files
        self._lost_observers: list[Callable[[StoredEvent], None]] = []
        self._writer = StoreWriter(
            store,
            spool_folder=state_dir / "spool",
            spool_bytes=spool_mb * 1_000_000,
            instance=instance_name(),
            on_lost=self._on_lost,
            now=now,
        )

    def observe(self, event: Storable) -> None:
        """Take any event of any call; never waits."""
        self._writer.observe(event)

    def resume(self, call_id: CallId, begun_at: datetime) -> None:
        """Go on with a call that another process of this server, gone by now, began then."""
        self._writer.resume(call_id, begun_at)

    def lose(self, call_id: CallId) -> None:
        """Record that a call that was taken over had ended with the process that talked in it."""
        self._writer.observe(CallLost(call_id=call_id))

    def on_lost(self, observer: Callable[[StoredEvent], None]) -> None:
        """Have a function told of each call that is closed as lost."""
        self._lost_observers.append(observer)

    def _on_lost(self, record: StoredEvent) -> None:
        for observer in self._lost_observers:
            observer(record)

    def degraded(self) -> Sequence[str]:
        """Problems, for `/readyz`."""
        return self._writer.degraded()

    def counts(self) -> Mapping[str, int]:
        """Events by what became of them, and how many are `waiting`."""
        return self._writer.counted()

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Keep events and remove what is too old, for as long as the block lasts."""
        await self._writer.start()
        try:
            async with running(self._writer.run(), self._clean_regularly()):
                yield
        finally:
            await self._writer.close()
            await self.store.close()

    # Removing -----------------------------------------------------------------------------------

    async def erase(self, call_ids: Collection[CallId]) -> Erased:
        """Remove calls with all that belongs to them: rows, words, sound, messages.

        Those that go on stay.

        Raises:
            StoreUnavailable: the store does not answer; whatever was not removed is still there.
            StoreError: a file cannot be removed (`file_not_removed`).
        """
        await self._writer.flush()
        items: set[str] = set()
        for call_id in call_ids:
            for record in await self.store.events(call_id, limit=100_000):
                items.add(str(record.body.get("item_id", "")))
        erased = await self.store.erase(call_ids)
        gone = {*erased.call_ids}
        await self._writer.forget(gone)
        # Those that the store never had may have files all the same.
        gone |= {call_id for call_id in call_ids if call_id not in erased.still_live}
        await self._remove(partial(self.files.of, gone, items))
        logger.info("calls erased", extra={"calls": len(gone), "live": len(erased.still_live)})
        return erased

    async def erase_number(self, number: str) -> Erased:
        """Remove all calls from or to a number, and its place in lists; the rest as for `erase`."""
        await self._writer.flush()
        await self.store.forget_number(number)
        return await self.erase(await self.store.calls_with(number))

    async def _remove(self, find: Callable[[], Sequence[Path]]) -> int:
        try:
            return await in_thread(lambda: remove(find()))
        except OSError as error:
            raise StoreError(
                f"{error.filename}: cannot be removed: {error.strerror}", code="file_not_removed"
            ) from error

    # Retention ----------------------------------------------------------------------------------

    async def _clean_regularly(self) -> None:
        await asyncio.sleep(FIRST_CLEANING_S)
        while True:
            try:
                await self.clean()
            except StoreError as error:
                logger.warning("retention failed", extra={"reason": error.message})
            await asyncio.sleep(CLEANING_S)

    async def clean(self) -> Mapping[str, int]:
        """Remove what is older than it may be; returns how much that was.

        Counted are calls, events that have lost words, and files.

        Raises:
            StoreError: as for `erase`.
        """
        days, now = self._retention, self._now()
        removed = {"calls": 0, "words": 0, "files": 0}
        if days.calls_days:
            before = now - timedelta(days=days.calls_days)
            while old := await self.store.older_than(before):
                removed["calls"] += len((await self.erase(old)).call_ids)
        for kind, fields, kept_days in (
            ("transcripts", WORDS, days.transcripts_days),
            ("messages", MESSAGES, days.messages_days),
        ):
            if kept_days:
                removed["words"] += await self._clean_words(kind, fields, kept_days)
        for kind, kept_days in (
            ("recordings", days.recordings_days),
            ("messages", days.messages_days),
        ):
            if kept_days:
                before_s = (now - timedelta(days=kept_days)).timestamp()
                is_message = kind == "messages"
                found = partial(self.files.older_than, before_s, messages=is_message)
                removed["files"] += await self._remove(found)
        if removed["words"]:
            await self.store.compact()
        return removed

    async def _clean_words(
        self, kind: str, fields: Mapping[str, Mapping[str, Any]], days: int
    ) -> int:
        before = self._now() - timedelta(days=days)
        done = await self.store.cleaned_until(kind)
        wanted = CallFilter(until=before)
        if done is not None:
            wanted = replace(wanted, since=done - _OVERLAP)
        count, cursor = 0, None
        while True:
            page = await self.store.calls(wanted, cursor=cursor, limit=200)
            count += await self.store.blank([call.call_id for call in page.items], fields)
            cursor = page.cursor
            if cursor is None:
                break
        await self.store.set_cleaned_until(kind, before)
        return count
