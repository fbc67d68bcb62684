"""Sounds without words that cut the agent off: it goes on where it was."""

from __future__ import annotations

import pytest

from app.calls.media.false_interruption import FalseInterruption, Interrupted
from app.calls.media.playout import HeardItem, UnheardAudio
from app.calls.policy import CallPolicy
from app.calls.turns.turn_table import Turn
from app.carrier.base import MarkReached
from app.events import AgentSaid, BargeIn, CallerSaid, EndReason, SpeechResumed
from app.realtime.events import (
    AudioDelta,
    ErrorDetail,
    ItemCreate,
    ItemDelete,
    ItemTruncate,
    ResponseCancel,
    ResponseStatus,
    ServerVad,
    TranscriptionDelta,
    TranscriptionFailed,
)
from tests.unit.calls.harness import (
    GOODBYE,
    CallHarness,
    Clear,
    End,
    PlayAudio,
    ResponseCreate,
    call_item,
)

TEXT = "one two three four five six seven eight nine ten"


def heard_200ms(**options: object) -> CallHarness:
    """A two-second answer, generated at once, of which 200 ms were heard."""
    harness = CallHarness(transcribed=True, **options)  # type: ignore[arg-type]
    harness.greeted()
    harness.caller_turn("u0", "When do you open?")
    harness.answer(2_000, TEXT)
    first = next(play.mark for play in harness.take(PlayAudio) if play.mark)
    harness.now_ms += 200
    harness.phone(MarkReached(first))
    harness.actions.clear()
    return harness


def sound(harness: CallHarness) -> bytes:
    return b"".join(play.payload for play in harness.take(PlayAudio))


def cough(harness: CallHarness, text: str | None = "") -> None:
    harness.caller_starts("u1")
    harness.wait(300)
    harness.caller_stops("u1", text)


def test_a_cough_stops_the_agent_at_once_and_the_speech_goes_on_after_it() -> None:
    harness = heard_200ms()
    harness.caller_starts("u1")
    assert harness.order[:3] == ["Clear", "ItemTruncate", "BargeIn"]
    assert harness.sent(ItemTruncate) == [ItemTruncate("a1", 0, 200)]
    assert harness.take(PlayAudio) == []
    harness.wait(300)
    harness.caller_stops("u1", "")
    assert sound(harness) == b"\x20" * (8 * 1_800)
    (resumed,) = harness.recorded(SpeechResumed)
    assert (resumed.item_id, resumed.heard_ms) == ("a1", 200)
    assert harness.conversation.turns.turn is Turn.AGENT
    assert harness.conversation.counters.false_interruptions == 1


def test_the_model_is_told_what_was_heard_in_the_end() -> None:
    harness = heard_200ms()
    cough(harness)
    assert harness.sent(ItemDelete) == [ItemDelete("u1")]
    harness.marks()
    (create,) = harness.sent(ItemCreate)
    assert create.previous_item_id == "a1"
    assert create.item.role == "assistant"
    assert create.item.content[0].text == "two three four five six seven eight nine ten"
    (said,) = harness.recorded(AgentSaid)
    assert (said.heard_text, said.cut_off) == (TEXT, False)
    assert harness.conversation.turns.turn is Turn.IDLE


def test_words_make_the_interruption_real() -> None:
    harness = heard_200ms()
    cough(harness, "Wait, stop")
    assert harness.take(PlayAudio) == []
    assert harness.recorded(SpeechResumed) == []
    (said,) = harness.recorded(AgentSaid)
    assert (said.heard_text, said.cut_off) == ("one", True)
    assert [line.text for line in harness.recorded(CallerSaid)] == ["Wait, stop"]
    harness.wait(5_000)
    assert harness.take(PlayAudio) == []


def test_the_first_of_the_words_is_enough() -> None:
    harness = heard_200ms()
    cough(harness, None)
    harness.response_begins("r2", "a2")
    harness.speaks(400, "Yes?", "r2", "a2")
    assert harness.take(PlayAudio) == []
    harness.voice(TranscriptionDelta("u1", 0, "Wait"))
    assert len(sound(harness)) == 8 * 400


