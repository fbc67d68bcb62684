"""The beginning of a placed call: who is told what, and when."""

from __future__ import annotations

from typing import Any

import pytest

from app.calls.actions import Clear, End
from app.calls.policy import AnsweredByRules, CallPolicy
from app.calls.recording.notice import RecordingNotice
from app.carrier.base import CallerAudio
from app.events import AnsweredBy, AnswerJudged, DisclosureHeard, EndReason
from app.realtime.events import (
    InputAudioCommitted,
    ItemCreate,
    ResponseCancel,
    ResponseCreate,
    ServerVad,
    SessionUpdate,
    SpeechStarted,
    SpeechStopped,
    TranscriptionCompleted,
)
from tests.unit.calls.harness import CallHarness
from tests.unit.calls.outbound.test_answered_by import sound

DISCLOSURE = "This is an AI assistant calling for Acme Dental."
SCREENING = "I am calling about an appointment."
MESSAGE = "Please call us back about your appointment."
MAILBOX = "You have reached the Smiths. Please leave a message after the tone."
RULES = AnsweredByRules(screening_text=SCREENING, message=MESSAGE)


class Placed(CallHarness):
    """A call that we have placed, with the sound of whoever answers."""

    def __init__(self, rules: AnsweredByRules | None = RULES, **options: Any) -> None:
        policy = CallPolicy(answered_by=rules)
        notice = RecordingNotice(DISCLOSURE, exact=True)
        self._items = 0
        options = {"greeting": "Am I speaking with Mrs. Smith?", "transcribed": True, **options}
        super().__init__(policy=policy, notice=notice, placed=True, **options)

    def hear(self, *steps: str) -> Placed:
        """Sounds of the line, and `says WORDS`: a turn that the model has heard and written."""
        for step in steps:
            kind, _, words = step.partition(" ")
            if kind == "says":
                self._items += 1
                self.voice(InputAudioCommitted(f"u{self._items}"))
                self.voice(TranscriptionCompleted(f"u{self._items}", 0, words))
                continue
            if kind == "voice":
                self.voice(SpeechStarted(f"u{self._items + 1}", 0))
            made = sound(step)
            for at in range(0, len(made), 160):
                self.phone(CallerAudio(made[at : at + 160], self.now_ms))
                self.now_ms += 20
                if self.now_ms % 200 == 0:
                    self.actions += self.conversation.on_tick(self.now_ms)
            if kind == "voice":
                self.voice(SpeechStopped(f"u{self._items + 1}", 0))
        return self

    def hello(self) -> Placed:
        return self.hear("quiet 400", "voice 500", "quiet 900", "says Hello?", "quiet 400")

    def mailbox(self) -> Placed:
        return self.hear("quiet 400", "voice 4000", "quiet 800", f"says {MAILBOX}", "quiet 200")

    def say_all(self, *texts: str) -> list[str]:
        """The model says what it is asked to, one after the other, and it is heard."""
        asked: list[str] = []
        for text in texts:
            asked += self.words()
            self._items += 1
            self.answer(800, text, f"said{self._items}")
            self.marks()
            self.now_ms += -self.now_ms % 200
            self.hear("quiet 400")
        return asked

    def verdicts(self) -> list[AnsweredBy]:
        return [event.verdict for event in self.recorded(AnswerJudged)]


def notes(harness: CallHarness) -> str:
    created = [create.item for create in harness.sent(ItemCreate)]
    return " ".join(part.text or "" for item in created for part in item.content)


def test_a_person_is_greeted_behind_the_disclosure() -> None:
    call = Placed()
    assert call.sent(ResponseCreate) == []
    call.hello()
    assert call.verdicts() == [AnsweredBy.HUMAN]
    assert "a person has answered" in notes(call)
    assert call.words() == [f"{DISCLOSURE} Am I speaking with Mrs. Smith?"]
    [update] = call.sent(SessionUpdate)
    detection = update.session.turn_detection
    assert isinstance(detection, ServerVad)
    assert detection.create_response and not detection.interrupt_response


def reconnected(call: Placed) -> str:
    """The notes that the model gets on a fresh connection."""
    call.actions.clear()
    call.actions += call.conversation.on_voice_lost(call.now_ms)
    call.ready()
    return notes(call)


def test_the_model_is_told_that_it_calls_and_never_that_it_has_been_talking() -> None:
    call = Placed()
    for told in (notes(call), reconnected(call)):
        assert "you are the one who calls" in told and "Say nothing until" in told
        assert "you have been talking" not in told
    call = Placed().hello()
    call.say_all(f"{DISCLOSURE} Am I speaking with Mrs. Smith?")
    told = reconnected(call)
    assert "You have called, and a person has answered" in told and "do not greet again" in told
    assert "Say nothing until" not in told


