"""The seam to the history of calls: its records, its filters, and what can be asked of it.

The event log is the truth. A `StoredCall` is made of a call's events alone (`app.store.fold`), and
so is what `search` finds; both can be made anew. Notes and tags belong to people, not to the log.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Generic, Protocol, TypeVar

from app.events import CallId

__all__ = [
    "LAST_EVENTS",
    "LOST_SEQ",
    "CallFilter",
    "CallStore",
    "Direction",
    "Erased",
    "Figures",
    "Note",
    "Outcome",
    "Page",
    "Problem",
    "Status",
    "StoredCall",
    "StoredEvent",
    "TranscriptHit",
]

LAST_EVENTS: Final = frozenset({"call_ended", "call_turned_away", "call_not_answered", "call_lost"})
"""The types of the events with which a call is over, whether or not it was answered."""
LOST_SEQ: Final = 2_000_000_000
"""The place of `CallLost` in a call: behind everything that its process may still bring."""

T = TypeVar("T")


class Direction(StrEnum):
    """The side that placed the call."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


class Outcome(StrEnum):
    """The outcomes of a call; `StoredCall.reason` has the details."""

    IN_PROGRESS = "in_progress"
    ANSWERED = "answered"
    """An agent and the caller were connected."""
    NEVER_CLAIMED = "never_claimed"
    """The webhook was answered, but the caller's sound never came."""
    BUSY = "busy"
    """The caller heard that all lines are busy; of a call that was placed, the callee's line is."""
    REFUSED = "refused"
    """No agent answered, for another reason: closed, draining."""
    DIVERTED = "diverted"
    """The caller was put through to a destination, without an agent."""
    NO_ANSWER = "no_answer"
    """Nobody answered the call that was placed."""
    CANCELED = "canceled"
    """The call that was placed was given up before somebody answered."""
    FAILED = "failed"
    """The call could not be placed; the reason is the carrier's code."""
    UNKNOWN = "unknown"
    """The carrier did not say what came of the call that was placed."""
    LOST = "lost"
    """The process that held the call is gone, and its end was not recorded."""


