"""A call's row, made of its events alone. Pure.

Each step takes the row so far and the next event; `rebuilt` takes all events of a call.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from app.events import (
    CallAdmitted,
    CallEnded,
    CallLost,
    CallNotAnswered,
    CallPlaced,
    CallTurnedAway,
    FirstSound,
    MessageTaken,
    RecordingStarted,
    RecordingStopped,
    StreamOpened,
    ToolRan,
    TransferEnded,
    VoiceReady,
    VoiceTrouble,
)
from app.store.base import Direction, Outcome, StoredCall, StoredEvent
from app.store.codec import EVENT_TYPES, decode

__all__ = ["FOLDED", "rebuilt", "step"]

_CANCELLED = ("interrupted", "call_over")
"""A tool with one of these did not fail: nobody waited for it any more."""

_FOLDED: Final = (
    CallAdmitted,
    CallEnded,
    CallLost,
    CallNotAnswered,
    CallPlaced,
    CallTurnedAway,
    FirstSound,
    MessageTaken,
    RecordingStarted,
    RecordingStopped,
    StreamOpened,
    ToolRan,
    TransferEnded,
    VoiceReady,
    VoiceTrouble,
)
FOLDED: Final = frozenset(name for name, kind in EVENT_TYPES.items() if kind in _FOLDED)
"""The types of the events that change more of a row than its `last_seq`."""


def rebuilt(records: Iterable[StoredEvent]) -> StoredCall | None:
    """The row of a call, of its events in their order; None where there are none."""
    row: StoredCall | None = None
    for record in records:
        row = step(row, record)
    return row


def step(row: StoredCall | None, record: StoredEvent) -> StoredCall:
    """The row after one more event."""
    if row is None:
        row = StoredCall(call_id=record.call_id, started_at=record.at)
    event = decode(record)
    if isinstance(event, CallLost):
        return _lost(row, record)
    return _after(replace(row, last_seq=record.seq), record, event)


def _after(row: StoredCall, record: StoredEvent, event: object) -> StoredCall:
    match event:
        case CallAdmitted():
            return replace(
                row,
                carrier_call_id=event.carrier_call_id,
                caller_number=event.caller_number,
                called_number=event.called_number,
                agent=event.agent,
                configuration=event.configuration,
                direction=Direction(event.direction),
            )
        case CallPlaced():
            return replace(
                row,
                direction=Direction.OUTBOUND,
                caller_number=event.caller_number,
                called_number=event.called_number,
                agent=event.agent,
            )
        case CallNotAnswered():
            return _not_answered(row, record, event)
        case CallTurnedAway():
            return _turned_away(row, record, event)
        case StreamOpened() if row.answered_at is None:
            return replace(row, answered_at=record.at)
        case VoiceReady():
            return replace(row, model=event.model or row.model)
        case FirstSound() if row.first_sound_ms is None:
            return replace(row, first_sound_ms=event.after_ms)
        case ToolRan():
            failed = bool(event.error) and event.error not in _CANCELLED
            return replace(row, tool_calls=row.tool_calls + 1, tool_errors=row.tool_errors + failed)
        case VoiceTrouble(benign=False):
            return replace(row, voice_errors=row.voice_errors + 1)
        case TransferEnded(outcome="answered" | "unknown"):
            return replace(row, transferred_to=event.destination)
        case MessageTaken():
            return replace(row, messages=row.messages + 1)
        case RecordingStarted():
            return replace(row, recording_file=event.file, recording_end="")
        case RecordingStopped():
            return replace(row, recording_file=event.file, recording_end=event.reason)
        case CallEnded():
            return _ended(row, record, event)
        case _:
            return row


def _turned_away(row: StoredCall, record: StoredEvent, event: CallTurnedAway) -> StoredCall:
    outcome = Outcome.BUSY if event.reason in ("at_capacity", "overloaded") else Outcome.REFUSED
    return replace(
        row,
        outcome=Outcome.DIVERTED if event.put_through_to else outcome,
        reason=event.reason,
        carrier_call_id=event.carrier_call_id,
        caller_number=event.caller_number,
        called_number=event.called_number,
        transferred_to=event.put_through_to,
        ended_at=record.at,
        duration_ms=0,
    )


def _not_answered(row: StoredCall, record: StoredEvent, event: CallNotAnswered) -> StoredCall:
    return replace(
        row,
        outcome=Outcome.CANCELED if event.outcome == "not_dialed" else Outcome(event.outcome),
        reason=event.code,
        carrier_call_id=event.carrier_call_id,
        direction=Direction.OUTBOUND,
        caller_number=event.caller_number or row.caller_number,
        called_number=event.called_number or row.called_number,
        agent=event.agent or row.agent,
        ended_at=record.at,
        duration_ms=0,
    )


def _ended(row: StoredCall, record: StoredEvent, event: CallEnded) -> StoredCall:
    summary = event.summary
    return replace(
        row,
        outcome=Outcome.NEVER_CLAIMED if row.answered_at is None else Outcome.ANSWERED,
        reason=summary.reason.value,
        model=summary.model,
        ended_at=record.at,
        duration_ms=summary.duration_ms,
        turn_latency_p50_ms=summary.turn_latency_p50_ms,
        turn_latency_p95_ms=summary.turn_latency_p95_ms,
        turns=summary.counters.turns,
        barge_ins=summary.counters.barge_ins,
        cost_usd=summary.cost_usd,
        costs=summary.costs,
        cost_unknown=summary.cost_unknown,
        cost_estimated=summary.cost_estimated,
        recording_file=summary.recording_file or row.recording_file,
        recording_end=summary.recording_end or row.recording_end,
    )


def _lost(row: StoredCall, record: StoredEvent) -> StoredCall:
    """It stands behind all other events; an end that was recorded after all outranks it."""
    if row.outcome is not Outcome.IN_PROGRESS:
        return row
    return replace(row, outcome=Outcome.LOST, reason="lost", ended_at=record.at)
