"""Keys and digits: who waits for them."""

from __future__ import annotations

from typing import Any

import pytest

from app.agents.agent import Agent
from app.calls.actions import TransferCall
from app.calls.keypad.digits import MASK
from app.calls.keypad.menu import (
    HangUp,
    KeyAction,
    KeypadMap,
    MenuPlan,
    Repeat,
    Say,
    ToAgent,
    Transfer,
)
from app.calls.policy import CallPolicy, InactivityTexts
from app.events import EndReason, KeyPressed
from app.realtime.events import ItemCreate, SessionConfig, SessionUpdate
from audio.format import PCMU_8K
from tests.unit.calls.scene import (
    Clear,
    End,
    ResponseCreate,
    Scene,
    call_item,
    calls_tool,
    tool_output,
)


def scene_with(**keys: KeyAction) -> Scene:
    """A scene whose agent has a keypad map; `k1` is key 1, `star` the star key."""
    actions = {"*" if name == "star" else name[1:]: action for name, action in keys.items()}
    scene = Scene(keypads={"test": KeypadMap(actions)})
    scene.actions.clear()
    return scene


# Keypad maps --------------------------------------------------------------------------------------


def test_a_key_of_the_map_is_not_given_to_the_model() -> None:
    scene = scene_with(k1=Say("We open at nine."))
    scene.greeted()
    scene.key("1")
    assert scene.words() == ["We open at nine."]
    assert scene.sent(ItemCreate) == []
    assert scene.recorded(KeyPressed)[0].digit == "1"


def test_a_key_that_is_not_in_the_map_belongs_to_the_model() -> None:
    scene = scene_with(k1=Say("We open at nine."))
    scene.greeted()
    scene.key("2")
    assert [c.item.content[0].text for c in scene.sent(ItemCreate)] == ["[keypad] 2"]


def test_the_map_works_before_anybody_has_spoken() -> None:
    scene = Scene(live=False, keypads={"test": KeypadMap({"1": Transfer("sales")})})
    scene.stream()
    scene.key("1")
    assert scene.take(TransferCall) == [TransferCall("sales")]


def test_a_key_over_the_greeting_stops_it() -> None:
    scene = scene_with(k1=Say("We open at nine."))
    scene.answer(2_000, "Hello!", "greeting")
    scene.actions.clear()
    scene.key("1")
    assert scene.take(Clear)
    assert scene.words() == ["We open at nine."]


def test_a_key_hands_the_caller_to_another_agent() -> None:
    session = SessionConfig(input_format=PCMU_8K, output_format=PCMU_8K)
    other = Agent(name="other", session=session)
    scene = Scene(keypads={"test": KeypadMap({"2": ToAgent("other")})}, other_agents=(other,))
    scene.greeted()
    scene.key("2")
    assert len(scene.sent(SessionUpdate)) == 1
    assert len(scene.sent(ResponseCreate)) == 1
    scene.response_begins("r2", None)
    scene.response_ends("r2", "a2")
    scene.sent(ItemCreate)
    scene.key("2")  # the other agent has no such key
    assert len(scene.sent(ItemCreate)) == 1


@pytest.mark.parametrize("text", ["Goodbye.", None])
def test_a_key_hangs_up_after_a_word_if_there_is_one(text: str | None) -> None:
    scene = scene_with(k9=HangUp(text))
    scene.greeted()
    scene.key("9")
    if text:
        assert scene.words() == [text]
        scene.answer(500, text, "2")
        scene.marks()
    assert scene.take(End)[:1] == [End(EndReason.AGENT_HUNG_UP, "keypad")]


def test_a_key_repeats_what_the_agent_said_last() -> None:
    scene = scene_with(star=Repeat())
    scene.answer(500, "Hello!", "greeting")
    scene.key("*")
    assert scene.words() == ["Hello!"]
    scene.answer(500, "We open at nine.", "1")
    scene.marks()
    scene.words()
    scene.key("*")
    assert scene.words() == ["We open at nine."]


