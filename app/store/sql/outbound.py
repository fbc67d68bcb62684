"""`OutboundStore` over SQLAlchemy, in the database of the history of calls."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    String,
    Table,
    and_,
    delete,
    func,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import StoreError
from app.events import CallId
from app.store.outbound import (
    Attempt,
    AttemptState,
    CalleeFacts,
    Campaign,
    CampaignState,
    Contact,
    ContactState,
    DialOutcome,
    ListedNumber,
)
from app.store.sql.database import Database
from app.store.sql.tables import Instant, JsonText, PlainText, Serial, metadata

__all__ = ["OF_A_NUMBER", "SqlOutbound", "attempts"]

T = TypeVar("T")
_DAY: Final = timedelta(days=1)
_DIAL_LOCK: Final = 0x6469616C
_AT_ONCE: Final = 500


attempts = Table(
    "outbound_attempts",
    metadata,
    Column("call_id", PlainText, primary_key=True),
    Column("number", PlainText, nullable=False),
    Column("from_number", PlainText, nullable=False),
    Column("agent", PlainText, nullable=False),
    Column("variables", JsonText, nullable=False),
    Column("purpose", String(16), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("sent_at", Instant),
    Column("ended_at", Instant),
    Column("state", String(16), nullable=False),
    Column("carrier_call_id", PlainText, nullable=False),
    Column("outcome", String(16)),
    Column("code", PlainText, nullable=False),
    Column("reason", PlainText, nullable=False),
    Column("owner", PlainText, nullable=False),
    Column("campaign_id", PlainText, nullable=False),
    Column("contact_id", BigInteger),
    Index("attempts_of_number", "number", "created_at"),
    Index("attempts_by_time", "created_at"),
    Index("attempts_by_state", "state"),
    Index("attempts_of_campaign", "campaign_id", "ended_at"),
)
_owners = Table(
    "outbound_owners",
    metadata,
    Column("owner", PlainText, primary_key=True),
    Column("seen_at", Instant, nullable=False),
)


def _list_table(name: str) -> Table:
    return Table(
        name,
        metadata,
        Column("number", PlainText, primary_key=True),
        Column("at", Instant, nullable=False),
        Column("reason", PlainText, nullable=False),
        Column("source", PlainText, nullable=False),
    )


_do_not_call, _consents = _list_table("do_not_call"), _list_table("consents")
_campaigns = Table(
    "campaigns",
    metadata,
    Column("campaign_id", PlainText, primary_key=True),
    Column("name", PlainText, nullable=False),
    Column("agent", PlainText, nullable=False),
    Column("purpose", String(16), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", PlainText, nullable=False),
    Column("options", JsonText, nullable=False),
    Column("runner", PlainText, nullable=False),
    Column("lease_until", Instant, nullable=False),
)
_contacts = Table(
    "campaign_contacts",
    metadata,
    Column("contact_id", Serial, primary_key=True, autoincrement=True),
    Column("campaign_id", PlainText, nullable=False),
    Column("number", PlainText, nullable=False),
    Column("variables", JsonText, nullable=False),
    Column("time_zone", PlainText, nullable=False),
    Column("state", String(16), nullable=False),
    Column("tries", BigInteger, nullable=False),
    Column("next_at", Instant, nullable=False),
    Column("outcome", PlainText, nullable=False),
    Column("reason", PlainText, nullable=False),
    Column("call_id", PlainText, nullable=False),
    Index("contact_of_campaign", "campaign_id", "number", unique=True),
    Index("contacts_due", "campaign_id", "state", "next_at"),
)
OF_A_NUMBER: Final = (_consents, _contacts)
"""Tables whose rows go when their number is erased. The do-not-call list has to keep it."""
_OPEN: Final = attempts.c.state != AttemptState.ENDED.value


class SqlOutbound:
    """Attempts, lists and campaigns in a database."""

    def __init__(self, database: Database) -> None:
        """The tables are made by `SqlStore.open`."""
        self._database = database

    # Attempts -----------------------------------------------------------------------------------

    async def begin(self, attempt: Attempt, check: Callable[[CalleeFacts], T | None]) -> T | None:
        """Write an attempt down unless `check` has an objection, which is returned."""
        async with self._database.writing() as connection:
            if not self._database.is_sqlite:  # there a writing transaction is the only one
                lock = text("SELECT pg_advisory_xact_lock(:key)")
                await connection.execute(lock, {"key": _DIAL_LOCK})
            objection = check(await _facts(connection, attempt))
            if objection is not None:
                return objection
            if attempt.contact_id is not None:
                await _claim_contact(connection, attempt)
            await connection.execute(attempts.insert(), [_row(attempt)])
        return None

    async def sent(self, call_id: CallId, at: datetime, owner: str) -> bool:
        """Note that an attempt goes to the carrier; False if it is not its owner's any more."""
        waiting = attempts.c.state == AttemptState.WAITING.value
        change = update(attempts).where(
            attempts.c.call_id == call_id, attempts.c.owner == owner, waiting
        )
        async with self._database.writing() as connection:
            done = await connection.execute(
                change.values(state=AttemptState.SENT.value, sent_at=at)
            )
            return bool(done.rowcount)

    async def placed(self, call_id: CallId, carrier_call_id: str) -> None:
        """Note the carrier's id; an attempt that is further already stays there."""
        before = (AttemptState.WAITING.value, AttemptState.SENT.value)
        async with self._database.writing() as connection:
            change = update(attempts).where(attempts.c.call_id == call_id)
            await connection.execute(change.values(carrier_call_id=carrier_call_id))
            change = change.where(attempts.c.state.in_(before))
            await connection.execute(change.values(state=AttemptState.PLACED.value))

    async def answered(self, call_id: CallId, carrier_call_id: str) -> None:
        state = AttemptState.ANSWERED.value
        await self._change(call_id, state=state, carrier_call_id=carrier_call_id)

    async def _change(self, call_id: CallId, **values: Any) -> None:
        async with self._database.writing() as connection:
            change = update(attempts).where(attempts.c.call_id == call_id, _OPEN)
            await connection.execute(change.values(**values))

    async def ended(
        self,
        call_id: CallId,
        at: datetime,
        outcome: DialOutcome,
        code: str,
        reason: str,
        contact: Callable[[Contact, Campaign], Contact] | None = None,
    ) -> bool:
        """Close an attempt, and say what is next for its contact."""
        async with self._database.writing() as connection:
            change = update(attempts).where(attempts.c.call_id == call_id, _OPEN)
            changed = await connection.execute(
                change.values(
                    state=AttemptState.ENDED.value,
                    ended_at=at,
                    outcome=outcome.value,
                    code=code,
                    reason=reason,
                )
            )
            if not changed.rowcount:
                return False
            if contact is not None:
                await _move_contact(connection, call_id, contact)
            return True

    async def attempt(self, call_id: CallId) -> Attempt | None:
        async with self._database.reading() as connection:
            return await _attempt(connection, call_id)

    async def recent(self, limit: int) -> Sequence[Attempt]:
        """The last attempts: those that are open, then the newest that have ended."""
        found: list[Attempt] = []
        async with self._database.reading() as connection:
            for of in (_OPEN, attempts.c.state == AttemptState.ENDED.value):
                query = select(attempts).where(of).order_by(attempts.c.created_at.desc())
                rows = await connection.execute(query.limit(limit - len(found)))
                found += [_attempt_of(row) for row in rows.mappings()]
        return found

    async def known_carrier_ids(self, number: str, since: datetime) -> Collection[str]:
        query = select(attempts.c.carrier_call_id).where(
            attempts.c.number == number, attempts.c.created_at >= since
        )
        async with self._database.reading() as connection:
            return {sid for sid in (await connection.execute(query)).scalars() if sid}

    async def take_over(
        self, owner: str, *, held: Collection[CallId], unseen_since: datetime
    ) -> Sequence[Attempt]:
        """Become the owner of open attempts whose owner has not been seen since."""
        row = attempts.c
        alive = select(_owners.c.owner).where(_owners.c.seen_at >= unseen_since)
        left = or_(
            and_(row.owner != owner, row.owner.not_in(alive)),
            and_(row.owner == owner, row.call_id.not_in(held)),
        )
        async with self._database.writing() as connection:
            change = update(attempts).where(_OPEN, left).values(owner=owner)
            found = await connection.execute(change.returning(attempts))
            taken = [_attempt_of(row) for row in found.mappings()]
            await connection.execute(delete(_owners).where(_owners.c.seen_at < unseen_since))
            return taken

    async def take(self, call_id: CallId, owner: str) -> Attempt | None:
        """Become the owner of one open attempt, whoever has it."""
        async with self._database.writing() as connection:
            change = update(attempts).where(_OPEN, attempts.c.call_id == call_id)
            found = await connection.execute(change.values(owner=owner).returning(attempts))
            return next((_attempt_of(row) for row in found.mappings()), None)

    async def renew(self, owner: str, at: datetime) -> None:
        statement = self._database.insert(_owners).values(owner=owner, seen_at=at)
        async with self._database.writing() as connection:
            await connection.execute(
                statement.on_conflict_do_update(index_elements=["owner"], set_={"seen_at": at})
            )

    async def leave(self, owner: str) -> None:
        async with self._database.writing() as connection:
            await connection.execute(delete(_owners).where(_owners.c.owner == owner))

    # Lists --------------------------------------------------------------------------------------

    async def list_number(self, number: str, at: datetime, reason: str, source: str) -> None:
        await self._put(_do_not_call, number, at, reason, source)

    async def unlist_number(self, number: str) -> bool:
        return await self._remove(_do_not_call, number)

    async def listed(self, *, after: str = "", limit: int = 100) -> Sequence[ListedNumber]:
        query = select(_do_not_call).where(_do_not_call.c.number > after)
        query = query.order_by(_do_not_call.c.number).limit(limit)
        async with self._database.reading() as connection:
            return [ListedNumber(**row) for row in (await connection.execute(query)).mappings()]

    async def add_consent(self, number: str, at: datetime, source: str) -> None:
        await self._put(_consents, number, at, "", source)

    async def remove_consent(self, number: str) -> bool:
        return await self._remove(_consents, number)

    async def _put(self, table: Table, number: str, at: datetime, reason: str, by: str) -> None:
        row = {"number": number, "at": at, "reason": reason, "source": by}
        async with self._database.writing() as connection:
            await connection.execute(self._database.insert(table).on_conflict_do_nothing(), [row])

    async def _remove(self, table: Table, number: str) -> bool:
        async with self._database.writing() as connection:
            gone = await connection.execute(delete(table).where(table.c.number == number))
            return bool(gone.rowcount)

    # Campaigns ----------------------------------------------------------------------------------

    async def add_campaign(self, campaign: Campaign) -> None:
        row = {**asdict(campaign), "runner": "", "lease_until": campaign.created_at}
        row["state"] = campaign.state.value
        async with self._database.writing() as connection:
            await connection.execute(_campaigns.insert(), [row])

    async def add_contacts(self, contacts: Sequence[Contact]) -> int:
        added = 0
        async with self._database.writing() as connection:
            for at in range(0, len(contacts), _AT_ONCE):
                part = contacts[at : at + _AT_ONCE]
                rows = [_contact_row(one) for one in part]
                count = select(func.count()).select_from(_contacts)
                before = (await connection.execute(count)).scalar_one()
                statement = self._database.insert(_contacts).on_conflict_do_nothing(
                    index_elements=["campaign_id", "number"]
                )
                await connection.execute(statement, rows)
                added += (await connection.execute(count)).scalar_one() - before
        return added

    async def campaigns(self) -> Sequence[Campaign]:
        query = select(_campaigns).order_by(_campaigns.c.created_at, _campaigns.c.campaign_id)
        async with self._database.reading() as connection:
            return [_campaign_of(row) for row in (await connection.execute(query)).mappings()]

    async def campaign(self, campaign_id: str) -> Campaign | None:
        async with self._database.reading() as connection:
            return await _campaign(connection, campaign_id)

    async def set_campaign(
        self,
        campaign_id: str,
        state: CampaignState,
        reason: str = "",
        *,
        of: Collection[CampaignState] | None = None,
    ) -> bool:
        """Change a campaign's state, from one of `of`."""
        change = update(_campaigns).where(_campaigns.c.campaign_id == campaign_id)
        if of is not None:
            change = change.where(_campaigns.c.state.in_([one.value for one in of]))
        async with self._database.writing() as connection:
            done = await connection.execute(change.values(state=state.value, reason=reason))
            return bool(done.rowcount)

    async def lease(self, campaign_id: str, runner: str, now: datetime, life: timedelta) -> bool:
        """Be the one process that runs a campaign."""
        mine = or_(_campaigns.c.runner == runner, _campaigns.c.lease_until <= now)
        change = update(_campaigns).where(_campaigns.c.campaign_id == campaign_id, mine)
        async with self._database.writing() as connection:
            done = await connection.execute(change.values(runner=runner, lease_until=now + life))
            return bool(done.rowcount)

    async def due(self, campaign_id: str, now: datetime, limit: int) -> Sequence[Contact]:
        row = _contacts.c
        query = select(_contacts).where(
            row.campaign_id == campaign_id,
            row.state == ContactState.WAITING.value,
            row.next_at <= now,
        )
        query = query.order_by(row.next_at, row.contact_id).limit(limit)
        async with self._database.reading() as connection:
            return [_contact_of(one) for one in (await connection.execute(query)).mappings()]

    async def postpone(self, contact: Contact) -> None:
        """Write a waiting contact as it is given, unless it is waiting no longer."""
        async with self._database.writing() as connection:
            await _put_contact(connection, contact, of=ContactState.WAITING)

    async def counts(self, campaign_id: str) -> Mapping[str, int]:
        """Contacts by state and, with `outcome.` before it, by their last outcome."""
        found: dict[str, int] = {}
        row = _contacts.c
        query = select(row.state, row.outcome, func.count()).where(row.campaign_id == campaign_id)
        async with self._database.reading() as connection:
            counted = await connection.execute(query.group_by(row.state, row.outcome))
            for state, outcome, count in counted:
                found[state] = found.get(state, 0) + count
                if outcome:
                    name = f"outcome.{outcome}"
                    found[name] = found.get(name, 0) + count
        return found

    async def contacts(
        self, campaign_id: str, *, after: int = 0, limit: int = 100
    ) -> Sequence[Contact]:
        row = _contacts.c
        query = select(_contacts).where(row.campaign_id == campaign_id, row.contact_id > after)
        query = query.order_by(row.contact_id).limit(limit)
        async with self._database.reading() as connection:
            return [_contact_of(one) for one in (await connection.execute(query)).mappings()]

    async def last_outcomes(
        self, campaign_id: str, since: datetime, limit: int
    ) -> Sequence[DialOutcome]:
        """The outcomes of the latest attempts that ended since, the newest first."""
        row = attempts.c
        query = select(row.outcome).where(
            row.campaign_id == campaign_id, row.outcome.is_not(None), row.ended_at >= since
        )
        query = query.order_by(row.ended_at.desc()).limit(limit)
        async with self._database.reading() as connection:
            return [DialOutcome(one) for one in (await connection.execute(query)).scalars()]


