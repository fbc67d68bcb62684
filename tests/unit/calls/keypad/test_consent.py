"""Tools that wait for a key of the caller."""

from __future__ import annotations

from app.calls.actions import Decide
from app.realtime.events import ErrorDetail, ErrorEvent, ItemCreate, ResponseStatus
from app.realtime.protocol import ALREADY_ACTIVE
from tests.unit.calls.scene import (
    Clear,
    PlayAudio,
    ResponseCreate,
    Scene,
    call_item,
    spoken,
    with_tool_running,
)


def test_a_key_answers_a_tool_that_needs_consent() -> None:
    scene = with_tool_running()
    scene.actions += scene.conversation.on_consent_wanted("c1", "Press 1 or 2.", scene.now_ms)
    assert [spoken(create.response) for create in scene.sent(ResponseCreate)] == ["Press 1 or 2."]
    scene.answer(500, "Press 1 or 2.", "2")
    scene.key("7")
    assert [spoken(create.response) for create in scene.sent(ResponseCreate)] == ["Press 1 or 2."]
    scene.response_begins("r3", "a3")
    scene.speaks(500, "Press 1", "r3", "a3")
    scene.now_ms += 200
    scene.key("1")
    assert scene.take(Decide) == [Decide("c1", approved=True)]
    assert scene.take(Clear)
    assert scene.sent(ItemCreate) == []  # the model is not told of these keys
    scene.key("5")
    assert len(scene.sent(ItemCreate)) == 1


def test_two_tools_that_need_consent_are_asked_for_one_after_the_other() -> None:
    scene = Scene()
    scene.greeted()
    for tool_call_id, prompt in (("c1", "Pay ten?"), ("c2", "Pay ninety?")):
        scene.actions += scene.conversation.on_consent_wanted(tool_call_id, prompt, scene.now_ms)
    scene.answer(500, "Pay ten?", "1")
    scene.marks()
    assert scene.words() == ["Pay ten?"]
    scene.key("1")
    assert scene.take(Decide) == [Decide("c1", approved=True)]
    scene.answer(500, "Pay ninety?", "2")
    scene.marks()
    assert scene.words() == ["Pay ninety?"]
    scene.key("2")
    assert scene.take(Decide) == [Decide("c2", approved=False)]
    scene.key("1")
    assert scene.take(Decide) == []


def test_the_next_tool_is_asked_for_when_a_consent_runs_out() -> None:
    scene = Scene()
    scene.greeted()
    for tool_call_id, prompt in (("c1", "Pay ten?"), ("c2", "Pay ninety?")):
        scene.actions += scene.conversation.on_consent_wanted(tool_call_id, prompt, scene.now_ms)
    scene.answer(500, "Pay ten?", "1")
    scene.marks()
    scene.words()
    scene.actions += scene.conversation.on_tool_done("c1", "{}", scene.now_ms)
    assert scene.words() == ["Pay ninety?"]
    scene.answer(500, "Pay ninety?", "2")
    scene.marks()
    scene.key("1")
    assert scene.take(Decide) == [Decide("c2", approved=True)]


def test_a_key_that_comes_before_the_question_was_heard_gives_no_consent() -> None:
    scene = with_tool_running()
    scene.actions += scene.conversation.on_consent_wanted("c1", "Press 1 or 2.", scene.now_ms)
    assert scene.words() == ["Press 1 or 2."]
    scene.key("1")  # meant for something else: nothing was asked yet
    assert scene.take(Decide) == []
    scene.response_begins("r2", "a2")
    scene.response_ends("r2", "a2", ResponseStatus.CANCELLED)
    assert scene.words() == ["Press 1 or 2."]  # asked anew
    scene.answer(500, "Press 1 or 2.", "3")
    scene.marks()
    scene.key("1")
    assert scene.take(Decide) == [Decide("c1", approved=True)]


def test_an_approval_without_a_key_frees_the_keys() -> None:
    scene = with_tool_running()
    scene.actions += scene.conversation.on_consent_wanted("c1", "Press 1 or 2.", scene.now_ms)
    scene.actions += scene.conversation.on_tool_done("c1", "{}", scene.now_ms)
    scene.key("1")
    assert scene.take(Decide) == []


PROMPT = "Please confirm: pay. Press 1 for yes, or 2 for no."


def test_a_caller_who_presses_too_early_is_asked_once_and_not_after_the_answer() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_turn()
    scene.response_begins()
    scene.speaks(3_000, "I will do that for you.")
    scene.response_ends(text="I will do that for you.", calls=(call_item("pay"),))
    scene.actions += scene.conversation.on_consent_wanted("c1", PROMPT, scene.now_ms)
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


def test_a_key_pressed_before_the_question_gives_no_consent_whatever_else_was_heard() -> None:
    scene = Scene(transcribed=True)
    scene.greeted()
    scene.caller_turn("u1", "pay three")
    scene.response_begins("r1", None)
    scene.response_ends("r1", None, calls=(call_item("pay"),))
    scene.caller_starts("u2")
    scene.actions += scene.conversation.on_consent_wanted("c1", PROMPT, scene.now_ms)
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
    scene.actions += scene.conversation.on_consent_wanted("c1", PROMPT, scene.now_ms)
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
