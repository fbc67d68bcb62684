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
from tests.unit.calls.scene import AppendAudio, Clear, ResponseCreate, Scene


def greeting(*, vad: ServerVad | None = None, done: bool = True) -> Scene:
    """Two seconds of a protected greeting are playing, or still being generated."""
    scene = Scene(interruptible_greeting=False, vad=vad, transcribed=True)
    scene.sent(ResponseCreate)
    scene.response_begins("r0", "a0")
    scene.speaks(2_000, "Hello!", "r0", "a0")
    if done:
        scene.response_ends("r0", "a0", text="Hello!")
    scene.now_ms += 100
    return scene


def test_the_model_is_asked_not_to_interrupt_itself_until_the_greeting_was_heard() -> None:
    scene = greeting()
    detection = scene.conversation.dialogue.active.session.turn_detection
    assert isinstance(detection, ServerVad)
    assert not detection.interrupt_response
    assert scene.sent(SessionUpdate) == []
    scene.marks()
    (update,) = scene.sent(SessionUpdate)
    assert update.session.turn_detection == ServerVad()
    assert scene.conversation.dialogue.active.session.turn_detection == ServerVad()


def test_speech_over_it_stops_nothing_and_reaches_the_model() -> None:
    scene = greeting()
    scene.caller_starts()
    scene.frame(0)
    assert scene.take(Clear) == []
    assert scene.sent(ItemTruncate) == []
    assert scene.sent(ResponseCancel) == []
    assert len(scene.take(AppendAudio)) == 1
    scene.marks()
    (said,) = scene.recorded(AgentSaid)
    assert not said.cut_off
    assert scene.recorded(BargeIn) == []
    turns = [scene.conversation.turns.turn]
    scene.caller_stops()
    assert [*turns, scene.conversation.turns.turn] == [Turn.CALLER, Turn.THINKING]
    assert scene.conversation.counters.protocol_surprises == 0


def test_a_caller_who_spoke_while_it_was_generated_is_answered_after_it() -> None:
    scene = greeting(done=False)
    scene.caller_turn("u1", "Hello?")
    assert scene.sent(ResponseCreate) == []
    scene.response_ends("r0", "a0", text="Hello!")
    (create,) = scene.sent(ResponseCreate)
    assert create.response is None


def test_a_caller_who_spoke_while_it_was_played_is_answered_by_the_model_itself() -> None:
    scene = greeting()
    scene.voice(SpeechStopped("u1", 0), InputAudioCommitted("u1"))
    assert scene.sent(ResponseCreate) == []
    assert scene.conversation.counters.turns == 1


def test_after_it_the_caller_interrupts_as_ever() -> None:
    scene = greeting()
    scene.marks()
    scene.caller_turn()
    scene.answer(2_000)
    scene.actions.clear()
    scene.caller_starts("u2")
    assert scene.take(Clear)


def test_a_key_stops_it_all_the_same() -> None:
    scene = greeting()
    scene.key("5")
    assert scene.take(Clear)
    assert len(scene.sent(SessionUpdate)) == 1


@pytest.mark.parametrize("interrupts", [True, False])
def test_only_what_was_changed_is_changed_back(interrupts: bool) -> None:
    scene = greeting(vad=ServerVad(interrupt_response=interrupts))
    scene.marks()
    assert len(scene.sent(SessionUpdate)) == (1 if interrupts else 0)


def test_a_model_that_is_lost_in_the_greeting_is_replaced_by_one_that_may_be_interrupted() -> None:
    scene = greeting(done=False)
    scene.actions += scene.conversation.on_voice_lost(scene.now_ms)
    assert scene.conversation.dialogue.active.session.turn_detection == ServerVad()
    assert scene.sent(SessionUpdate) == []