# Steps of one transaction -------------------------------------------------------------------------


async def _facts(connection: AsyncConnection, attempt: Attempt) -> CalleeFacts:
    since = attempt.created_at - _DAY
    # An attempt that never left the server is not a call.
    dialed = or_(attempts.c.outcome.is_(None), attempts.c.outcome != DialOutcome.NOT_DIALED.value)
    count = select(func.count()).select_from(attempts)
    today = count.where(attempts.c.created_at > since, dialed)
    its = attempts.c.number == attempt.number
    return CalleeFacts(
        do_not_call=await _holds(connection, _do_not_call, attempt.number),
        has_consent=await _holds(connection, _consents, attempt.number),
        all_live_calls=(await connection.execute(count.where(_OPEN))).scalar_one(),
        live_calls=(await connection.execute(count.where(its, _OPEN))).scalar_one(),
        calls_today=(await connection.execute(today.where(its))).scalar_one(),
        all_calls_today=(await connection.execute(today)).scalar_one(),
    )


async def _holds(connection: AsyncConnection, table: Table, number: str) -> bool:
    query = select(table.c.number).where(table.c.number == number)
    return (await connection.execute(query)).first() is not None


async def _attempt(connection: AsyncConnection, call_id: CallId) -> Attempt | None:
    found = await connection.execute(select(attempts).where(attempts.c.call_id == call_id))
    return next((_attempt_of(row) for row in found.mappings()), None)


