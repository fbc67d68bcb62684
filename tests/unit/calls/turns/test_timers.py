"""Inactivity, unproductive turns, the longest call and holding, as a caller meets them."""

from __future__ import annotations

import pytest

from app.calls.actions import ClosingPrompt
from app.calls.policy import CallPolicy, InactivityTexts, ProductivityRules
from app.calls.turns.inactivity import Prompt
from app.calls.turns.timers import CallTimers
from app.calls.turns.turn_table import Turn
from app.events import EndReason
from app.realtime.events import ErrorDetail, TranscriptionFailed
from tests.unit.calls.harness import CallHarness, End, call_item

TEXTS = InactivityTexts(prompts=("There?", "Really?"), closing_prompt="Bye.")
ASKING = CallPolicy(inactivity_after_ms=5_000, inactivity_texts=TEXTS)


def said(harness: CallHarness, name: str) -> None:
    """The model says what it was asked to, and the caller hears it."""
    harness.answer(500, "words", name)
    harness.marks()


# Inactivity prompts -------------------------------------------------------------------------------


def test_a_silent_caller_is_asked_twice_and_then_told_goodbye() -> None:
    harness = CallHarness(policy=ASKING)
    harness.greeted()
    for name, text in (("2", "There?"), ("3", "Really?"), ("4", "Bye.")):
        harness.wait(4_900)
        assert harness.words() == []
        harness.wait(200)
        assert harness.words() == [text]
        assert harness.take(End) == []
        said(harness, name)
    assert harness.take(End)[:1] == [End(EndReason.SILENCE)]


def test_a_caller_who_answers_is_asked_from_the_first_question_again() -> None:
    harness = CallHarness(policy=ASKING, transcribed=True)
    harness.greeted()
    harness.wait(5_100)
    assert harness.words() == ["There?"]
    said(harness, "2")
    harness.caller_turn(text="Yes, one moment")
    said(harness, "3")
    harness.wait(5_100)
    assert harness.words() == ["There?"]


def test_without_transcripts_a_sound_is_an_answer() -> None:
    harness = CallHarness(policy=ASKING)
    harness.greeted()
    harness.wait(5_100)
    said(harness, "2")
    harness.caller_starts()
    harness.caller_stops(text=None)
    said(harness, "3")
    harness.words()
    harness.wait(5_100)
    assert harness.words() == ["There?"]


def test_a_transcription_that_fails_is_taken_for_an_answer() -> None:
    harness = CallHarness(policy=ASKING, transcribed=True)
    harness.greeted()
    harness.wait(5_100)
    said(harness, "2")
    harness.words()
    harness.caller_starts()
    harness.caller_stops(text=None)
    harness.voice(TranscriptionFailed("u1", 0, ErrorDetail(code="audio_unintelligible")))
    said(harness, "3")
    harness.wait(5_100)
    assert harness.words() == ["There?"]


def test_nobody_is_asked_while_a_tool_runs() -> None:
    harness = CallHarness(policy=ASKING)
    harness.greeted()
    harness.caller_turn()
    harness.response_begins("r1", None)
    harness.response_ends("r1", None, calls=(call_item("look_up"),))
    harness.wait(20_000)
    assert harness.words() == ["One moment, please."]
    said(harness, "filler")
    harness.actions += harness.conversation.on_tool_done("c1", "{}", harness.now_ms)
    said(harness, "2")
    harness.wait(4_900)
    assert harness.words() == []
    harness.wait(300)
    assert harness.words() == ["There?"]


def test_nobody_is_asked_while_a_long_answer_is_still_heard() -> None:
    harness = CallHarness(policy=ASKING)
    harness.greeted()
    harness.caller_turn()
    harness.answer(20_000, "a long answer")
    harness.wait(19_000)
    assert harness.words() == []


def test_a_caller_who_is_off_the_stream_is_asked_nothing() -> None:
    harness = CallHarness(policy=ASKING)
    harness.greeted()
    harness.actions += harness.conversation.on_stream_left(harness.now_ms)
    harness.wait(60_000)
    assert harness.words() == []
    harness.stream()
    harness.wait(5_100)
    assert harness.words() == ["There?"]


@pytest.mark.parametrize(
    "policy",
    [
        CallPolicy(inactivity_after_ms=0, silence_ms=3_000),
        CallPolicy(inactivity_after_ms=3_000, silence_ms=3_000),
        CallPolicy(inactivity_texts=InactivityTexts(prompts=()), silence_ms=3_000),
    ],
)
def test_without_questions_the_silence_itself_is_the_limit(policy: CallPolicy) -> None:
    harness = CallHarness(policy=policy)
    harness.greeted()
    harness.wait(3_200)
    assert harness.words() == [policy.silence_closing_prompt]