def test_without_a_verdict_the_model_is_told_that_it_has_called() -> None:
    call = Placed(None)
    assert "You have called" in notes(call) and "you have been talking" not in notes(call)
    assert call.words() == [f"{DISCLOSURE} Am I speaking with Mrs. Smith?"]


def test_nothing_is_said_before_the_verdict() -> None:
    call = Placed()
    call.hear("quiet 400", "voice 8000")
    assert call.sent(ResponseCreate) == []
    call.response_begins("by_itself")  # a model that answers though it was told not to
    assert [cancel.response_id for cancel in call.sent(ResponseCancel)] == ["by_itself"]


def test_who_talks_over_the_disclosure_does_not_stop_it() -> None:
    call = Placed().hello()
    call.response_begins()
    call.speaks(3_000, f"{DISCLOSURE} Am I speaking with Mrs. Smith?")
    call.hear("voice 1200", "quiet 600", "says Who is this?")
    assert call.take(Clear) == [] and call.recorded(DisclosureHeard) == []
    call.response_ends(text=f"{DISCLOSURE} Am I speaking with Mrs. Smith?")
    call.marks()
    [heard] = call.recorded(DisclosureHeard)
    assert heard.by_mark and heard.text == DISCLOSURE and DISCLOSURE in heard.spoken


@pytest.mark.parametrize(
    "said",
    [
        "Am I speaking with Mrs. Smith?",
        "This is an assistant calling for Acme Dental.",
        "This is an AI assistant calling for Apex Dental.",
        "",
    ],
)
def test_a_model_that_loses_the_disclosure_says_it_again_or_not_at_all(said: str) -> None:
    call = Placed().hello()
    asked = call.say_all(said, said, said)
    assert asked[0].startswith(DISCLOSURE) and asked[1:] == [DISCLOSURE, DISCLOSURE]
    assert call.recorded(DisclosureHeard) == []
    assert call.take(End)[0] == End(EndReason.AGENT_HUNG_UP, "disclosure_not_heard")


def test_the_second_try_counts() -> None:
    call = Placed().hello()
    call.say_all("Good morning!", DISCLOSURE)
    [heard] = call.recorded(DisclosureHeard)
    assert heard.tries == 2 and heard.spoken == DISCLOSURE


def test_without_its_mark_the_disclosure_is_known_by_the_clock_only() -> None:
    call = Placed().hello()
    call.answer(800, f"{DISCLOSURE} Hello!", "1")
    call.hear("quiet 3000")
    [heard] = call.recorded(DisclosureHeard)
    assert not heard.by_mark


def test_a_screening_phone_gets_one_sentence_and_then_the_person_is_told() -> None:
    call = Placed()
    call.hear("quiet 400", "voice 4000", "quiet 800")
    call.hear("says State your name and why you are calling.", "quiet 200")
    assert call.verdicts() == [AnsweredBy.SCREENING]
    assert call.say_all(DISCLOSURE, SCREENING) == [DISCLOSURE, SCREENING]
    assert call.sent(ResponseCreate) == []
    call.actions.clear()
    call.hello()
    assert call.verdicts() == [AnsweredBy.HUMAN]
    assert "a person speaks" in notes(call) and len(call.sent(ResponseCreate)) == 1


def test_a_screening_phone_that_puts_nobody_through_is_hung_up_on() -> None:
    call = Placed()
    call.hear("quiet 400", "voice 4000", "quiet 800")
    call.hear("says State your name and why you are calling.", "quiet 200")
    call.say_all(DISCLOSURE, SCREENING)
    call.hear("quiet 31000")
    assert call.take(End)[0] == End(EndReason.AGENT_HUNG_UP, "answered_by_screening")


@pytest.mark.parametrize("ready", ["tone 1000 400", "quiet 2400"])
def test_a_mailbox_gets_the_message_when_it_records(ready: str) -> None:
    call = Placed().mailbox()
    assert call.verdicts() == [AnsweredBy.VOICEMAIL]
    assert call.sent(ResponseCreate) == []
    call.hear(ready, "quiet 400")
    assert call.say_all(DISCLOSURE, MESSAGE) == [DISCLOSURE, MESSAGE]
    assert call.take(End)[0] == End(EndReason.AGENT_HUNG_UP, "message_left")


