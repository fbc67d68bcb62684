"""The gateway's tables: ephemeral secrets as hashes, and what sessions have used."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from operator import attrgetter
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    String,
    Table,
    Text,
    delete,
    func,
    or_,
    select,
    update,
)

from app.store.sql.database import Database
from app.store.sql.tables import Instant, PlainText, Serial, metadata

__all__ = ["GatewaySecret", "GatewayStore", "GatewayUse"]

secrets = Table(
    "gateway_secrets",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("key_id", String(64), nullable=False),
    Column("key_name", PlainText, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("sessions_left", BigInteger),
)
usage = Table(
    "gateway_usage",
    metadata,
    Column("usage_id", Serial, primary_key=True, autoincrement=True),
    Column("call_id", PlainText, nullable=False),
    Column("source_id", PlainText, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("at", Instant, nullable=False),
    Column("key_name", PlainText, nullable=False),
    Column("model", PlainText, nullable=False),
    Column("channel", String(64), nullable=False),
    Column("input_text", BigInteger, nullable=False),
    Column("input_audio", BigInteger, nullable=False),
    Column("cached_text", BigInteger, nullable=False),
    Column("cached_audio", BigInteger, nullable=False),
    Column("output_text", BigInteger, nullable=False),
    Column("output_audio", BigInteger, nullable=False),
    Column("transcription_seconds", Float, nullable=False),
    Column("transcription_tokens", BigInteger, nullable=False),
    Column("cost_usd", Float),
    Column("estimated", Boolean, nullable=False),
    Index("gateway_usage_once", "call_id", "kind", "source_id", unique=True),
    Index("gateway_usage_by_time", "at", "key_name"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySecret:
    """An ephemeral secret as it is kept; `body` is JSON. None sessions left: no limit."""

    sha256: str
    key_id: str
    key_name: str
    body: str
    created_at: datetime
    expires_at: datetime
    sessions_left: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayUse:
    """One charge of one session; `call_id` and `kind` and `source_id` tell it from all others."""

    call_id: str
    source_id: str
    kind: str
    at: datetime
    key_name: str
    model: str
    channel: str
    input_text: int
    input_audio: int
    cached_text: int
    cached_audio: int
    output_text: int
    output_audio: int
    transcription_seconds: float
    transcription_tokens: int
    cost_usd: float | None
    estimated: bool


_USE = tuple(one.name for one in fields(GatewayUse))
_values = attrgetter(*_USE)


class GatewayStore:
    """Both tables of one database. Every method raises StoreError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep_secret(self, secret: GatewaySecret) -> None:
        """Keep a secret, and forget those that have expired."""
        async with self._database.writing() as connection:
            await connection.execute(
                delete(secrets).where(secrets.c.expires_at < secret.created_at)
            )
            await connection.execute(secrets.insert(), [asdict(secret)])

    async def take_session(self, sha256: str, now: datetime) -> GatewaySecret | None:
        """Count one session of a secret; None where it is unknown, expired or used up."""
        valid = (
            (secrets.c.sha256 == sha256)
            & (secrets.c.expires_at > now)
            & or_(secrets.c.sessions_left.is_(None), secrets.c.sessions_left > 0)
        )
        left = secrets.c.sessions_left - 1
        async with self._database.writing() as connection:
            counted = update(secrets).where(valid).values(sessions_left=left)
            if not (await connection.execute(counted)).rowcount:
                return None
            found = await connection.execute(select(secrets).where(secrets.c.sha256 == sha256))
            return GatewaySecret(**found.one()._mapping)

    async def add_use(self, uses: Sequence[GatewayUse]) -> None:
        """Add charges; one that is there already is left as it is."""
        insert = self._database.insert(usage).on_conflict_do_nothing()
        # Not `asdict`, which copies each value deeply.
        rows = [dict(zip(_USE, _values(one), strict=True)) for one in uses]
        await self._database.write(lambda connection: connection.execute(insert, rows))

    async def spent(self, key_names: Collection[str], since: datetime) -> Mapping[str, float]:
        """The sums that keys have spent since then, in US dollars."""
        total = func.sum(usage.c.cost_usd)
        query = select(usage.c.key_name, total).where(
            usage.c.at >= since, usage.c.key_name.in_(key_names)
        )
        async with self._database.reading() as connection:
            rows = (await connection.execute(query.group_by(usage.c.key_name))).all()
        return {name: float(usd or 0.0) for name, usd in rows}

    async def used(self, since: datetime) -> list[dict[str, Any]]:
        """Use since then, added up by key and model."""
        sums = [
            func.sum(column).label(column.name)
            for column in usage.c
            if column.name.startswith(("input_", "cached_", "output_", "transcription_", "cost_"))
        ]
        by = (usage.c.key_name, usage.c.model)
        sessions = func.count(func.distinct(usage.c.call_id)).label("sessions")
        query = select(*by, sessions, *sums).where(usage.c.at >= since).group_by(*by).order_by(*by)
        async with self._database.reading() as connection:
            return [dict(row._mapping) for row in (await connection.execute(query)).all()]
