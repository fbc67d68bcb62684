"""The outbox of webhooks: what waits for each receiver, taken from the log of events.

The log is what is delivered: an event that has reached the store reaches every receiver that wants
it, once by its message id. Databases commit in another order than they number, so the last
positions are looked at again. A row holds no personal data: a message is made when it is sent.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    String,
    Table,
    Text,
    and_,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from app.events import CallId
from app.store.base import LAST_EVENTS
from app.store.sql.database import Database
from app.store.sql.tables import Instant, PlainText, Serial, events, metadata

__all__ = ["FINISHED", "Delivery", "WebhookOutbox", "deliveries"]

FINISHED: Final = "call_finished"
"""The one message about the end of every call, whatever its last event."""
WAITING: Final = "waiting"
DELIVERED: Final = "delivered"
FAILED: Final = "failed"

_OVERLAP: Final = 500
_AT_ONCE: Final = 500
_LEASE: Final = timedelta(minutes=2)

cursors = Table(
    "webhook_cursors",
    metadata,
    Column("webhook", String(64), primary_key=True),
    Column("first_position", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
)
deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("delivery_id", Serial, primary_key=True),
    Column("webhook", String(64), nullable=False),
    Column("message_id", String(128), nullable=False),
    Column("call_id", Text, nullable=False),
    Column("kind", String(64), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("next_at", Instant, nullable=False),
    Column("done_at", Instant),
    Column("error", PlainText, nullable=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message for a receiver; `seq` is its event's number in the call."""

    delivery_id: int
    webhook: str
    message_id: str
    call_id: CallId
    kind: str
    seq: int
    state: str
    attempts: int
    created_at: datetime
    next_at: datetime
    done_at: datetime | None
    error: str


class WebhookOutbox:
    """The deliveries of one database. Every method raises StoreError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def _insert(self, table: Table) -> Any:
        return (sqlite if self._database.is_sqlite else postgresql).insert(table)

    async def collect(self, webhook: str, kinds: Collection[str], now: datetime) -> int:
        """Note what has happened since the last time; returns how many events were looked at.

        A receiver that is new begins with what happens from now on.
        """
        async with self._database.writing() as connection:
            newest = (await connection.execute(select(func.max(events.c.position)))).scalar() or 0
            first = {"webhook": webhook, "first_position": newest, "position": newest}
            await connection.execute(
                self._database.insert(cursors).on_conflict_do_nothing(), [first]
            )
            found = await connection.execute(
                select(cursors.c.first_position, cursors.c.position).where(
                    cursors.c.webhook == webhook
                )
            )
            floor, position = found.one()
            columns = (events.c.position, events.c.call_id, events.c.seq, events.c.type)
            query = select(*columns).where(events.c.position > max(floor, position - _OVERLAP))
            query = query.order_by(events.c.position).limit(_AT_ONCE + _OVERLAP)
            records = (await connection.execute(query)).all()
            rows = [
                row
                for record in records
                for row in _rows(webhook, kinds, record.call_id, record.seq, record.type, now)
            ]
            if rows:
                await connection.execute(
                    self._database.insert(deliveries).on_conflict_do_nothing(), rows
                )
            fresh = [record.position for record in records if record.position > position]
            if fresh:
                await connection.execute(
                    update(cursors).where(cursors.c.webhook == webhook).values(position=max(fresh))
                )
        return len(fresh)

    async def take(self, now: datetime, limit: int, webhooks: Collection[str]) -> list[Delivery]:
        """Deliveries that are due, which no other process takes for the next two minutes."""
        due = and_(
            deliveries.c.state == WAITING,
            deliveries.c.next_at <= now,
            deliveries.c.webhook.in_(list(webhooks)),
        )
        taken: list[Delivery] = []
        async with self._database.writing() as connection:
            query = select(deliveries).where(due).order_by(deliveries.c.next_at).limit(limit)
            for row in (await connection.execute(query)).mappings().all():
                same = and_(
                    deliveries.c.delivery_id == row["delivery_id"],
                    deliveries.c.next_at == row["next_at"],
                    deliveries.c.state == WAITING,
                )
                changed = await connection.execute(
                    update(deliveries).where(same).values(next_at=now + _LEASE)
                )
                if changed.rowcount == 1:
                    taken.append(Delivery(**row))
        return taken

    async def on_delivered(self, delivery: Delivery, now: datetime) -> None:
        """The receiver has it."""
        await self._settle(delivery, state=DELIVERED, done_at=now, error="")

    async def on_failed(
        self, delivery: Delivery, error: str, now: datetime, next_at: datetime | None
    ) -> None:
        """An attempt came to nothing; without a next one, the delivery has failed."""
        if next_at is not None:
            await self._settle(delivery, next_at=next_at, error=error)
        else:
            await self._settle(delivery, state=FAILED, done_at=now, error=error)

    async def _settle(self, delivery: Delivery, **values: Any) -> None:
        own = deliveries.c.delivery_id == delivery.delivery_id
        async with self._database.writing() as connection:
            await connection.execute(
                update(deliveries).where(own).values(attempts=delivery.attempts + 1, **values)
            )

    async def drop(self, delivery: Delivery) -> None:
        """Its call was erased: there is nothing to send."""
        async with self._database.writing() as connection:
            own = deliveries.c.delivery_id == delivery.delivery_id
            await connection.execute(delete(deliveries).where(own))

    async def prune(self, before: datetime) -> None:
        """Forget what was delivered, or has failed, before a time."""
        async with self._database.writing() as connection:
            await connection.execute(delete(deliveries).where(deliveries.c.done_at < before))

    async def listed(self, state: str | None = None, limit: int = 100) -> Sequence[Delivery]:
        """Deliveries, the newest first."""
        query = select(deliveries).order_by(deliveries.c.delivery_id.desc()).limit(limit)
        if state is not None:
            query = query.where(deliveries.c.state == state)
        async with self._database.reading() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [Delivery(**row) for row in rows]

    async def replay(self, delivery_id: int, now: datetime) -> bool:
        """Send a message once more, under the same id; False where there is none."""
        values = {"state": WAITING, "attempts": 0, "created_at": now, "next_at": now}
        own = deliveries.c.delivery_id == delivery_id
        async with self._database.writing() as connection:
            changed = await connection.execute(
                update(deliveries).where(own).values(done_at=None, error="", **values)
            )
        return bool(changed.rowcount == 1)


def _rows(
    webhook: str, kinds: Collection[str], call_id: str, seq: int, kind: str, now: datetime
) -> list[dict[str, Any]]:
    """The deliveries that an event leads to."""
    wanted = [(kind, f"{call_id}-{seq}")] if kind in kinds else []
    if kind in LAST_EVENTS and FINISHED in kinds:
        wanted.append((FINISHED, f"{call_id}-finished"))
    return [
        {
            "webhook": webhook,
            "message_id": message_id[-128:],
            "call_id": call_id,
            "kind": sent_as,
            "seq": seq,
            "state": WAITING,
            "attempts": 0,
            "created_at": now,
            "next_at": now,
            "error": "",
        }
        for sent_as, message_id in wanted
    ]