def test_a_repetition_of_nothing_asks_the_model_for_words() -> None:
    scene = Scene(greeting=None, keypads={"test": KeypadMap({"*": Repeat()})})
    scene.greeted()
    for entry in scene.conversation.dialogue.history:
        entry.text = ""
    scene.key("*")
    (create,) = scene.sent(ResponseCreate)
    assert create.response is None


# Menus --------------------------------------------------------------------------------------------


def menu_scene(**options: Any) -> Scene:
    plan = MenuPlan(prompt="Press 1.", otherwise=HangUp("Bye."), timeout_ms=3_000, tries=2)
    return Scene(keypads={"test": KeypadMap({"1": ToAgent("test")}, plan)}, **options)


def test_a_menu_is_spoken_behind_the_greeting_and_again_when_nobody_presses_a_key() -> None:
    scene = menu_scene()
    assert scene.words() == ["Hello! Press 1."]
    scene.answer(500, "Hello! Press 1.", "2")
    scene.marks()
    scene.wait(2_900)
    assert scene.words() == []
    scene.wait(200)
    assert scene.words() == ["Press 1."]
    scene.answer(500, "Press 1.", "3")
    scene.marks()
    scene.wait(3_100)
    assert scene.words() == ["Bye."]


def test_a_key_of_a_menu_is_taken_before_the_model_hears_of_it() -> None:
    scene = menu_scene()
    scene.greeted()
    scene.key("7")
    assert scene.words() == ["That key does nothing here. Press 1."]
    assert scene.sent(ItemCreate) == []
    scene.answer(500, "Press 1.", "2")
    scene.key("1")  # the same agent: its menu again
    assert scene.words() == ["Press 1."]


def test_words_close_a_menu() -> None:
    scene = menu_scene(transcribed=True)
    scene.greeted()
    scene.caller_turn("u1", "I would like to talk to somebody")
    scene.answer(500, "Of course.", "2")
    scene.marks()
    scene.words()
    scene.wait(6_000)
    assert scene.words() == []


# Digits -------------------------------------------------------------------------------------------


def test_digits_go_to_the_model_whole_and_are_masked_everywhere_else() -> None:
    scene = calls_tool("collect_digits", {"max_digits": 4}, speech="Your PIN, please.")
    for digit in "1234":
        scene.key(digit)
    assert tool_output(scene) == {"digits": "1234", "end": "complete"}
    assert [event.digit for event in scene.recorded(KeyPressed)] == ["\u2022"] * 4


def pressed(scene: Scene, keys: str) -> str:
    """The records of keys."""
    for key in keys:
        scene.key(key)
    return "".join(event.digit for event in scene.recorded(KeyPressed))


def test_one_digit_too_many_is_masked_like_the_others() -> None:
    scene = calls_tool("collect_digits", {"max_digits": 4}, speech="Your PIN, please.")
    assert pressed(scene, "12345") == MASK * 5
    scene.wait(10_100)
    assert pressed(scene, "5") == "5"


def test_digits_after_a_pause_that_ended_the_entry_are_masked_like_the_others() -> None:
    scene = calls_tool("collect_digits", {"max_digits": 16}, speech="Your card, please.")
    scene.marks()
    for _ in range(4):
        assert pressed(scene, "1234") == MASK * 4
        scene.wait(9_000)
    scene.wait(1_100)
    assert pressed(scene, "1") == "1"


def test_keys_after_the_one_that_ends_an_entry_are_not_masked() -> None:
    scene = calls_tool("collect_digits", {"max_digits": 16}, speech="Your card, please.")
    assert pressed(scene, "12#3") == f"{MASK}{MASK}#3"


def test_the_time_for_digits_begins_when_the_question_was_heard() -> None:
    arguments = {"max_digits": 4, "wait_seconds": 5}
    scene = calls_tool("collect_digits", arguments, speech="Your PIN, please.")
    scene.wait(1_000)
    scene.marks()
    scene.sent(ItemCreate)
    scene.wait(4_900)
    assert scene.sent(ItemCreate) == []
    scene.wait(300)
    assert tool_output(scene)["end"] == "nothing"
    assert len(scene.sent(ResponseCreate)) == 1


