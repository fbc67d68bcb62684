"""Endings: nothing hangs up before the caller has heard the goodbye."""

from __future__ import annotations

import json

import pytest

from app.calls.actions import ClosingPrompt
from app.calls.policy import CallPolicy
from app.carrier.base import StreamStopped
from app.events import EndReason
from app.realtime.events import ItemCreate, OutputItemDone
from tests.unit.calls.harness import (
    GOODBYE,
    CallHarness,
    End,
    ResponseCreate,
    call_item,
    spoken,
)


@pytest.mark.parametrize(
    ("hung_up", "reason"), [(True, EndReason.CALLER_HUNG_UP), (False, EndReason.CARRIER_LOST)]
)
def test_the_streams_end_is_the_calls_end(hung_up: bool, reason: EndReason) -> None:
    harness = CallHarness()
    harness.phone(StreamStopped(hung_up))
    assert harness.take(End) == [End(reason)]


def say_goodbye_and_hang_up(harness: CallHarness) -> None:
    harness.caller_turn(text="Goodbye")
    harness.response_begins()
    harness.speaks(1_000, "Goodbye!")
    harness.response_ends(
        text="Goodbye!", calls=(call_item("end_call", arguments='{"reason": "task_complete"}'),)
    )


def test_the_agent_hangs_up_when_the_goodbye_was_heard_and_not_before() -> None:
    harness = CallHarness()
    harness.greeted()
    say_goodbye_and_hang_up(harness)
    harness.wait(500)
    assert harness.take(End) == []
    harness.marks()
    assert harness.take(End) == [End(EndReason.AGENT_HUNG_UP, "task_complete")]


def test_the_callers_voice_cancels_the_hang_up() -> None:
    harness = CallHarness()
    harness.greeted()
    say_goodbye_and_hang_up(harness)
    harness.wait(200)
    harness.caller_turn("u2", "Wait, one more thing")
    harness.wait(2_000)
    assert harness.take(End) == []
    harness.answer(1_000, name="2")
    harness.marks()
    harness.wait(harness.conversation.policy.goodbye_max_ms)
    assert harness.take(End) == []


def _look_up(harness: CallHarness) -> None:
    """The result of the lookup of `_goodbye_with_lookup` arrives."""
    harness.actions += harness.conversation.on_tool_done("call_up", "{}", harness.now_ms)


@pytest.mark.parametrize("first", ["look_up", "end_call"])
@pytest.mark.parametrize("done", ["before the response ends", "after it"])
def test_after_the_goodbye_nothing_is_said_any_more(first: str, done: str) -> None:
    harness = CallHarness()
    harness.greeted()
    harness.caller_turn(text="Goodbye")
    harness.response_begins()
    harness.speaks(1_000, "Goodbye!")
    calls = [call_item("look_up", "call_up"), call_item("end_call", "call_end", GOODBYE)]
    calls = calls if first == "look_up" else calls[::-1]
    for call in calls:
        harness.voice(OutputItemDone("r1", 1, call))
    if done == "before the response ends":
        _look_up(harness)
    harness.response_ends(text="Goodbye!", calls=tuple(calls))
    if done == "after it":
        _look_up(harness)
    assert harness.sent(ResponseCreate) == []
    harness.marks()
    assert [end.reason for end in harness.take(End)] == [EndReason.AGENT_HUNG_UP]


def test_a_lookup_of_an_earlier_turn_says_nothing_after_the_goodbye() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.caller_turn(text="When do you open?")
    harness.response_begins("r0", None)
    harness.response_ends("r0", None, calls=(call_item("look_up", "call_up"),))
    say_goodbye_and_hang_up(harness)
    assert harness.conversation.on_tool_slow("call_up", "One moment.", harness.now_ms) == []
    _look_up(harness)
    assert harness.sent(ResponseCreate) == []


