"""Events as records of the history: each kind goes there and back, and what retention blanks."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from typing import Any

import pytest

from app import events
from app.calls.observers.live_feed import plain
from app.events import ModelInput
from app.store.codec import EVENT_TYPES, decode, encode
from app.store.retention import MESSAGES, WORDS, without
from tests.fakes.call_events import BEGAN, filled

# Values that are part of events, and none themselves.
PARTS = {
    "CarrierUsage",
    "Cost",
    "CallCounters",
    "CallSummary",
    "TokenUsage",
    "Analysis",
    "TaskRequest",
}
# What stays of an event when its words are removed: codes, names of ours, ids, numbers.
KEPT_TEXTS = {
    "agent_said": ["item_id"],
    "answer_judged": [],
    "caller_said": ["item_id"],
    "disclosure_heard": ["text"],
    "call_reviewed": [],
    "guardrail_tripped": ["guardrail", "item_id"],
    "message_taken": ["item_id", "recipient"],
    "model_told": ["item_id", "what"],
    "operator_acted": ["action", "by"],
    "opted_out": ["item_id", "number"],
    "task_answered": ["error", "key"],
    "task_started": [],
    "tool_approval_required": ["by", "name", "tool_call_id"],
    "turn_analyzed": ["item_id"],
}
# Events whose texts are no speech, and stay for as long as the call does.
WITHOUT_WORDS = {
    "analysis_failed", "barge_in", "call_admitted", "call_ended", "call_lost", "call_turned_away",
    "call_placed", "call_ringing", "call_not_answered", "carrier_verdict",
    "carrier_reported",    "first_sound", "handed_off", "key_pressed", "recording_started",
    "recording_stopped", "speech_resumed", "stages_timed", "stream_opened", "tool_ran",
    "transfer_ended", "transfer_started", "turn_timed", "voice_ready", "voice_reconnecting",
    "voice_trouble",
}  # fmt: skip


def test_every_event_has_a_record() -> None:
    classes = {
        name
        for name, value in vars(events).items()
        if inspect.isclass(value) and hasattr(value, "__dataclass_fields__")
    }
    assert {one.__name__ for one in EVENT_TYPES.values()} == classes - PARTS


@pytest.mark.parametrize("kind", EVENT_TYPES.values(), ids=EVENT_TYPES)
def test_an_event_comes_back_from_its_record_as_it_was(kind: Any) -> None:
    event = filled(kind, 'ä "quoted" \U0001f600 \ud800 \0')
    record = encode(event, seq=3, at=BEGAN)
    stored = json.loads(json.dumps(record.body))
    assert decode(replace(record, body=stored)) == event


@pytest.mark.parametrize("kind", EVENT_TYPES.values(), ids=EVENT_TYPES)
def test_a_record_with_more_fields_than_we_know_is_read(kind: Any) -> None:
    record = encode(filled(kind), seq=1, at=BEGAN)
    assert decode(replace(record, body={**record.body, "new_field": 1})) == filled(kind)


@pytest.mark.parametrize(
    "change",
    [{"type": "event_of_a_later_version"}, {"body": {}}, {"body": {"digit": 5}}],
    ids=["type", "no fields", "wrong type of field"],
)
def test_a_record_that_we_do_not_know_is_no_event(change: dict[str, Any]) -> None:
    record = encode(filled(events.KeyPressed), seq=1, at=BEGAN)
    assert decode(replace(record, **change)) is None


def texts_with(value: Any, canary: str, path: str = "") -> list[str]:
    if isinstance(value, dict):
        return [
            found
            for key, item in value.items()
            for found in texts_with(item, canary, f"{path}.{key}" if path else key)
        ]
    return [path] if canary in str(value) else []


def test_every_event_with_words_is_known_to_retention() -> None:
    assert {*WORDS, *MESSAGES} == set(KEPT_TEXTS)
    assert set(EVENT_TYPES) == WITHOUT_WORDS | set(KEPT_TEXTS)


@pytest.mark.parametrize("name", KEPT_TEXTS)
def test_retention_leaves_no_word_in_an_event_that_can_still_be_read(name: str) -> None:
    record = encode(filled(EVENT_TYPES[name], "canary"), seq=1, at=BEGAN)
    blank = without(record, {**WORDS, **MESSAGES})
    assert sorted(texts_with(dict(blank.body), "canary")) == KEPT_TEXTS[name]
    assert decode(blank) is not None


def test_a_record_keeps_its_type_when_its_class_is_renamed() -> None:
    assert EVENT_TYPES["model_told"] is ModelInput
    assert plain(filled(ModelInput))["type"] == "model_told"
