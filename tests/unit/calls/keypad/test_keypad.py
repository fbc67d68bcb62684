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
from tests.unit.calls.harness import (
    CallHarness,
    Clear,
    End,
    ResponseCreate,
    call_item,
    calls_tool,
    tool_output,
)


def harness_with(**keys: KeyAction) -> CallHarness:
    """A harness whose agent has a keypad map; `k1` is key 1, `star` the star key."""
    actions = {"*" if name == "star" else name[1:]: action for name, action in keys.items()}
    harness = CallHarness(keypads={"test": KeypadMap(actions)})
    harness.actions.clear()
    return harness


# Keypad maps --------------------------------------------------------------------------------------


def test_a_key_of_the_map_is_not_given_to_the_model() -> None:
    harness = harness_with(k1=Say("We open at nine."))
    harness.greeted()
    harness.key("1")
    assert harness.words() == ["We open at nine."]
    assert harness.sent(ItemCreate) == []
    assert harness.recorded(KeyPressed)[0].digit == "1"


def test_a_key_that_is_not_in_the_map_belongs_to_the_model() -> None:
    harness = harness_with(k1=Say("We open at nine."))
    harness.greeted()
    harness.key("2")
    assert [c.item.content[0].text for c in harness.sent(ItemCreate)] == ["[keypad] 2"]


def test_the_map_works_before_anybody_has_spoken() -> None:
    harness = CallHarness(live=False, keypads={"test": KeypadMap({"1": Transfer("sales")})})
    harness.stream()
    harness.key("1")
    assert harness.take(TransferCall) == [TransferCall("sales")]


def test_a_key_over_the_greeting_stops_it() -> None:
    harness = harness_with(k1=Say("We open at nine."))
    harness.answer(2_000, "Hello!", "greeting")
    harness.actions.clear()
    harness.key("1")
    assert harness.take(Clear)
    assert harness.words() == ["We open at nine."]


def test_a_key_hands_the_caller_to_another_agent() -> None:
    session = SessionConfig(input_format=PCMU_8K, output_format=PCMU_8K)
    other = Agent(name="other", session=session)
    harness = CallHarness(
        keypads={"test": KeypadMap({"2": ToAgent("other")})}, other_agents=(other,)
    )
    harness.greeted()
    harness.key("2")
    assert len(harness.sent(SessionUpdate)) == 1
    assert len(harness.sent(ResponseCreate)) == 1
    harness.response_begins("r2", None)
    harness.response_ends("r2", "a2")
    harness.sent(ItemCreate)
    harness.key("2")  # the other agent has no such key
    assert len(harness.sent(ItemCreate)) == 1


@pytest.mark.parametrize("text", ["Goodbye.", None])
def test_a_key_hangs_up_after_a_word_if_there_is_one(text: str | None) -> None:
    harness = harness_with(k9=HangUp(text))
    harness.greeted()
    harness.key("9")
    if text:
        assert harness.words() == [text]
        harness.answer(500, text, "2")
        harness.marks()
    assert harness.take(End)[:1] == [End(EndReason.AGENT_HUNG_UP, "keypad")]


def test_a_key_repeats_what_the_agent_said_last() -> None:
    harness = harness_with(star=Repeat())
    harness.answer(500, "Hello!", "greeting")
    harness.key("*")
    assert harness.words() == ["Hello!"]
    harness.answer(500, "We open at nine.", "1")
    harness.marks()
    harness.words()
    harness.key("*")
    assert harness.words() == ["We open at nine."]


def test_a_repetition_of_nothing_asks_the_model_for_words() -> None:
    harness = CallHarness(greeting=None, keypads={"test": KeypadMap({"*": Repeat()})})
    harness.greeted()
    for entry in harness.conversation.dialogue.history:
        entry.text = ""
    harness.key("*")
    (create,) = harness.sent(ResponseCreate)
    assert create.response is None


# Menus --------------------------------------------------------------------------------------------


def menu_harness(**options: Any) -> CallHarness:
    plan = MenuPlan(prompt="Press 1.", otherwise=HangUp("Bye."), timeout_ms=3_000, tries=2)
    return CallHarness(keypads={"test": KeypadMap({"1": ToAgent("test")}, plan)}, **options)


def test_a_menu_is_spoken_behind_the_greeting_and_again_when_nobody_presses_a_key() -> None:
    harness = menu_harness()
    assert harness.words() == ["Hello! Press 1."]
    harness.answer(500, "Hello! Press 1.", "2")
    harness.marks()
    harness.wait(2_900)
    assert harness.words() == []
    harness.wait(200)
    assert harness.words() == ["Press 1."]
    harness.answer(500, "Press 1.", "3")
    harness.marks()
    harness.wait(3_100)
    assert harness.words() == ["Bye."]


def test_a_key_of_a_menu_is_taken_before_the_model_hears_of_it() -> None:
    harness = menu_harness()
    harness.greeted()
    harness.key("7")
    assert harness.words() == ["That key does nothing here. Press 1."]
    assert harness.sent(ItemCreate) == []
    harness.answer(500, "Press 1.", "2")
    harness.key("1")  # the same agent: its menu again
    assert harness.words() == ["Press 1."]


def test_words_close_a_menu() -> None:
    harness = menu_harness(transcribed=True)
    harness.greeted()
    harness.caller_turn("u1", "I would like to talk to somebody")
    harness.answer(500, "Of course.", "2")
    harness.marks()
    harness.words()
    harness.wait(6_000)
    assert harness.words() == []


# Digits -------------------------------------------------------------------------------------------


