"""The row of a call, made of its events."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.events import (
    CallEnded,
    CallId,
    CallLost,
    CallTurnedAway,
    FirstSound,
    MessageTaken,
    RecordingStarted,
    RecordingStopped,
    ToolRan,
    TransferEnded,
    VoiceReady,
    VoiceTrouble,
)
from app.store.base import LOST_SEQ, Outcome
from app.store.codec import EVENT_TYPES, Storable, encode
from app.store.fold import FOLDED, rebuilt, step
from tests.fakes.call_events import BEGAN, call_events, filled, recorded

OF = CallId("call_1")


def turned_away(reason: str, to: str = "") -> CallTurnedAway:
    return CallTurnedAway(
        call_id=OF,
        carrier_call_id="CA1",
        caller_number="+15550001111",
        called_number="+15552223333",
        reason=reason,
        put_through_to=to,
    )


ENDINGS: dict[str, tuple[list[Storable], Outcome, str]] = {
    "answered": (call_events(), Outcome.ANSWERED, "caller_hung_up"),
    "goes on": (call_events(ended=False), Outcome.IN_PROGRESS, ""),
    "never claimed": (
        [call_events()[0], call_events()[-1]],
        Outcome.NEVER_CLAIMED,
        "caller_hung_up",
    ),
    "busy": ([turned_away("at_capacity")], Outcome.BUSY, "at_capacity"),
    "busy, put through": ([turned_away("at_capacity", "desk")], Outcome.DIVERTED, "at_capacity"),
    "draining": ([turned_away("draining")], Outcome.REFUSED, "draining"),
    "closed": ([turned_away("closed")], Outcome.REFUSED, "closed"),
    "closed, put through": ([turned_away("closed", "desk")], Outcome.DIVERTED, "closed"),
    "lost": ([*call_events(ended=False), CallLost(call_id=OF)], Outcome.LOST, "lost"),
    "lost, but its end came after all": (
        [*call_events(), CallLost(call_id=OF)],
        Outcome.ANSWERED,
        "caller_hung_up",
    ),
}


@pytest.mark.parametrize("case", ENDINGS)
def test_a_call_has_the_outcome_of_its_events(case: str) -> None:
    events, outcome, reason = ENDINGS[case]
    row = rebuilt(recorded(events))
    assert row is not None
    assert (row.outcome, row.reason) == (outcome, reason)
    assert (row.ended_at is None) == (outcome is Outcome.IN_PROGRESS)
    assert row.caller_number == "+15550001111"


def test_a_row_counts_what_happened() -> None:
    at: Any = {"call_id": OF, "at_ms": 1}
    happened: list[Storable] = [
        FirstSound(**at, after_ms=400),
        FirstSound(**at, after_ms=900),
        ToolRan(**at, name="a", duration_ms=1),
        ToolRan(**at, name="a", duration_ms=1, error="tool_failed"),
        ToolRan(**at, name="a", duration_ms=1, error="interrupted"),
        VoiceTrouble(**at, code="x", benign=True),
        VoiceTrouble(**at, code="x", benign=False),
        TransferEnded(**at, destination="desk", outcome="busy", evidence=""),
        MessageTaken(**at, item_id="i", recipient="me", text="call back"),
    ]
    begin, *middle, end = call_events()
    row = rebuilt(recorded([begin, *middle, *happened, end]))
    assert row is not None
    assert (row.first_sound_ms, row.tool_calls, row.tool_errors) == (400, 3, 1)
    assert (row.voice_errors, row.transferred_to, row.messages) == (1, "", 1)
    assert (row.turns, row.cost_usd, row.model, row.duration_ms) == (1, 0.25, "scripted", 3_000)
    assert row.answered_at == recorded([begin, *middle])[1].at


def test_a_row_names_the_model_while_the_call_goes_on() -> None:
    ready = VoiceReady(call_id=OF, at_ms=1, waited_ms=1, model="gpt-realtime")
    unnamed = VoiceReady(call_id=OF, at_ms=2, waited_ms=1, reconnected=True)
    row = rebuilt(recorded([*call_events(ended=False), ready, unnamed]))
    assert row is not None
    assert row.model == "gpt-realtime"


def test_a_row_has_the_cost_by_class_the_recording_and_the_configuration() -> None:
    row = rebuilt(recorded(call_events()))
    assert row is not None
    assert (row.costs, row.cost_unknown) == ({"model_audio": 0.2, "carrier": 0.05}, ("sms",))
    assert row.cost_estimated
    assert (row.recording_file, row.recording_end) == ("call_1.wav", "call_over")
    assert row.configuration == "3f2a"


def test_a_row_has_the_recording_of_a_call_that_goes_on_or_was_lost() -> None:
    started = RecordingStarted(call_id=OF, at_ms=1, file="a.wav")
    full = RecordingStopped(call_id=OF, at_ms=9, file="a.wav", reason="disk_full", duration_ms=8)
    lost = CallLost(call_id=OF)
    begun = call_events(ended=False)
    for events, end in (([started], ""), ([started, lost], ""), ([started, full], "disk_full")):
        row = rebuilt(recorded([*begun, *events]))
        assert row is not None
        assert (row.recording_file, row.recording_end) == ("a.wav", end)


def test_a_transfer_that_was_answered_is_in_the_row() -> None:
    ended = TransferEnded(call_id=OF, at_ms=1, destination="desk", outcome="answered", evidence="x")
    row = rebuilt(recorded([*call_events(ended=False), ended]))
    assert row is not None
    assert row.transferred_to == "desk"


def test_a_call_that_was_taken_for_lost_gets_its_end() -> None:
    row = rebuilt(recorded(call_events(ended=False)))
    assert row is not None
    lost = step(row, encode(CallLost(call_id=OF), seq=LOST_SEQ, at=BEGAN))
    assert lost.outcome is Outcome.LOST
    assert lost.last_seq == row.last_seq
    end = encode(call_events()[-1], seq=row.last_seq + 1, at=BEGAN)
    assert step(lost, end).outcome is Outcome.ANSWERED


def test_events_of_a_later_version_are_passed_over() -> None:
    records = recorded(call_events())
    strange = replace(records[2], type="event_of_a_later_version", body={"x": 1})
    row, plain = rebuilt([*records[:2], strange, *records[3:]]), rebuilt(records)
    assert row == plain
    assert isinstance(call_events()[-1], CallEnded)


@pytest.mark.parametrize("kind", EVENT_TYPES)
def test_events_that_are_not_folded_change_nothing_but_the_number(kind: str) -> None:
    row = rebuilt(recorded(call_events(ended=False)))
    assert row is not None
    record = encode(filled(EVENT_TYPES[kind]), seq=row.last_seq + 1, at=BEGAN)
    after = step(replace(row, first_sound_ms=None, answered_at=None), record)
    same = replace(row, first_sound_ms=None, answered_at=None, last_seq=after.last_seq)
    # Of a trouble and of a transfer, only some kinds are seen in the row.
    assert (after == same) is (kind not in FOLDED) or kind in ("voice_trouble", "transfer_ended")
