"""Scripts: what the caller does in which situation, and what a wrong file is told."""

from __future__ import annotations

import pytest

from app.dial.script import (
    Action,
    AwaitHangUp,
    AwaitReturn,
    BargeIn,
    HangUp,
    HungUp,
    Listen,
    Note,
    Press,
    PressKeys,
    Say,
    ScriptRun,
    Situation,
    Speak,
    Step,
    Wait,
    turns_script,
)
from app.dial.script_file import load_script
from app.errors import ConfigError


class Rehearsal:
    """A script run against agent sound and own speech given as spans of time."""

    def __init__(self, *steps: Step) -> None:
        self.run = ScriptRun(steps)
        self.actions: list[tuple[int, Action]] = []
        self.now_ms = 0
        self.agent: tuple[int, int] | None = None
        self.speaking_until_ms = 0
        self.streams = 1

    def until(self, ms: int, *, agent_from_ms: int | None = None) -> None:
        """Live to `ms`; the agent speaks from `agent_from_ms` all that time."""
        while self.now_ms < ms:
            self.now_ms += 20
            if agent_from_ms is not None and self.now_ms >= agent_from_ms:
                self.agent = (agent_from_ms, self.now_ms)
            situation = Situation(
                now_ms=self.now_ms,
                speaking=self.now_ms < self.speaking_until_ms,
                streams=self.streams,
                agent_since_ms=self.agent[0] if self.agent else None,
                agent_until_ms=self.agent[1] if self.agent else None,
            )
            for action in self.run.on_tick(situation):
                self.actions.append((self.now_ms, action))
                if isinstance(action, Speak):
                    self.speaking_until_ms = self.now_ms + 500


def test_listening_ends_when_the_agent_has_been_silent_for_a_while() -> None:
    call = Rehearsal(Listen(quiet_ms=1_000), Say(file="a.wav", text="hello"))
    call.until(500)
    call.until(2_000, agent_from_ms=500)
    call.until(2_980)
    assert call.actions == []
    call.until(3_000)
    assert call.actions == [(3_000, Speak("a.wav", "hello"))]


def test_silence_before_the_first_word_is_not_the_end_of_the_greeting() -> None:
    call = Rehearsal(Listen(quiet_ms=100, at_most_ms=60_000), HangUp())
    call.until(20_000)
    assert call.actions == []


def test_an_agent_who_says_nothing_is_noted_and_the_script_goes_on() -> None:
    call = Rehearsal(Listen(at_most_ms=2_000), HangUp())
    call.until(2_100)
    assert [action for _, action in call.actions] == [
        Note("the agent said nothing for 2000 ms"),
        HungUp(),
    ]


def test_an_agent_who_never_stops_is_noted() -> None:
    call = Rehearsal(Listen(at_most_ms=2_000), HangUp())
    call.until(2_100, agent_from_ms=0)
    assert call.actions[0][1] == Note("the agent was still speaking after 2000 ms")


def test_sound_from_before_the_step_is_not_an_answer() -> None:
    call = Rehearsal(Listen(quiet_ms=500), Say(file="a.wav"), Listen(quiet_ms=500), HangUp())
    call.until(1_000, agent_from_ms=100)
    call.until(5_000)
    assert [type(action) for _, action in call.actions] == [Speak]
    call.until(6_000, agent_from_ms=5_100)
    call.until(6_600)
    assert [type(action) for _, action in call.actions] == [Speak, HungUp]


def test_a_barge_in_comes_when_the_agent_has_spoken_long_enough() -> None:
    call = Rehearsal(BargeIn(file="b.wav", text="wait", after_ms=700))
    call.until(1_000)
    call.until(1_680, agent_from_ms=1_000)
    assert call.actions == []
    call.until(1_700, agent_from_ms=1_000)
    assert call.actions == [(1_700, Speak("b.wav", "wait"))]


def test_sound_that_is_over_cannot_be_interrupted() -> None:
    call = Rehearsal(Wait(1_500), BargeIn(file="b.wav", after_ms=300, at_most_ms=4_000))
    call.until(1_000, agent_from_ms=100)
    call.until(6_000)
    assert call.actions[0][1] == Note("the agent never spoke for 300 ms: no chance to barge in")


def test_the_step_after_a_barge_in_waits_until_the_caller_has_finished() -> None:
    call = Rehearsal(BargeIn(file="b.wav", after_ms=100), HangUp())
    call.until(580, agent_from_ms=0)
    assert [type(action) for _, action in call.actions] == [Speak]
    call.until(640)
    assert [(ms, type(action)) for ms, action in call.actions][1:] == [(620, HungUp)]


