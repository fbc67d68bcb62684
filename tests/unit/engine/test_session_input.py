"""The input buffer of an engine session: turns of the client, settings, messages, silence."""

from __future__ import annotations

from typing import Any

import pytest

from app.engine.actions import FinishHearing, KeepAudio, KeepText, ResetVad, Speak
from app.engine.listening import MESSAGE_PAUSE_MS
from app.engine.prompts import MAX_OPEN
from app.realtime.events import (
    InputAudioAppend,
    InputAudioClear,
    InputAudioCleared,
    InputAudioCommit,
    InputTimeoutTriggered,
    ResponseConfig,
    ResponseCreate,
    ResponseCreated,
    ResponseDone,
    SemanticVad,
    ServerVad,
    SessionConfig,
    SessionUpdate,
    SpeechStarted,
)
from tests.fakes.engine_parts import quiet, speech
from tests.unit.engine.session_driver import Driver, edge, message, names

# Turns of the client ------------------------------------------------------------------------------


def test_a_manual_turn_is_heard_from_its_commit_and_answered_on_request() -> None:
    driver = Driver(turn_detection=None)
    sound = speech(500)
    driver.audio(sound)
    assert driver.work == []
    driver.client(InputAudioCommit())
    assert names(driver.work) == ["Listen", "FeedTurn", "FinishHearing"]
    item_id = driver.works(FinishHearing)[0].item_id
    assert driver.fed(item_id) == sound
    driver.hears("hello", item_id)
    assert not driver.sent(ResponseCreated)
    driver.client(ResponseCreate())
    assert driver.speak().text == "You said hello."


def test_a_response_asked_for_before_the_turn_was_heard_waits_for_it() -> None:
    driver = Driver(turn_detection=None)
    driver.audio(speech(500))
    driver.client(InputAudioCommit())
    assert names(driver.client(ResponseCreate())) == ["ResponseCreated"]
    driver.hears("hello")
    assert driver.speak().text == "You said hello."


def test_a_response_to_an_empty_turn_ends_with_nothing_said() -> None:
    driver = Driver(turn_detection=None)
    driver.audio(quiet(500))
    driver.client(InputAudioCommit())
    driver.client(ResponseCreate())
    driver.hears("")
    done = driver.done().response
    assert (done.status, done.output) == ("completed", ())


@pytest.mark.parametrize("ms", [0, 99])
def test_next_to_nothing_cannot_be_committed(ms: int) -> None:
    driver = Driver(turn_detection=None)
    if ms:
        driver.audio(quiet(ms))
    error = driver.refused(InputAudioCommit(event_id="evt_7"))
    assert (error.code, error.client_event_id) == ("input_audio_buffer_commit_empty", "evt_7")


def test_a_commit_empties_the_buffer() -> None:
    driver = Driver(turn_detection=None)
    driver.audio(speech(500))
    driver.client(InputAudioCommit())
    assert driver.refused(InputAudioCommit()).code == "input_audio_buffer_commit_empty"


def test_without_turn_detection_the_last_stretch_of_a_long_recording_is_kept() -> None:
    driver = Driver(turn_detection=None, max_turn_ms=1000)
    for _ in range(3):
        driver.audio(quiet(500))
    tail = speech(600)
    driver.audio(tail)
    driver.client(InputAudioCommit())
    item_id = driver.works(FinishHearing)[0].item_id
    assert driver.fed(item_id) == quiet(400) + tail


def test_a_commit_in_the_middle_of_a_detected_turn_ends_it() -> None:
    driver = Driver()
    sound = speech(300)
    driver.audio(sound, edge(True, 0))
    driver.client(InputAudioCommit())
    assert names(driver.events) == [
        "SpeechStarted",
        "SpeechStopped",
        "InputAudioCommitted",
        "ItemAdded",
        "ItemDone",
    ]
    assert names(driver.work) == ["Listen", "FeedTurn", "FinishHearing", "ResetVad"]
    driver.hears("hello")
    assert not driver.sent(ResponseCreated)