@pytest.mark.parametrize("cancelled", [True, False])
def test_the_models_answer_to_a_cough_is_neither_heard_nor_remembered(cancelled: bool) -> None:
    harness = heard_200ms()
    cough(harness, None)
    harness.response_begins("r2", "a2")
    harness.speaks(400, "Pardon?", "r2", "a2")
    if not cancelled:
        harness.response_ends("r2", "a2", text="Pardon?")
    assert harness.take(PlayAudio) == []
    harness.caller_stops("u1", "Mhm.")
    assert harness.sent(ResponseCancel) == ([ResponseCancel("r2")] if cancelled else [])
    assert harness.sent(ItemDelete) == [ItemDelete("a2"), ItemDelete("u1")]
    assert len(sound(harness)) == 8 * 1_800
    harness.voice(AudioDelta("r2", "a2", 0, 0, b"\x20" * 800)) if cancelled else None
    assert harness.take(PlayAudio) == []


def test_an_answer_to_the_cough_that_begins_after_it_was_settled_is_cancelled() -> None:
    harness = heard_200ms()
    cough(harness)
    harness.actions.clear()
    harness.response_begins("r2", "a2")
    assert harness.sent(ResponseCancel) == [ResponseCancel("r2")]
    harness.response_ends("r2", None, ResponseStatus.CANCELLED)
    harness.marks()
    harness.caller_turn("u2", "And on Sunday?")
    harness.response_begins("r3", "a3")
    assert harness.sent(ResponseCancel) == []


def test_the_answer_to_real_words_is_played_as_soon_as_they_are_known() -> None:
    harness = heard_200ms()
    cough(harness, None)
    harness.response_begins("r2", "a2")
    harness.speaks(400, "Yes?", "r2", "a2")
    harness.response_ends("r2", "a2", text="Yes?")
    assert harness.take(PlayAudio) == []
    harness.caller_stops("u1", "Stop please")
    assert len(sound(harness)) == 8 * 400
    assert harness.sent(ItemDelete) == []


def test_a_sound_without_a_transcript_counts_as_a_noise_after_the_time() -> None:
    harness = heard_200ms()
    cough(harness, None)
    harness.wait(1_900)
    assert harness.take(PlayAudio) == []
    harness.wait(200)
    assert len(sound(harness)) == 8 * 1_800
    assert harness.sent(ItemDelete) == []  # it may have been words all the same


def test_words_that_come_after_the_time_stop_the_agent_again() -> None:
    harness = heard_200ms()
    cough(harness, None)
    harness.wait(2_100)
    harness.actions.clear()
    harness.caller_stops("u1", "I said stop")
    assert harness.take(Clear)
    assert len(harness.sent(ResponseCreate)) == 1


def test_a_failed_transcription_counts_as_no_words() -> None:
    harness = heard_200ms()
    cough(harness, None)
    harness.voice(TranscriptionFailed("u1", 0, ErrorDetail(code="audio_unintelligible")))
    assert len(sound(harness)) == 8 * 1_800


def test_a_long_sound_is_an_interruption_whatever_it_was() -> None:
    harness = heard_200ms()
    harness.caller_starts("u1")
    harness.wait(2_100)
    harness.caller_stops("u1", "")
    harness.wait(3_000)
    assert harness.take(PlayAudio) == []
    (said,) = harness.recorded(AgentSaid)
    assert said.cut_off


@pytest.mark.parametrize("off", ["by the policy", "without transcripts"])
def test_nothing_is_resumed_where_it_is_switched_off(off: str) -> None:
    if off == "by the policy":
        harness = heard_200ms(policy=CallPolicy(false_interruption_ms=0))
    else:
        harness = CallHarness()
        harness.greeted()
        harness.answer(2_000, TEXT)
        harness.actions.clear()
    cough(harness)
    harness.wait(4_000)
    assert harness.take(PlayAudio) == []
    assert harness.recorded(AgentSaid)[0].cut_off


def test_speech_that_is_too_long_to_keep_is_not_resumed() -> None:
    harness = heard_200ms(policy=CallPolicy(resume_max_ms=1_000))
    cough(harness)
    harness.wait(4_000)
    assert harness.take(PlayAudio) == []


def test_two_coughs_in_a_row_resume_the_same_words_twice() -> None:
    harness = heard_200ms()
    cough(harness)
    first = next(play.mark for play in harness.take(PlayAudio) if play.mark)
    harness.now_ms += 200
    harness.phone(MarkReached(first))
    harness.actions.clear()
    harness.caller_starts("u2")
    assert harness.take(Clear)
    assert harness.sent(ItemTruncate) == []  # the model has truncated it before
    (create,) = harness.sent(ItemCreate)
    assert create.item.content[0].text == "two"
    (barge_in,) = harness.recorded(BargeIn)
    assert (barge_in.heard_ms, barge_in.sent_ms) == (400, 2_000)
    harness.wait(300)
    harness.caller_stops("u2", "")
    assert len(harness.actions) > 0
    harness.marks()
    (rest,) = harness.sent(ItemCreate)
    assert rest.previous_item_id == create.item.id
    assert rest.item.content[0].text == "three four five six seven eight nine ten"
    assert harness.recorded(AgentSaid)[0].heard_text == TEXT


