"""The notice of a recording in the course of a call: it is heard to its end, or said again."""

from __future__ import annotations

from typing import Any

import pytest

from app.agents.dialogue.messages import SayMode, SayWhen
from app.calls.actions import Clear
from app.calls.keypad.menu import HangUp, KeypadMap, MenuPlan
from app.calls.recording.notice import TRIES, RecordingNotice
from app.calls.recording.tape import Tape
from app.events import Party
from app.realtime.events import ServerVad, SessionUpdate
from tests.unit.calls.harness import CallHarness

NOTICE = "We record this call."
MENU = KeypadMap(
    actions={"9": HangUp("Bye.")},
    menu=MenuPlan(prompt="Press 9 to hang up.", otherwise=HangUp("Bye."), invalid="No."),
)


def harness(**options: Any) -> CallHarness:
    return CallHarness(tape=Tape(RecordingNotice(NOTICE)), **options)


def notice(made: CallHarness) -> RecordingNotice:
    return made.conversation._notice


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"greeting": "Hello!"}, [f"{NOTICE} Hello!"]),
        ({"greeting": None}, [NOTICE]),
        ({"greeting": "Hello!", "speaks_first": Party.CALLER}, [NOTICE]),
        ({"greeting": "H" * 490}, [NOTICE]),
        ({"keypads": {"test": MENU}}, [f"{NOTICE} Hello! Press 9 to hang up."]),
    ],
)
def test_the_notice_comes_before_every_kind_of_first_words(
    options: dict[str, Any], said: list[str]
) -> None:
    assert harness(**options).words() == said


def test_neither_speech_nor_a_key_stops_the_notice() -> None:
    made = harness(vad=ServerVad(interrupt_response=True))
    made.response_begins()
    made.speaks(2_000)
    made.wait(300)
    made.caller_turn()
    made.key("5")
    assert made.take(Clear) == [] and notice(made).pending
    made.response_ends(text=f"{NOTICE} Hello!")
    made.marks()
    assert notice(made).permits
    updates = made.sent(SessionUpdate)
    assert [u.session.turn_detection.interrupt_response for u in updates] == [True]  # type: ignore[union-attr]


def test_a_notice_that_was_cut_off_is_said_again_when_it_is_quiet() -> None:
    made = harness()
    made.words()
    made.response_begins()
    made.speaks(2_000)
    made.wait(300)
    urgent = made.conversation.say("Fire!", made.now_ms, mode=SayMode.VERBATIM, when=SayWhen.NOW)
    made.actions += urgent
    made.response_ends()
    assert made.words() == ["Fire!"] and notice(made).pending
    made.answer(500, "Fire!", "2")
    made.marks()
    made.wait(300)
    assert made.words() == [NOTICE]
    made.answer(500, NOTICE, "3")
    made.marks()
    assert notice(made).permits


def test_a_notice_that_cannot_be_said_is_given_up() -> None:
    made = harness()
    for attempt in range(TRIES):
        assert NOTICE in made.words()[0]
        made.response_begins(f"r{attempt}", f"a{attempt}")
        made.speaks(2_000, response_id=f"r{attempt}", item_id=f"a{attempt}")
        made.wait(300)
        made.actions += made.conversation.say(
            "Fire!", made.now_ms, mode=SayMode.VERBATIM, when=SayWhen.NOW
        )
        made.response_ends(f"r{attempt}", f"a{attempt}")
        made.words()
        made.answer(500, "Fire!", f"urgent{attempt}")
        made.marks()
        made.wait(300)
    assert made.words() == [] and notice(made).given_up


def test_a_lost_connection_in_the_notice_has_it_said_again() -> None:
    made = harness()
    made.words()
    made.response_begins()
    made.speaks(2_000)
    made.wait(300)
    made.actions += made.conversation.on_voice_lost(made.now_ms)
    made.marks()  # what was sent plays on: half a notice
    assert notice(made).pending
    made.ready()
    said: list[str] = []
    for name in "234":
        made.wait(400)
        said += made.words()
        made.answer(500, "whatever was asked for", name)
        made.marks()
    assert NOTICE in said and notice(made).permits
