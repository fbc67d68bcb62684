"""The turn table: each state with each event."""

from __future__ import annotations

import pytest

from app.calls.turns.turn_table import TURNS, Turn, TurnEvent, Turns
from app.events import CallCounters


def test_a_turn_of_each_side_returns_to_idle() -> None:
    counters = CallCounters()
    turns = Turns(counters, 0)
    path = [
        (TurnEvent.SPEECH_STARTED, Turn.CALLER),
        (TurnEvent.SPEECH_STOPPED, Turn.THINKING),
        (TurnEvent.FIRST_AUDIO, Turn.AGENT),
        (TurnEvent.DRAINED, Turn.IDLE),
    ]
    for at_ms, (event, turn) in enumerate(path, start=1):
        turns.on_event(event, at_ms)
        assert turns.turn is turn
        assert turns.since_ms == at_ms
    assert counters.protocol_surprises == 0


@pytest.mark.parametrize("turn", [Turn.AGENT, Turn.THINKING])
def test_the_caller_may_always_take_the_floor(turn: Turn) -> None:
    turns = Turns(CallCounters(), 0)
    turns.turn = turn
    turns.on_event(TurnEvent.SPEECH_STARTED, 1)
    assert turns.turn is Turn.CALLER


def test_every_arc_outside_the_table_changes_nothing_and_is_counted() -> None:
    for turn in Turn:
        for event in TurnEvent:
            if (turn, event) in TURNS:
                continue
            counters = CallCounters()
            turns = Turns(counters, 0)
            turns.turn = turn
            turns.on_event(event, 5)
            assert (turns.turn, turns.since_ms, counters.protocol_surprises) == (turn, 0, 1)