def test_the_terminator_ends_an_entry_and_a_short_one_says_so() -> None:
    scene = calls_tool("collect_digits", {"min_digits": 4, "max_digits": 8, "terminator": "*"})
    for digit in "12*":
        scene.key(digit)
    found = tool_output(scene)
    assert (found["digits"], found["end"]) == ("12", "too_short")
    assert "Ask again" in found["note"]


def test_words_in_the_middle_of_an_entry_uncover_no_digit() -> None:
    scene = calls_tool("collect_digits", {"max_digits": 4}, speech="Your PIN?", transcribed=True)
    scene.marks()
    for key in "12":
        scene.key(key)
    scene.caller_turn("u1", "wait, it is")
    for key in "34":
        scene.key(key)
    assert tool_output(scene) == {"digits": "1234", "end": "complete"}
    assert {event.digit for event in scene.recorded(KeyPressed)} == {MASK}


def test_a_terminator_behind_the_last_digit_does_not_stop_the_agent() -> None:
    scene = calls_tool(
        "collect_digits", {"min_digits": 4, "max_digits": 4}, speech="Your PIN, then #."
    )
    scene.marks()
    for key in "1234":
        scene.key(key)
    assert tool_output(scene) == {"digits": "1234", "end": "complete"}
    scene.answer(500, "Thank you.", "2")
    scene.actions.clear()
    scene.wait(1_000)
    scene.key("#")
    assert scene.take(Clear) == []
    assert scene.sent(ItemCreate) == []
    scene.key("#")  # the next one is a key like any other
    assert len(scene.sent(ItemCreate)) == 1


def test_a_terminator_long_after_the_last_digit_is_an_ordinary_key() -> None:
    scene = calls_tool("collect_digits", {"min_digits": 1, "max_digits": 1}, speech="One digit.")
    scene.marks()
    scene.key("1")
    scene.answer(500, "Thank you.", "2")
    scene.marks()
    scene.wait(5_000)
    scene.sent(ItemCreate)
    scene.key("#")
    assert len(scene.sent(ItemCreate)) == 1


def test_a_caller_who_speaks_instead_of_keying_is_answered() -> None:
    scene = calls_tool("collect_digits", {"max_digits": 4}, speech="Your PIN?", transcribed=True)
    scene.marks()
    scene.wait(200)
    scene.caller_starts("u1")
    scene.caller_stops("u1", "hmm")
    assert scene.sent(ItemCreate) == []
    scene.caller_turn("u2", "I do not have it")
    assert tool_output(scene)["end"] == "cancelled"
    assert scene.sent(ResponseCreate) == []  # the server answers the turn by itself


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_digits": 0},
        {"max_digits": True},
        {"max_digits": "4"},
        {"min_digits": 5, "max_digits": 4},
        {"max_digits": 4, "terminator": "5"},
        {"max_digits": 4, "wait_seconds": 61},
    ],
)
def test_digit_requests_that_make_no_sense_are_refused(arguments: dict[str, Any]) -> None:
    scene = calls_tool("collect_digits", arguments)
    assert tool_output(scene)["error"]
    scene.key("5")
    assert [c.item.content[0].text for c in scene.sent(ItemCreate)] == ["[keypad] 5"]


def test_one_entry_at_a_time() -> None:
    scene = calls_tool("collect_digits", {"max_digits": 4})
    scene.response_begins("r2", None)
    scene.response_ends("r2", None, calls=(call_item("collect_digits", "c2", '{"max_digits": 4}'),))
    assert "already" in tool_output(scene)["error"]


def test_a_caller_who_looks_for_the_number_is_not_asked_whether_they_are_there() -> None:
    policy = CallPolicy(inactivity_after_ms=3_000, inactivity_texts=InactivityTexts())
    scene = calls_tool("collect_digits", {"max_digits": 4, "wait_seconds": 60}, policy=policy)
    scene.wait(30_000)
    assert scene.words() == []
