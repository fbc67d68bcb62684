"""Reading of JSON fields and of the spellings that servers have for them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.errors import LocalProtocolError
from app.realtime import events as ev
from app.realtime.dialect import BETA, GA
from app.realtime.fields import MAX_TEXT_CHARS, Fields, MalformedEvent
from audio.format import PCM16_24K, PCMA_8K, PCMU_8K, AudioFormat, Encoding


def _session(spelled: dict[str, Any]) -> ev.SessionConfig:
    event = GA.decode_server(json.dumps({"type": "session.updated", "session": spelled}))
    assert isinstance(event, ev.SessionUpdated)
    return event.session


def _malformed(spelled: dict[str, Any]) -> MalformedEvent:
    """The error that a client is told of; a server's settings are read leniently."""
    with pytest.raises(MalformedEvent) as caught:
        GA.decode_client(json.dumps({"type": "session.update", "session": spelled}))
    return caught.value


@pytest.mark.parametrize(
    ("value", "count"), [(0, 0), (12, 12), (12.0, 12), (12.7, 12), (None, 7), (2**53, 2**53)]
)
def test_whole_numbers_are_read_leniently(value: Any, count: int) -> None:
    assert Fields({"n": value}).count("n", 7) == count


@pytest.mark.parametrize("value", [True, "1", -1, -0.5, 2**53 + 2, 10**400, float("nan"), []])
def test_what_is_no_count_is_malformed(value: Any) -> None:
    with pytest.raises(MalformedEvent):
        Fields({"n": value}).count("n", 7)


@pytest.mark.parametrize("kind", ["conversation.item.input_audio_transcription.completed", "error"])
def test_long_texts_of_a_server_are_cut_and_noted(kind: str) -> None:
    long = "word " * 200_000
    spelled = {"type": kind, "item_id": "u1", "transcript": long, "error": {"message": long}}
    oddities: list[str] = []
    event = GA.decode_server(json.dumps(spelled), oddities)
    text = event.error.message if isinstance(event, ev.ErrorEvent) else event.transcript  # type: ignore[union-attr]
    assert text == long[:MAX_TEXT_CHARS]
    assert any(f"at most {MAX_TEXT_CHARS} characters" in oddity for oddity in oddities)


def test_long_texts_of_a_client_are_its_own_affair() -> None:
    long = "word " * 200_000
    part = {"type": "input_text", "text": long}
    item = {"type": "message", "role": "user", "content": [part]}
    event = GA.decode_client(json.dumps({"type": "conversation.item.create", "item": item}))
    assert isinstance(event, ev.ItemCreate)
    assert event.item.content[0].text == long


def test_a_required_field_may_not_be_missing() -> None:
    for read in (Fields({}).text, Fields({}).count, Fields({}).number, Fields({}).child):
        with pytest.raises(MalformedEvent) as caught:
            read("x")
        assert caught.value.code == "missing_required_parameter"


def test_an_error_names_the_whole_path() -> None:
    error = _malformed({"audio": {"input": {"format": {"type": "audio/opus"}}}})
    assert error.param == "session.audio.input.format.type"
    assert error.code == "invalid_value"


def test_an_error_names_the_place_in_an_array() -> None:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text"}, {"type": 1}]}
    with pytest.raises(MalformedEvent) as caught:
        GA.decode_client(
            json.dumps({"type": "conversation.item.create", "item": item, "event_id": "evt_9"})
        )
    assert caught.value.param == "item.content[1].type"
    assert caught.value.event_id == "evt_9"


@pytest.mark.parametrize(
    ("spelled", "known"),
    [
        ({"type": "audio/pcm", "rate": 24000}, PCM16_24K),
        ({"type": "audio/pcm"}, PCM16_24K),
        ({"type": "audio/pcm", "rate": 16000}, AudioFormat(Encoding.PCM16, 16_000)),
        ({"type": "audio/pcmu"}, PCMU_8K),
        ({"type": "audio/pcmu", "rate": 8000}, PCMU_8K),
        ({"type": "audio/pcma"}, PCMA_8K),
    ],
)
def test_audio_formats_are_read_from_objects(spelled: dict[str, Any], known: AudioFormat) -> None:
    assert _session({"audio": {"output": {"format": spelled}}}).output_format == known


@pytest.mark.parametrize(
    "spelled",
    ["pcm16", {}, {"type": "audio/pcm", "rate": 0}, {"type": "audio/pcmu", "rate": 16000}, 3],
)
def test_an_audio_format_is_never_guessed(spelled: Any) -> None:
    _malformed({"audio": {"output": {"format": spelled}}})


def test_beta_knows_its_own_format_names_only() -> None:
    text = '{"type":"session.updated","session":{"input_audio_format":"audio/pcmu"}}'
    with pytest.raises(MalformedEvent):
        BETA.decode_server(text)


def test_a_format_that_ga_has_no_name_for_is_our_bug() -> None:
    session = ev.SessionConfig(input_format=AudioFormat(Encoding.PCMU, 16_000))
    with pytest.raises(LocalProtocolError):
        GA.encode_client(ev.SessionUpdate(session), "evt_1")


