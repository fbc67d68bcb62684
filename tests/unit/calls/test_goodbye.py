"""Endings: nothing hangs up before the caller has heard the goodbye."""

from __future__ import annotations

import json

import pytest

from app.calls.actions import ClosingPrompt
from app.calls.policy import CallPolicy
from app.carrier.base import StreamStopped
from app.events import EndReason
from app.realtime.events import ItemCreate, OutputItemDone
from tests.unit.calls.scene import GOODBYE, End, ResponseCreate, Scene, call_item, spoken


@pytest.mark.parametrize(
    ("hung_up", "reason"), [(True, EndReason.CALLER_HUNG_UP), (False, EndReason.CARRIER_LOST)]
)
def test_the_streams_end_is_the_calls_end(hung_up: bool, reason: EndReason) -> None:
    scene = Scene()
    scene.phone(StreamStopped(hung_up))
    assert scene.take(End) == [End(reason)]


def say_goodbye_and_hang_up(scene: Scene) -> None:
    scene.caller_turn(text="Goodbye")
    scene.response_begins()
    scene.speaks(1_000, "Goodbye!")
    scene.response_ends(
        text="Goodbye!", calls=(call_item("end_call", arguments='{"reason": "task_complete"}'),)
    )


def test_the_agent_hangs_up_when_the_goodbye_was_heard_and_not_before() -> None:
    scene = Scene()
    scene.greeted()
    say_goodbye_and_hang_up(scene)
    scene.wait(500)
    assert scene.take(End) == []
    scene.marks()
    assert scene.take(End) == [End(EndReason.AGENT_HUNG_UP, "task_complete")]


def test_the_callers_voice_cancels_the_hang_up() -> None:
    scene = Scene()
    scene.greeted()
    say_goodbye_and_hang_up(scene)
    scene.wait(200)
    scene.caller_turn("u2", "Wait, one more thing")
    scene.wait(2_000)
    assert scene.take(End) == []
    scene.answer(1_000, name="2")
    scene.marks()
    scene.wait(scene.conversation.policy.goodbye_max_ms)
    assert scene.take(End) == []


def _look_up(scene: Scene) -> None:
    """The result of the lookup of `_goodbye_with_lookup` arrives."""
    scene.actions += scene.conversation.on_tool_done("call_up", "{}", scene.now_ms)


@pytest.mark.parametrize("first", ["look_up", "end_call"])
@pytest.mark.parametrize("done", ["before the response ends", "after it"])
def test_after_the_goodbye_nothing_is_said_any_more(first: str, done: str) -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_turn(text="Goodbye")
    scene.response_begins()
    scene.speaks(1_000, "Goodbye!")
    calls = [call_item("look_up", "call_up"), call_item("end_call", "call_end", GOODBYE)]
    calls = calls if first == "look_up" else calls[::-1]
    for call in calls:
        scene.voice(OutputItemDone("r1", 1, call))
    if done == "before the response ends":
        _look_up(scene)
    scene.response_ends(text="Goodbye!", calls=tuple(calls))
    if done == "after it":
        _look_up(scene)
    assert scene.sent(ResponseCreate) == []
    scene.marks()
    assert [end.reason for end in scene.take(End)] == [EndReason.AGENT_HUNG_UP]


def test_a_lookup_of_an_earlier_turn_says_nothing_after_the_goodbye() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_turn(text="When do you open?")
    scene.response_begins("r0", None)
    scene.response_ends("r0", None, calls=(call_item("look_up", "call_up"),))
    say_goodbye_and_hang_up(scene)
    assert scene.conversation.on_tool_slow("call_up", "One moment.", scene.now_ms) == []
    _look_up(scene)
    assert scene.sent(ResponseCreate) == []


