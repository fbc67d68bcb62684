"""Caller turns of an engine session: found, committed, heard, transcribed."""

from __future__ import annotations

from app.engine.actions import AbandonHearing, FinishHearing, Listen, ResetVad, StopSpeaking
from app.engine.base import Heard
from app.realtime.events import (
    InputAudioCommit,
    InputAudioCommitted,
    ItemDelete,
    ItemDone,
    ItemRetrieve,
    ItemRetrieved,
    ResponseCancel,
    ResponseCreate,
    ResponseCreated,
    ServerVad,
    SpeechStarted,
    SpeechStopped,
    TranscriptionCompleted,
    TranscriptionFailed,
)
from tests.fakes.engine_parts import quiet, speech
from tests.unit.engine.session_driver import Driver, edge, names

# A spoken turn ------------------------------------------------------------------------------------


def test_a_spoken_turn_has_the_order_of_events_of_the_protocol() -> None:
    driver = Driver()
    driver.turn()
    driver.hears("hello")
    driver.speaks()
    assert names(driver.events) == [
        "SpeechStarted",
        "SpeechStopped",
        "InputAudioCommitted",
        "ItemAdded",
        "ItemDone",
        "TranscriptionCompleted",
        "ResponseCreated",
        "OutputItemAdded",
        "ItemAdded",
        "ContentPartAdded",
        "AudioTranscriptDelta",
        "AudioDelta",
        "AudioDone",
        "AudioTranscriptDone",
        "ContentPartDone",
        "OutputItemDone",
        "ItemDone",
        "ResponseDone",
    ]


def test_positions_count_the_appended_audio() -> None:
    driver = Driver()
    driver.audio(quiet(700))
    driver.audio(speech(500), edge(True, 400))
    driver.audio(quiet(600), edge(False, 1700))
    assert driver.sent(SpeechStarted)[0].audio_start_ms == 400
    assert driver.sent(SpeechStopped)[0].audio_end_ms == 1700


def test_the_recognizer_hears_the_turn_from_its_padding_to_its_end() -> None:
    driver = Driver()
    before, turn, after = quiet(700), speech(500), speech(100)
    driver.audio(before)
    driver.audio(turn[:3200], edge(True, 400))
    driver.audio(turn[3200:] + after, edge(False, 1200))
    (finish,) = driver.works(FinishHearing)
    assert driver.fed(finish.item_id) == before[400 * 32 :] + turn


def test_the_turn_is_heard_in_the_dialogue_state_of_its_beginning() -> None:
    driver = Driver()
    driver.responder.context = "yes_no"
    driver.audio(speech(100), edge(True, 0))
    assert [work.context for work in driver.works(Listen)] == ["yes_no"]


def test_the_item_that_was_announced_is_the_one_that_comes() -> None:
    driver = Driver()
    driver.turn()
    item_id = driver.sent(SpeechStarted)[0].item_id
    assert driver.sent(SpeechStopped)[0].item_id == item_id
    assert driver.sent(InputAudioCommitted)[0].item_id == item_id
    assert driver.sent(ItemDone)[0].item.id == item_id


def test_edges_that_repeat_themselves_change_nothing() -> None:
    driver = Driver()
    driver.audio(quiet(100), edge(False, 50))
    driver.audio(speech(100), edge(True, 100), edge(True, 150))
    assert names(driver.events) == ["SpeechStarted"]


def test_two_turns_in_one_append_are_two_turns() -> None:
    driver = Driver()
    sound = speech(1000)
    driver.audio(sound, edge(True, 0), edge(False, 400), edge(True, 600), edge(False, 900))
    first, second = (work.item_id for work in driver.works(FinishHearing))
    assert driver.fed(first) == sound[: 400 * 32]
    assert driver.fed(second) == sound[600 * 32 : 900 * 32]


def test_a_turn_that_never_ends_is_ended_and_the_detector_begins_anew() -> None:
    driver = Driver(max_turn_ms=1000)
    driver.audio(speech(600), edge(True, 0))
    driver.audio(speech(600))
    assert driver.sent(SpeechStopped)[0].audio_end_ms == 1200
    assert driver.works(ResetVad)
    driver.audio(speech(300), edge(True, 0))  # the new detector counts from its own beginning
    assert driver.sent(SpeechStarted)[1].audio_start_ms == 1200


def test_between_turns_only_what_a_turn_may_reach_back_for_is_kept() -> None:
    driver = Driver(turn_detection=ServerVad(prefix_padding_ms=200))
    for _ in range(50):
        driver.audio(quiet(100))
    driver.audio(speech(100), edge(True, 0))  # an edge from long ago
    assert driver.sent(SpeechStarted)[0].audio_start_ms == 5100 - 1200 - 100


# Empty turns, failures ----------------------------------------------------------------------------


def test_an_empty_transcript_is_reported_and_makes_no_reply() -> None:
    driver = Driver()
    item_id = driver.turn()
    driver.forget()
    driver.hears("", item_id)
    (completed,) = driver.events
    assert isinstance(completed, TranscriptionCompleted)
    assert completed.transcript == ""
    assert driver.responder.log == []


def test_an_intent_without_words_is_not_empty() -> None:
    driver = Driver()
    item_id = driver.turn()
    driver.take(driver.session.on_heard(item_id, Heard(transcript="", intents={"lm": "hours"})))
    assert driver.sent(ResponseCreated)