class Problem(StrEnum):
    """Things that may go wrong in a call, as it is filtered by them."""

    WENT_SILENT = "went_silent"
    """It ended since nobody spoke any more, or the agent was never heard."""
    BARGE_IN = "barge_in"
    TOOL_FAILED = "tool_failed"
    TRANSFER_FAILED = "transfer_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """One event of a call: `body` is its fields as JSON has them, without the call's id.

    `seq` counts from 1 in each call, and gives every event one identity with the call's id.
    `position` orders the events of all calls as the store has taken them; 0 before it has.
    """

    call_id: CallId
    seq: int
    at: datetime
    type: str
    body: Mapping[str, Any]
    at_ms: int = 0
    """Since the call's admission, by the clock of its process; 0 where the event has none."""
    position: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCall:
    """A call in one row. Times are UTC, durations milliseconds."""

    call_id: CallId
    direction: Direction = Direction.INBOUND
    outcome: Outcome = Outcome.IN_PROGRESS
    reason: str = ""
    carrier_call_id: str = ""
    caller_number: str = ""
    called_number: str = ""
    agent: str = ""
    model: str = ""
    started_at: datetime
    answered_at: datetime | None = None
    ended_at: datetime | None = None
    duration_ms: int | None = None
    first_sound_ms: int | None = None
    turn_latency_p50_ms: int | None = None
    turn_latency_p95_ms: int | None = None
    turns: int = 0
    barge_ins: int = 0
    tool_calls: int = 0
    tool_errors: int = 0
    voice_errors: int = 0
    transferred_to: str = ""
    messages: int = 0
    cost_usd: float | None = None
    costs: Mapping[str, float] = field(default_factory=dict)
    cost_unknown: Sequence[str] = ()
    cost_estimated: bool = False
    recording_file: str = ""
    recording_end: str = ""
    """The reason why the recording ended; empty while it goes on, or where there is none."""
    configuration: str = ""
    """The version of the configuration that the call began with."""
    last_seq: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFilter:
    """All conditions must hold; None asks for nothing. `number` is the caller's or the called."""

    since: datetime | None = None
    until: datetime | None = None
    outcomes: Collection[Outcome] = ()
    direction: Direction | None = None
    agent: str | None = None
    reason: str | None = None
    number: str | None = None
    tag: str | None = None
    with_errors: bool = False
    """A tool or the model failed in it."""
    problems: Collection[Problem] = ()
    """All of these happened in it."""
    over_usd: float | None = None
    """It has cost more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The calls that began within one stretch of time, counted.

    Latencies are means over calls of their median and of their 95th percentile.
    """

    at: datetime
    calls: int = 0
    outcomes: Mapping[str, int]
    turn_latency_p50_ms: float | None = None
    turn_latency_p95_ms: float | None = None
    cost_usd: float = 0.0
    duration_ms: int = 0


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list; `cursor` asks for the next, and is None at the end."""

    items: Sequence[T]
    cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptHit:
    """A turn that holds the words searched for."""

    call_id: CallId
    seq: int
    at: datetime
    party: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A note that somebody has added to a call."""

    note_id: int
    call_id: CallId
    at: datetime
    author: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """The calls that were erased, and those that were not because they go on."""

    call_ids: Sequence[CallId] = ()
    still_live: Sequence[CallId] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Facts about a store for operators."""

    kind: str
    place: str
    revisions: Sequence[str] = ()
    missing_revisions: Sequence[str] = ()
    calls: int = 0
    events: int = 0
    open_calls: int = 0
    bytes: int | None = None


class CallStore(Protocol):
    """The history of calls.

    Each method raises `StoreUnavailable` when the store does not answer.
    """

    async def open(self) -> None:
        """Connect and bring the tables up to date; may be called again after a failure."""
        ...

    async def close(self) -> None: ...

    async def append(self, events: Sequence[StoredEvent], *, instance: str) -> None:
        """Take events, each once, however often it comes; all of them or none.

        `instance` is the process that holds their calls.
        """
        ...

    async def calls(
        self, wanted: CallFilter = ..., *, cursor: str | None = None, limit: int = 50
    ) -> Page[StoredCall]:
        """Calls, the newest first.

        Raises:
            StoreError: the cursor is none that this method gave (`bad_cursor`).
        """
        ...

    async def figures(
        self, wanted: CallFilter, *, each: timedelta, ahead: timedelta = timedelta(0)
    ) -> Sequence[Figures]:
        """Calls counted by stretches of time, oldest first; those without calls are left out.

        Days begin at midnight of a clock that is `ahead` of UTC.
        """
        ...

    async def call(self, call_id: CallId) -> StoredCall:
        """One call.

        Raises:
            CallNotFound: there is none.
        """
        ...

    async def events(
        self, call_id: CallId, *, after_seq: int = 0, limit: int = 1_000
    ) -> Sequence[StoredEvent]:
        """The events of a call in their order; none where there is no such call."""
        ...

    async def search(
        self, text: str, *, cursor: str | None = None, limit: int = 50
    ) -> Page[TranscriptHit]:
        """Turns that hold all the words; "words in quotes" stand together, and wor* begins one."""
        ...

    async def add_note(self, call_id: CallId, text: str, *, author: str) -> Note:
        """Raises CallNotFound."""
        ...

    async def notes(self, call_id: CallId) -> Sequence[Note]: ...

    async def set_tags(self, call_id: CallId, tags: Collection[str]) -> None:
        """Give a call these tags, and no others. Raises CallNotFound."""
        ...

    async def tags(self, call_id: CallId) -> Sequence[str]: ...

    async def forget_number(self, number: str) -> None:
        """Remove a number from lists, except for those that keep it from being called."""
        ...

    async def erase(self, call_ids: Collection[CallId]) -> Erased:
        """Remove everything that the store knows of calls, and refuse what comes of them later."""
        ...

    async def calls_with(self, number: str) -> Sequence[CallId]:
        """All calls from or to a number."""
        ...

    async def renew(self, instance: str, at: datetime) -> None:
        """Say that a process is alive."""
        ...

    async def leave(self, instance: str) -> None:
        """The process ends, and holds no call any more."""
        ...

    async def close_lost(
        self, *, of: Collection[str] = (), unseen_since: datetime | None = None
    ) -> Sequence[StoredEvent]:
        """Record `CallLost` in the open calls of processes that are gone; returns the records.

        Gone are those named, and those not seen since `unseen_since`.
        """
        ...

    async def blank(
        self, call_ids: Collection[CallId], fields: Mapping[str, Mapping[str, Any]]
    ) -> int:
        """Replace fields of events, by their type; returns how many events had others.

        With the texts of a turn its line in the full-text search goes too.
        """
        ...

    async def cleaned_until(self, kind: str) -> datetime | None:
        """The time before which a kind of data has been removed already."""
        ...

    async def set_cleaned_until(self, kind: str, at: datetime) -> None:
        """Remember that a kind of data has been removed up to a time."""
        ...

    async def compact(self) -> None:
        """Leave no copy of what was removed in the store's own files.

        Raises:
            StoreUnavailable: a copy is still there (`store_not_compacted`); try again later.
        """
        ...

    async def older_than(self, at: datetime, *, limit: int = 500) -> Sequence[CallId]:
        """Calls that began before, and are over."""
        ...

    async def rebuild(self) -> int:
        """Make what is derived from the events anew; returns how many calls there are."""
        ...

    async def status(self) -> Status:
        """Facts about the store."""
        ...
