"""Events into the tables: the log, and what is derived from it. Functions of one transaction.

They take a plain connection and await nothing, so that a transaction can run in one piece; see
`Database.write`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    and_,
    bindparam,
    delete,
    func,
    or_,
    select,
    text,
    update,
)

from app.events import CallId
from app.store.base import LOST_SEQ, Outcome, StoredCall, StoredEvent
from app.store.fold import FOLDED, rebuilt, step
from app.store.sql.database import Database
from app.store.sql.records import CALL_FIELDS, call_of, call_row, event_of, event_row, lines_of
from app.store.sql.tables import calls, erasures, events, instances, open_calls, transcript

__all__ = ["EventTables"]

_REBUILD_AT_ONCE: Final = 200
# Statements that are made once: to put one of 30 columns together costs as much as to run it.
_LAST_SEQS: Final = select(calls.c.call_id, calls.c.last_seq).where(
    calls.c.call_id.in_(bindparam("ids", expanding=True))
)
_ROWS: Final = select(calls).where(calls.c.call_id.in_(bindparam("ids", expanding=True)))
_ADVANCE: Final = (
    update(calls).where(calls.c.call_id == bindparam("of")).values(last_seq=bindparam("upto"))
)


class EventTables:
    """The tables that events are written to, of one database."""

    def __init__(self, database: Database) -> None:
        self._is_sqlite = database.is_sqlite
        row = database.insert(calls)
        changed = {name: row.excluded[name] for name in CALL_FIELDS if name != "call_id"}
        self._put_row = row.on_conflict_do_update(index_elements=["call_id"], set_=changed)
        self._put_event = database.insert(events).on_conflict_do_nothing()
        self._put_line = database.insert(transcript).on_conflict_do_nothing()
        self._put_open = database.insert(open_calls).on_conflict_do_nothing()

    def take(self, connection: Connection, taken: Sequence[StoredEvent], instance: str) -> None:
        """Take events, each once, but for those of calls that were erased."""
        by_call: dict[CallId, list[StoredEvent]] = {}
        for event in taken:
            by_call.setdefault(event.call_id, []).append(event)
        found = connection.execute(_LAST_SEQS, {"ids": list(by_call)})
        last_seqs = {CallId(call_id): seq for call_id, seq in found}
        if new := by_call.keys() - last_seqs.keys():
            for call_id in in_table(connection, erasures, new):
                del by_call[call_id]
            taken = [event for event in taken if event.call_id in by_call]
        if not taken:
            return
        connection.execute(self._put_event, [event_row(event) for event in taken])
        if lines := lines_of(taken):
            connection.execute(self._put_line, lines)
        # Most events change nothing in the row but this number.
        on = {
            call_id: of[-1].seq
            for call_id, of in by_call.items()
            if _follow(last_seqs.get(call_id), of) and FOLDED.isdisjoint(one.type for one in of)
        }
        if on:
            connection.execute(_ADVANCE, [{"of": one, "upto": seq} for one, seq in on.items()])
        self._fold(connection, {one: of for one, of in by_call.items() if one not in on}, instance)

    def _fold(
        self,
        connection: Connection,
        by_call: Mapping[CallId, Sequence[StoredEvent]],
        instance: str,
    ) -> None:
        """Change the rows of calls by their events."""
        if not by_call:
            return
        known = rows_of(connection, by_call)
        rows = [_row_after(connection, known.get(one), of) for one, of in by_call.items()]
        connection.execute(self._put_row, [call_row(row) for row in rows])
        open_now = [row.call_id for row in rows if row.outcome is Outcome.IN_PROGRESS]
        if opened := [call_id for call_id in open_now if call_id not in known]:
            held = [{"call_id": call_id, "instance": instance} for call_id in opened]
            connection.execute(self._put_open, held)
        if over := by_call.keys() - open_now:
            connection.execute(delete(open_calls).where(open_calls.c.call_id.in_(over)))

    def close_lost(
        self, connection: Connection, of: Collection[str], unseen_since: datetime | None
    ) -> Sequence[StoredEvent]:
        """Record `CallLost` in the open calls of processes that are gone; see `CallStore`."""
        gone: ColumnElement[bool] = open_calls.c.instance.in_(of)
        old: ColumnElement[bool] = instances.c.instance.in_(of)
        if unseen_since is not None:
            alive = select(instances.c.instance).where(instances.c.seen_at >= unseen_since)
            gone = or_(gone, open_calls.c.instance.not_in(alive))
            old = or_(old, instances.c.seen_at < unseen_since)
        found = select(open_calls.c.call_id, func.max(events.c.at).label("at"))
        found = found.join(events, events.c.call_id == open_calls.c.call_id)
        found = found.where(gone).group_by(open_calls.c.call_id)
        lost = [
            StoredEvent(
                call_id=row["call_id"], seq=LOST_SEQ, at=row["at"], type="call_lost", body={}
            )
            for row in connection.execute(found).mappings()
        ]
        self.take(connection, lost, "")
        connection.execute(delete(instances).where(old))
        return lost

    def rebuild(self, connection: Connection, after: str) -> tuple[int, str]:
        """Make what is derived anew, of some calls behind one; how many, and the last of them."""
        if not self._is_sqlite:  # a server that writes a row waits meanwhile
            connection.execute(text("LOCK TABLE calls IN SHARE ROW EXCLUSIVE MODE"))
        query = select(events.c.call_id).distinct().where(events.c.call_id > after)
        query = query.order_by(events.c.call_id).limit(_REBUILD_AT_ONCE)
        ids = list(connection.execute(query).scalars())
        # Rows of no event go too: only a row that was put there by hand has none.
        for table in (calls, transcript):
            upto = [table.c.call_id <= ids[-1]] if ids else []
            connection.execute(delete(table).where(and_(table.c.call_id > after, *upto)))
        if not ids:
            return 0, after
        of_all = select(events).where(events.c.call_id.in_(ids)).order_by(events.c.seq)
        found: dict[str, list[StoredEvent]] = {}
        for row in connection.execute(of_all).mappings():
            found.setdefault(row["call_id"], []).append(event_of(row))
        folded = [call for of in found.values() if (call := rebuilt(of)) is not None]
        connection.execute(self._put_row, [call_row(call) for call in folded])
        if lines := lines_of(record for of in found.values() for record in of):
            connection.execute(self._put_line, lines)
        return len(ids), ids[-1]


def _follow(last_seq: int | None, of: Sequence[StoredEvent]) -> bool:
    """True where events are the next ones of a call."""
    first = (last_seq or 0) + 1
    return [event.seq for event in of] == list(range(first, first + len(of)))


def _row_after(
    connection: Connection, row: StoredCall | None, of: Sequence[StoredEvent]
) -> StoredCall:
    """The row after some events: one step each where they follow it, else made anew."""
    if not _follow(row.last_seq if row else None, of):
        query = select(events).where(events.c.call_id == of[0].call_id).order_by(events.c.seq)
        row = rebuilt(event_of(one) for one in connection.execute(query).mappings())
    else:
        for event in of:
            row = step(row, event)
    assert row is not None  # it has events
    return row


def rows_of(connection: Connection, call_ids: Iterable[CallId]) -> dict[CallId, StoredCall]:
    """The rows of calls, of those that there are."""
    found = connection.execute(_ROWS, {"ids": list(call_ids)})
    return {row["call_id"]: call_of(row) for row in found.mappings()}


def in_table(connection: Connection, table: Table, call_ids: Iterable[CallId]) -> list[CallId]:
    """The calls, of some, that a table has rows of."""
    query = select(table.c.call_id).where(table.c.call_id.in_(list(call_ids)))
    return list(connection.execute(query).scalars())