def test_a_hang_up_without_a_goodbye_asks_for_one_first() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_turn(text="That is all")
    scene.response_begins("r1", None)
    scene.response_ends("r1", None, calls=(call_item("end_call", arguments=GOODBYE),))
    (create,) = scene.sent(ResponseCreate)
    assert create.response is None
    scene.answer(500, "Goodbye!", "2")
    assert scene.take(End) == []
    scene.marks()
    assert [end.reason for end in scene.take(End)] == [EndReason.AGENT_HUNG_UP]


def test_the_agent_may_not_hang_up_before_the_caller_has_spoken() -> None:
    scene = Scene()
    scene.greeted()
    scene.response_begins("r1", None)
    scene.response_ends("r1", None, calls=(call_item("end_call", arguments=GOODBYE),))
    (output,) = scene.sent(ItemCreate)
    assert "not spoken" in json.loads(output.item.output or "")["error"]
    scene.wait(20_000)
    assert EndReason.AGENT_HUNG_UP not in [end.reason for end in scene.take(End)]


def test_a_goodbye_whose_marks_never_return_ends_all_the_same() -> None:
    scene = Scene()
    scene.greeted()
    say_goodbye_and_hang_up(scene)
    scene.wait(1_900)
    assert scene.take(End) == []
    scene.wait(300)  # a second of goodbye, a second of grace
    assert {end.reason for end in scene.take(End)} == {EndReason.AGENT_HUNG_UP}


def test_long_silence_ends_the_call_with_a_sentence() -> None:
    scene = Scene(policy=CallPolicy(silence_ms=10_000))
    scene.greeted()
    scene.wait(9_900)
    assert scene.sent(ResponseCreate) == []
    scene.wait(200)
    (create,) = scene.sent(ResponseCreate)
    assert "hang up" in spoken(create.response)
    scene.answer(500, "Goodbye", "2")
    scene.marks()
    assert [end.reason for end in scene.take(End)] == [EndReason.SILENCE]


def test_the_longest_call_ends_with_a_sentence_even_over_the_agents_own_words() -> None:
    scene = Scene(policy=CallPolicy(max_duration_ms=5_000))
    scene.greeted()
    scene.wait(4_000)
    scene.answer(3_000)
    scene.wait(1_100)
    (create,) = scene.sent(ResponseCreate)
    assert "Goodbye" in spoken(create.response)
    scene.answer(500, "Goodbye", "2")
    scene.marks()
    assert EndReason.MAX_DURATION in [end.reason for end in scene.take(End)]


def test_a_closing_prompt_that_the_model_never_speaks_is_capped() -> None:
    scene = Scene(policy=CallPolicy(max_duration_ms=1_000, goodbye_max_ms=3_000))
    scene.greeted()
    scene.wait(4_500)
    assert [end.reason for end in scene.take(End)][:1] == [EndReason.MAX_DURATION]


def test_a_closing_prompt_without_a_model_ends_at_once() -> None:
    scene = Scene(live=False)
    actions = scene.conversation.say_goodbye(ClosingPrompt(EndReason.DRAINED, "Goodbye"), 0)
    assert actions == [End(EndReason.DRAINED)]


def test_a_warning_of_the_end_is_given_once_and_not_over_a_goodbye() -> None:
    scene = Scene()
    scene.greeted()
    scene.actions += scene.conversation.warn_of_end(scene.now_ms)
    assert scene.words() == [scene.conversation.policy.duration_warning]
    assert scene.conversation.warn_of_end(scene.now_ms) == []
    leaving = Scene()
    leaving.actions += leaving.conversation.say_goodbye(
        ClosingPrompt(EndReason.DRAINED, "Goodbye"), 0
    )
    assert leaving.conversation.warn_of_end(0) == []


def test_speech_over_the_goodbye_of_the_longest_call_does_not_cancel_it() -> None:
    scene = Scene(policy=CallPolicy(max_duration_ms=1_000))
    scene.greeted()
    scene.wait(1_100)
    scene.caller_turn()
    scene.wait(scene.conversation.policy.goodbye_max_ms)
    assert [end.reason for end in scene.take(End)][:1] == [EndReason.MAX_DURATION]
