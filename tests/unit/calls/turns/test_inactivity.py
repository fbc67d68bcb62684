"""Inactivity prompts, and turns without a caller."""

from __future__ import annotations

import pytest

from app.calls.actions import ClosingPrompt
from app.calls.policy import InactivityTexts, ProductivityRules
from app.calls.turns.inactivity import ENDLESS_TURN, InactivityPrompts, Productivity, Prompt
from app.calls.turns.turn_table import Turn
from app.events import EndReason

# Inactivity prompts -------------------------------------------------------------------------------

TEXTS = InactivityTexts(prompts=("Hello?", "Still there?"), closing_prompt="Bye.")


class Silence:
    """A silence in which the clock goes on, and the state is told at every step."""

    def __init__(self, after_ms: int = 5_000) -> None:
        self.prompts = InactivityPrompts(TEXTS, after_ms=after_ms)
        self.now_ms = 0

    def wait(
        self,
        ms: int,
        turn: Turn = Turn.IDLE,
        *,
        drained: bool = True,
        paused: bool = False,
    ) -> list[tuple[int, Prompt | ClosingPrompt]]:
        said = []
        for _ in range(0, ms, 100):
            self.prompts.on_state(turn, self.now_ms, drained=drained, paused=paused)
            word = self.prompts.on_tick(self.now_ms)
            if word is not None:
                said.append((self.now_ms, word))
            self.now_ms += 100
        return said


def test_it_asks_twice_and_then_says_goodbye_once() -> None:
    assert Silence().wait(60_000) == [
        (5_000, Prompt("Hello?")),
        (10_100, Prompt("Still there?")),
        (15_200, ClosingPrompt(EndReason.SILENCE, "Bye.")),
    ]


def test_the_clock_starts_when_the_last_word_was_heard() -> None:
    quiet = Silence()
    assert quiet.wait(20_000, drained=False) == []
    assert quiet.wait(5_000) == []
    assert quiet.wait(100) == [(25_000, Prompt("Hello?"))]


@pytest.mark.parametrize("turn", [Turn.CALLER, Turn.THINKING, Turn.AGENT])
def test_a_side_that_has_the_floor_stops_the_clock(turn: Turn) -> None:
    quiet = Silence()
    quiet.wait(4_900)
    assert quiet.wait(60_000, turn) == []
    assert quiet.wait(5_000) == []
    assert [word for _, word in quiet.wait(100)] == [Prompt("Hello?")]


def test_a_tool_or_hold_stops_the_clock_and_it_begins_anew() -> None:
    quiet = Silence()
    quiet.wait(4_900)
    assert quiet.wait(60_000, paused=True) == []
    assert quiet.wait(5_000) == []
    assert [word for _, word in quiet.wait(100)] == [Prompt("Hello?")]


def test_a_sound_without_words_sets_the_clock_back_but_not_the_questions() -> None:
    quiet = Silence()
    assert len(quiet.wait(6_000)) == 1
    quiet.prompts.on_caller_words("Mm.", quiet.now_ms)
    assert quiet.wait(5_000) == []
    assert [word for _, word in quiet.wait(100)] == [Prompt("Still there?")]


def test_words_begin_everything_anew() -> None:
    quiet = Silence()
    assert len(quiet.wait(12_000)) == 2
    quiet.prompts.on_caller_words("Yes, one moment.", quiet.now_ms)
    assert [word for _, word in quiet.wait(6_000)] == [Prompt("Hello?")]


def test_a_key_is_an_answer() -> None:
    quiet = Silence()
    quiet.prompts.on_key(0)
    assert len(quiet.wait(5_100)) == 1
    quiet.wait(100)
    quiet.prompts.on_key(quiet.now_ms)
    assert [word for _, word in quiet.wait(6_000)] == [Prompt("Hello?")]


def test_words_outside_a_silence_leave_the_clock_alone() -> None:
    quiet = Silence()
    quiet.wait(200, Turn.CALLER)
    quiet.prompts.on_caller_words("Hello", quiet.now_ms)
    assert quiet.wait(5_000) == []
    assert len(quiet.wait(100)) == 1


def test_zero_never_asks() -> None:
    assert Silence(after_ms=0).wait(60_000) == []


# Unproductive turns -------------------------------------------------------------------------------


def test_turns_without_words_in_a_row_exhaust_a_call() -> None:
    calls = Productivity(ProductivityRules(max_turns=3))
    for turn in ("", "Uh.", "I am here!", "[music]", "", "♪"):
        assert calls.exhausted(0) == ""
        calls.on_caller_turn(turn, 0)
    assert calls.unproductive_turns == 3
    assert calls.exhausted(0) == "unproductive_turns"


def test_a_repeated_announcement_is_unproductive() -> None:
    calls = Productivity(ProductivityRules(max_turns=2))
    for _ in range(3):
        calls.on_caller_turn("Your call is important to us. Please hold.", 0)
    assert calls.exhausted(0) == "unproductive_turns"


def test_short_answers_may_be_the_same_again_and_again() -> None:
    calls = Productivity(ProductivityRules(max_turns=2))
    for _ in range(5):
        calls.on_caller_turn("Yes, please.", 0)
    assert calls.unproductive_turns == 0


def test_repetition_can_be_allowed() -> None:
    calls = Productivity(ProductivityRules(repeated_from_words=0))
    for _ in range(5):
        calls.on_caller_turn("I want to talk to a person", 0)
    assert calls.unproductive_turns == 0


def test_minutes_of_noise_exhaust_a_call_however_few_its_turns() -> None:
    calls = Productivity(ProductivityRules())
    calls.on_caller_turn("Tell me everything", 0)
    assert calls.exhausted(500_000) == "", "a listener is not a noise"
    calls.on_caller_turn("", 500_000)
    calls.on_caller_turn("", 600_000)
    assert calls.exhausted(679_999) == ""
    assert calls.exhausted(680_000) == "no_caller_words"
    calls.on_caller_acted()
    assert calls.exhausted(680_000) == ""


def test_a_turn_that_never_ends_exhausts_a_call() -> None:
    calls = Productivity(ProductivityRules())
    for now_ms in (0, 100_000, 179_999):
        calls.on_floor(now_ms, taken=True)
        assert calls.exhausted(now_ms) == ""
    calls.on_floor(180_000, taken=False)
    assert calls.exhausted(180_000) == ""
    calls.on_floor(200_000, taken=True)
    assert calls.exhausted(379_999) == ""
    assert calls.exhausted(380_000) == ENDLESS_TURN
    calls.on_caller_acted()
    assert calls.exhausted(380_000) == ""


def test_both_rules_can_be_off() -> None:
    calls = Productivity(ProductivityRules(max_turns=0, max_wordless_ms=0))
    calls.on_floor(0, taken=True)
    for _ in range(50):
        calls.on_caller_turn("", 0)
    assert calls.exhausted(10**9) == ""