async def _campaign(connection: AsyncConnection, campaign_id: str) -> Campaign | None:
    query = select(_campaigns).where(_campaigns.c.campaign_id == campaign_id)
    found = (await connection.execute(query)).mappings()
    return next((_campaign_of(row) for row in found), None)


async def _claim_contact(connection: AsyncConnection, attempt: Attempt) -> None:
    change = update(_contacts).where(
        _contacts.c.contact_id == attempt.contact_id,
        _contacts.c.state == ContactState.WAITING.value,
    )
    done = await connection.execute(
        change.values(state=ContactState.DIALING.value, call_id=attempt.call_id)
    )
    if not done.rowcount:
        raise StoreError("the contact is being called already", code="contact_not_waiting")


async def _move_contact(
    connection: AsyncConnection,
    call_id: CallId,
    after: Callable[[Contact, Campaign], Contact],
) -> None:
    attempt = await _attempt(connection, call_id)
    if attempt is None or attempt.contact_id is None:
        return
    query = select(_contacts).where(_contacts.c.contact_id == attempt.contact_id)
    row = (await connection.execute(query)).mappings().first()
    campaign = await _campaign(connection, attempt.campaign_id)
    if row is not None and campaign is not None:
        contact = after(_contact_of(row), campaign)
        await _put_contact(connection, contact, of=ContactState.DIALING)


