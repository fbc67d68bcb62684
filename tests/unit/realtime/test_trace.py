"""A model's wire in the log: what it names, what it masks, and what it never shows."""

from __future__ import annotations

import base64
import json
import logging
from typing import Any

import pytest

from app import logs
from app.realtime.trace import wire_facts

SOUND = base64.b64encode(b"s" * 4800).decode()

AUDIO: dict[str, dict[str, Any]] = {
    "append": {"type": "input_audio_buffer.append", "event_id": "evt_1", "audio": SOUND},
    "delta": {
        "type": "response.output_audio.delta",
        "response_id": "resp_1",
        "item_id": "item_1",
        "delta": SOUND,
    },
    "beta delta": {"type": "response.audio.delta", "response_id": "resp_1", "delta": SOUND},
    "in an item": {
        "type": "conversation.item.added",
        "item": {"id": "item_1", "content": [{"type": "input_audio", "audio": SOUND}]},
    },
}


@pytest.mark.parametrize("event", AUDIO.values(), ids=AUDIO)
def test_audio_appears_as_its_length(event: dict[str, Any]) -> None:
    facts = wire_facts(json.dumps(event))
    assert SOUND not in str(facts)
    assert "[4800 bytes]" in str(facts)
    assert facts["type"] == event["type"]
    for key in {"event_id", "response_id", "item_id"} & event.keys():
        assert facts[key] == event[key]


SPEECH: dict[str, dict[str, Any]] = {
    "transcript delta": {"type": "response.output_audio_transcript.delta", "delta": "canary"},
    "transcript": {
        "type": "conversation.item.input_audio_transcription.completed",
        "transcript": "canary",
    },
    "arguments": {"type": "response.function_call_arguments.done", "arguments": "canary"},
    "instructions": {"type": "session.update", "session": {"instructions": "canary"}},
    "message": {"type": "error", "error": {"code": "odd", "message": "canary"}},
}


@pytest.mark.parametrize("event", SPEECH.values(), ids=SPEECH)
@pytest.mark.parametrize("show_personal", [False, True])
def test_words_are_masked_unless_personal_data_is_shown(
    event: dict[str, Any], show_personal: bool
) -> None:
    line = _line(wire_facts(json.dumps(event)), show_personal=show_personal)
    assert ("canary" in line) is show_personal
    assert event["type"] in line


SECRETS: dict[str, Any] = {
    "authorization of an mcp server": {"tools": [{"type": "mcp", "authorization": "canary"}]},
    "headers of an mcp server": {"tools": [{"type": "mcp", "headers": {"x-key": "canary"}}]},
    "a client secret": {"client_secret": {"value": "canary"}},
}


@pytest.mark.parametrize("session", SECRETS.values(), ids=SECRETS)
def test_credentials_in_events_are_never_shown(session: dict[str, Any]) -> None:
    text = json.dumps({"type": "session.update", "session": session})
    assert "canary" not in _line(wire_facts(text), show_personal=True)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "(not JSON)"),
        ("nothing", "(not JSON)"),
        ("[" * 100_000, "(not JSON)"),
        ("[]", "(not an object)"),
        ("null", "(not an object)"),
        ("{}", ""),
        ('{"type": null}', "None"),
        ('{"type": 3, "audio": 4, "delta": null, "error": "odd", "call_id": []}', "3"),
    ],
)
def test_a_message_of_any_shape_is_traced(text: str, kind: str) -> None:
    assert wire_facts(text)["type"] == kind


def test_a_function_call_keeps_the_phone_call_s_id_free() -> None:
    facts = wire_facts('{"type": "response.function_call_arguments.done", "call_id": "fc_1"}')
    assert facts["tool_call_id"] == "fc_1"
    assert "call_id" not in facts


def test_the_parts_of_an_event_are_named_by_id_and_status() -> None:
    done = {"type": "response.done", "response": {"id": "resp_1", "status": "failed"}}
    facts = wire_facts(json.dumps(done))
    assert (facts["response_id"], facts["status"]) == ("resp_1", "failed")
    item = {"id": "item_1", "type": "function_call", "name": "find_slot", "arguments": "canary"}
    facts = wire_facts(json.dumps({"type": "response.output_item.done", "item": item}))
    assert (facts["item_id"], facts["item_type"], facts["tool"]) == (
        "item_1",
        "function_call",
        "find_slot",
    )
    assert "canary" not in _line(facts, show_personal=False)


@pytest.mark.parametrize("odd", [None, 3, "x", [], {}, {"id": 3, "status": None, "type": []}])
@pytest.mark.parametrize("part", ["response", "item"])
def test_odd_parts_are_left_out(part: str, odd: Any) -> None:
    facts = wire_facts(json.dumps({"type": "response.done", part: odd}))
    assert not {"response_id", "item_id", "item_type", "status"} & facts.keys()


def test_the_code_of_an_error_is_shown() -> None:
    facts = wire_facts('{"type": "error", "error": {"code": "rate_limit", "message": "Wait"}}')
    assert facts["code"] == "rate_limit"


def _line(facts: dict[str, Any], *, show_personal: bool) -> str:
    """The line of the log for these facts."""
    record = logging.makeLogRecord({"name": "app.realtime", "msg": "<", **facts})
    return logs.JsonFormatter(logs.Redactor(show_personal=show_personal)).format(record)


def test_what_a_tool_answered_appears_as_its_length() -> None:
    item = {"type": "function_call_output", "call_id": "c", "output": '{"digits": "8642"}'}
    facts = wire_facts(json.dumps({"type": "conversation.item.create", "item": item}))
    assert "8642" not in repr(facts)
    assert "[18 characters]" in facts["pii.event"]
