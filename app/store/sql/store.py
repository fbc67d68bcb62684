"""`CallStore` over SQLAlchemy, for SQLite and PostgreSQL.

Its parts: `append.py` writes events and what is derived of them, `lists.py` makes the queries for
lists of calls, `search.py` those of the full-text search, the one thing that both databases do
differently.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    Table,
    and_,
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import CallNotFound, StoreUnavailable
from app.events import CallId
from app.store.base import (
    CallFilter,
    Erased,
    Figures,
    Note,
    Outcome,
    Page,
    Status,
    StoredCall,
    StoredEvent,
    TranscriptHit,
)
from app.store.retention import without
from app.store.search_terms import parse_query
from app.store.sql.append import EventTables, in_table, rows_of
from app.store.sql.database import Database
from app.store.sql.lists import counted_calls, cursor_of, figures_of, has_number, listed_calls
from app.store.sql.outbound import OF_A_NUMBER, attempts
from app.store.sql.records import SPEECH, call_of, event_of, event_row
from app.store.sql.search import MERGE_INDEX, hits_of, lines_with
from app.store.sql.tables import (
    call_tags,
    calls,
    erasures,
    events,
    instances,
    notes,
    open_calls,
    retention_marks,
    transcript,
)
from app.store.sql.webhooks import deliveries

__all__ = ["SqlStore"]

MOST_AT_ONCE: Final = 1_000
OF_A_CALL: Final[Sequence[Table]] = (
    events,
    calls,
    transcript,
    open_calls,
    notes,
    call_tags,
    deliveries,
    attempts,
)


class SqlStore:
    """The call history in a database."""

    def __init__(self, place: Path | str) -> None:
        """The rest as for `Database`."""
        self.database = Database(place)
        self._upgraded = False
        self._tables = EventTables(self.database)

    async def open(self) -> None:
        if not self._upgraded:
            await self.database.upgrade()
            self._upgraded = True

    async def close(self) -> None:
        await self.database.close()

    # Writing ------------------------------------------------------------------------------------

    async def append(self, events: Sequence[StoredEvent], *, instance: str) -> None:
        """Take events, each once, however often it comes; all of them or none."""
        if events:
            await self.database.write(partial(self._tables.take, taken=events, instance=instance))

    # Calls of processes that are gone -----------------------------------------------------------

    async def renew(self, instance: str, at: datetime) -> None:
        """Say that a process is alive; see `close_lost`."""
        async with self.database.writing() as connection:
            statement = self.database.insert(instances)
            await connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["instance"], set_={"seen_at": statement.excluded.seen_at}
                ),
                {"instance": instance, "seen_at": at},
            )

    async def leave(self, instance: str) -> None:
        """The process ends, and holds no call any more."""
        async with self.database.writing() as connection:
            await connection.execute(delete(instances).where(instances.c.instance == instance))

    async def close_lost(
        self, *, of: Collection[str] = (), unseen_since: datetime | None = None
    ) -> Sequence[StoredEvent]:
        """Record `CallLost` in the open calls of processes that are gone; returns the records.

        Gone are those named, and those not seen since `unseen_since`.
        """
        return await self.database.write(
            partial(self._tables.close_lost, of=of, unseen_since=unseen_since)
        )

    # Reading ------------------------------------------------------------------------------------

    async def calls(
        self,
        wanted: CallFilter = CallFilter(),  # noqa: B008 - frozen
        *,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[StoredCall]:
        """Calls, the newest first."""
        limit = min(max(limit, 1), MOST_AT_ONCE)
        query = listed_calls(wanted, cursor, limit + 1)
        async with self.database.reading() as connection:
            found = (await connection.execute(query)).mappings().all()
        items = [call_of(row) for row in found[:limit]]
        more = len(found) > limit
        return Page(items, cursor_of(items[-1].started_at, items[-1].call_id) if more else None)

    async def figures(
        self, wanted: CallFilter, *, each: timedelta, ahead: timedelta = timedelta(0)
    ) -> Sequence[Figures]:
        """Calls counted by stretches of time, oldest first."""
        async with self.database.reading() as connection:
            found = await connection.execute(counted_calls(wanted, each, ahead))
            return figures_of(found.mappings().all())

    async def call(self, call_id: CallId) -> StoredCall:
        """One call."""
        async with self.database.reading() as connection:
            found = await connection.run_sync(rows_of, [call_id])
        if call_id not in found:
            raise CallNotFound("there is no such call")
        return found[call_id]

    async def events(
        self, call_id: CallId, *, after_seq: int = 0, limit: int = MOST_AT_ONCE
    ) -> Sequence[StoredEvent]:
        """The events of a call in their order."""
        query = select(events).where(events.c.call_id == call_id, events.c.seq > after_seq)
        query = query.order_by(events.c.seq).limit(limit)
        async with self.database.reading() as connection:
            return [event_of(row) for row in (await connection.execute(query)).mappings()]

    async def search(
        self, text: str, *, cursor: str | None = None, limit: int = 50
    ) -> Page[TranscriptHit]:
        """Turns that hold all the words, the newest first."""
        terms = parse_query(text)
        if not terms:
            return Page([])
        limit = min(max(limit, 1), MOST_AT_ONCE)
        query = lines_with(terms, cursor, limit + 1, is_sqlite=self.database.is_sqlite)
        async with self.database.reading() as connection:
            found = (await connection.execute(query)).mappings().all()
        return hits_of(found, limit)

    async def status(self) -> Status:
        """Facts about the store."""
        has, lacks = await self.database.revisions()
        counted = {}
        if not lacks:
            async with self.database.reading() as connection:
                for name, table in (("calls", calls), ("events", events), ("open", open_calls)):
                    query = select(func.count()).select_from(table)
                    counted[name] = (await connection.execute(query)).scalar_one()
        return Status(
            kind=self.database.kind,
            place=self.database.place,
            revisions=has,
            missing_revisions=lacks,
            calls=counted.get("calls", 0),
            events=counted.get("events", 0),
            open_calls=counted.get("open", 0),
            bytes=self.database.size_bytes(),
        )

    # Notes and tags -----------------------------------------------------------------------------

    async def add_note(self, call_id: CallId, text: str, *, author: str) -> Note:
        """Add a note to a call."""
        at = _now()
        facts = {"call_id": call_id, "at": at, "author": author, "text": text}
        async with self.database.writing() as connection:
            await _must_exist(connection, call_id)
            made = await connection.execute(insert(notes).values(facts).returning(notes.c.note_id))
            return Note(note_id=made.scalar_one(), call_id=call_id, at=at, author=author, text=text)

    async def notes(self, call_id: CallId) -> Sequence[Note]:
        """The notes of a call, the oldest first."""
        query = select(notes).where(notes.c.call_id == call_id).order_by(notes.c.note_id)
        async with self.database.reading() as connection:
            return [Note(**row) for row in (await connection.execute(query)).mappings()]

    async def set_tags(self, call_id: CallId, tags: Collection[str]) -> None:
        """Give a call these tags, and no others."""
        async with self.database.writing() as connection:
            await _must_exist(connection, call_id)
            await connection.execute(delete(call_tags).where(call_tags.c.call_id == call_id))
            if tags:
                rows = [{"call_id": call_id, "tag": tag} for tag in sorted(set(tags))]
                await connection.execute(insert(call_tags), rows)

    async def tags(self, call_id: CallId) -> Sequence[str]:
        """The tags of a call."""
        query = select(call_tags.c.tag).where(call_tags.c.call_id == call_id)
        async with self.database.reading() as connection:
            return sorted((await connection.execute(query)).scalars())

    # Erasing ------------------------------------------------------------------------------------

    async def calls_with(self, number: str) -> Sequence[CallId]:
        """All calls from or to a number."""
        query = select(calls.c.call_id).where(has_number(number))
        async with self.database.reading() as connection:
            return [CallId(found) for found in (await connection.execute(query)).scalars()]

    async def forget_number(self, number: str) -> None:
        """Remove a number from campaigns and consents; the do-not-call list has to keep it."""
        gone = 0
        async with self.database.writing() as connection:
            for table in OF_A_NUMBER:
                removed = await connection.execute(delete(table).where(table.c.number == number))
                gone += removed.rowcount
        if gone:
            await self.compact()

    async def erase(self, call_ids: Collection[CallId]) -> Erased:
        """Remove everything that the store knows of calls, and refuse what comes of them later."""
        wanted = list(dict.fromkeys(call_ids))
        gone: list[CallId] = []
        live: list[CallId] = []
        for part in _parts(wanted, 500):
            async with self.database.writing() as connection:
                live += await connection.run_sync(in_table, open_calls, part)
                removable = [call_id for call_id in part if call_id not in live]
                if not removable:
                    continue
                for table in OF_A_CALL:
                    await connection.execute(delete(table).where(table.c.call_id.in_(removable)))
                await connection.execute(
                    self.database.insert(erasures).on_conflict_do_nothing(),
                    [{"call_id": call_id, "at": _now()} for call_id in removable],
                )
                gone += removable
        if gone:
            await self.compact()
        return Erased(call_ids=gone, still_live=live)

    async def blank(
        self, call_ids: Collection[CallId], fields: Mapping[str, Mapping[str, Any]]
    ) -> int:
        """Replace fields of events, by their type; returns how many events had others."""
        if not call_ids:
            return 0
        wanted = and_(events.c.call_id.in_(call_ids), events.c.type.in_(list(fields)))
        async with self.database.writing() as connection:
            found = await connection.execute(select(events).where(wanted))
            blanked = [
                (record, new)
                for record in map(event_of, found.mappings())
                if (new := without(record, fields)) != record
            ]
            if not blanked:
                return 0
            statement = update(events).where(events.c.position == bindparam("of"))
            await connection.execute(
                statement.values(body=bindparam("new")),
                [{"of": old.position, "new": event_row(new)["body"]} for old, new in blanked],
            )
            if speech := [(old.call_id, old.seq) for old, _ in blanked if old.type in SPEECH]:
                turn = tuple_(transcript.c.call_id, transcript.c.seq)
                await connection.execute(delete(transcript).where(turn.in_(speech)))
            return len(blanked)

    async def cleaned_until(self, kind: str) -> datetime | None:
        """The time before which a kind of data has been removed already."""
        query = select(retention_marks.c.until).where(retention_marks.c.kind == kind)
        async with self.database.reading() as connection:
            found: datetime | None = (await connection.execute(query)).scalar_one_or_none()
            return found

    async def set_cleaned_until(self, kind: str, at: datetime) -> None:
        """Remember that a kind of data has been removed up to a time."""
        statement = self.database.insert(retention_marks).values(kind=kind, until=at)
        statement = statement.on_conflict_do_update(index_elements=["kind"], set_={"until": at})
        async with self.database.writing() as connection:
            await connection.execute(statement)

    async def compact(self) -> None:
        """Leave no copy of what was removed in the files of SQLite: index, free pages, WAL."""
        if not self.database.is_sqlite:
            return
        async with self.database.writing() as connection:
            await connection.execute(MERGE_INDEX)
        async with self.database.maintaining() as connection:
            busy, *_ = (await connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))).one()
        if busy:
            raise StoreUnavailable(
                "erased, but a reader still holds the write-ahead log, which has copies of it",
                code="store_not_compacted",
            )

    async def older_than(self, at: datetime, *, limit: int = 500) -> Sequence[CallId]:
        """Calls that began before, and are over."""
        query = select(calls.c.call_id).where(
            calls.c.started_at < at, calls.c.outcome != Outcome.IN_PROGRESS.value
        )
        async with self.database.reading() as connection:
            return [CallId(one) for one in (await connection.execute(query.limit(limit))).scalars()]

    # Made anew ----------------------------------------------------------------------------------

    async def rebuild(self) -> int:
        """Make `calls` and `transcript` anew of the events; returns how many calls there are."""
        count, last, some = 0, "", 1
        while some:
            some, last = await self.database.write(partial(self._tables.rebuild, after=last))
            count += some
        return count


async def _must_exist(connection: AsyncConnection, call_id: CallId) -> None:
    if not await connection.run_sync(in_table, calls, [call_id]):
        raise CallNotFound("there is no such call")


def _parts(items: Sequence[CallId], size: int) -> Iterable[Sequence[CallId]]:
    return (items[at : at + size] for at in range(0, len(items), size))


def _now() -> datetime:
    return datetime.now(UTC)