def test_clear_forgets_the_buffer_and_keeps_the_clock() -> None:
    driver = Driver(turn_detection=None)
    driver.audio(speech(500))
    (cleared,) = driver.client(InputAudioClear())
    assert isinstance(cleared, InputAudioCleared)
    assert driver.refused(InputAudioCommit()).code == "input_audio_buffer_commit_empty"
    driver.client(SessionUpdate(SessionConfig(turn_detection=ServerVad())))
    driver.audio(speech(100), edge(True, 50))
    assert driver.sent(SpeechStarted)[0].audio_start_ms == 550


def test_clear_in_the_middle_of_a_turn_abandons_it() -> None:
    driver = Driver()
    driver.audio(speech(300), edge(True, 0))
    driver.forget()
    driver.client(InputAudioClear())
    assert names(driver.events) == ["SpeechStopped", "InputAudioCleared"]
    assert names(driver.work) == ["AbandonHearing", "ResetVad"]


def test_an_append_has_a_limit() -> None:
    driver = Driver()
    error = driver.refused(InputAudioAppend(bytes(15 * 1024 * 1024 + 1)))
    assert error.param == "audio"


# Settings of turn detection -----------------------------------------------------------------------


def test_turning_detection_off_gives_an_open_turn_back_to_the_buffer() -> None:
    driver = Driver()
    sound = speech(300)
    driver.audio(sound, edge(True, 0))
    driver.forget()
    driver.client(SessionUpdate(SessionConfig(turn_detection=None)))
    assert names(driver.work) == ["AbandonHearing", "ResetVad"]
    driver.client(InputAudioCommit())
    assert driver.fed(driver.works(FinishHearing)[0].item_id) == sound


def test_new_settings_of_detection_wait_for_the_end_of_an_open_turn() -> None:
    driver = Driver()
    driver.audio(speech(300), edge(True, 0))
    driver.forget()
    changed = ServerVad(silence_duration_ms=900)
    driver.client(SessionUpdate(SessionConfig(turn_detection=changed)))
    assert not driver.works(ResetVad)
    driver.audio(quiet(500), edge(False, 800))
    assert driver.works(ResetVad) == [ResetVad(changed)]


def test_settings_that_stay_the_same_leave_the_detector_alone() -> None:
    driver = Driver()
    driver.client(SessionUpdate(SessionConfig(instructions="", turn_detection=ServerVad())))
    assert not driver.works(ResetVad)


@pytest.mark.parametrize(("eagerness", "longer"), [("low", True), ("high", False)])
def test_semantic_detection_waits_longer_or_shorter(eagerness: str, longer: bool) -> None:
    driver = Driver()
    driver.client(SessionUpdate(SessionConfig(turn_detection=SemanticVad(eagerness=eagerness))))
    (reset,) = driver.works(ResetVad)
    assert reset.settings is not None
    assert (reset.settings.silence_duration_ms > 800) is longer


def test_without_create_response_a_turn_waits_for_the_client() -> None:
    driver = Driver(turn_detection=ServerVad(create_response=False))
    driver.turn()
    driver.hears("hello")
    assert not driver.sent(ResponseCreated)
    driver.client(ResponseCreate())
    assert driver.speak().text == "You said hello."


def test_what_is_never_answered_is_not_kept_for_ever() -> None:
    driver = Driver(turn_detection=None)
    for number in range(MAX_OPEN + 5):
        driver.client(message(str(number)))
    driver.client(ResponseCreate())
    assert driver.responder.log[0] == "read 5"
    assert len(driver.responder.log) == MAX_OPEN


# Messages and silence -----------------------------------------------------------------------------


def _asked_for_a_message(**settings: Any) -> Driver:
    """The caller wants to leave a message and was told to; the detector has begun anew."""
    driver = Driver(**settings)
    driver.turn()
    driver.hears("message")
    driver.speaks()
    return driver


