"""A greeting that nothing interrupts: a notice that every caller must hear."""

from __future__ import annotations

import pytest

from app.calls.turns.turn_table import Turn
from app.events import AgentSaid, BargeIn
from app.realtime.events import (
    InputAudioCommitted,
    ItemTruncate,
    ResponseCancel,
    ServerVad,
    SessionUpdate,
    SpeechStopped,
)
from tests.unit.calls.harness import AppendAudio, CallHarness, Clear, ResponseCreate


def greeting(*, vad: ServerVad | None = None, done: bool = True) -> CallHarness:
    """Two seconds of a protected greeting are playing, or still being generated."""
    harness = CallHarness(interruptible_greeting=False, vad=vad, transcribed=True)
    harness.sent(ResponseCreate)
    harness.response_begins("r0", "a0")
    harness.speaks(2_000, "Hello!", "r0", "a0")
    if done:
        harness.response_ends("r0", "a0", text="Hello!")
    harness.now_ms += 100
    return harness


def test_the_model_is_asked_not_to_interrupt_itself_until_the_greeting_was_heard() -> None:
    harness = greeting()
    detection = harness.conversation.dialogue.active.session.turn_detection
    assert isinstance(detection, ServerVad)
    assert not detection.interrupt_response
    assert harness.sent(SessionUpdate) == []
    harness.marks()
    (update,) = harness.sent(SessionUpdate)
    assert update.session.turn_detection == ServerVad()
    assert harness.conversation.dialogue.active.session.turn_detection == ServerVad()


def test_speech_over_it_stops_nothing_and_reaches_the_model() -> None:
    harness = greeting()
    harness.caller_starts()
    harness.frame(0)
    assert harness.take(Clear) == []
    assert harness.sent(ItemTruncate) == []
    assert harness.sent(ResponseCancel) == []
    assert len(harness.take(AppendAudio)) == 1
    harness.marks()
    (said,) = harness.recorded(AgentSaid)
    assert not said.cut_off
    assert harness.recorded(BargeIn) == []
    turns = [harness.conversation.turns.turn]
    harness.caller_stops()
    assert [*turns, harness.conversation.turns.turn] == [Turn.CALLER, Turn.THINKING]
    assert harness.conversation.counters.protocol_surprises == 0


def test_a_caller_who_spoke_while_it_was_generated_is_answered_after_it() -> None:
    harness = greeting(done=False)
    harness.caller_turn("u1", "Hello?")
    assert harness.sent(ResponseCreate) == []
    harness.response_ends("r0", "a0", text="Hello!")
    (create,) = harness.sent(ResponseCreate)
    assert create.response is None


def test_a_caller_who_spoke_while_it_was_played_is_answered_by_the_model_itself() -> None:
    harness = greeting()
    harness.voice(SpeechStopped("u1", 0), InputAudioCommitted("u1"))
    assert harness.sent(ResponseCreate) == []
    assert harness.conversation.counters.turns == 1


def test_after_it_the_caller_interrupts_as_ever() -> None:
    harness = greeting()
    harness.marks()
    harness.caller_turn()
    harness.answer(2_000)
    harness.actions.clear()
    harness.caller_starts("u2")
    assert harness.take(Clear)


def test_a_key_stops_it_all_the_same() -> None:
    harness = greeting()
    harness.key("5")
    assert harness.take(Clear)
    assert len(harness.sent(SessionUpdate)) == 1


@pytest.mark.parametrize("interrupts", [True, False])
def test_only_what_was_changed_is_changed_back(interrupts: bool) -> None:
    harness = greeting(vad=ServerVad(interrupt_response=interrupts))
    harness.marks()
    assert len(harness.sent(SessionUpdate)) == (1 if interrupts else 0)


def test_a_model_that_is_lost_in_the_greeting_is_replaced_by_one_that_may_be_interrupted() -> None:
    harness = greeting(done=False)
    harness.actions += harness.conversation.on_voice_lost(harness.now_ms)
    assert harness.conversation.dialogue.active.session.turn_detection == ServerVad()
    assert harness.sent(SessionUpdate) == []