def test_a_hang_up_without_a_goodbye_asks_for_one_first() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.caller_turn(text="That is all")
    harness.response_begins("r1", None)
    harness.response_ends("r1", None, calls=(call_item("end_call", arguments=GOODBYE),))
    (create,) = harness.sent(ResponseCreate)
    assert create.response is None
    harness.answer(500, "Goodbye!", "2")
    assert harness.take(End) == []
    harness.marks()
    assert [end.reason for end in harness.take(End)] == [EndReason.AGENT_HUNG_UP]


def test_the_agent_may_not_hang_up_before_the_caller_has_spoken() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.response_begins("r1", None)
    harness.response_ends("r1", None, calls=(call_item("end_call", arguments=GOODBYE),))
    (output,) = harness.sent(ItemCreate)
    assert "not spoken" in json.loads(output.item.output or "")["error"]
    harness.wait(20_000)
    assert EndReason.AGENT_HUNG_UP not in [end.reason for end in harness.take(End)]


def test_a_goodbye_whose_marks_never_return_ends_all_the_same() -> None:
    harness = CallHarness()
    harness.greeted()
    say_goodbye_and_hang_up(harness)
    harness.wait(1_900)
    assert harness.take(End) == []
    harness.wait(300)  # a second of goodbye, a second of grace
    assert {end.reason for end in harness.take(End)} == {EndReason.AGENT_HUNG_UP}


def test_long_silence_ends_the_call_with_a_sentence() -> None:
    harness = CallHarness(policy=CallPolicy(silence_ms=10_000))
    harness.greeted()
    harness.wait(9_900)
    assert harness.sent(ResponseCreate) == []
    harness.wait(200)
    (create,) = harness.sent(ResponseCreate)
    assert "hang up" in spoken(create.response)
    harness.answer(500, "Goodbye", "2")
    harness.marks()
    assert [end.reason for end in harness.take(End)] == [EndReason.SILENCE]


def test_the_longest_call_ends_with_a_sentence_even_over_the_agents_own_words() -> None:
    harness = CallHarness(policy=CallPolicy(max_duration_ms=5_000))
    harness.greeted()
    harness.wait(4_000)
    harness.answer(3_000)
    harness.wait(1_100)
    (create,) = harness.sent(ResponseCreate)
    assert "Goodbye" in spoken(create.response)
    harness.answer(500, "Goodbye", "2")
    harness.marks()
    assert EndReason.MAX_DURATION in [end.reason for end in harness.take(End)]


def test_a_closing_prompt_that_the_model_never_speaks_is_capped() -> None:
    harness = CallHarness(policy=CallPolicy(max_duration_ms=1_000, goodbye_max_ms=3_000))
    harness.greeted()
    harness.wait(4_500)
    assert [end.reason for end in harness.take(End)][:1] == [EndReason.MAX_DURATION]


def test_a_closing_prompt_without_a_model_ends_at_once() -> None:
    harness = CallHarness(live=False)
    actions = harness.conversation.say_goodbye(ClosingPrompt(EndReason.DRAINED, "Goodbye"), 0)
    assert actions == [End(EndReason.DRAINED)]


def test_a_warning_of_the_end_is_given_once_and_not_over_a_goodbye() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.actions += harness.conversation.warn_of_end(harness.now_ms)
    assert harness.words() == [harness.conversation.policy.duration_warning]
    assert harness.conversation.warn_of_end(harness.now_ms) == []
    leaving = CallHarness()
    leaving.actions += leaving.conversation.say_goodbye(
        ClosingPrompt(EndReason.DRAINED, "Goodbye"), 0
    )
    assert leaving.conversation.warn_of_end(0) == []


def test_speech_over_the_goodbye_of_the_longest_call_does_not_cancel_it() -> None:
    harness = CallHarness(policy=CallPolicy(max_duration_ms=1_000))
    harness.greeted()
    harness.wait(1_100)
    harness.caller_turn()
    harness.wait(harness.conversation.policy.goodbye_max_ms)
    assert [end.reason for end in harness.take(End)][:1] == [EndReason.MAX_DURATION]
