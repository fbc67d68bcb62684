"""Calls through servers that differ from OpenAI: no detail of theirs costs a caller the call."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from app.events import AgentSaid, CallerSaid
from app.realtime import events as ev
from app.realtime.dialect import BETA, GA
from tests.fakes.voice import Reply, ScriptedVoiceServer, Trouble
from tests.integration.server import GREETING, trunkline

Message = dict[str, Any]


def without(*types: str) -> Callable[[Message], Message | None]:
    return lambda message: None if message["type"] in types else message


def lean_ends(message: Message) -> Message:
    if message["type"] == "response.done":
        return {"type": "response.done", "response": {"id": message["response"]["id"]}}
    return message


def no_ids(message: Message) -> Message:
    if message["type"].startswith("response.output_audio"):
        return {k: v for k, v in message.items() if k not in {"response_id", "item_id"}}
    return message


def odd_session(message: Message) -> Message:
    if message["type"] == "session.updated":
        session = message["session"]
        session.update(tools={}, output_modalities="audio", max_output_tokens="4096", expires_at="")
        session["audio"]["output"].update(voice={"name": "Ava"}, speed="normal")
        session["audio"]["input"].update(noise_reduction="none", transcription="whisper")
        session["audio"]["input"]["turn_detection"] = {
            **(session["audio"]["input"]["turn_detection"] or {}),
            "type": "azure_semantic_vad",
            "threshold": "high",
        }
    return message


def odd_values(message: Message) -> Message:
    response = message.get("response")
    if response is not None:
        response.update(status="odd", metadata={"n": 1}, usage={"total_tokens": -1}, object=7)
        response.update(status_details="none", output_modalities="audio", conversation_id=5)
    for item in [message["item"]] if "item" in message else []:
        item.update(status=3, object=None)
        if "content" in item:
            item["content"] = [None, *item["content"]]
    if "output_index" in message:
        message.update(output_index=None, content_index="first")
    return {**message, "event_id": 12}


def other_names(message: Message) -> Message:
    name = message["type"].replace("response.output_", "response.")
    return {**message, "type": message["type"] if ".item." in name else name}


def other_session(message: Message) -> Message:
    """A session that was asked for in one dialect, and is confirmed in the other."""
    if message["type"] != "session.updated":
        return message
    session = GA.decode_server(json.dumps(message))
    assert isinstance(session, ev.SessionUpdated)
    beta: Message = json.loads(BETA.encode_server(session, "event_1"))
    return beta


def one_response_id(message: Message) -> Message:
    named: Message = json.loads(re.sub(r'"resp_\w+"', '"resp_same"', json.dumps(message)))
    return named


def sound_of_no_item(message: Message) -> Message:
    return {**message, "item_id": "odd"} if message["type"] == SOUND else message


SOUND = "response.output_audio.delta"

DIFFERENCES: dict[str, Callable[[Message], Message | None]] = {
    "no session.created": without("session.created", "conversation.created"),
    "lean ends": lean_ends,
    "no ids": no_ids,
    "items never closed": without(
        "response.output_item.done",
        "response.content_part.done",
        "response.output_audio_transcript.done",
        "conversation.item.done",
    ),
    "items never added": without(
        "response.output_item.added", "response.content_part.added", "conversation.item.added"
    ),
    "odd session": odd_session,
    "odd values": odd_values,
    "names of the other dialect": other_names,
    "a session in the other dialect": other_session,
    "one response id": one_response_id,
    "sound of no item": sound_of_no_item,
}


IN_ORDER = {"no session.created", "items never closed", "items never added"}
"""Differences in what is sent at all; the others are in fields, which are counted."""


@pytest.mark.parametrize("name", DIFFERENCES)
async def test_a_call_goes_through_a_server_that_differs(name: str) -> None:
    voice = ScriptedVoiceServer(
        trouble=Trouble(rewrite=DIFFERENCES[name]),
        replies=[Reply(text=GREETING, audio_ms=400), Reply(text="It is noon.", audio_ms=400)],
        heard=["What time is it?"],
    )
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear(ms=300)
        await call.hear_quiet(ms=300)
        await call.speak(0.4)
        await call.hear(ms=300)
        await call.hear_quiet(ms=300)
        await call.hang_up()
        call.assert_clean()
        summary = await app.ended(call)
        events = await app.events(call)
    said = [event.text for event in events if isinstance(event, AgentSaid | CallerSaid)]
    assert said == [GREETING, "What time is it?", "It is noon."]
    assert len(voice.connections) == 1
    assert len(voice.latest.of(ev.ResponseCreate)) == 1  # the greeting, asked for once
    assert (summary.counters.responses_failed, summary.counters.voice_errors) == (0, 0)
    assert bool(summary.counters.protocol_surprises) == (name not in IN_ORDER)