def test_keys_are_pressed_one_by_one() -> None:
    call = Rehearsal(Press("12#", gap_ms=100), HangUp())
    call.until(400)
    assert call.actions == [
        (20, PressKeys("1")),
        (120, PressKeys("2")),
        (220, PressKeys("#")),
        (220, HungUp()),
    ]


def test_who_was_transferred_goes_on_when_the_call_has_a_stream_again() -> None:
    call = Rehearsal(AwaitReturn(), HangUp())
    call.until(2_000)
    assert call.actions == []
    call.streams = 2
    call.until(2_020)
    assert call.actions == [(2_020, HungUp())]


def test_a_transfer_that_never_comes_is_noted() -> None:
    call = Rehearsal(AwaitReturn(at_most_ms=1_000), HangUp())
    call.until(1_100)
    assert [action for _, action in call.actions] == [
        Note("nobody was transferred within 1000 ms"),
        HungUp(),
    ]


def test_who_waits_for_the_agent_to_hang_up_does_not_wait_for_ever() -> None:
    call = Rehearsal(AwaitHangUp(at_most_ms=1_000))
    call.until(1_000)
    assert call.actions == []
    call.until(1_100)
    assert call.actions == [(1_020, HungUp())]


def test_a_script_that_just_ends_hangs_up() -> None:
    call = Rehearsal(Wait(100))
    call.until(200)
    assert call.actions == [(120, HungUp())]
    assert call.run.finished


def test_what_was_never_said_is_counted() -> None:
    call = Rehearsal(Say(file="a.wav"), Listen(), Say(file="b.wav"), HangUp())
    assert call.run.utterances_left == 2
    call.until(100)
    assert call.run.utterances_left == 1


def test_wav_files_become_turns() -> None:
    assert turns_script(("a.wav", "b.wav")) == (
        Listen(),
        Say(file="a.wav"),
        Listen(),
        Say(file="b.wav"),
        Listen(),
        HangUp(),
    )


def test_a_script_file_is_read_step_by_step() -> None:
    text = """
# a comment
- listen: {quiet_ms: 800}
- say: {file: a.wav, text: no}
- barge_in: {file: b.wav, after_ms: 0100}
- press: {digits: 012#}
- wait: {ms: 50}
- await_hang_up: {}
- hang_up
"""
    assert load_script(text, "s.yaml") == (
        Listen(quiet_ms=800),
        Say(file="a.wav", text="no"),
        BargeIn(file="b.wav", after_ms=100),
        Press("012#"),
        Wait(50),
        AwaitHangUp(),
        HangUp(),
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "s.yaml:1: a script is a list"),
        ("listen: {}", "s.yaml:1: a script is a list"),
        ("- listen: {}\n- sing: {}", "s.yaml:2: unknown step 'sing'; known: listen, say"),
        ("- listen: {}\n- dance", "s.yaml:2: unknown step 'dance'"),
        ("- say: {file: a.wav, loud: 3}", "s.yaml:1: say: unknown field 'loud'"),
        ("- say: {text: hello}", "s.yaml:1: say needs file"),
        ("- wait", "s.yaml:1: wait needs ms"),
        ("- wait: {ms: soon}", "s.yaml:1: wait: ms must be whole milliseconds"),
        ("- wait: {ms: -5}", "s.yaml:1: wait: ms must be whole milliseconds"),
        ("- wait: {ms: 1, ms: 2}", "s.yaml:1: wait: ms is given twice"),
        ("- press: {digits: 12x}", "s.yaml:1: press: digits may hold"),
        ("- listen", None),
        ("- listen: 5", "s.yaml:1: listen needs its fields in braces"),
        ("- say: {file: [a]}", "s.yaml:1: say: a field is a word"),
        ("- {listen: {}, say: {}}", "s.yaml:1: a step is one word"),
        ("- [listen]", "s.yaml:1: a step is one word"),
        ("- listen: {}\n- {", "s.yaml:2: not YAML"),
    ],
)
def test_a_wrong_script_is_told_file_line_and_what_to_write(
    text: str, complaint: str | None
) -> None:
    if complaint is None:
        assert load_script(text, "s.yaml") == (Listen(),)
        return
    with pytest.raises(ConfigError) as caught:
        load_script(text, "s.yaml")
    assert caught.value.message.startswith(complaint)
