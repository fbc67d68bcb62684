"""Tools that wait for a key of the caller."""

from __future__ import annotations

from app.calls.actions import Decide
from app.realtime.events import ErrorDetail, ErrorEvent, ItemCreate, ResponseStatus
from app.realtime.protocol import ALREADY_ACTIVE
from tests.unit.calls.harness import (
    CallHarness,
    Clear,
    PlayAudio,
    ResponseCreate,
    call_item,
    spoken,
    with_tool_running,
)


def test_a_key_answers_a_tool_that_needs_consent() -> None:
    harness = with_tool_running()
    harness.actions += harness.conversation.on_consent_wanted("c1", "Press 1 or 2.", harness.now_ms)
    assert [spoken(create.response) for create in harness.sent(ResponseCreate)] == ["Press 1 or 2."]
    harness.answer(500, "Press 1 or 2.", "2")
    harness.key("7")
    assert [spoken(create.response) for create in harness.sent(ResponseCreate)] == ["Press 1 or 2."]
    harness.response_begins("r3", "a3")
    harness.speaks(500, "Press 1", "r3", "a3")
    harness.now_ms += 200
    harness.key("1")
    assert harness.take(Decide) == [Decide("c1", approved=True)]
    assert harness.take(Clear)
    assert harness.sent(ItemCreate) == []  # the model is not told of these keys
    harness.key("5")
    assert len(harness.sent(ItemCreate)) == 1


def test_two_tools_that_need_consent_are_asked_for_one_after_the_other() -> None:
    harness = CallHarness()
    harness.greeted()
    for tool_call_id, prompt in (("c1", "Pay ten?"), ("c2", "Pay ninety?")):
        harness.actions += harness.conversation.on_consent_wanted(
            tool_call_id, prompt, harness.now_ms
        )
    harness.answer(500, "Pay ten?", "1")
    harness.marks()
    assert harness.words() == ["Pay ten?"]
    harness.key("1")
    assert harness.take(Decide) == [Decide("c1", approved=True)]
    harness.answer(500, "Pay ninety?", "2")
    harness.marks()
    assert harness.words() == ["Pay ninety?"]
    harness.key("2")
    assert harness.take(Decide) == [Decide("c2", approved=False)]
    harness.key("1")
    assert harness.take(Decide) == []


def test_the_next_tool_is_asked_for_when_a_consent_runs_out() -> None:
    harness = CallHarness()
    harness.greeted()
    for tool_call_id, prompt in (("c1", "Pay ten?"), ("c2", "Pay ninety?")):
        harness.actions += harness.conversation.on_consent_wanted(
            tool_call_id, prompt, harness.now_ms
        )
    harness.answer(500, "Pay ten?", "1")
    harness.marks()
    harness.words()
    harness.actions += harness.conversation.on_tool_done("c1", "{}", harness.now_ms)
    assert harness.words() == ["Pay ninety?"]
    harness.answer(500, "Pay ninety?", "2")
    harness.marks()
    harness.key("1")
    assert harness.take(Decide) == [Decide("c2", approved=True)]


def test_a_key_that_comes_before_the_question_was_heard_gives_no_consent() -> None:
    harness = with_tool_running()
    harness.actions += harness.conversation.on_consent_wanted("c1", "Press 1 or 2.", harness.now_ms)
    assert harness.words() == ["Press 1 or 2."]
    harness.key("1")  # meant for something else: nothing was asked yet
    assert harness.take(Decide) == []
    harness.response_begins("r2", "a2")
    harness.response_ends("r2", "a2", ResponseStatus.CANCELLED)
    assert harness.words() == ["Press 1 or 2."]  # asked anew
    harness.answer(500, "Press 1 or 2.", "3")
    harness.marks()
    harness.key("1")
    assert harness.take(Decide) == [Decide("c1", approved=True)]


