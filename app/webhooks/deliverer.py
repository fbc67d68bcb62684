"""Delivers messages about calls to receivers, with growing pauses, for a day.

Any number of processes deliver from one database: each message is taken by one of them at a time.
A receiver may get a message twice, if a process ends between the delivery and its note of it; its
id is the same then. Calls wait for none of this.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from app.errors import CallNotFound, StoreError, ToolError
from app.http.signed_webhook import Message, Webhook
from app.store.base import CallStore
from app.store.export import as_json, event_json
from app.store.sql.webhooks import FINISHED, Delivery, WebhookOutbox

__all__ = ["PAUSES_S", "Receiver", "WebhookDeliverer"]

logger = logging.getLogger(__name__)

POLL_S: Final = 1.0
STORE_AWAY_S: Final = 5.0
AT_ONCE: Final = 8
PAUSES_S: Final = (5, 30, 120, 600, 1_800, 3_600, 7_200, 7_200, 14_400, 14_400, 14_400, 14_400)
"""Between attempts: 13 of them in 22 hours."""
KEPT: Final = timedelta(days=30)
_PRUNE_EVERY: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Receiver:
    """A webhook of one attempt, and the kinds of messages that it gets."""

    webhook: Webhook
    kinds: Collection[str]


class WebhookDeliverer:
    """Serves all receivers. `on_outcome` is told `delivered`, `retried` or `failed`."""

    def __init__(
        self,
        store: CallStore,
        outbox: WebhookOutbox,
        receivers: Mapping[str, Receiver],
        *,
        on_outcome: Callable[[str], None] = lambda outcome: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.outbox = outbox
        self._store = store
        self._receivers = receivers
        self._on_outcome = on_outcome
        self._now = now
        self._pruned_at = now()
        self._away = False

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            pause_s = POLL_S
            try:
                busy = await self.deliver_due()
                self._away = False
                pause_s = 0.0 if busy else POLL_S
            except StoreError as error:
                if not self._away:
                    logger.warning("webhooks wait for the store", extra={"reason": error.message})
                self._away, pause_s = True, STORE_AWAY_S
            await asyncio.sleep(pause_s)

    async def deliver_due(self) -> bool:
        """Note what has happened, and deliver what is due; True when there may be more.

        Raises:
            StoreError: the store does not answer.
        """
        looked_at = 0
        for name, receiver in self._receivers.items():
            looked_at += await self.outbox.collect(name, receiver.kinds, self._now())
        taken = await self.outbox.take(self._now(), AT_ONCE, self._receivers)
        async with asyncio.TaskGroup() as tasks:
            for delivery in taken:
                tasks.create_task(self._deliver(delivery))
        if self._now() - self._pruned_at > _PRUNE_EVERY:
            self._pruned_at = self._now()
            await self.outbox.prune(self._now() - KEPT)
        return bool(taken) or looked_at > 0

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            data = await self._data(delivery)
            if data is None:
                await self.outbox.drop(delivery)
                return
            message = Message(
                key=delivery.message_id, kind=delivery.kind, data=data, at=delivery.created_at
            )
            try:
                await self._receivers[delivery.webhook].webhook.post(message)
            except ToolError as error:
                await self._on_failed(delivery, error)
                return
            await self.outbox.on_delivered(delivery, self._now())
            self._on_outcome("delivered")
        except StoreError as error:
            # Taken again once its two minutes are over.
            logger.warning("webhooks wait for the store", extra={"reason": error.message})

    async def _on_failed(self, delivery: Delivery, error: ToolError) -> None:
        now, attempts = self._now(), delivery.attempts
        if attempts >= len(PAUSES_S):
            await self.outbox.on_failed(delivery, error.code, now, None)
            self._on_outcome("failed")
            logger.error(
                "webhook was not delivered",
                extra={
                    "message_id": delivery.message_id,
                    "kind": delivery.kind,
                    "error": error.code,
                    "webhook": delivery.webhook,
                },
            )
            return
        pause_s = max(PAUSES_S[attempts], min(error.retry_after_s or 0, PAUSES_S[-1]))
        next_at = now + timedelta(seconds=pause_s)
        await self.outbox.on_failed(delivery, error.code, now, next_at)
        self._on_outcome("retried")

    async def _data(self, delivery: Delivery) -> dict[str, Any] | None:
        """The contents of a message; None where the call was erased."""
        try:
            call = await self._store.call(delivery.call_id)
        except CallNotFound:
            return None
        if delivery.kind == FINISHED:
            row = as_json(call, ())
            for name in ("events", "notes", "tags"):
                del row[name]
            return row
        found = await self._store.events(delivery.call_id, after_seq=delivery.seq - 1, limit=1)
        if not found or found[0].seq != delivery.seq:
            return None
        return {"call_id": delivery.call_id, **event_json(found[0])}
