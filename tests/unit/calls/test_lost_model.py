"""A call whose model is lost in the middle of something: nothing is said or done twice, or lost."""

from __future__ import annotations

from app.calls.actions import ClosingPrompt, End
from app.calls.turns.turn_table import Turn
from app.events import EndReason
from app.realtime.events import ResponseCreate
from tests.unit.calls.harness import GOODBYE, CallHarness, call_item


def reconnect(harness: CallHarness) -> None:
    harness.actions += harness.conversation.on_voice_lost(harness.now_ms)
    harness.actions.clear()
    harness.ready()


def calling(*tool_call_ids: str) -> CallHarness:
    harness = CallHarness()
    harness.greeted()
    harness.caller_turn()
    harness.response_begins("r1", None)
    calls = tuple(call_item("look_up", one) for one in tool_call_ids)
    harness.response_ends("r1", None, calls=calls)
    harness.actions.clear()
    return harness


def test_a_greeting_that_had_not_begun_is_said_word_for_word() -> None:
    harness = CallHarness()
    reconnect(harness)
    assert harness.words() == ["Hello!"]


def test_a_model_is_not_asked_before_the_tools_that_it_does_not_know_of_are_done() -> None:
    harness = calling("c1", "c2")
    harness.actions += harness.conversation.on_tool_done("c1", "one", harness.now_ms)
    reconnect(harness)
    assert harness.sent(ResponseCreate) == []
    harness.actions += harness.conversation.on_tool_done("c2", "two", harness.now_ms)
    harness.actions += harness.conversation.on_tool_done("c2", "two", harness.now_ms)
    assert len(harness.sent(ResponseCreate)) == 1


def test_a_caller_who_waits_is_answered_also_behind_a_tool_that_wants_no_reply() -> None:
    harness = calling("c1")
    reconnect(harness)
    harness.actions += harness.conversation.on_tool_done("c1", "one", harness.now_ms, reply=False)
    assert len(harness.sent(ResponseCreate)) == 1


def test_a_goodbye_in_the_models_own_words_is_finished_after_a_reconnect() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.caller_turn()
    harness.response_begins("r1", None)
    harness.response_ends("r1", None, calls=(call_item("end_call", arguments=GOODBYE),))
    harness.response_begins("r2", "a2")
    harness.speaks(300, "Good", "r2", "a2")
    reconnect(harness)
    (create,) = harness.sent(ResponseCreate)
    assert create.response is None
    harness.answer(300, "bye", "3")
    harness.wait(3_000)
    assert harness.take(End)


def test_double_talk_ends_with_the_connection_that_heard_it() -> None:
    harness = CallHarness(interruptible_greeting=False)
    harness.response_begins("r1", "a1")
    harness.speaks(3_000, "Hello!", "r1", "a1")
    harness.response_ends("r1", "a1", text="Hello!")
    harness.wait(300)
    harness.caller_starts()
    reconnect(harness)
    harness.wait(4_000)
    assert harness.conversation.turns.turn is Turn.IDLE


def test_a_question_for_consent_that_was_cut_in_the_middle_is_asked_again() -> None:
    harness = calling("c1")
    harness.actions += harness.conversation.on_consent_wanted(
        "c1", "Shall I book it? Press 1.", harness.now_ms
    )
    harness.actions.clear()
    harness.response_begins("r2", "a2")
    harness.speaks(200, "Shall", "r2", "a2")
    reconnect(harness)
    assert harness.words() == ["Shall I book it? Press 1."]


def test_a_closing_prompt_that_was_cut_is_said_again() -> None:
    harness = CallHarness()
    harness.greeted()
    closing = ClosingPrompt(EndReason.OPERATOR_HUNG_UP, "We close now.")
    harness.actions += harness.conversation.say_goodbye(closing, harness.now_ms)
    assert harness.conversation.say_goodbye(closing, harness.now_ms) == []
    assert harness.words() == ["We close now."]
    reconnect(harness)
    assert harness.words() == ["We close now."]
    harness.answer(300, "We close now.", "2")
    harness.marks()
    assert harness.take(End) == [End(EndReason.OPERATOR_HUNG_UP)]


def test_a_caller_in_mid_speech_gives_the_floor_to_the_new_detector() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.caller_starts()
    reconnect(harness)
    assert harness.conversation.turns.turn is Turn.IDLE