def test_a_person_who_picks_up_stops_the_message() -> None:
    call = Placed().mailbox()
    call.hear("tone 1000 400", "quiet 400")
    call.say_all(DISCLOSURE)
    call.words()
    call.response_begins("message", "m1")
    call.speaks(6_000, MESSAGE, "message", "m1")
    call.hear("quiet 400", "voice 600")
    assert call.take(Clear)
    call.hear("quiet 700", "says Hello? I am here!", "quiet 900")
    assert call.verdicts() == [AnsweredBy.VOICEMAIL, AnsweredBy.HUMAN]
    assert "picked up" in notes(call)
    assert call.take(End) == []


def test_mailboxes_are_hung_up_on_without_a_message() -> None:
    call = Placed(AnsweredByRules(message="")).mailbox()
    assert call.take(End)[0] == End(EndReason.AGENT_HUNG_UP, "answered_by_voicemail")
    assert call.sent(ResponseCreate) == []


@pytest.mark.parametrize(
    ("steps", "end"),
    [
        (("quiet 500", "tone 2100 1500", "quiet 200"), (EndReason.AGENT_HUNG_UP, "fax")),
        (
            ("voice 3000", "quiet 800", "says For sales, press 1.", "quiet 200"),
            (EndReason.AGENT_HUNG_UP, "ivr"),
        ),
    ],
)
def test_machines_are_hung_up_on(steps: tuple[str, ...], end: tuple[EndReason, str]) -> None:
    call = Placed().hear("quiet 400", *steps)
    assert call.take(End)[0] == End(end[0], f"answered_by_{end[1]}")
    assert call.sent(ResponseCreate) == []


def test_a_menu_is_left_to_the_model_where_it_may_talk_to_menus() -> None:
    call = Placed(AnsweredByRules(talk_to_menus=True))
    call.hear("voice 3000", "quiet 800", "says For sales, press 1.", "quiet 200")
    assert call.take(End) == []
    assert "recorded menu" in notes(call)


def test_those_who_say_nothing_hear_the_disclosure_and_are_hung_up_on() -> None:
    call = Placed()
    call.hear("quiet 4400")
    assert call.words() == [DISCLOSURE]
    call.say_all(DISCLOSURE)
    call.hear("quiet 16000")
    assert call.verdicts() == [AnsweredBy.NOBODY]
    assert call.take(End)[0] == End(EndReason.SILENCE, "answered_by_nobody")


def test_who_answers_the_disclosure_is_greeted_without_it() -> None:
    call = Placed()
    call.hear("quiet 4400")
    call.say_all(DISCLOSURE)
    call.hello()
    assert call.words() == ["Am I speaking with Mrs. Smith?"]


def test_the_agent_may_speak_first() -> None:
    call = Placed(AnsweredByRules(wait_for_callee=False))
    call.hear("quiet 400")
    assert call.words() == [DISCLOSURE]


def test_what_was_taken_for_a_person_gets_the_message_after_all() -> None:
    call = Placed().hello()
    call.say_all(f"{DISCLOSURE} Am I speaking with Mrs. Smith?")
    call.actions.clear()
    call.hear("voice 4000", "quiet 800")
    call.hear("says You have reached the voicemail of Bob, leave a message.", "quiet 600")
    assert call.verdicts() == [AnsweredBy.VOICEMAIL]
    [update] = call.sent(SessionUpdate)
    assert isinstance(update.session.turn_detection, ServerVad)
    assert not update.session.turn_detection.create_response
    call.hear("quiet 2600")
    assert MESSAGE in call.words()


def test_the_carriers_word_counts() -> None:
    call = Placed()
    call.conversation.on_carrier_detected("human")
    call.hear("quiet 400", "voice 500", "quiet 900")
    [judged] = call.recorded(AnswerJudged)
    assert judged.verdict is AnsweredBy.HUMAN
    assert "the carrier says human" in judged.evidence


def test_a_call_that_came_in_judges_nothing() -> None:
    harness = CallHarness(policy=CallPolicy(answered_by=RULES))
    assert len(harness.sent(ResponseCreate)) == 1
    assert harness.conversation._answering is None
    harness.conversation.on_carrier_detected("machine_start")


def test_inactivity_is_not_asked_about_while_nobody_is_known() -> None:
    call = Placed()
    call.hear("quiet 400", "voice 4000", "quiet 800")
    call.hear("says All of our agents are busy, please hold.", "quiet 60000")
    assert call.verdicts() == [AnsweredBy.HOLD]
    assert call.sent(ResponseCreate) == []
    call.hear("quiet 61000")
    assert call.take(End)[0] == End(EndReason.AGENT_HUNG_UP, "answered_by_hold")
