"""Responses of an engine session: created, spoken, cancelled, failed; calls and usage."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.engine.actions import Note, NoteKind, Speak, StopSpeaking
from app.engine.base import Reply, ToolUse
from app.realtime.events import (
    AudioDelta,
    AudioTranscriptDelta,
    ContentPartDone,
    FunctionArgumentsDone,
    InputAudioCommit,
    Item,
    ItemAdded,
    ItemCreate,
    ItemDone,
    OutputItemDone,
    ResponseCancel,
    ResponseConfig,
    ResponseCreate,
    ResponseCreated,
    ResponseDone,
    SessionConfig,
    SessionUpdate,
    TextDelta,
    TextDone,
)
from audio.format import PCM16_16K, PCMA_8K, PCMU_8K
from tests.fakes.engine_parts import speech
from tests.unit.engine.session_driver import Driver, edge, message, names, tool


def create(**overrides: Any) -> ResponseCreate:
    return ResponseCreate(ResponseConfig(**overrides), event_id="evt_9")


# Speaking -----------------------------------------------------------------------------------------


def test_the_first_response_opens_the_dialogue() -> None:
    driver = Driver()
    driver.client(ResponseCreate())
    assert driver.speak().text == "Welcome."


def test_a_response_without_anything_new_repeats_the_last_words() -> None:
    driver = Driver()
    driver.client(ResponseCreate())
    driver.speaks()
    driver.client(ResponseCreate())
    assert driver.responder.log == ["open", "repeat"]


def test_a_greeting_of_the_client_is_the_greeting() -> None:
    driver = Driver()
    driver.client(ResponseCreate(ResponseConfig(metadata={"say": "Good day."})))
    driver.speaks()
    driver.client(ResponseCreate())
    assert driver.responder.log == ["repeat"]


def test_nobody_who_leaves_a_message_is_asked_again() -> None:
    driver = Driver()
    driver.client(ResponseCreate())
    driver.speaks()
    driver.responder.keeps_audio = True
    driver.forget()
    driver.client(ResponseCreate())
    assert driver.done().response.output == ()


def test_typed_text_is_answered() -> None:
    driver = Driver()
    driver.client(message("[keypad] 5"))
    driver.client(ResponseCreate())
    assert driver.responder.log == ["read [keypad] 5"]


def test_a_sentence_in_the_metadata_is_spoken_word_for_word_and_answers_nothing() -> None:
    driver = Driver()
    driver.client(message("hello"))
    driver.client(create(metadata={"say": "Good bye!"}, instructions="Say good bye"))
    assert driver.speak().text == "Good bye!"
    assert driver.works(Note) == []
    driver.speaks()
    driver.client(ResponseCreate())
    assert driver.speak().text == "You said hello."
    assert driver.sent(ResponseDone)[0].response.metadata == {"say": "Good bye!"}


@pytest.mark.parametrize("wanted", [PCMU_8K, PCMA_8K])
def test_speech_goes_out_in_the_format_of_the_session(wanted: Any) -> None:
    driver = Driver(output_format=wanted)
    driver.client(ResponseCreate())
    driver.speaks(400)
    assert sum(len(delta.audio) for delta in driver.sent(AudioDelta)) == 400 * 8


def test_a_response_may_have_a_format_and_a_voice_of_its_own() -> None:
    driver = Driver(voice="marin")
    driver.client(create(output_format=PCMU_8K, voice="cedar"))
    assert driver.speak().voice == "cedar"
    driver.speaks(400)
    assert sum(len(delta.audio) for delta in driver.sent(AudioDelta)) == 400 * 8


def test_the_words_come_with_the_first_sound_and_once() -> None:
    driver = Driver()
    driver.client(ResponseCreate())
    assert not driver.sent(AudioTranscriptDelta)
    response_id = driver.speak().response_id
    for _ in range(2):
        driver.take(driver.session.on_speech(response_id, speech(200, 24_000)))
    assert [delta.delta for delta in driver.sent(AudioTranscriptDelta)] == ["Welcome."]


def test_text_instead_of_speech_is_complete_at_once() -> None:
    driver = Driver(output_modalities=("text",))
    driver.client(ResponseCreate())
    assert names(driver.events) == [
        "ResponseCreated",
        "OutputItemAdded",
        "ItemAdded",
        "ContentPartAdded",
        "TextDelta",
        "TextDone",
        "ContentPartDone",
        "OutputItemDone",
        "ItemDone",
        "ResponseDone",
    ]
    assert not driver.works(Speak)
    assert driver.sent(TextDelta)[0].delta == driver.sent(TextDone)[0].text == "Welcome."
    assert driver.done().response.output[0].content[0].type == "output_text"


def test_usage_counts_what_was_answered_and_what_was_said() -> None:
    driver = Driver()
    driver.turn(ms=1000)
    driver.hears("hello")
    driver.speaks(400)
    usage = driver.done().response.usage
    assert usage is not None
    assert (usage.input_audio_tokens, usage.input_text_tokens) == (15, 0)
    assert (usage.output_audio_tokens, usage.output_text_tokens) == (8, 4)
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens == 27


def test_usage_counts_text_in() -> None:
    driver = Driver(output_modalities=("text",))
    driver.client(message("12345678"))
    driver.client(ResponseCreate())
    usage = driver.done().response.usage
    assert usage is not None
    assert (usage.input_text_tokens, usage.input_tokens) == (2, 2)


# One at a time ------------------------------------------------------------------------------------


def test_a_second_response_is_refused_while_one_is_live() -> None:
    driver = Driver()
    driver.client(ResponseCreate())
    error = driver.refused(ResponseCreate(event_id="evt_2"))
    assert error.code == "conversation_already_has_active_response"
    assert error.client_event_id == "evt_2"
    driver.speaks()
    assert driver.done().response.status == "completed"


def test_items_created_while_a_response_runs_follow_it_and_wait_for_the_next() -> None:
    driver = Driver()
    driver.client(ResponseCreate())
    driver.client(message("one"))
    driver.client(message("two"))
    driver.speaks()
    reply, one, two = (added.item.id for added in driver.sent(ItemAdded))
    assert [added.previous_item_id for added in driver.sent(ItemAdded)] == [None, reply, one]
    driver.client(ResponseCreate())
    assert driver.responder.log == ["open", "read one", "read two"]
    assert driver.sent(ItemAdded)[-1].previous_item_id == two


# Cancel -------------------------------------------------------------------------------------------


def test_cancel_closes_the_live_response() -> None:
    driver = Driver()
    driver.client(ResponseCreate())
    response_id = driver.speak().response_id
    driver.client(ResponseCancel(response_id))
    done = driver.done().response
    assert (done.status, done.status_reason) == ("cancelled", "client_cancelled")
    assert driver.works(StopSpeaking)
    assert driver.sent(OutputItemDone)[0].item.content[0].transcript == ""


def test_a_late_cancel_by_id_leaves_the_next_response_alone() -> None:
    driver = Driver()
    driver.client(ResponseCreate())
    first = driver.speak().response_id
    driver.client(ResponseCancel(first))
    driver.client(ResponseCreate())
    error = driver.refused(ResponseCancel(first, event_id="evt_3"))
    assert (error.code, error.client_event_id) == ("response_cancel_not_active", "evt_3")
    driver.speaks()
    assert [done.response.status for done in driver.sent(ResponseDone)] == [
        "cancelled",
        "completed",
    ]


def test_nothing_to_cancel_is_harmless() -> None:
    driver = Driver()
    assert driver.refused(ResponseCancel()).code == "response_cancel_not_active"
    driver.client(ResponseCreate())
    assert driver.sent(ResponseCreated)


def test_a_cancelled_question_is_not_answered_later() -> None:
    driver = Driver(turn_detection=None)
    driver.audio(speech(500))
    driver.client(InputAudioCommit())
    driver.client(ResponseCreate())
    driver.client(ResponseCancel())
    driver.hears("hello")
    driver.client(ResponseCreate())
    assert driver.responder.log == ["open"]


def test_an_interrupted_question_is_answered_with_the_next() -> None:
    driver = Driver()
    first = driver.turn()
    driver.client(ResponseCreate())  # does not wait for the session's own
    driver.audio(speech(100), edge(True, 1500))
    assert driver.done().response.status_reason == "turn_detected"
    driver.hears("one", first)
    driver.audio(speech(500), edge(False, 2100))
    driver.hears("two")
    assert driver.responder.log == ["hear one", "hear two"]


def test_an_interrupted_noise_is_not_answered_with_the_next() -> None:
    driver = Driver()
    first = driver.turn()
    driver.client(message("hello"))
    driver.client(ResponseCreate())
    second = driver.turn(1500)
    driver.hears("", first)
    driver.hears("two", second)
    assert driver.responder.log == ["read hello", "hear two"]


# Failure ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spoken_ms", [0, 200])
def test_a_failed_voice_fails_the_response_and_closes_everything(spoken_ms: int) -> None:
    driver = Driver()
    driver.client(ResponseCreate())
    response_id = driver.speak().response_id
    if spoken_ms:
        driver.take(driver.session.on_speech(response_id, speech(spoken_ms, 24_000)))
    driver.take(driver.session.on_speech_failed(response_id, "synthesizer_lost", "it died"))
    done = driver.done().response
    assert done.status == "failed"
    assert done.error is not None
    assert (done.error.type, done.error.code) == ("server_error", "synthesizer_lost")
    assert names(driver.events)[-4:] == [
        "ContentPartDone",
        "OutputItemDone",
        "ItemDone",
        "ResponseDone",
    ]
    assert bool(driver.sent(ContentPartDone)[0].part.transcript) is bool(spoken_ms)


def test_the_session_goes_on_after_a_failed_response() -> None:
    driver = Driver()
    driver.client(ResponseCreate())
    driver.take(driver.session.on_speech_failed(driver.speak().response_id, "lost", "it died"))
    driver.turn()
    driver.hears("hello")
    driver.speaks()
    assert [d.response.status for d in driver.sent(ResponseDone)] == ["failed", "completed"]


# Tools --------------------------------------------------------------------------------------------


def test_a_reply_speaks_then_calls_and_goes_on_with_the_output() -> None:
    driver = Driver(tools=(tool("lookup"),))
    driver.turn()
    driver.hears("call lookup")
    driver.speaks()
    (call,) = driver.sent(FunctionArgumentsDone)
    assert (call.name, call.arguments, call.output_index) == ("lookup", '{"now": true}', 1)
    items = driver.done().response.output
    assert [item.type for item in items] == ["message", "function_call"]
    assert [(item.id or "").partition("_")[0] for item in items] == ["msg", "fc"]
    output = Item(type="function_call_output", call_id=call.call_id, output="42")
    driver.client(ItemCreate(output))
    driver.client(ResponseCreate())
    assert driver.responder.log[-1] == "result lookup 42"
    assert driver.speak().text == "lookup said 42."


def test_a_call_without_words_has_its_own_events_only() -> None:
    driver = Driver(tools=(tool("lookup"),))
    driver.client(message("quietly lookup"))
    driver.forget()
    driver.client(ResponseCreate())
    assert names(driver.events) == [
        "ResponseCreated",
        "OutputItemAdded",
        "ItemAdded",
        "FunctionArgumentsDelta",
        "FunctionArgumentsDone",
        "OutputItemDone",
        "ItemDone",
        "ResponseDone",
    ]
    assert [item.item.status for item in driver.sent(ItemDone)] == ["completed"]


@pytest.mark.parametrize(
    "settings", [{}, {"tools": (tool("lookup"),), "tool_choice": "none"}], ids=["none", "choice"]
)
def test_a_tool_that_is_not_offered_is_not_called_and_the_dialogue_is_told(
    settings: dict[str, Any],
) -> None:
    driver = Driver(**settings)
    driver.client(message("call lookup"))
    driver.client(ResponseCreate())
    assert driver.responder.offered == frozenset()
    assert driver.responder.log[-1] == 'result lookup {"error": "this tool is not available"}'
    assert driver.speak().text.startswith("One moment. lookup said")
    assert driver.works(Note) == [Note(NoteKind.TOOL_NOT_OFFERED)]


def test_a_call_is_completed_by_what_its_tool_says_of_itself() -> None:
    # A dialogue file cannot know the operator's destinations; a name left out is the first one.
    properties = {
        "destination": {"type": "string", "enum": ["front_desk", "anna"]},
        "ring_s": {"type": "integer", "default": 20},
        "note": {"type": "string"},
        "summary": {"type": "string", "enum": ["none"]},
        "now": {"type": "boolean", "enum": [False]},
    }
    required = ["destination", "ring_s", "note", "now", "unknown"]
    parameters = {"type": "object", "properties": properties, "required": required}
    driver = Driver(tools=({**tool("lookup"), "parameters": parameters},))
    driver.client(message("call lookup"))
    driver.client(ResponseCreate())
    driver.speaks()
    (call,) = driver.sent(FunctionArgumentsDone)
    assert json.loads(call.arguments) == {"now": True, "destination": "front_desk", "ring_s": 20}


@pytest.mark.parametrize(
    "parameters", [None, "x", {"required": "x"}, {"required": [[], "a"], "properties": {"a": 1}}]
)
def test_a_tool_that_says_nothing_of_itself_is_called_as_the_dialogue_says(parameters: Any) -> None:
    driver = Driver(tools=({**tool("lookup"), "parameters": parameters},))
    driver.client(message("call lookup"))
    driver.client(ResponseCreate())
    driver.speaks()
    (call,) = driver.sent(FunctionArgumentsDone)
    assert call.arguments == '{"now": true}'


def test_a_dialogue_that_calls_missing_tools_for_ever_is_stopped() -> None:
    driver = Driver(output_modalities=("text",))
    again = Reply(tools=(ToolUse(name="lookup", arguments={}),))
    driver.responder.tool_result = lambda name, output: again  # type: ignore[method-assign]
    driver.client(message("quietly lookup"))
    driver.client(ResponseCreate())
    assert driver.done().response.output == ()


def test_the_dialogue_knows_which_tools_there_are() -> None:
    driver = Driver(tools=(tool("lookup"), tool("end_call")))
    driver.client(ResponseCreate())
    assert driver.responder.offered == {"lookup", "end_call"}


# Out of band --------------------------------------------------------------------------------------


def test_a_sentence_out_of_band_runs_beside_the_reply_and_is_not_stored() -> None:
    driver = Driver()
    driver.client(ResponseCreate())
    aside = {"metadata": {"say": "Noted."}, "output_modalities": ("text",)}
    driver.forget()
    driver.client(create(conversation="none", **aside))
    done = driver.done().response
    assert (done.status, done.conversation_id) == ("completed", None)
    assert done.output[0].content[0].text == "Noted."
    assert not driver.sent(ItemAdded)


def test_speech_out_of_band_is_not_interrupted_by_the_caller() -> None:
    driver = Driver()
    driver.client(create(conversation="none", metadata={"say": "Noted."}))
    driver.audio(speech(100), edge(True, 0))
    driver.speaks()
    assert driver.done().response.status == "completed"


def test_speech_out_of_band_is_cancelled_by_its_id() -> None:
    driver = Driver()
    driver.client(create(conversation="none", metadata={"say": "Noted."}))
    driver.client(ResponseCancel(driver.speak().response_id))
    assert driver.done().response.status_reason == "client_cancelled"


def test_a_question_out_of_band_fails_instead_of_being_made_up() -> None:
    driver = Driver()
    driver.client(create(conversation="none", instructions="Summarize."))
    done = driver.done().response
    assert done.status == "failed"
    assert done.error is not None
    assert done.error.code == "offline_engine_cannot_answer"
    assert driver.responder.log == []


def test_responses_out_of_band_have_a_limit() -> None:
    driver = Driver()
    for _ in range(4):
        driver.client(create(conversation="none", metadata={"say": "Noted."}))
    error = driver.refused(create(conversation="none", metadata={"say": "Noted."}))
    assert error.code == "too_many_responses"


# Requests -----------------------------------------------------------------------------------------


def test_input_of_its_own_takes_the_place_of_the_conversation() -> None:
    driver = Driver(tools=(tool("lookup"),))
    driver.client(message("quietly lookup"))
    driver.client(ResponseCreate())
    call_id = driver.sent(FunctionArgumentsDone)[0].call_id
    driver.client(message("one"))
    given = (
        message("two").item,
        message("three", "system").item,
        Item(type="function_call_output", call_id=call_id, output="42"),
        Item(type="function_call_output", call_id="unknown", output="43"),
    )
    driver.client(create(input=given))
    assert driver.responder.log[1:] == ["read two", "result lookup 42"]


def test_instructions_are_taken_and_noted_as_ignored() -> None:
    driver = Driver()
    driver.client(create(instructions="Speak like a pirate."))
    assert driver.works(Note) == [Note(NoteKind.INSTRUCTIONS_IGNORED)]
    assert driver.speak().text == "Welcome."


@pytest.mark.parametrize(
    ("overrides", "param"),
    [
        ({"output_modalities": ("text", "audio")}, "response.output_modalities"),
        ({"conversation": "other"}, "response.conversation"),
        ({"tools": ({"type": "mcp"},)}, "response.tools[0]"),
        ({"voice": ""}, "response.audio.output.voice"),
        ({"tool_choice": "maybe"}, "response.tool_choice"),
        ({"tool_choice": {"type": "function", "name": "none"}}, "response.tool_choice"),
        ({"tool_choice": {"type": "mcp", "server_label": "x"}}, "response.tool_choice"),
        ({"metadata": {"k" * 65: "v"}}, "response.metadata"),
        ({"metadata": {"k": "v" * 513}}, "response.metadata"),
        ({"metadata": {str(n): "v" for n in range(17)}}, "response.metadata"),
    ],
)
def test_a_response_with_wrong_settings_is_refused(overrides: dict[str, Any], param: str) -> None:
    driver = Driver()
    error = driver.refused(create(**overrides))
    assert (error.param, error.client_event_id) == (param, "evt_9")
    assert not driver.sent(ResponseCreated)


def test_a_response_with_an_unknown_format_is_refused() -> None:
    driver = Driver()
    error = driver.refused(create(output_format=PCM16_16K))
    assert error.param == "response.audio.output.format"


def test_the_voice_is_settled_by_the_first_sound() -> None:
    driver = Driver(voice="marin")
    driver.client(ResponseCreate())
    driver.speaks()
    assert driver.refused(create(voice="cedar")).code == "cannot_update_voice"
    update = SessionUpdate(SessionConfig(voice="cedar"), event_id="evt_5")
    error = driver.refused(update)
    assert (error.code, error.client_event_id) == ("cannot_update_voice", "evt_5")
    driver.client(SessionUpdate(SessionConfig(voice="marin")))
    assert names(driver.events)[-1] == "SessionUpdated"
