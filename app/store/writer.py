"""Takes the events of calls to the store, in batches and beside the calls, which never wait for it.

`observe` puts an event into a queue in memory. A task takes it to the store, and while the store is
slow, locked, full or gone, to the spool on disk; from there to the store once it answers again.
Events keep their order and come once: they have numbers in their call.

Also sees to calls of processes that are gone: those whose spool was left on this disk, and those
that have not been seen in the store for `LEASE_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import secrets
import socket
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from app.errors import StoreError, StoreUnavailable
from app.events import CallEnded, CallId, CallLost, CallNotAnswered, CallTurnedAway
from app.store.base import CallStore, StoredEvent
from app.store.codec import Storable, encode
from app.store.spool import Spool, leftovers
from app.threads import in_thread

__all__ = ["StoreCounts", "StoreWriter", "instance_name"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

BATCH_S: Final = 1.0
"""Events of so long are written together: a batch costs the loop some 2 ms, whatever is in it."""
SOON_S: Final = 0.5
"""The same where a call begins or ends: others wait to see it."""
BATCH_EVENTS: Final = 100
"""One batch holds up the event loop for a few milliseconds; more would be heard."""
MAX_WAITING: Final = 20_000
"""Events in memory, which wait for a disk that takes nothing either."""
MAX_BEHIND: Final = 5_000
"""Events in memory beyond which the disk takes them: a store that is only slow lags too much."""
ANSWER_S: Final = 3.0
"""The wait for the store before it counts as not answering."""
LAST_ANSWER_S: Final = 1.0
"""The same while the process ends, which has a few seconds for all that it does then."""
RETRY_S: Final = 1.0
RESUMED_SEQ: Final = 100_000
"""The number behind which the events of a call go on that another process began: this, and the age
of the call in milliseconds. A process that took it over before has used fewer numbers than that."""
TICK_S: Final = 1.0
RENEW_S: Final = 15.0
LEASE_S: Final = 120.0
"""A process that was not seen for so long is gone, and its calls are lost."""
ENDED_KEPT: Final = 5_000
"""Ended calls whose next number is known, for what comes after the end, such as a review."""


@dataclass(slots=True)
class StoreCounts:
    """The counters of one writer."""

    stored: int = 0
    spooled: int = 0
    dropped: int = 0


class StoreWriter:
    """Takes the events of all calls of this process."""

    def __init__(
        self,
        store: CallStore,
        *,
        spool_folder: Path,
        spool_bytes: int,
        instance: str,
        on_lost: Callable[[StoredEvent], None] = lambda record: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`on_lost` is told of calls that were closed as lost."""
        self.counts = StoreCounts()
        self._store = store
        self._folder = spool_folder
        self._spool_bytes = spool_bytes
        self._spool: Spool | None = None
        self._leftovers: list[Spool] = []
        self._instance = instance
        self._on_lost = on_lost
        self._now = now
        self._waiting: deque[StoredEvent] = deque()
        self._news, self._soon = asyncio.Event(), asyncio.Event()
        self._writing = asyncio.Lock()
        self._up = self._told_down = self._told_full = False
        self._next_try_s = 0.0
        self._answer_s = ANSWER_S
        self._renewed_s = float("-inf")
        self._up_since_s = 0.0
        self._last_seq: dict[CallId, int] = {}
        self._ended: OrderedDict[CallId, int] = OrderedDict()

    # Observing ----------------------------------------------------------------------------------

    def observe(self, event: Storable) -> None:
        """Take any event of any call; never waits."""
        if len(self._waiting) >= MAX_WAITING:
            self._count_dropped(1)
            return
        seq = self._next_seq(event)
        self._waiting.append(encode(event, seq=seq, at=self._now()))
        self._news.set()
        if seq == 1 or event.call_id in self._ended:
            self._soon.set()

    def _next_seq(self, event: Storable) -> int:
        call_id = event.call_id
        if call_id in self._ended:
            self._ended[call_id] += 1
            return self._ended[call_id]
        if isinstance(event, CallEnded | CallLost | CallTurnedAway | CallNotAnswered):
            seq = self._last_seq.pop(call_id, 0) + 1
            self._ended[call_id] = seq
            if len(self._ended) > ENDED_KEPT:
                self._ended.popitem(last=False)
            return seq
        self._last_seq[call_id] = self._last_seq.get(call_id, 0) + 1
        return self._last_seq[call_id]

    def resume(self, call_id: CallId, begun_at: datetime) -> None:
        """Go on with a call that another process began then: its events have lower numbers."""
        age_ms = max(0, (self._now() - begun_at) // timedelta(milliseconds=1))
        self._last_seq[call_id] = max(RESUMED_SEQ + age_ms, self._last_seq.get(call_id, 0))

    def degraded(self) -> Sequence[str]:
        """Problems of the history of calls, for `/readyz`."""
        if self.counts.dropped and self._waiting:
            return ["call_history_loses_events"]
        return [] if self._up else ["call_history_unavailable"]

    def counted(self) -> Mapping[str, int]:
        """Events by what became of them, and how many are `waiting`."""
        on_disk = sum(spool.pending for spool in self._spools)
        return {**asdict(self.counts), "waiting": len(self._waiting) + on_disk}

    @property
    def _spools(self) -> Sequence[Spool]:
        return (*self._leftovers, *((self._spool,) if self._spool is not None else ()))

    # Life ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Make the spool, and try the store once; a store that is not there is tried again later.

        A disk that cannot be written is logged: events then wait in memory for the store.
        """
        try:
            self._leftovers = await in_thread(
                partial(leftovers, self._folder, max_bytes=self._spool_bytes)
            )
            self._spool = await in_thread(
                partial(Spool.create, self._folder, self._instance, max_bytes=self._spool_bytes)
            )
        except OSError as error:
            facts = {"folder": str(self._folder), "reason": error.strerror}
            logger.warning("no spool for the call history", extra=facts)
        await self._keep_up()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._news.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BATCH_S - SOON_S):
                    await self._soon.wait()
            await asyncio.sleep(SOON_S)
            try:
                await self.flush()
                await self._keep_up()
            except Exception as error:  # no fault of it may end the server's tasks, and calls
                self._went_down(type(error).__name__)
                logger.exception("writing the call history failed")

    async def close(self) -> None:
        """Write what waits, to the store or else to the spool."""
        self._answer_s = min(ANSWER_S, LAST_ANSWER_S)
        try:
            await self.flush()
        except asyncio.CancelledError:  # the process has no time to ask the store
            with contextlib.suppress(OSError):
                if self._spool is not None:
                    self._spool.put([*self._waiting])
                    self._waiting.clear()
            raise
        if self._up:
            with contextlib.suppress(StoreError):
                await self._asked(self._store.leave(self._instance))
        for spool in self._spools:
            with contextlib.suppress(OSError):
                await in_thread(spool.close)
        self._leftovers, self._spool = [], None
        if self._waiting:
            self._count_dropped(len(self._waiting))

    # Writing ------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Write what waits now; what neither store nor spool takes goes on waiting."""
        async with self._writing:
            self._news.clear()
            self._soon.clear()
            while self._waiting:
                await self._relieve()
                batch = list(itertools.islice(self._waiting, BATCH_EVENTS))
                if not await self._keep(batch):
                    return
                for _ in batch:
                    self._waiting.popleft()

    async def _keep(self, batch: Sequence[StoredEvent]) -> bool:
        if self._up and not self._pending:
            try:
                await self._append(batch, self._instance)
                return True
            except StoreUnavailable as error:
                self._went_down(error.message)
        if self._spool is None:
            return False
        try:
            await in_thread(partial(self._spool.put, batch))
        except OSError as error:
            if not self._told_full:
                logger.warning(
                    "the call history's spool takes no more",
                    extra={"reason": str(error), "waiting": len(self._waiting)},
                )
            self._told_full = True
            return False
        self._told_full = False
        self.counts.spooled += len(batch)
        return True

    async def _relieve(self) -> None:
        """Put what waits in memory on the disk, where the store is behind by too much."""
        if self._spool is None or len(self._waiting) <= MAX_BEHIND:
            return
        batch = [*self._waiting]
        with contextlib.suppress(OSError):  # `_keep` tells of it
            await in_thread(partial(self._spool.put, batch))
            for _ in batch:
                self._waiting.popleft()
            self.counts.spooled += len(batch)

    @property
    def _pending(self) -> bool:
        return self._spool is not None and not self._spool.empty

    async def _append(self, batch: Sequence[StoredEvent], instance: str) -> None:
        try:
            await self._asked(self._store.append(batch, instance=instance))
            self.counts.stored += len(batch)
        except StoreUnavailable:
            raise
        except StoreError as error:
            # One that the database can never take holds up no other.
            if len(batch) == 1:
                self._count_dropped(1)
                facts = {"type": batch[0].type, "call_id": batch[0].call_id}
                logger.error(
                    "the call history refuses an event", extra={**facts, "reason": error.message}
                )
                return
            for record in batch:
                await self._append([record], instance)

    async def _asked(self, answer: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._answer_s):
                return await answer
        except TimeoutError:
            raise StoreUnavailable("the database does not answer in time") from None

    def _went_down(self, reason: str) -> None:
        if not self._told_down:
            logger.warning("call history unavailable", extra={"reason": reason})
        self._up, self._told_down = False, True
        self._next_try_s = _clock_s() + RETRY_S

    def _count_dropped(self, count: int) -> None:
        if not self.counts.dropped:
            logger.error("events of calls are lost: neither the store nor the disk takes them")
        self.counts.dropped += count

    # Coming back --------------------------------------------------------------------------------

    async def _keep_up(self) -> None:
        """Take what was spooled to the store once it answers, and renew our lease."""
        now_s = _clock_s()
        try:
            if (not self._up or self._pending or self._leftovers) and now_s >= self._next_try_s:
                await self._come_back()
            if self._up and now_s - self._renewed_s >= RENEW_S:
                await self._renew(now_s)
        except StoreUnavailable as error:
            self._went_down(error.message)
        except StoreError as error:  # of a newer version, say: no retry heals it, an operator may
            self._went_down(error.message)
            self._next_try_s = now_s + 60

    async def _come_back(self) -> None:
        await self._asked(self._store.open())
        async with self._writing:
            for spool in list(self._leftovers):
                await self._replay(spool)
                lost = await self._asked(self._store.close_lost(of=[spool.instance]))
                self._tell_lost(lost)
                await in_thread(spool.close)
                self._leftovers.remove(spool)
            if self._spool is not None:
                await self._replay(self._spool)
            if not self._up:
                self._up, self._up_since_s = True, _clock_s()
            if self._told_down:
                self._told_down = self._told_full = False
                logger.info("call history is written again", extra=self.counted())

    async def _replay(self, spool: Spool) -> None:
        while not spool.empty:
            await self._relieve()
            records, end = await in_thread(partial(spool.first, BATCH_EVENTS))
            if records:
                await self._append(records, spool.instance)
            await in_thread(partial(spool.drop, end, len(records)))

    async def _renew(self, now_s: float) -> None:
        now = self._now()
        await self._asked(self._store.renew(self._instance, now))
        self._renewed_s = now_s
        # After an outage of the store nobody was seen in it: the others get time to come back.
        if now_s - self._up_since_s >= LEASE_S:
            unseen = now - timedelta(seconds=LEASE_S)
            self._tell_lost(await self._asked(self._store.close_lost(unseen_since=unseen)))

    def _tell_lost(self, records: Sequence[StoredEvent]) -> None:
        for record in records:
            logger.warning("call closed as lost", extra={"call_id": record.call_id})
            self._on_lost(record)

    # Erasing ------------------------------------------------------------------------------------

    async def forget(self, call_ids: Collection[CallId]) -> None:
        """Remove events of calls that wait, in memory and in the spools on this disk.

        Raises:
            OSError: the disk does not take it.
        """
        async with self._writing:
            kept = [record for record in self._waiting if record.call_id not in call_ids]
            self._waiting = deque(kept)
            for spool in self._spools:
                await in_thread(partial(spool.forget, call_ids))


def instance_name() -> str:
    """A name for this process that no other has."""
    host = "".join(letter for letter in socket.gethostname()[:40] if letter.isalnum())
    return f"{host or 'host'}-{os.getpid()}-{secrets.token_hex(4)}"


def _clock_s() -> float:
    return asyncio.get_running_loop().time()
