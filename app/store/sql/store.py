"""`CallStore` over SQLAlchemy: one code for SQLite and PostgreSQL, but for the full-text search."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    RowMapping,
    Select,
    Table,
    TextClause,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    text,
    tuple_,
    type_coerce,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import CallNotFound, StoreError, StoreUnavailable
from app.events import AgentSaid, CallerSaid, CallId, Party
from app.store.base import (
    LOST_SEQ,
    CallFilter,
    Direction,
    Erased,
    Figures,
    Note,
    Outcome,
    Page,
    Problem,
    Status,
    StoredCall,
    StoredEvent,
    TranscriptHit,
)
from app.store.codec import decode
from app.store.fold import rebuilt, step
from app.store.retention import without
from app.store.sql.database import Database
from app.store.sql.outbound import OF_A_NUMBER, attempts
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
from app.store.words import Term, parse_query, words_of

__all__ = ["SqlStore"]

MOST_AT_ONCE: Final = 1_000
_REBUILD_AT_ONCE: Final = 200
_NO_FAILURE: Final = ("answered", "canceled", "unknown")
_SPEECH: Final = ("caller_said", "agent_said")
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
        # Made once: to put a statement of 30 columns together costs as much as to run it.
        self._put_row = self._insert(calls)
        self._put_row = self._put_row.on_conflict_do_update(
            index_elements=["call_id"],
            set_={name: self._put_row.excluded[name] for name in _CALL_FIELDS if name != "call_id"},
        )
        self._put_event = self._insert(events).on_conflict_do_nothing()
        self._put_line = self._insert(transcript).on_conflict_do_nothing()

    async def open(self) -> None:
        if not self._upgraded:
            await self.database.upgrade()
            self._upgraded = True

    async def close(self) -> None:
        await self.database.close()

    # Writing ------------------------------------------------------------------------------------

    async def append(self, events: Sequence[StoredEvent], *, instance: str) -> None:
        """Take events, each once, however often it comes; all of them or none."""
        if not events:
            return
        async with self.database.writing() as connection:
            await self._take(connection, events, instance)

    async def _take(
        self, connection: AsyncConnection, taken: Sequence[StoredEvent], instance: str
    ) -> None:
        ids = {event.call_id for event in taken}
        known = await _rows_of(connection, ids)
        if new := ids - known.keys():
            erased = await _in_table(connection, erasures, new)
            taken = [event for event in taken if event.call_id not in erased]
        if not taken:
            return
        await connection.execute(self._put_event, [_event_row(event) for event in taken])
        by_call: dict[CallId, list[StoredEvent]] = {}
        for event in taken:
            by_call.setdefault(event.call_id, []).append(event)
        rows = [
            await self._row_after(connection, known.get(call_id), found)
            for call_id, found in by_call.items()
        ]
        await self._put_rows(connection, rows)
        await self._put_lines(connection, taken)
        await self._put_open(connection, rows, known, instance)

    async def _row_after(
        self, connection: AsyncConnection, row: StoredCall | None, found: Sequence[StoredEvent]
    ) -> StoredCall:
        """The row after some events: one step each where they follow it, else made anew."""
        first = row.last_seq + 1 if row else 1
        if [event.seq for event in found] != list(range(first, first + len(found))):
            row = rebuilt(await _events_of(connection, found[0].call_id))
            assert row is not None  # its events were just put there
            return row
        for event in found:
            row = step(row, event)
        assert row is not None
        return row

    async def _put_rows(self, connection: AsyncConnection, rows: Iterable[StoredCall]) -> None:
        await connection.execute(self._put_row, [_call_row(row) for row in rows])

    async def _put_lines(self, connection: AsyncConnection, records: Iterable[StoredEvent]) -> None:
        lines = [line for record in records if (line := _line_of(record)) is not None]
        if lines:
            await connection.execute(self._put_line, lines)

    async def _put_open(
        self,
        connection: AsyncConnection,
        rows: Iterable[StoredCall],
        before: Mapping[CallId, StoredCall],
        instance: str,
    ) -> None:
        opened, over = [], []
        for row in rows:
            if row.outcome is Outcome.IN_PROGRESS:
                if row.call_id in before:
                    continue
                opened.append({"call_id": row.call_id, "instance": instance})
            else:
                over.append(row.call_id)
        if opened:
            await connection.execute(self._insert(open_calls).on_conflict_do_nothing(), opened)
        if over:
            await connection.execute(delete(open_calls).where(open_calls.c.call_id.in_(over)))

    def _insert(self, table: Table) -> Any:  # of either dialect: both have ON CONFLICT
        return (sqlite if self.database.is_sqlite else postgresql).insert(table)

    # Calls of processes that are gone -----------------------------------------------------------

    async def renew(self, instance: str, at: datetime) -> None:
        """Say that a process is alive; see `close_lost`."""
        async with self.database.writing() as connection:
            statement = self._insert(instances)
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
        async with self.database.writing() as connection:
            gone: ColumnElement[bool] = open_calls.c.instance.in_(of)
            if unseen_since is not None:
                alive = select(instances.c.instance).where(instances.c.seen_at >= unseen_since)
                gone = or_(gone, open_calls.c.instance.not_in(alive))
            found = select(open_calls.c.call_id, func.max(events.c.at).label("at"))
            found = found.join(events, events.c.call_id == open_calls.c.call_id)
            found = found.where(gone).group_by(open_calls.c.call_id)
            lost = [
                StoredEvent(
                    call_id=row["call_id"], seq=LOST_SEQ, at=row["at"], type="call_lost", body={}
                )
                for row in (await connection.execute(found)).mappings()
            ]
            await self._take(connection, lost, "")
            old: ColumnElement[bool] = instances.c.instance.in_(of)
            if unseen_since is not None:
                old = or_(old, instances.c.seen_at < unseen_since)
            await connection.execute(delete(instances).where(old))
            return lost

    # Reading ------------------------------------------------------------------------------------

    async def calls(
        self,
        wanted: CallFilter = CallFilter(),  # noqa: B008 - frozen
        *,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[StoredCall]:
        """Calls, the newest first."""
        query = select(calls).where(*_conditions(wanted))
        if cursor is not None:
            at, call_id = _from_cursor(cursor)
            query = query.where(
                tuple_(calls.c.started_at, calls.c.call_id) < tuple_(_bound(at), call_id)
            )
        query = query.order_by(calls.c.started_at.desc(), calls.c.call_id.desc())
        limit = min(max(limit, 1), MOST_AT_ONCE)
        async with self.database.reading() as connection:
            found = (await connection.execute(query.limit(limit + 1))).mappings().all()
        items = [_call(row) for row in found[:limit]]
        more = len(found) > limit
        return Page(items, _cursor(items[-1].started_at, items[-1].call_id) if more else None)

    async def figures(
        self, wanted: CallFilter, *, each: timedelta, ahead: timedelta = timedelta(0)
    ) -> Sequence[Figures]:
        """Calls counted by stretches of time, oldest first."""
        size_ms, ahead_ms = (span // timedelta(milliseconds=1) for span in (each, ahead))
        row = calls.c
        began = type_coerce(row.started_at, BigInteger)
        timed = func.count(row.turn_latency_p50_ms)
        query = (
            select(
                (began - (began + ahead_ms) % size_ms).label("bucket_ms"),
                row.outcome,
                func.count().label("calls"),
                timed.label("timed"),
                func.sum(row.turn_latency_p50_ms).label("p50"),
                func.sum(row.turn_latency_p95_ms).label("p95"),
                func.sum(row.cost_usd).label("cost"),
                func.sum(row.duration_ms).label("duration"),
            )
            .where(*_conditions(wanted))
            .group_by(text("bucket_ms"), row.outcome)
            .order_by(text("bucket_ms"))
        )
        async with self.database.reading() as connection:
            found = (await connection.execute(query)).mappings().all()
        parts: dict[int, list[RowMapping]] = {}
        for one in found:
            parts.setdefault(int(one["bucket_ms"]), []).append(one)
        return [_figures(at_ms, of) for at_ms, of in parts.items()]

    async def call(self, call_id: CallId) -> StoredCall:
        """One call."""
        async with self.database.reading() as connection:
            found = await _rows_of(connection, [call_id])
        if call_id not in found:
            raise CallNotFound("there is no such call")
        return found[call_id]

    async def events(
        self, call_id: CallId, *, after_seq: int = 0, limit: int = MOST_AT_ONCE
    ) -> Sequence[StoredEvent]:
        """The events of a call in their order."""
        async with self.database.reading() as connection:
            return await _events_of(connection, call_id, after_seq, limit)

    async def events_since(
        self, position: int, *, limit: int = MOST_AT_ONCE
    ) -> Sequence[StoredEvent]:
        """The events of all calls behind a position."""
        query = select(events).where(events.c.position > position).order_by(events.c.position)
        async with self.database.reading() as connection:
            return [
                _event(row) for row in (await connection.execute(query.limit(limit))).mappings()
            ]

    async def search(
        self, text: str, *, cursor: str | None = None, limit: int = 50
    ) -> Page[TranscriptHit]:
        """Turns that hold all the words, the newest first."""
        terms = parse_query(text)
        if not terms:
            return Page([])
        limit = min(max(limit, 1), MOST_AT_ONCE)
        before = None if cursor is None else _line_from_cursor(cursor)
        query = self._holding(terms, before, limit + 1)
        async with self.database.reading() as connection:
            found = (await connection.execute(query)).mappings().all()
        hits = [
            TranscriptHit(
                call_id=CallId(row["call_id"]),
                seq=row["seq"],
                at=row["at"],
                party=row["party"],
                text=row["text"],
            )
            for row in found[:limit]
        ]
        return Page(hits, str(found[limit - 1]["line"]) if len(found) > limit else None)

    def _holding(self, terms: Sequence[Term], before: int | None, most: int) -> Select[Any]:
        """The newest lines that hold all terms, of those before a line.

        Terms are letters and digits: they need no escape.
        """
        lines = select(transcript).order_by(transcript.c.line.desc()).limit(most)
        if not self.database.is_sqlite:
            if before is not None:
                lines = lines.where(transcript.c.line < before)
            index = func.to_tsvector(text("'simple'"), transcript.c.words)
            wanted = (func.to_tsquery(text("'simple'"), _postgres_term(term)) for term in terms)
            return lines.where(*(index.op("@@")(term) for term in wanted))
        match = " AND ".join(
            f'"{" ".join(term.words)}"{"*" if term.prefix else ""}' for term in terms
        )
        # The index gives lines from its end on: of a common word it need not read all.
        found = text(
            "SELECT rowid FROM transcript_words WHERE transcript_words MATCH :match"
            " AND rowid < :before ORDER BY rowid DESC LIMIT :most"
        ).bindparams(match=match, before=2**62 if before is None else before, most=most)
        return lines.where(transcript.c.line.in_(found))

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
        query = select(calls.c.call_id).where(_has_number(number))
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
                live += await _in_table(connection, open_calls, part)
                removable = [call_id for call_id in part if call_id not in live]
                if not removable:
                    continue
                for table in OF_A_CALL:
                    await connection.execute(delete(table).where(table.c.call_id.in_(removable)))
                await connection.execute(
                    self._insert(erasures).on_conflict_do_nothing(),
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
                for record in map(_event, found.mappings())
                if (new := without(record, fields)) != record
            ]
            if not blanked:
                return 0
            statement = update(events).where(events.c.position == bindparam("of"))
            await connection.execute(
                statement.values(body=bindparam("new")),
                [{"of": old.position, "new": _event_row(new)["body"]} for old, new in blanked],
            )
            if speech := [(old.call_id, old.seq) for old, _ in blanked if old.type in _SPEECH]:
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
        statement = self._insert(retention_marks).values(kind=kind, until=at)
        statement = statement.on_conflict_do_update(index_elements=["kind"], set_={"until": at})
        async with self.database.writing() as connection:
            await connection.execute(statement)

    async def compact(self) -> None:
        """Leave no copy of what was removed in the files of SQLite: index, free pages, WAL."""
        if not self.database.is_sqlite:
            return
        async with self.database.writing() as connection:
            # Removed words stay in the index's segments until these are merged.
            merge = "INSERT INTO transcript_words(transcript_words) VALUES ('optimize')"
            await connection.execute(text(merge))
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
        count, last = 0, ""
        while True:
            async with self.database.writing() as connection:
                if not self.database.is_sqlite:  # a server that writes a row waits meanwhile
                    await connection.execute(text("LOCK TABLE calls IN SHARE ROW EXCLUSIVE MODE"))
                query = select(events.c.call_id).distinct().where(events.c.call_id > last)
                query = query.order_by(events.c.call_id).limit(_REBUILD_AT_ONCE)
                ids = list((await connection.execute(query)).scalars())
                # Rows of no event: only a row that was put there by hand has none.
                upto = [calls.c.call_id <= ids[-1]] if ids else []
                stale = and_(calls.c.call_id > last, *upto)
                await connection.execute(delete(calls).where(stale))
                stale = and_(
                    transcript.c.call_id > last, *([transcript.c.call_id <= ids[-1]] if ids else [])
                )
                await connection.execute(delete(transcript).where(stale))
                if not ids:
                    return count
                found = await _events_of_all(connection, ids)
                rows = [row for one in found.values() if (row := rebuilt(one)) is not None]
                await self._put_rows(connection, rows)
                await self._put_lines(
                    connection, [record for records in found.values() for record in records]
                )
                count, last = count + len(ids), ids[-1]


# Rows and records ---------------------------------------------------------------------------------

_CALL_FIELDS: Final = [field.name for field in dataclasses.fields(StoredCall)]


def _call_row(call: StoredCall) -> dict[str, Any]:
    row = {name: getattr(call, name) for name in _CALL_FIELDS}
    return {**row, "direction": call.direction.value, "outcome": call.outcome.value}


def _call(row: RowMapping) -> StoredCall:
    facts = dict(row)
    facts["direction"] = Direction(facts["direction"])
    facts["outcome"] = Outcome(facts["outcome"])
    facts["cost_unknown"] = tuple(facts["cost_unknown"])
    return StoredCall(**facts)


def _event_row(record: StoredEvent) -> dict[str, Any]:
    return {
        "call_id": record.call_id,
        "seq": record.seq,
        "at": record.at,
        "at_ms": record.at_ms,
        "type": record.type,
        # As ASCII: nothing in it that a database has no place for.
        "body": json.dumps(record.body, separators=(",", ":")),
    }


def _event(row: RowMapping) -> StoredEvent:
    return StoredEvent(**{**row, "body": json.loads(row["body"])})


def _line_of(record: StoredEvent) -> dict[str, Any] | None:
    """The line of the transcript that an event is: what was heard of the agent, not more."""
    if record.type not in _SPEECH:
        return None
    match decode(record):
        case CallerSaid(text=said):
            party = Party.CALLER
        case AgentSaid(cut_off=cut_off) as event:
            party, said = Party.AGENT, event.heard_text if cut_off else event.text
        case _:
            return None
    if not said.strip():
        return None
    return {
        "call_id": record.call_id,
        "seq": record.seq,
        "at": record.at,
        "party": party.value,
        "text": said,
        "words": " ".join(words_of(said)),
    }


_ROWS: Final = select(calls).where(calls.c.call_id.in_(bindparam("ids", expanding=True)))

# Queries ------------------------------------------------------------------------------------------


async def _rows_of(
    connection: AsyncConnection, call_ids: Collection[CallId]
) -> dict[CallId, StoredCall]:
    found = await connection.execute(_ROWS, {"ids": list(call_ids)})
    return {row["call_id"]: _call(row) for row in found.mappings()}


async def _events_of(
    connection: AsyncConnection, call_id: CallId, after_seq: int = 0, limit: int | None = None
) -> Sequence[StoredEvent]:
    query = select(events).where(events.c.call_id == call_id, events.c.seq > after_seq)
    found = await connection.execute(query.order_by(events.c.seq).limit(limit))
    return [_event(row) for row in found.mappings()]


async def _events_of_all(
    connection: AsyncConnection, call_ids: Collection[str]
) -> Mapping[str, Sequence[StoredEvent]]:
    query = select(events).where(events.c.call_id.in_(call_ids))
    found: dict[str, list[StoredEvent]] = {}
    for row in (await connection.execute(query.order_by(events.c.seq))).mappings():
        found.setdefault(row["call_id"], []).append(_event(row))
    return found


async def _in_table(
    connection: AsyncConnection, table: Table, call_ids: Iterable[CallId]
) -> list[CallId]:
    query = select(table.c.call_id).where(table.c.call_id.in_(list(call_ids)))
    return list((await connection.execute(query)).scalars())


async def _must_exist(connection: AsyncConnection, call_id: CallId) -> None:
    if not await _in_table(connection, calls, [call_id]):
        raise CallNotFound("there is no such call")


def _conditions(wanted: CallFilter) -> Iterator[ColumnElement[bool] | TextClause]:
    row = calls.c
    if wanted.since is not None:
        yield row.started_at >= wanted.since
    if wanted.until is not None:
        yield row.started_at < wanted.until
    if wanted.outcomes:
        yield row.outcome.in_([one.value for one in wanted.outcomes])
    if wanted.direction is not None:
        yield row.direction == wanted.direction.value
    if wanted.agent is not None:
        yield row.agent == wanted.agent
    if wanted.reason is not None:
        yield row.reason == wanted.reason
    if wanted.number is not None:
        yield _has_number(wanted.number)
    if wanted.tag is not None:
        tagged = select(call_tags.c.call_id).where(call_tags.c.tag == wanted.tag)
        yield row.call_id.in_(tagged)
    if wanted.with_errors:
        yield text("tool_errors + voice_errors > 0")  # as the index has it: a bound 0 is unlike it

    if wanted.over_usd is not None:
        yield row.cost_usd > wanted.over_usd
    for problem in wanted.problems:
        yield _happened(problem)


def _happened(problem: Problem) -> ColumnElement[bool]:
    row = calls.c
    match problem:
        case Problem.WENT_SILENT:
            unheard = and_(row.outcome == Outcome.ANSWERED.value, row.first_sound_ms.is_(None))
            return or_(row.reason == "silence", unheard)
        case Problem.BARGE_IN:
            return row.barge_ins > 0
        case Problem.TOOL_FAILED:
            return row.tool_errors > 0
        case Problem.TRANSFER_FAILED:
            # Of each call that is looked at, few events: the index has them by call.
            failed = select(events.c.position).where(
                events.c.call_id == row.call_id,
                events.c.type == "transfer_ended",
                *(events.c.body.not_like(f'%"outcome":"{fine}"%') for fine in _NO_FAILURE),
            )
            return failed.exists()


def _figures(at_ms: int, rows: Sequence[RowMapping]) -> Figures:
    def total(name: str) -> float:
        return sum(float(one[name] or 0) for one in rows)

    timed = total("timed")
    return Figures(
        at=datetime.fromtimestamp(at_ms / 1000, UTC),
        calls=int(total("calls")),
        outcomes={str(one["outcome"]): int(one["calls"]) for one in rows},
        turn_latency_p50_ms=round(total("p50") / timed, 1) if timed else None,
        turn_latency_p95_ms=round(total("p95") / timed, 1) if timed else None,
        cost_usd=round(total("cost"), 6),
        duration_ms=int(total("duration")),
    )


def _has_number(number: str) -> ColumnElement[bool]:
    return or_(calls.c.caller_number == number, calls.c.called_number == number)


def _postgres_term(term: Term) -> str:
    words = " <-> ".join(term.words)
    return f"{words}:*" if term.prefix else words


def _bound(at: datetime) -> Any:
    return bindparam(None, at, type_=calls.c.started_at.type)


def _cursor(at: datetime, call_id: str) -> str:
    ms = round(at.timestamp() * 1000)
    return base64.urlsafe_b64encode(f"{ms}:{call_id}".encode()).decode().rstrip("=")


def _from_cursor(cursor: str) -> tuple[datetime, str]:
    try:
        padded = cursor.encode() + b"=" * (-len(cursor) % 4)
        ms, _, call_id = base64.urlsafe_b64decode(padded).decode().partition(":")
        at = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=int(ms))
        return at, call_id
    except (ValueError, OverflowError, binascii.Error):
        raise StoreError("the cursor is none of this list", code="bad_cursor") from None


def _line_from_cursor(cursor: str) -> int:
    if not cursor.isascii() or not cursor.isdigit() or len(cursor) > 18:
        raise StoreError("the cursor is none of this list", code="bad_cursor")
    return int(cursor)


def _parts(items: Sequence[CallId], size: int) -> Iterable[Sequence[CallId]]:
    return (items[at : at + size] for at in range(0, len(items), size))


def _now() -> datetime:
    return datetime.now(UTC)