def test_an_approval_without_a_key_frees_the_keys() -> None:
    harness = with_tool_running()
    harness.actions += harness.conversation.on_consent_wanted("c1", "Press 1 or 2.", harness.now_ms)
    harness.actions += harness.conversation.on_tool_done("c1", "{}", harness.now_ms)
    harness.key("1")
    assert harness.take(Decide) == []


PROMPT = "Please confirm: pay. Press 1 for yes, or 2 for no."


def test_a_caller_who_presses_too_early_is_asked_once_and_not_after_the_answer() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.caller_turn()
    harness.response_begins()
    harness.speaks(3_000, "I will do that for you.")
    harness.response_ends(text="I will do that for you.", calls=(call_item("pay"),))
    harness.actions += harness.conversation.on_consent_wanted("c1", PROMPT, harness.now_ms)
    assert harness.words() == [PROMPT]
    for _ in range(3):
        harness.key("1")  # nothing of the question was heard yet
    harness.response_begins("r2", None)
    harness.response_ends("r2", None, ResponseStatus.CANCELLED)
    assert harness.words() == [PROMPT]
    harness.take(PlayAudio)
    harness.answer(1_000, PROMPT, "3")
    harness.marks()
    assert harness.take(Decide) == []
    harness.key("1")
    assert harness.take(Decide) == [Decide("c1", approved=True)]
    harness.wait(300)
    assert harness.words() == []


def test_a_key_pressed_before_the_question_gives_no_consent_whatever_else_was_heard() -> None:
    harness = CallHarness(transcribed=True)
    harness.greeted()
    harness.caller_turn("u1", "pay three")
    harness.response_begins("r1", None)
    harness.response_ends("r1", None, calls=(call_item("pay"),))
    harness.caller_starts("u2")
    harness.actions += harness.conversation.on_consent_wanted("c1", PROMPT, harness.now_ms)
    harness.caller_stops("u2", "and what are your hours")
    harness.answer(2_000, "For our hours press 1.", "2")
    harness.marks()
    asked = harness.words()
    harness.key("1")
    assert harness.take(Decide) == []
    harness.response_begins("r3", None)
    harness.response_ends("r3", None, ResponseStatus.CANCELLED)
    assert [*asked, *harness.words()] == [PROMPT, PROMPT]
    harness.take(PlayAudio)
    harness.answer(1_000, PROMPT, "4")
    harness.marks()
    harness.key("1")
    assert harness.take(Decide) == [Decide("c1", approved=True)]


REPHRASED = "May I pay that for you? One is yes, two is no."


def wants_consent() -> CallHarness:
    """A tool waits for consent, and the question was sent to a model that echoes no metadata."""
    harness = CallHarness(transcribed=True)
    harness.greeted()
    harness.caller_turn("u1", "pay three")
    harness.response_begins("r1", None)
    harness.response_ends("r1", None, calls=(call_item("pay"),))
    harness.actions += harness.conversation.on_consent_wanted("c1", PROMPT, harness.now_ms)
    return harness


def test_a_question_that_the_model_rephrases_is_a_question_all_the_same() -> None:
    harness = wants_consent()
    harness.take(PlayAudio)
    harness.answer(1_000, REPHRASED, "2")
    harness.key("1")  # nothing of it was heard yet
    assert harness.take(Decide) == []
    harness.take(PlayAudio)
    harness.answer(1_000, REPHRASED, "3")
    harness.marks()
    harness.key("1")
    assert harness.take(Decide) == [Decide("c1", approved=True)]


def test_an_answer_that_came_in_place_of_the_question_is_not_the_question() -> None:
    harness = wants_consent()
    [*_, asked] = harness.sent(ResponseCreate)
    harness.response_begins("r2", "a2")
    harness.voice(ErrorEvent(ErrorDetail(code=ALREADY_ACTIVE, client_event_id=asked.event_id)))
    harness.speaks(2_000, "For our hours press 1.", "r2", "a2")
    harness.response_ends("r2", "a2", text="For our hours press 1.")
    harness.marks()
    harness.key("1")
    assert harness.take(Decide) == []