# Unproductive turns -------------------------------------------------------------------------------


def test_a_call_with_hold_music_is_ended() -> None:
    harness = CallHarness(
        policy=CallPolicy(productivity=ProductivityRules(max_turns=3)), transcribed=True
    )
    harness.greeted()
    for number in "123":
        harness.caller_turn(f"u{number}", "[music]")
        harness.answer(300, "Pardon?", number)
        harness.marks()
        harness.words()
    harness.wait(200)
    assert len(harness.words()) == 1
    said(harness, "4")
    assert harness.take(End)[:1] == [End(EndReason.SILENCE, "unproductive_turns")]


def test_music_without_a_pause_ends_the_call() -> None:
    rules = ProductivityRules(max_wordless_ms=20_000)
    harness = CallHarness(policy=CallPolicy(productivity=rules), transcribed=True)
    harness.greeted()
    harness.caller_starts()
    harness.wait(19_000)
    assert harness.words() == []
    assert harness.take(End) == []
    harness.wait(1_400)
    assert harness.take(End)[:1] == [End(EndReason.SILENCE, "endless_turn")]


def test_a_key_shows_that_somebody_is_there() -> None:
    timers = CallTimers(CallPolicy(productivity=ProductivityRules(max_turns=2)))
    timers.begin(0)
    timers.on_caller_words("", 0)
    timers.on_caller_acted(0)
    timers.on_caller_words("", 0)
    assert timers.on_tick(0, busy=False) is None
    timers.on_caller_words("", 0)
    assert timers.on_tick(0, busy=True) is None
    ended = timers.on_tick(0, busy=False)
    assert isinstance(ended, ClosingPrompt)
    assert ended.detail == "unproductive_turns"


# Length -------------------------------------------------------------------------------------------


def test_the_longest_call_is_announced_before_it_ends() -> None:
    policy = CallPolicy(
        max_duration_ms=10_000, duration_warning_ms=4_000, duration_warning="Soon.", silence_ms=0
    )
    harness = CallHarness(policy=policy)
    harness.greeted()
    harness.wait(5_900 - harness.now_ms)
    assert harness.words() == []
    harness.wait(200)
    assert harness.words() == ["Soon."]
    said(harness, "2")
    harness.wait(3_000)
    assert harness.words() == []
    harness.wait(1_000)
    assert harness.words() == [policy.closing_prompt]


@pytest.mark.parametrize("warning_ms", [0, 10_000, 60_000])
def test_a_call_that_is_shorter_than_its_warning_gets_none(warning_ms: int) -> None:
    timers = CallTimers(CallPolicy(max_duration_ms=10_000, duration_warning_ms=warning_ms))
    timers.begin(0)
    assert timers.on_tick(9_900, busy=True) is None
    assert isinstance(timers.on_tick(10_000, busy=True), ClosingPrompt)


def test_before_the_caller_is_on_the_line_nothing_is_said() -> None:
    assert CallTimers(CallPolicy(max_duration_ms=1)).on_tick(10_000, busy=False) is None


# Holding ------------------------------------------------------------------------------------------


def hold(for_ms: int) -> CallTimers:
    timers = CallTimers(ASKING)
    timers.begin(0)
    timers.hold(for_ms, 0)
    timers.on_state(Turn.IDLE, 0, drained=True, busy=False)
    return timers


def test_on_hold_nobody_is_asked_until_the_time_is_over() -> None:
    timers = hold(30_000)
    assert timers.on_tick(29_000, busy=False) is None
    timers.on_state(Turn.IDLE, 30_000, drained=True, busy=False)
    assert timers.on_tick(34_900, busy=False) is None
    assert timers.on_tick(35_000, busy=False) == Prompt("There?")


@pytest.mark.parametrize("text", ["hello again", ""])
def test_words_end_the_hold_and_noises_do_not(text: str) -> None:
    timers = hold(30_000)
    timers.on_caller_words(text, 1_000)
    assert timers.on_hold(1_000) is (text == "")


def test_noises_of_a_hold_do_not_count_against_the_caller() -> None:
    timers = hold(30_000)
    for second in range(1, 10):
        timers.on_caller_words("", 1_000 * second)
    # A radio that plays on is one sound without an end.
    for second in range(10, 30):
        timers.on_state(Turn.CALLER, 1_000 * second, drained=True, busy=False)
    timers.on_state(Turn.IDLE, 30_000, drained=True, busy=False)
    assert timers.on_tick(30_000, busy=False) is None
    assert timers.on_tick(35_000, busy=False) == Prompt("There?")