def test_a_second_sound_belongs_to_the_same_interruption() -> None:
    harness = heard_200ms()
    cough(harness, None)
    harness.response_begins("r2", "a2")
    harness.speaks(400, "Pardon?", "r2", "a2")
    harness.caller_starts("u2")
    assert harness.sent(ItemDelete) == [ItemDelete("a2")]
    harness.caller_stops("u2", "No, stop")
    assert harness.take(PlayAudio) == []


def test_a_key_makes_the_interruption_real() -> None:
    harness = heard_200ms()
    cough(harness, None)
    harness.key("5")
    harness.wait(4_000)
    assert harness.take(PlayAudio) == []
    assert harness.recorded(AgentSaid)[0].cut_off


def test_a_tool_call_of_the_model_makes_the_interruption_real() -> None:
    harness = heard_200ms()
    cough(harness, None)
    harness.response_begins("r2", "a2")
    harness.speaks(400, "Let me see.", "r2", "a2")
    harness.response_ends("r2", "a2", text="Let me see.", calls=(call_item("look_up"),))
    assert len(sound(harness)) == 8 * 400


def test_speech_that_was_cut_in_mid_generation_is_finished_by_the_model() -> None:
    harness = CallHarness(transcribed=True)
    harness.greeted()
    harness.caller_turn("u0")
    harness.response_begins()
    harness.speaks(1_000, TEXT)
    harness.actions.clear()
    cough(harness, None)
    harness.response_ends("r1", None, ResponseStatus.CANCELLED)
    harness.caller_stops("u1", "")
    assert harness.sent(ResponseCreate) == []
    harness.marks()
    notes = [create.item.role for create in harness.sent(ItemCreate)]
    assert notes == ["assistant", "system"]
    assert len(harness.sent(ResponseCreate)) == 1


def test_a_goodbye_that_a_cough_cut_off_still_ends_the_call() -> None:
    harness = CallHarness(transcribed=True)
    harness.greeted()
    harness.caller_turn("u0", "Bye")
    harness.response_begins()
    harness.speaks(1_000, "Goodbye and thank you")
    harness.response_ends(
        text="Goodbye and thank you", calls=(call_item("end_call", arguments=GOODBYE),)
    )
    cough(harness)
    assert harness.take(End) == []
    harness.marks()
    assert [end.reason for end in harness.take(End)][:1] == [EndReason.AGENT_HUNG_UP]


def test_a_lost_model_leaves_what_was_cut_cut() -> None:
    harness = heard_200ms()
    cough(harness, None)
    harness.actions += harness.conversation.on_voice_lost(harness.now_ms)
    assert harness.recorded(AgentSaid) == []
    harness.ready()
    harness.wait(4_000)
    assert harness.take(PlayAudio) == []


def test_a_fresh_session_is_not_told_about_items_it_does_not_have() -> None:
    harness = heard_200ms()
    cough(harness)
    harness.actions += harness.conversation.on_voice_lost(harness.now_ms)
    harness.ready()
    harness.sent(ItemCreate)
    harness.marks()
    assert harness.sent(ItemCreate) == []
    assert harness.recorded(AgentSaid)[-1].heard_text == TEXT


def test_a_call_that_ends_meanwhile_has_heard_what_it_had_heard() -> None:
    harness = heard_200ms()
    cough(harness, None)
    harness.actions += harness.conversation.on_call_over(harness.now_ms)
    assert [said.heard_text for said in harness.recorded(AgentSaid)] == ["one"]


def test_several_items_are_resumed_in_their_order() -> None:
    harness = heard_200ms(vad=ServerVad(interrupt_response=False))
    harness.answer(500, "and more", "2")
    harness.actions.clear()
    cough(harness)
    assert len(sound(harness)) == 8 * (1_800 + 500)


def test_a_call_that_ends_in_mid_speech_has_heard_what_it_had_heard() -> None:
    harness = heard_200ms()
    harness.actions += harness.conversation.on_call_over(harness.now_ms)
    (said,) = harness.recorded(AgentSaid)
    assert (said.heard_text, said.cut_off) == ("one", True)


