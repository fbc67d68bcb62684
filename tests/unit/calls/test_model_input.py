"""Things that the model is told: those that are recorded, and those that are not."""

from __future__ import annotations

import pytest

from app.calls.model_input import MAX_CHARS, model_input
from app.events import CallId
from app.realtime.events import (
    ClientEvent,
    ContentPart,
    InputAudioAppend,
    Item,
    ItemCreate,
    ItemTruncate,
    ResponseConfig,
    ResponseCreate,
    SessionConfig,
    SessionUpdate,
)


def item(role: str | None, text: str, **fields: str) -> ItemCreate:
    part = ContentPart(type="input_text", text=text)
    return ItemCreate(Item(type="message", id="i1", role=role, content=(part,), **fields))


@pytest.mark.parametrize(
    ("event", "what", "text"),
    [
        (ItemTruncate("i1", 0, 420), "truncated", ""),
        (item("system", "Be brief."), "note", "Be brief."),
        (item("system", "x" * 2_000), "note", "x" * MAX_CHARS),
        (SessionUpdate(SessionConfig(instructions="Hi.", voice="ash")), "settings", None),
        (ResponseCreate(ResponseConfig(instructions="Say hello.")), "asked", "Say hello."),
    ],
)
def test_what_neither_party_said_is_recorded(
    event: ClientEvent, what: str, text: str | None
) -> None:
    told = model_input(event, CallId("c"), 7)
    assert told is not None
    assert (told.what, told.at_ms) == (what, 7)
    if text is None:
        assert {"instructions", "voice"} <= set(told.text.split(", "))
        assert "Hi." not in told.text
    else:
        assert told.text == text
    assert told.heard_ms == (420 if what == "truncated" else None)


@pytest.mark.parametrize(
    "event",
    [
        InputAudioAppend(b"\0\0"),
        item("user", "1234"),
        item("assistant", "Hello."),
        ItemCreate(Item(type="function_call_output", call_id="c1", output='{"pin": 1234}')),
        ResponseCreate(),
        ResponseCreate(ResponseConfig()),
    ],
)
def test_sound_keys_words_and_answers_of_tools_are_not(event: ClientEvent) -> None:
    assert model_input(event, CallId("c"), 7) is None
