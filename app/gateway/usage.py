"""Charges on their way to the database, in batches that no session waits for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from app.errors import StoreError, StoreUnavailable
from app.events import TokenUsage
from app.gateway.meter import Charge
from app.store.sql.gateway import GatewayStore, GatewayUse
from app.tasks import running

__all__ = ["UsageBook"]

logger = logging.getLogger(__name__)

EVERY_S: Final = 2.0
BATCH: Final = 500
AT_ONCE: Final = 20
MOST: Final = 20_000
"""Charges that wait while the database is away; of more the oldest are lost."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A charge that was noted. Counts and rows are made in batches: alone, each would find their
    code out of the processor's cache."""

    session_id: str
    key_name: str
    model: str
    channel: str
    charge: Charge
    at_s: float

    def row(self) -> GatewayUse:
        charge, used = self.charge, self.charge.usage
        return GatewayUse(
            call_id=self.session_id,
            source_id=charge.source_id[:200],
            kind=charge.kind,
            at=datetime.fromtimestamp(self.at_s, UTC),
            key_name=self.key_name,
            model=self.model,
            channel=self.channel,
            input_text=used.input_text,
            input_audio=used.input_audio,
            cached_text=used.cached_text + used.cached_unsplit,
            cached_audio=used.cached_audio,
            output_text=used.output_text,
            output_audio=used.output_audio,
            transcription_seconds=used.transcription_seconds,
            transcription_tokens=used.transcription_tokens,
            cost_usd=charge.cost_usd,
            estimated=charge.estimated,
        )


class UsageCounts(Protocol):
    """Numbers for Prometheus."""

    def gateway_charged(
        self, key: str, model: str, usage: TokenUsage, cost_usd: float, *, estimated: bool
    ) -> None: ...


class UsageBook:
    """Counts and keeps charges."""

    def __init__(self, store: GatewayStore | None, counts: UsageCounts | None = None) -> None:
        """Without a store they are kept nowhere; Prometheus and the log have them."""
        self._store = store
        self._counts = counts
        self._uncharged: deque[Callable[[], None]] = deque()
        self._noted: deque[_Entry] = deque()
        self._waiting: deque[GatewayUse] = deque()
        self._complained = False

    def add(
        self, session_id: str, *, key_name: str, model: str, channel: str, charge: Charge
    ) -> None:
        """Note a charge."""
        self._noted.append(_Entry(session_id, key_name, model, channel, charge, time.time()))

    def charge_later(self, charge: Callable[[], None]) -> None:
        """Call `charge`, which adds charges, before the next batch is written."""
        self._uncharged.append(charge)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Write what comes inside the block, and the rest at its end."""
        async with running(self._write_on()):
            yield
        await self.write()

    async def _write_on(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            await self.write()

    async def write(self) -> None:
        """Count and write what waits now; it goes on waiting where the database is away."""
        while self._uncharged:
            for _ in range(min(AT_ONCE, len(self._uncharged))):
                self._uncharged.popleft()()
            await asyncio.sleep(0)  # sound has its turn
        while self._noted:
            for _ in range(min(AT_ONCE, len(self._noted))):
                self._take(self._noted.popleft())
            await asyncio.sleep(0)
        while self._waiting and self._store is not None:
            batch = [self._waiting[i] for i in range(min(BATCH, len(self._waiting)))]
            try:
                await self._keep(self._store, batch)
            except StoreUnavailable as error:
                logger.warning("gateway charges wait", extra={"code": error.code})
                return
            for _ in batch:
                self._waiting.popleft()
            self._complained = False

    async def _keep(self, store: GatewayStore, batch: Sequence[GatewayUse]) -> None:
        """Write charges; one that the database can never take is dropped, and holds up no other."""
        try:
            # A charge is there once, however often it is written.
            await store.add_use(batch)
        except StoreUnavailable:
            raise
        except StoreError as error:
            if len(batch) == 1:
                facts = {"session_id": batch[0].call_id, "key": batch[0].key_name}
                logger.error(
                    "the database refuses a gateway charge",
                    extra={**facts, "usd": batch[0].cost_usd, "reason": error.message},
                )
                return
            half = len(batch) // 2
            await self._keep(store, batch[:half])
            await self._keep(store, batch[half:])

    def _take(self, entry: _Entry) -> None:
        charge = entry.charge
        if self._counts is not None:
            self._counts.gateway_charged(
                entry.key_name,
                entry.model,
                charge.usage,
                charge.cost_usd or 0.0,
                estimated=charge.estimated,
            )
        if self._store is None:
            return
        self._waiting.append(entry.row())
        if len(self._waiting) > MOST:
            self._waiting.popleft()
            if not self._complained:
                logger.error("gateway charges are lost: the database is away")
                self._complained = True
