"""Keys, digits, holding and messages: what the phone does by rule."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.agents.agent import Agent
from app.agents.dialogue.messages import (
    SayMode,
    SayWhen,
)
from app.agents.tools.call_control import CALL_TOOLS
from app.calls.actions import (
    Decide,
    TransferCall,
)
from app.calls.keypad.digits import MASK
from app.calls.keypad.menu import (
    HangUp,
    KeyAction,
    KeypadMap,
    Repeat,
    Say,
    ToAgent,
    Transfer,
)
from app.calls.policy import CallPolicy, InactivityTexts
from app.events import (
    EndReason,
    KeyPressed,
    MessageTaken,
    ToolRan,
)
from app.realtime.events import (
    ErrorDetail,
    ErrorEvent,
    ItemCreate,
    ResponseStatus,
    SessionConfig,
    SessionUpdate,
    TranscriptionCompleted,
)
from app.realtime.protocol import ALREADY_ACTIVE
from audio.format import PCMU_8K
from tests.unit.calls.scene import (
    Clear,
    End,
    PlayAudio,
    ResponseCreate,
    RunTool,
    Scene,
    call_item,
)


def scene_with(**keys: KeyAction) -> Scene:
    """A scene whose agent has a keypad map; `k1` is key 1, `star` the star key."""
    actions = {"*" if name == "star" else name[1:]: action for name, action in keys.items()}
    scene = Scene(keypads={"test": KeypadMap(actions)})
    scene.actions.clear()
    return scene


def asks_for(name: str, arguments: dict[str, Any], *, speech: str = "", **options: Any) -> Scene:
    """A scene in which the model calls a tool of the phone side, maybe with words before."""
    scene = Scene(tools=tuple(CALL_TOOLS.values()), **options)
    scene.greeted()
    scene.caller_turn("u0", "hello")
    scene.response_begins("r1", "a1" if speech else None)
    if speech:
        scene.speaks(1_000, speech)
    call = call_item(name, arguments=json.dumps(arguments))
    scene.response_ends("r1", "a1" if speech else None, text=speech, calls=(call,))
    return scene


def output(scene: Scene) -> dict[str, Any]:
    """The answer that the model got."""
    [answer] = [c.item.output for c in scene.sent(ItemCreate) if c.item.output is not None]
    found: dict[str, Any] = json.loads(answer)
    return found


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
    scene = Scene(keypads={"test": KeypadMap({"2": ToAgent("other")})}, colleagues=(other,))
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
    for entry in scene.mind.dialogue.history:
        entry.text = ""
    scene.key("*")
    (create,) = scene.sent(ResponseCreate)
    assert create.response is None


# Digits -------------------------------------------------------------------------------------------


def test_digits_go_to_the_model_whole_and_are_masked_everywhere_else() -> None:
    scene = asks_for("collect_digits", {"max_digits": 4}, speech="Your PIN, please.")
    for digit in "1234":
        scene.key(digit)
    assert output(scene) == {"digits": "1234", "end": "complete"}
    assert [event.digit for event in scene.recorded(KeyPressed)] == ["\u2022"] * 4


def pressed(scene: Scene, keys: str) -> str:
    """What is recorded of keys."""
    for key in keys:
        scene.key(key)
    return "".join(event.digit for event in scene.recorded(KeyPressed))


def test_one_digit_too_many_is_masked_like_the_others() -> None:
    scene = asks_for("collect_digits", {"max_digits": 4}, speech="Your PIN, please.")
    assert pressed(scene, "12345") == MASK * 5
    scene.wait(10_100)
    assert pressed(scene, "5") == "5"


def test_digits_after_a_pause_that_ended_the_entry_are_masked_like_the_others() -> None:
    scene = asks_for("collect_digits", {"max_digits": 16}, speech="Your card, please.")
    scene.marks()
    for _ in range(4):
        assert pressed(scene, "1234") == MASK * 4
        scene.wait(9_000)
    scene.wait(1_100)
    assert pressed(scene, "1") == "1"


def test_after_the_key_that_ends_an_entry_keys_are_no_part_of_it() -> None:
    scene = asks_for("collect_digits", {"max_digits": 16}, speech="Your card, please.")
    assert pressed(scene, "12#3") == f"{MASK}{MASK}#3"


def test_the_time_for_digits_begins_when_the_question_was_heard() -> None:
    arguments = {"max_digits": 4, "wait_seconds": 5}
    scene = asks_for("collect_digits", arguments, speech="Your PIN, please.")
    scene.wait(1_000)
    scene.marks()
    scene.sent(ItemCreate)
    scene.wait(4_900)
    assert scene.sent(ItemCreate) == []
    scene.wait(300)
    assert output(scene)["end"] == "nothing"
    assert len(scene.sent(ResponseCreate)) == 1


def test_the_terminator_ends_an_entry_and_a_short_one_says_so() -> None:
    scene = asks_for("collect_digits", {"min_digits": 4, "max_digits": 8, "terminator": "*"})
    for digit in "12*":
        scene.key(digit)
    found = output(scene)
    assert (found["digits"], found["end"]) == ("12", "too_short")
    assert "Ask again" in found["note"]


def test_words_in_the_middle_of_an_entry_uncover_no_digit() -> None:
    scene = asks_for("collect_digits", {"max_digits": 4}, speech="Your PIN?", transcribed=True)
    scene.marks()
    for key in "12":
        scene.key(key)
    scene.caller_turn("u1", "wait, it is")
    for key in "34":
        scene.key(key)
    assert output(scene) == {"digits": "1234", "end": "complete"}
    assert {event.digit for event in scene.recorded(KeyPressed)} == {MASK}


def test_a_terminator_behind_the_last_digit_stops_nobody() -> None:
    scene = asks_for(
        "collect_digits", {"min_digits": 4, "max_digits": 4}, speech="Your PIN, then #."
    )
    scene.marks()
    for key in "1234":
        scene.key(key)
    assert output(scene) == {"digits": "1234", "end": "complete"}
    scene.answer(500, "Thank you.", "2")
    scene.actions.clear()
    scene.wait(1_000)
    scene.key("#")
    assert scene.take(Clear) == []
    assert scene.sent(ItemCreate) == []
    scene.key("#")  # the next one is a key like any other
    assert len(scene.sent(ItemCreate)) == 1


def test_a_terminator_long_after_the_last_digit_is_a_key_like_any_other() -> None:
    scene = asks_for("collect_digits", {"min_digits": 1, "max_digits": 1}, speech="One digit.")
    scene.marks()
    scene.key("1")
    scene.answer(500, "Thank you.", "2")
    scene.marks()
    scene.wait(5_000)
    scene.sent(ItemCreate)
    scene.key("#")
    assert len(scene.sent(ItemCreate)) == 1


def test_a_caller_who_speaks_instead_is_answered_for_that() -> None:
    scene = asks_for("collect_digits", {"max_digits": 4}, speech="Your PIN?", transcribed=True)
    scene.marks()
    scene.wait(200)
    scene.caller_starts("u1")
    scene.caller_stops("u1", "hmm")
    assert scene.sent(ItemCreate) == []
    scene.caller_turn("u2", "I do not have it")
    assert output(scene)["end"] == "cancelled"
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
def test_wishes_that_make_no_sense_are_refused(arguments: dict[str, Any]) -> None:
    scene = asks_for("collect_digits", arguments)
    assert output(scene)["error"]
    scene.key("5")
    assert [c.item.content[0].text for c in scene.sent(ItemCreate)] == ["[keypad] 5"]


def test_one_entry_at_a_time() -> None:
    scene = asks_for("collect_digits", {"max_digits": 4})
    scene.response_begins("r2", None)
    scene.response_ends("r2", None, calls=(call_item("collect_digits", "c2", '{"max_digits": 4}'),))
    assert "already" in output(scene)["error"]


def test_a_caller_who_looks_for_the_number_is_not_asked_whether_they_are_there() -> None:
    policy = CallPolicy(inactivity_after_ms=3_000, inactivity_texts=InactivityTexts())
    scene = asks_for("collect_digits", {"max_digits": 4, "wait_seconds": 60}, policy=policy)
    scene.wait(30_000)
    assert scene.words() == []


# Holding and messages -----------------------------------------------------------------------------


def test_on_hold_the_agent_waits_until_the_caller_speaks() -> None:
    policy = CallPolicy(
        inactivity_after_ms=3_000, inactivity_texts=InactivityTexts(prompts=("There?",))
    )
    arguments = {"phrase": "Take your time.", "seconds": 60}
    scene = asks_for("hold", arguments, policy=policy, transcribed=True)
    assert scene.words() == ["Take your time."]
    assert output(scene)["ok"] is True
    scene.answer(500, "Take your time.", "2")
    scene.marks()
    scene.wait(50_000)
    assert scene.words() == []
    scene.caller_turn("u1", "I have it here")
    scene.answer(500, "Good.", "3")
    scene.marks()
    scene.wait(3_200)
    assert scene.words() == ["There?"]


def test_what_waits_for_a_quiet_moment_does_not_end_a_hold() -> None:
    scene = asks_for("hold", {"seconds": 60}, speech="One moment then.", transcribed=True)
    scene.marks()
    scene.actions += scene.mind.say(
        "It ships on Monday.", scene.now_ms, mode=SayMode.RELAY, when=SayWhen.IDLE
    )
    scene.wait(50_000)
    assert scene.words() == []
    scene.caller_turn("u1", "I have it here")
    scene.answer(500, "Good.", "3")
    scene.marks()
    scene.wait(200)
    (words,) = scene.words()
    assert "It ships on Monday." in words


def test_what_waits_for_a_quiet_moment_is_said_when_the_hold_was_long_enough() -> None:
    scene = asks_for("hold", {"seconds": 60}, speech="One moment then.")
    scene.marks()
    scene.actions += scene.mind.say(
        "It ships on Monday.", scene.now_ms, mode=SayMode.VERBATIM, when=SayWhen.IDLE
    )
    scene.wait(59_000)
    assert scene.words() == []
    scene.wait(2_000)
    assert scene.words() == ["It ships on Monday."]


def test_holding_without_a_phrase_is_silent() -> None:
    scene = asks_for("hold", {}, speech="One moment then.")
    scene.marks()
    scene.wait(100_000)
    assert scene.sent(ResponseCreate) == []


def test_a_message_is_what_the_caller_says_next() -> None:
    scene = asks_for("take_message", {"recipient": "Ms. Lee"}, speech="Go on.", transcribed=True)
    assert output(scene)["ok"] is True
    scene.marks()
    scene.caller_turn("u1", "mhm")
    scene.answer(500, "Yes?", "2")
    scene.marks()
    scene.wait(300)
    assert scene.recorded(MessageTaken) == []
    scene.caller_turn("u2", "Please call me back on Monday,")
    scene.caller_turn("u3", "that is Ada Byron,")
    scene.answer(2_000, "I will tell her that.", "3")
    scene.caller_turn("u4", "at extension seven.")
    assert scene.recorded(MessageTaken) == []
    scene.take(PlayAudio)
    scene.answer(500, "I will tell her.", "4")
    scene.marks()
    scene.wait(300)
    (taken,) = scene.recorded(MessageTaken)
    assert (taken.item_id, taken.recipient) == ("u2", "Ms. Lee")
    said = "Please call me back on Monday, that is Ada Byron, at extension seven."
    assert taken.text == said
    scene.caller_turn("u5", "Thank you")
    scene.answer(500, "Goodbye.", "5")
    scene.marks()
    scene.wait(300)
    assert scene.recorded(MessageTaken) == []


def test_words_that_are_written_down_after_the_answer_belong_to_the_message() -> None:
    scene = asks_for("take_message", {}, speech="Go on.", transcribed=True)
    scene.marks()
    scene.caller_turn("u1", "Please call me back,")
    scene.caller_starts("u2")
    scene.caller_stops("u2", None)
    scene.answer(500, "I will tell her.", "2")
    scene.marks()
    scene.wait(1_000)
    assert scene.recorded(MessageTaken) == []
    scene.voice(TranscriptionCompleted("u2", 0, "at extension seven."))
    scene.wait(300)
    (taken,) = scene.recorded(MessageTaken)
    assert taken.text == "Please call me back, at extension seven."


def test_words_that_are_never_written_down_hold_up_no_message() -> None:
    scene = asks_for("take_message", {}, speech="Go on.", transcribed=True)
    scene.marks()
    scene.caller_turn("u1", "Please call me back.")
    scene.caller_starts("u2")
    scene.caller_stops("u2", None)
    scene.answer(500, "I will tell her.", "2")
    scene.marks()
    scene.wait(4_900)
    assert scene.recorded(MessageTaken) == []
    scene.wait(300)
    (taken,) = scene.recorded(MessageTaken)
    assert taken.text == "Please call me back."


def test_a_message_of_a_caller_who_hangs_up_behind_it_is_kept() -> None:
    scene = asks_for("take_message", {}, speech="Go on.", transcribed=True)
    scene.marks()
    scene.caller_turn("u1", "Please call me back on Monday")
    scene.actions += scene.mind.on_call_over(scene.now_ms)
    assert [taken.text for taken in scene.recorded(MessageTaken)] == [
        "Please call me back on Monday"
    ]


def test_a_message_that_was_not_asked_for_yet_is_asked_for() -> None:
    scene = asks_for("take_message", {}, transcribed=True)
    assert len(scene.sent(ResponseCreate)) == 1


def test_without_transcripts_there_are_no_messages() -> None:
    assert "not written down" in output(asks_for("take_message", {}))["error"]


def test_a_tool_that_the_agent_was_not_given_does_not_run_here() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_turn()
    scene.response_begins("r1", None)
    scene.response_ends("r1", None, calls=(call_item("hold"),))
    assert [run.name for run in scene.take(RunTool)] == ["hold"]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("collect_digits", {}),
        ("collect_digits", {"max_digits": 65}),
        ("collect_digits", {"max_digits": 4, "min_digits": 6}),
        ("collect_digits", {"max_digits": 4, "terminator": "9"}),
        ("hold", {"seconds": 100_000}),
        ("hold", {"phrase": "x" * 201}),
        ("take_message", {"recipient": 3}),
        ("take_message", {"recipient": "a", "to": "+15551234567"}),
        ("end_call", {}),
        ("end_call", {"reason": "the caller did not respond"}),
        ("end_call", {"reason": "task_complete", "now": True}),
    ],
)
def test_arguments_that_the_schema_does_not_allow_are_refused(
    name: str, arguments: dict[str, Any]
) -> None:
    scene = asks_for(name, arguments, transcribed=True)
    refused = output(scene)
    assert refused["error"]
    assert refused["code"] == "tool_args_invalid"
    assert [(ran.name, ran.error) for ran in scene.recorded(ToolRan)] == [(name, refused["code"])]
    assert len(scene.sent(ResponseCreate)) == 1
    scene.wait(3_000)
    assert scene.take(End) == []


def test_arguments_that_are_no_json_are_refused() -> None:
    scene = Scene(tools=tuple(CALL_TOOLS.values()))
    scene.greeted()
    scene.caller_turn()
    scene.response_begins("r1", None)
    scene.response_ends("r1", None, calls=(call_item("hold", arguments="{"),))
    assert output(scene)["error"]


PROMPT = "Please confirm: pay. Press 1 for yes, or 2 for no."


def test_a_caller_who_presses_too_early_is_asked_once_and_not_after_the_answer() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_turn()
    scene.response_begins()
    scene.speaks(3_000, "I will do that for you.")
    scene.response_ends(text="I will do that for you.", calls=(call_item("pay"),))
    scene.actions += scene.mind.on_consent_wanted("c1", PROMPT, scene.now_ms)
    assert scene.words() == [PROMPT]
    for _ in range(3):
        scene.key("1")  # nothing of the question was heard yet
    scene.response_begins("r2", None)
    scene.response_ends("r2", None, ResponseStatus.CANCELLED)
    assert scene.words() == [PROMPT]
    scene.take(PlayAudio)
    scene.answer(1_000, PROMPT, "3")
    scene.marks()
    assert scene.take(Decide) == []
    scene.key("1")
    assert scene.take(Decide) == [Decide("c1", approved=True)]
    scene.wait(300)
    assert scene.words() == []


def test_a_key_pressed_before_the_question_is_no_consent_whatever_else_was_heard() -> None:
    scene = Scene(transcribed=True)
    scene.greeted()
    scene.caller_turn("u1", "pay three")
    scene.response_begins("r1", None)
    scene.response_ends("r1", None, calls=(call_item("pay"),))
    scene.caller_starts("u2")
    scene.actions += scene.mind.on_consent_wanted("c1", PROMPT, scene.now_ms)
    scene.caller_stops("u2", "and what are your hours")
    scene.answer(2_000, "For our hours press 1.", "2")
    scene.marks()
    asked = scene.words()
    scene.key("1")
    assert scene.take(Decide) == []
    scene.response_begins("r3", None)
    scene.response_ends("r3", None, ResponseStatus.CANCELLED)
    assert [*asked, *scene.words()] == [PROMPT, PROMPT]
    scene.take(PlayAudio)
    scene.answer(1_000, PROMPT, "4")
    scene.marks()
    scene.key("1")
    assert scene.take(Decide) == [Decide("c1", approved=True)]


REPHRASED = "May I pay that for you? One is yes, two is no."


def wants_consent() -> Scene:
    """A tool waits for consent, and the question was sent to a model that echoes no metadata."""
    scene = Scene(transcribed=True)
    scene.greeted()
    scene.caller_turn("u1", "pay three")
    scene.response_begins("r1", None)
    scene.response_ends("r1", None, calls=(call_item("pay"),))
    scene.actions += scene.mind.on_consent_wanted("c1", PROMPT, scene.now_ms)
    return scene


def test_a_question_that_the_model_rephrases_is_a_question_all_the_same() -> None:
    scene = wants_consent()
    scene.take(PlayAudio)
    scene.answer(1_000, REPHRASED, "2")
    scene.key("1")  # nothing of it was heard yet
    assert scene.take(Decide) == []
    scene.take(PlayAudio)
    scene.answer(1_000, REPHRASED, "3")
    scene.marks()
    scene.key("1")
    assert scene.take(Decide) == [Decide("c1", approved=True)]


def test_an_answer_that_came_in_place_of_the_question_is_not_the_question() -> None:
    scene = wants_consent()
    [*_, asked] = scene.sent(ResponseCreate)
    scene.response_begins("r2", "a2")
    scene.voice(ErrorEvent(ErrorDetail(code=ALREADY_ACTIVE, client_event_id=asked.event_id)))
    scene.speaks(2_000, "For our hours press 1.", "r2", "a2")
    scene.response_ends("r2", "a2", text="For our hours press 1.")
    scene.marks()
    scene.key("1")
    assert scene.take(Decide) == []