def test_null_turns_off_and_absence_leaves_alone() -> None:
    off = _session(
        {"audio": {"input": {"turn_detection": None, "transcription": None}}, "tracing": None}
    )
    assert (off.turn_detection, off.transcription, off.tracing) == (None, None, None)
    absent = _session({"audio": {"input": {}, "output": None}})
    assert absent.turn_detection is ev.UNSET
    assert absent.transcription is ev.UNSET
    assert absent.tracing is ev.UNSET


@pytest.mark.parametrize("spelled", [{"type": "none"}, {"type": None}, {}])
def test_servers_have_other_words_for_no_turn_detection(spelled: dict[str, Any]) -> None:
    assert _session({"audio": {"input": {"turn_detection": spelled}}}).turn_detection is None


def test_an_unknown_turn_detection_is_malformed() -> None:
    error = _malformed({"audio": {"input": {"turn_detection": {"type": "psychic"}}}})
    assert error.param == "session.audio.input.turn_detection.type"


def test_a_custom_voice_is_an_object() -> None:
    assert _session({"audio": {"output": {"voice": {"id": "voice_1"}}}}).voice == "voice_1"
    assert _malformed({"audio": {"output": {"voice": {}}}}).param == "session.audio.output.voice.id"


def test_a_token_limit_is_a_number_or_inf() -> None:
    assert _session({"max_output_tokens": "inf"}).max_output_tokens == "inf"
    assert _session({"max_output_tokens": 300}).max_output_tokens == 300
    _malformed({"max_output_tokens": "many"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("instructions", 5),
        ("tools", {}),
        ("tools", ["lookup"]),
        ("tool_choice", 5),
        ("parallel_tool_calls", "yes"),
        ("output_modalities", "audio"),
        ("audio", []),
        ("expires_at", "soon"),
        ("reasoning", "low"),
    ],
)
def test_settings_of_the_wrong_type_are_malformed(key: str, value: Any) -> None:
    assert str(_malformed({key: value}).param).startswith(f"session.{key}")


@pytest.mark.parametrize("metadata", [{"n": 1}, "x", [1]])
def test_metadata_is_text_by_text(metadata: Any) -> None:
    with pytest.raises(MalformedEvent):
        GA.decode_client(
            json.dumps({"type": "response.create", "response": {"metadata": metadata}})
        )


def test_speech_may_start_without_saying_where() -> None:
    event = GA.decode_server('{"type":"input_audio_buffer.speech_started"}')
    assert event == ev.SpeechStarted("", 0)


def test_items_of_other_kinds_are_carried_along() -> None:
    item = {"type": "mcp_call", "id": "mcp_1", "server_label": "x", "content": "anything"}
    event = GA.decode_server(json.dumps({"type": "conversation.item.added", "item": item}))
    assert event == ev.ItemAdded(ev.Item(type="mcp_call", id="mcp_1"))


def test_a_text_or_an_object_is_neither_a_number() -> None:
    with pytest.raises(MalformedEvent):
        Fields({"x": 1}).text_or_object("x")
    with pytest.raises(MalformedEvent):
        Fields({"x": 1}).optional_text("x")
    with pytest.raises(MalformedEvent):
        Fields({"x": "1"}).number("x")


def test_transcription_is_billed_by_time_or_by_tokens() -> None:
    head = '{"type":"conversation.item.input_audio_transcription.completed","item_id":"i"'
    by_time = GA.decode_server(head + ',"transcript":"x","usage":{"seconds":2}}')
    by_token = GA.decode_server(head + ',"transcript":"x","usage":{"total_tokens":9}}')
    unspoken_text = GA.decode_server(head + ',"transcript":"x"}')
    assert by_time == ev.TranscriptionCompleted("i", 0, "x", seconds=2.0)
    assert by_token == ev.TranscriptionCompleted("i", 0, "x", tokens=9)
    assert unspoken_text == ev.TranscriptionCompleted("i", 0, "x")
    assert '"seconds":0.0' in GA.encode_server(unspoken_text, "event_1")


@pytest.mark.parametrize(
    "transcription",
    [ev.Transcription(model=""), ev.Transcription(model="m", language="en", prompt="p")],
)
def test_a_transcription_is_written_as_far_as_it_is_known(
    transcription: ev.Transcription,
) -> None:
    update = ev.SessionUpdate(ev.SessionConfig(transcription=transcription), "evt_1")
    for dialect in (GA, BETA):
        assert dialect.decode_client(dialect.encode_client(update, "evt_1")) == update


def test_semantic_turn_detection_is_the_same_in_beta() -> None:
    detection = ev.SemanticVad(eagerness="low", interrupt_response=False)
    update = ev.SessionUpdate(ev.SessionConfig(turn_detection=detection), "evt_1")
    assert BETA.decode_client(BETA.encode_client(update, "evt_1")) == update


def test_beta_has_no_idle_timeout() -> None:
    detection = ev.ServerVad(idle_timeout_ms=8_000)
    text = BETA.encode_client(ev.SessionUpdate(ev.SessionConfig(turn_detection=detection)), "evt_1")
    assert "idle_timeout_ms" not in text


def test_unset_is_false_and_says_its_name() -> None:
    assert not ev.UNSET
    assert repr(ev.UNSET) == "UNSET"