async def _put_contact(connection: AsyncConnection, contact: Contact, *, of: ContactState) -> None:
    change = update(_contacts).where(
        _contacts.c.contact_id == contact.contact_id, _contacts.c.state == of.value
    )
    await connection.execute(change.values(**_contact_row(contact)))


# Rows ---------------------------------------------------------------------------------------------


def _row(attempt: Attempt) -> dict[str, Any]:
    row = asdict(attempt)
    row["state"] = attempt.state.value
    row["outcome"] = None if attempt.outcome is None else attempt.outcome.value
    return row


def _attempt_of(row: Any) -> Attempt:
    outcome = row["outcome"]
    return Attempt(
        **{
            **row,
            "call_id": CallId(row["call_id"]),
            "state": AttemptState(row["state"]),
            "outcome": None if outcome is None else DialOutcome(outcome),
        }
    )


def _campaign_of(row: Any) -> Campaign:
    known = {name: row[name] for name in row if name not in ("runner", "lease_until")}
    return Campaign(**{**known, "state": CampaignState(row["state"])})


def _contact_row(contact: Contact) -> dict[str, Any]:
    row = asdict(contact)
    del row["contact_id"]
    row["state"] = contact.state.value
    return row


def _contact_of(row: Any) -> Contact:
    return Contact(**{**row, "state": ContactState(row["state"])})
