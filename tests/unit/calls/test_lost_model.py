"""A call whose model is lost in the middle of something: nothing is said or done twice, or lost."""

from __future__ import annotations

from app.calls.actions import ClosingPrompt, End
from app.calls.turns.turn_table import Turn
from app.events import EndReason
from app.realtime.events import ResponseCreate
from tests.unit.calls.scene import GOODBYE, Scene, call_item


def reconnect(scene: Scene) -> None:
    scene.actions += scene.conversation.on_voice_lost(scene.now_ms)
    scene.actions.clear()
    scene.ready()


def calling(*tool_call_ids: str) -> Scene:
    scene = Scene()
    scene.greeted()
    scene.caller_turn()
    scene.response_begins("r1", None)
    calls = tuple(call_item("look_up", one) for one in tool_call_ids)
    scene.response_ends("r1", None, calls=calls)
    scene.actions.clear()
    return scene


def test_a_greeting_that_had_not_begun_is_said_word_for_word() -> None:
    scene = Scene()
    reconnect(scene)
    assert scene.words() == ["Hello!"]


def test_a_model_is_not_asked_before_the_tools_that_it_does_not_know_of_are_done() -> None:
    scene = calling("c1", "c2")
    scene.actions += scene.conversation.on_tool_done("c1", "one", scene.now_ms)
    reconnect(scene)
    assert scene.sent(ResponseCreate) == []
    scene.actions += scene.conversation.on_tool_done("c2", "two", scene.now_ms)
    scene.actions += scene.conversation.on_tool_done("c2", "two", scene.now_ms)
    assert len(scene.sent(ResponseCreate)) == 1


def test_a_caller_who_waits_is_answered_also_behind_a_tool_that_wants_no_reply() -> None:
    scene = calling("c1")
    reconnect(scene)
    scene.actions += scene.conversation.on_tool_done("c1", "one", scene.now_ms, reply=False)
    assert len(scene.sent(ResponseCreate)) == 1


def test_a_goodbye_in_the_models_own_words_is_finished_after_a_reconnect() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_turn()
    scene.response_begins("r1", None)
    scene.response_ends("r1", None, calls=(call_item("end_call", arguments=GOODBYE),))
    scene.response_begins("r2", "a2")
    scene.speaks(300, "Good", "r2", "a2")
    reconnect(scene)
    (create,) = scene.sent(ResponseCreate)
    assert create.response is None
    scene.answer(300, "bye", "3")
    scene.wait(3_000)
    assert scene.take(End)


def test_double_talk_ends_with_the_connection_that_heard_it() -> None:
    scene = Scene(interruptible_greeting=False)
    scene.response_begins("r1", "a1")
    scene.speaks(3_000, "Hello!", "r1", "a1")
    scene.response_ends("r1", "a1", text="Hello!")
    scene.wait(300)
    scene.caller_starts()
    reconnect(scene)
    scene.wait(4_000)
    assert scene.conversation.turns.turn is Turn.IDLE


def test_a_question_for_consent_that_was_cut_in_the_middle_is_asked_again() -> None:
    scene = calling("c1")
    scene.actions += scene.conversation.on_consent_wanted(
        "c1", "Shall I book it? Press 1.", scene.now_ms
    )
    scene.actions.clear()
    scene.response_begins("r2", "a2")
    scene.speaks(200, "Shall", "r2", "a2")
    reconnect(scene)
    assert scene.words() == ["Shall I book it? Press 1."]


def test_a_closing_prompt_that_was_cut_is_said_again() -> None:
    scene = Scene()
    scene.greeted()
    closing = ClosingPrompt(EndReason.OPERATOR_HUNG_UP, "We close now.")
    scene.actions += scene.conversation.say_goodbye(closing, scene.now_ms)
    assert scene.conversation.say_goodbye(closing, scene.now_ms) == []
    assert scene.words() == ["We close now."]
    reconnect(scene)
    assert scene.words() == ["We close now."]
    scene.answer(300, "We close now.", "2")
    scene.marks()
    assert scene.take(End) == [End(EndReason.OPERATOR_HUNG_UP)]


def test_a_caller_in_mid_speech_gives_the_floor_to_the_new_detector() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_starts()
    reconnect(scene)
    assert scene.conversation.turns.turn is Turn.IDLE