def test_digits_go_to_the_model_whole_and_are_masked_everywhere_else() -> None:
    harness = calls_tool("collect_digits", {"max_digits": 4}, speech="Your PIN, please.")
    for digit in "1234":
        harness.key(digit)
    assert tool_output(harness) == {"digits": "1234", "end": "complete"}
    assert [event.digit for event in harness.recorded(KeyPressed)] == ["\u2022"] * 4


def pressed(harness: CallHarness, keys: str) -> str:
    """The records of keys."""
    for key in keys:
        harness.key(key)
    return "".join(event.digit for event in harness.recorded(KeyPressed))


def test_one_digit_too_many_is_masked_like_the_others() -> None:
    harness = calls_tool("collect_digits", {"max_digits": 4}, speech="Your PIN, please.")
    assert pressed(harness, "12345") == MASK * 5
    harness.wait(10_100)
    assert pressed(harness, "5") == "5"


def test_digits_after_a_pause_that_ended_the_entry_are_masked_like_the_others() -> None:
    harness = calls_tool("collect_digits", {"max_digits": 16}, speech="Your card, please.")
    harness.marks()
    for _ in range(4):
        assert pressed(harness, "1234") == MASK * 4
        harness.wait(9_000)
    harness.wait(1_100)
    assert pressed(harness, "1") == "1"


def test_keys_after_the_one_that_ends_an_entry_are_not_masked() -> None:
    harness = calls_tool("collect_digits", {"max_digits": 16}, speech="Your card, please.")
    assert pressed(harness, "12#3") == f"{MASK}{MASK}#3"


def test_the_time_for_digits_begins_when_the_question_was_heard() -> None:
    arguments = {"max_digits": 4, "wait_seconds": 5}
    harness = calls_tool("collect_digits", arguments, speech="Your PIN, please.")
    harness.wait(1_000)
    harness.marks()
    harness.sent(ItemCreate)
    harness.wait(4_900)
    assert harness.sent(ItemCreate) == []
    harness.wait(300)
    assert tool_output(harness)["end"] == "nothing"
    assert len(harness.sent(ResponseCreate)) == 1


def test_the_terminator_ends_an_entry_and_a_short_one_says_so() -> None:
    harness = calls_tool("collect_digits", {"min_digits": 4, "max_digits": 8, "terminator": "*"})
    for digit in "12*":
        harness.key(digit)
    found = tool_output(harness)
    assert (found["digits"], found["end"]) == ("12", "too_short")
    assert "Ask again" in found["note"]


def test_words_in_the_middle_of_an_entry_uncover_no_digit() -> None:
    harness = calls_tool("collect_digits", {"max_digits": 4}, speech="Your PIN?", transcribed=True)
    harness.marks()
    for key in "12":
        harness.key(key)
    harness.caller_turn("u1", "wait, it is")
    for key in "34":
        harness.key(key)
    assert tool_output(harness) == {"digits": "1234", "end": "complete"}
    assert {event.digit for event in harness.recorded(KeyPressed)} == {MASK}


def test_a_terminator_behind_the_last_digit_does_not_stop_the_agent() -> None:
    harness = calls_tool(
        "collect_digits", {"min_digits": 4, "max_digits": 4}, speech="Your PIN, then #."
    )
    harness.marks()
    for key in "1234":
        harness.key(key)
    assert tool_output(harness) == {"digits": "1234", "end": "complete"}
    harness.answer(500, "Thank you.", "2")
    harness.actions.clear()
    harness.wait(1_000)
    harness.key("#")
    assert harness.take(Clear) == []
    assert harness.sent(ItemCreate) == []
    harness.key("#")  # the next one is a key like any other
    assert len(harness.sent(ItemCreate)) == 1


def test_a_terminator_long_after_the_last_digit_is_an_ordinary_key() -> None:
    harness = calls_tool("collect_digits", {"min_digits": 1, "max_digits": 1}, speech="One digit.")
    harness.marks()
    harness.key("1")
    harness.answer(500, "Thank you.", "2")
    harness.marks()
    harness.wait(5_000)
    harness.sent(ItemCreate)
    harness.key("#")
    assert len(harness.sent(ItemCreate)) == 1


def test_a_caller_who_speaks_instead_of_keying_is_answered() -> None:
    harness = calls_tool("collect_digits", {"max_digits": 4}, speech="Your PIN?", transcribed=True)
    harness.marks()
    harness.wait(200)
    harness.caller_starts("u1")
    harness.caller_stops("u1", "hmm")
    assert harness.sent(ItemCreate) == []
    harness.caller_turn("u2", "I do not have it")
    assert tool_output(harness)["end"] == "cancelled"
    assert harness.sent(ResponseCreate) == []  # the server answers the turn by itself


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
    harness = calls_tool("collect_digits", arguments)
    assert tool_output(harness)["error"]
    harness.key("5")
    assert [c.item.content[0].text for c in harness.sent(ItemCreate)] == ["[keypad] 5"]


def test_one_entry_at_a_time() -> None:
    harness = calls_tool("collect_digits", {"max_digits": 4})
    harness.response_begins("r2", None)
    harness.response_ends(
        "r2", None, calls=(call_item("collect_digits", "c2", '{"max_digits": 4}'),)
    )
    assert "already" in tool_output(harness)["error"]


def test_a_caller_who_looks_for_the_number_is_not_asked_whether_they_are_there() -> None:
    policy = CallPolicy(inactivity_after_ms=3_000, inactivity_texts=InactivityTexts())
    harness = calls_tool("collect_digits", {"max_digits": 4, "wait_seconds": 60}, policy=policy)
    harness.wait(30_000)
    assert harness.words() == []