def test_the_turn_after_a_message_was_asked_for_is_kept_whole() -> None:
    driver = _asked_for_a_message()
    driver.forget()
    driver.turn(ms=800)
    (kept,) = driver.works(KeepAudio)
    assert kept.pcm16 == driver.fed(kept.item_id)
    assert len(kept.pcm16) == 1300 * 32


def test_a_message_of_which_no_word_was_understood_is_answered() -> None:
    driver = _asked_for_a_message()
    driver.turn()
    driver.hears("")
    assert driver.responder.log == ["hear message", "hear [unclear]"]


def test_a_message_is_spoken_with_longer_pauses() -> None:
    driver = _asked_for_a_message(turn_detection=ServerVad(silence_duration_ms=300))
    (reset,) = driver.works(ResetVad)
    assert reset.settings == ServerVad(silence_duration_ms=MESSAGE_PAUSE_MS)
    driver.turn()
    driver.hears("all of it")
    assert driver.works(ResetVad)[-1].settings == ServerVad(silence_duration_ms=300)


def test_a_silence_that_was_asked_for_is_not_cut_for_a_message() -> None:
    driver = _asked_for_a_message(turn_detection=ServerVad(silence_duration_ms=5_000))
    assert not driver.works(ResetVad)


def test_a_message_in_several_turns_is_answered_once() -> None:
    driver = _asked_for_a_message()
    driver.forget()
    first = driver.turn()
    driver.audio(speech(100), edge(True, 1500))
    driver.hears("one", first)
    driver.audio(quiet(500), edge(False, 2100))
    driver.hears("two")
    assert len(driver.works(KeepAudio)) == 2
    assert driver.speak().text == "You said one."