def test_a_turn_that_cannot_be_heard_is_reported_and_asked_for_again() -> None:
    driver = Driver()
    item_id = driver.turn()
    driver.forget()
    driver.take(driver.session.on_hearing_failed(item_id, "recognizer_lost", "it died"))
    (failed,) = driver.sent(TranscriptionFailed)
    assert (failed.item_id, failed.error.code) == (item_id, "recognizer_lost")
    assert driver.responder.log == ["hear [unclear]"]


def test_without_transcription_nothing_is_transcribed_and_all_is_answered() -> None:
    driver = Driver(transcription=None)
    driver.turn()
    driver.hears("hello")
    item_id = driver.turn(1500)
    driver.take(driver.session.on_hearing_failed(item_id, "recognizer_lost", "it died"))
    assert not driver.sent(TranscriptionCompleted)
    assert not driver.sent(TranscriptionFailed)
    assert driver.responder.log[0] == "hear hello"


def test_a_turn_is_transcribed_once_even_if_it_is_reported_twice() -> None:
    driver = Driver()
    item_id = driver.turn()
    driver.hears("hello", item_id)
    driver.forget()
    assert driver.hears("hello again", item_id) == []


def test_the_transcription_says_how_long_the_turn_was() -> None:
    driver = Driver()
    driver.turn(ms=1000)
    driver.hears("hello")
    assert driver.sent(TranscriptionCompleted)[0].seconds == 1.5


def test_the_transcript_is_in_the_item_that_is_retrieved() -> None:
    driver = Driver()
    item_id = driver.turn()
    driver.hears("hello", item_id)
    (retrieved,) = driver.client(ItemRetrieve(item_id))
    assert isinstance(retrieved, ItemRetrieved)
    assert retrieved.item.content[0].transcript == "hello"


def test_a_deleted_turn_is_transcribed_and_not_answered() -> None:
    driver = Driver()
    item_id = driver.turn()
    driver.client(ItemDelete(item_id))
    driver.forget()
    driver.hears("hello", item_id)
    assert names(driver.events) == ["TranscriptionCompleted"]


# Barge-in -----------------------------------------------------------------------------------------


def test_speech_cancels_the_reply_and_closes_what_it_opened() -> None:
    driver = Driver()
    driver.turn()
    driver.hears("hello")
    response_id = driver.speak().response_id
    driver.take(driver.session.on_speech(response_id, speech(200, 24_000)))
    driver.forget()
    driver.audio(speech(100), edge(True, 1500))
    assert names(driver.events) == [
        "SpeechStarted",
        "AudioDone",
        "AudioTranscriptDone",
        "ContentPartDone",
        "OutputItemDone",
        "ItemDone",
        "ResponseDone",
    ]
    done = driver.done().response
    assert (done.status, done.status_reason) == ("cancelled", "turn_detected")
    assert [item.status for item in done.output] == ["incomplete"]
    assert driver.works(StopSpeaking) == [StopSpeaking(response_id)]


def test_speech_of_a_cancelled_reply_is_dropped() -> None:
    driver = Driver()
    driver.turn()
    driver.hears("hello")
    response_id = driver.speak().response_id
    driver.audio(speech(100), edge(True, 1500))
    driver.forget()
    assert driver.speaks(400, response_id) == []
    failed = driver.session.on_speech_failed(response_id, "late", "late")
    assert failed == []


def test_without_interrupt_response_the_reply_goes_on_and_the_next_one_waits_for_it() -> None:
    driver = Driver(turn_detection=ServerVad(interrupt_response=False))
    driver.turn()
    driver.hears("one")
    first = driver.speak().response_id
    driver.turn(1500)
    driver.hears("two")
    assert len(driver.sent(ResponseCreated)) == 1
    driver.forget()
    driver.speaks(400, first)
    assert names(driver.events)[-4:] == [
        "ResponseCreated",
        "OutputItemAdded",
        "ItemAdded",
        "ContentPartAdded",
    ]
    assert driver.responder.log == ["hear one", "hear two"]


def test_a_cancelled_reply_does_not_cancel_the_transcription_of_its_turn() -> None:
    driver = Driver(turn_detection=None)
    driver.audio(speech(500))
    driver.client(InputAudioCommit())
    driver.client(ResponseCreate())
    driver.client(ResponseCancel())
    assert driver.done().response.status == "cancelled"
    assert not driver.works(AbandonHearing)
    (finish,) = driver.works(FinishHearing)
    driver.forget()
    driver.hears("hello", finish.item_id)
    assert names(driver.events) == ["TranscriptionCompleted"]


def test_a_turn_heard_while_the_caller_speaks_again_is_answered_after_both() -> None:
    driver = Driver()
    first = driver.turn()
    driver.audio(speech(100), edge(True, 1500))
    driver.hears("one", first)
    assert not driver.sent(ResponseCreated)
    driver.audio(quiet(500), edge(False, 2100))
    assert not driver.sent(ResponseCreated)
    driver.hears("two")
    assert driver.responder.log == ["hear one", "hear two"]
    assert driver.speak().text == "You said one. You said two."


def test_a_noise_over_an_unanswered_turn_does_not_lose_it() -> None:
    driver = Driver()
    first = driver.turn()
    second = driver.turn(1500)
    driver.hears("one", first)
    driver.hears("", second)
    assert driver.speak().text == "You said one."