@pytest.mark.parametrize(("text", "resumed"), [(TEXT, True), ("Wait a moment, stop", False)])
def test_an_echo_of_the_agents_own_words_interrupts_nothing(text: str, resumed: bool) -> None:
    harness = heard_200ms(policy=CallPolicy(echo_guard=True))
    cough(harness, None)
    harness.voice(TranscriptionDelta("u1", 0, "one two three"))
    assert harness.take(PlayAudio) == []  # a part of the words does not show yet whose they are
    harness.caller_stops("u1", text)
    assert bool(harness.take(PlayAudio)) is resumed


# The decision alone -------------------------------------------------------------------------------

ITEM = HeardItem(item_id="a1", content_index=0, heard_ms=0, sent_ms=20)
UNHEARD = (UnheardAudio(item_id="a1", content_index=0, audio=b"x"),)


@pytest.mark.parametrize(("limit_ms", "unheard"), [(0, UNHEARD), (2_000, ())])
def test_nothing_is_held_where_nothing_can_be_resumed(
    limit_ms: int, unheard: tuple[UnheardAudio, ...]
) -> None:
    cut = FalseInterruption(limit_ms)
    assert not cut.on_interrupted("u1", [ITEM], unheard, 0, unfinished=False)
    assert not cut.undecided


def interrupted(limit_ms: int = 2_000) -> FalseInterruption:
    cut = FalseInterruption(limit_ms)
    cut.on_interrupted("sound_1", [ITEM], UNHEARD, 0, unfinished=False)
    return cut


def test_a_short_sound_that_no_words_follow_is_a_false_interruption() -> None:
    cut = interrupted()
    assert cut.undecided
    assert cut.on_tick(300) is None
    assert cut.on_speech_stopped(400) is None
    assert cut.on_tick(2_399) is None
    assert cut.on_tick(2_400) is Interrupted.FALSE
    assert not cut.undecided
    assert cut.on_tick(9_999) is None


@pytest.mark.parametrize(
    ("transcript", "outcome"),
    [
        ("", Interrupted.FALSE),
        ("Mhm.", Interrupted.FALSE),
        ("Wait!", Interrupted.REAL),
    ],
)
def test_the_transcript_decides_at_once(transcript: str, outcome: Interrupted) -> None:
    cut = interrupted()
    cut.on_speech_stopped(400)
    assert cut.on_transcript("sound_1", transcript) is outcome
    assert cut.on_transcript("sound_1", "Wait!") is None, "it is decided once"


@pytest.mark.parametrize("transcript", ["", "I had said this before."])
def test_the_late_transcript_of_an_earlier_turn_decides_nothing(transcript: str) -> None:
    cut = interrupted()
    cut.on_speech_stopped(400)
    assert cut.on_transcript("turn_before", transcript) is None
    assert cut.on_tick(2_400) is Interrupted.FALSE


def test_a_sound_that_lasts_is_an_interruption_whatever_it_was() -> None:
    assert interrupted().on_tick(2_000) is Interrupted.REAL
    assert interrupted().on_speech_stopped(2_000) is Interrupted.REAL


def test_a_transcript_without_words_that_comes_before_the_end_waits_for_it() -> None:
    cut = interrupted()
    assert cut.on_transcript("sound_1", "") is None
    assert cut.on_speech_stopped(500) is None
    assert cut.on_tick(2_500) is Interrupted.FALSE


@pytest.mark.parametrize(
    ("second", "outcome"), [("Excuse me", Interrupted.REAL), ("", Interrupted.FALSE)]
)
def test_another_sound_is_waited_for(second: str, outcome: Interrupted) -> None:
    cut = interrupted()
    cut.on_speech_stopped(300)
    cut.on_speech_started("sound_2")
    assert cut.on_transcript("sound_1", "") is None, "it says nothing of the second sound"
    assert cut.on_tick(1_900) is None
    assert cut.on_speech_stopped(1_950) is None
    assert cut.on_transcript("sound_2", second) is outcome


def test_a_sound_while_nothing_was_cut_off_is_an_ordinary_turn() -> None:
    cut = FalseInterruption()
    cut.on_speech_started("turn_1")
    assert not cut.undecided
    assert cut.on_speech_stopped(400) is None
    assert cut.on_transcript("turn_1", "") is None


def test_speech_that_something_supersedes_stays_cut_off() -> None:
    cut = interrupted()
    assert cut.on_superseded() is Interrupted.REAL
    assert not cut.undecided
    assert cut.on_superseded() is None


def test_zero_takes_every_sound_for_an_interruption() -> None:
    cut = interrupted(0)
    assert not cut.undecided
    assert cut.on_speech_stopped(300) is None
    assert cut.on_transcript("sound_1", "") is None