def test_a_message_beyond_the_longest_turn_is_kept_to_its_end() -> None:
    driver = _asked_for_a_message(max_turn_ms=2_000)
    driver.forget()
    driver.audio(speech(2_000), edge(True, 0))
    driver.hears("the first part")
    driver.audio(speech(900), edge(True, 100))
    driver.audio(quiet(500), edge(False, 1400))
    driver.hears("the rest")
    assert [len(kept.pcm16) // 32 for kept in driver.works(KeepAudio)] == [2_000, 1_300]
    assert driver.responder.log[-2:] == ["hear the first part", "hear [unclear]"]
    driver.speaks()
    driver.turn(1_500)
    assert len(driver.works(KeepAudio)) == 2


def test_a_key_ends_the_message_that_is_being_spoken() -> None:
    driver = _asked_for_a_message()
    driver.forget()
    driver.audio(speech(700), edge(True, 0))
    driver.client(message("[keypad] #"))
    driver.client(ResponseCreate())
    assert names(driver.events)[-5:] == [
        "SpeechStopped",
        "InputAudioCommitted",
        "ItemAdded",
        "ItemDone",
        "ResponseCreated",
    ]
    assert len(driver.works(KeepAudio)) == 1
    driver.hears("all of it")
    assert driver.responder.log[-2:] == ["hear all of it", "read [keypad] #"]
    assert driver.speak().text == "You said [keypad] #."  # and nothing of what it answers


@pytest.mark.parametrize("heard_first", [True, False])
@pytest.mark.parametrize("kept", [True, False])
def test_a_message_is_answered_once_it_is_known_whether_it_was_kept(
    kept: bool, heard_first: bool
) -> None:
    driver = _asked_for_a_message()
    driver.keeps = None
    driver.forget()
    item_id = driver.turn()
    if heard_first:
        driver.hears("ring me")
        assert not driver.works(Speak)
    driver.take(driver.session.on_kept(item_id, kept))
    if not heard_first:
        assert not driver.works(Speak)
        driver.hears("ring me")
    assert driver.speak().text == ("You said ring me." if kept else "Not kept.")


def test_a_message_that_was_neither_understood_nor_kept_is_not_said_to_be() -> None:
    driver = _asked_for_a_message()
    driver.keeps = False
    driver.take(driver.session.on_hearing_failed(driver.turn(), "recognizer_lost", "gone"))
    assert driver.speak().text == "Not kept."


@pytest.mark.parametrize("kept", [True, False])
def test_a_typed_message_is_kept_too(kept: bool) -> None:
    driver = _asked_for_a_message()
    driver.keeps = None
    driver.forget()
    driver.client(message("ring me", item_id="msg_1"))
    assert driver.works(KeepText) == [KeepText("msg_1", "ring me")]
    driver.client(ResponseCreate())
    assert not driver.works(Speak)
    driver.take(driver.session.on_kept("msg_1", kept))
    assert driver.speak().text == ("You said ring me." if kept else "Not kept.")


def test_typed_words_that_are_no_message_are_not_kept() -> None:
    driver = _asked_for_a_message()
    driver.client(message("[keypad] #"))
    other = Driver()
    other.client(message("ring me"))
    assert not driver.works(KeepText) and not other.works(KeepText)


def test_text_beside_the_conversation_is_not_said_to_be_a_kept_message() -> None:
    driver = _asked_for_a_message()
    driver.forget()
    driver.client(ResponseCreate(ResponseConfig(input=(message("ring me").item,))))
    assert driver.speak().text == "Not kept."


@pytest.mark.parametrize("asked", [False, True])
def test_a_key_ends_no_other_turn_and_no_message_without_sound(asked: bool) -> None:
    driver = _asked_for_a_message() if asked else Driver()
    driver.audio(speech(50 if asked else 700), edge(True, 0))
    driver.forget()
    driver.client(message("[keypad] #"))
    assert names(driver.events) == ["ItemAdded", "ItemDone"]


def _after_a_reply(idle_timeout_ms: int = 5_000) -> Driver:
    """A reply of 400 ms ended when 1500 ms of audio had come."""
    driver = Driver(turn_detection=ServerVad(idle_timeout_ms=idle_timeout_ms))
    driver.turn()
    driver.hears("hello")
    driver.speaks(400)
    driver.forget()
    return driver


def test_a_long_silence_after_a_reply_is_committed_and_answered() -> None:
    driver = _after_a_reply()
    driver.audio(quiet(5_300))
    assert driver.events == []
    driver.audio(quiet(100))
    (timeout,) = driver.sent(InputTimeoutTriggered)
    assert (timeout.audio_start_ms, timeout.audio_end_ms) == (1900, 6900)
    assert names(driver.events)[:6] == [
        "InputTimeoutTriggered",
        "InputAudioCommitted",
        "ItemAdded",
        "ItemDone",
        "TranscriptionCompleted",
        "ResponseCreated",
    ]
    assert driver.responder.log[-1] == "hear [unclear]"


def test_speech_ends_the_wait_and_a_noise_begins_it_again() -> None:
    driver = _after_a_reply()
    driver.audio(quiet(4_000))
    noise = driver.turn(5_500, ms=100)
    driver.hears("", noise)
    driver.forget()
    driver.audio(quiet(4_900))
    assert driver.events == []
    driver.audio(quiet(100))
    assert driver.sent(InputTimeoutTriggered)


def test_nobody_is_hurried_while_a_message_is_waited_for() -> None:
    driver = _after_a_reply()
    driver.responder.keeps_audio = True
    driver.client(InputAudioClear())
    driver.audio(quiet(6_000))
    assert driver.sent(InputTimeoutTriggered)
    assert not driver.sent(ResponseCreated)


def test_the_wait_does_not_end_while_a_reply_is_being_made() -> None:
    driver = _after_a_reply()
    driver.client(ResponseCreate())
    driver.audio(quiet(6_000))
    assert not driver.sent(InputTimeoutTriggered)
    assert not driver.sent(ResponseDone)
