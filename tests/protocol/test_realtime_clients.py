"""The engine's events suit the strictest public clients, and clients of either dialect.

The table is the zod schema of npm `@openai/agents-realtime` 0.20 where it requires more than
OpenAI's Python models do, and the keys that OpenAI's own server always sends. Where node is,
and that package as `make test` fetches it, its schemas check every event as well.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from app.realtime import events as ev
from app.realtime.dialect import BETA, GA, Dialect
from app.realtime.fields import MalformedEvent
from app.realtime.protocol import RealtimeProtocol, Side
from audio.format import PCM16_24K, PCMU_8K
from tests.fakes.fetched import JAVASCRIPT, command_of
from tests.unit.engine.session_driver import Driver, message, tool

# Keys that are always there, null or not.
EVENT_KEYS: Final = {
    "conversation.item.added": {"item", "previous_item_id"},
    "conversation.item.done": {"item", "previous_item_id"},
    "input_audio_buffer.committed": {"item_id", "previous_item_id"},
    "conversation.item.input_audio_transcription.completed": {"item_id", "content_index",
                                                              "transcript", "usage"},
    "error": {"error"},
}  # fmt: skip
RESPONSE_KEYS: Final = {
    "object", "id", "status", "status_details", "output", "conversation_id", "output_modalities",
    "max_output_tokens", "audio", "usage", "metadata",
}  # fmt: skip
SESSION_KEYS: Final = {
    "type", "object", "id", "model", "output_modalities", "instructions", "tools", "tool_choice",
    "max_output_tokens", "tracing", "truncation", "prompt", "include", "audio",
}  # fmt: skip
ITEM_KEYS: Final = {
    "message": {"id", "object", "type", "status", "role", "content"},
    "function_call": {"id", "object", "type", "status", "name", "call_id", "arguments"},
    "function_call_output": {"id", "object", "type", "status", "call_id", "output"},
}
PART_KEYS: Final = {
    "input_text": {"text"},
    "output_text": {"text"},
    "text": {"text"},
    "input_audio": {"transcript"},
    "output_audio": {"transcript"},
    "audio": {"transcript"},
}


def _conversation() -> list[dict[str, Any]]:
    """Every kind of event that the engine sends: speech, barge-in, text, tools, cuts, errors."""
    driver = Driver(tools=(tool("lookup"),))
    sent: list[ev.ServerEvent] = [ev.SessionCreated(driver.session.config)]
    sent += driver.client(ev.SessionUpdate(ev.SessionConfig(instructions="x")))
    driver.turn()
    driver.hears("hello")
    driver.speaks()
    said = driver.sent(ev.OutputItemDone)[0].item
    driver.client(ev.ItemTruncate(said.id or "", 0, 100))
    driver.client(ev.ItemRetrieve(said.id or ""))
    for text, choice in (("call lookup", "text"), ("say more", "audio")):
        driver.client(message(text))
        modal = ev.ResponseConfig(output_modalities=(choice,))
        driver.client(ev.ResponseCreate(modal))
        if choice == "audio":
            driver.speaks()
    driver.client(message("[keypad] 1"))
    driver.client(ev.ResponseCreate())
    driver.turn(start_ms=4_000)
    driver.hears("")
    driver.client(ev.ItemDelete("nothing"))
    driver.client(ev.InputAudioClear())
    return [json.loads(GA.encode_server(event, "event_1")) for event in (*sent, *driver.events)]


def _items(event: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [event["item"]] if "item" in event else []
    return [*found, *event.get("response", {}).get("output", [])]


def test_keys_that_openai_always_sends_are_always_sent() -> None:
    kinds = set()
    for event in _conversation():
        kinds.add(event["type"])
        assert "event_id" in event
        assert EVENT_KEYS.get(event["type"], set()) <= set(event), event
        if "response" in event:
            assert set(event["response"]) >= RESPONSE_KEYS, event
        if "session" in event:
            assert set(event["session"]) >= SESSION_KEYS, event
        for item in _items(event):
            kinds.add(item["type"])
            assert set(item) >= ITEM_KEYS[item["type"]], event
        for part in [p for item in _items(event) for p in item.get("content", [])] + [
            event[key] for key in ("part",) if key in event
        ]:
            kinds.add(part["type"])
            assert set(part) >= PART_KEYS[part["type"]], event
    assert {"error", "response.done", "message", "input_audio", "output_audio"} <= kinds


def test_a_committed_turn_has_a_transcript_of_null() -> None:
    events = [e for e in _conversation() if e["type"] == "conversation.item.added"]
    parts = [part for e in events for part in e["item"].get("content", [])]
    spoken = [part for part in parts if part["type"] == "input_audio"]
    assert spoken
    assert all(part["transcript"] is None for part in spoken)


_CHECK: Final = """
import fs from 'node:fs';
const dist = process.argv[2] + '/dist/';
const {realtimeServerEventSchema: schema} = await import(dist + 'openaiRealtimeEvents.mjs');
const {realtimeMessageItemSchema: message} = await import(dist + 'items.mjs');
for (const event of JSON.parse(fs.readFileSync(0))) {
  const read = schema.safeParse(event);
  if (!read.success && event.type !== 'input_audio_buffer.timeout_triggered')
    console.log(event.type, JSON.stringify(read.error.issues));
  const item = event.item;
  if (item?.type === 'message' && event.type.startsWith('conversation.item.')) {
    const kept = message.safeParse({...item, itemId: item.id});
    if (!kept.success) console.log(event.type, JSON.stringify(kept.error.issues));
  }
}
"""


def test_the_javascript_client_reads_every_event(tmp_path: Path) -> None:
    script = tmp_path / "check.mjs"
    command = command_of(script, JAVASCRIPT)
    script.write_text(_CHECK)
    done = subprocess.run(
        [*command, str(JAVASCRIPT)],
        input=json.dumps(_conversation()),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""


# Dialects of clients ------------------------------------------------------------------------------

FLAT: Final = {"input_audio_format": "g711_ulaw", "output_audio_format": "g711_ulaw", "voice": "a"}
NESTED: Final = {"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcmu"}}}}


def _update(session: dict[str, Any]) -> str:
    return json.dumps({"type": "session.update", "event_id": "evt_1", "session": session})


@pytest.mark.parametrize("announced", [GA, BETA])
@pytest.mark.parametrize(("session", "spoken"), [(FLAT, BETA), (NESTED, GA)])
def test_the_first_update_shows_the_dialect(
    announced: Dialect, session: dict[str, Any], spoken: Dialect
) -> None:
    server = RealtimeProtocol(Side.SERVER, announced)
    update = server.receive(_update(session))
    assert isinstance(update, ev.SessionUpdate)
    assert update.session.input_format == PCMU_8K
    assert server.dialect is spoken
    server.send(ev.SessionCreated(ev.SessionConfig(id="s")))
    where = json.loads(server.send(ev.SessionUpdated(ev.SessionConfig(input_format=PCMU_8K))))
    assert ("input_audio_format" in where["session"]) == (spoken is BETA)


@pytest.mark.parametrize("announced", [GA, BETA])
@pytest.mark.parametrize("session", [{"instructions": "x"}, {"tools": []}, {}])
def test_an_update_that_both_dialects_have_changes_nothing(
    announced: Dialect, session: dict[str, Any]
) -> None:
    server = RealtimeProtocol(Side.SERVER, announced)
    server.receive(_update(session))
    assert server.dialect is announced


@pytest.mark.parametrize("key", ["modalities", "input_audio_format", "voice", "turn_detection"])
def test_a_field_of_the_other_dialect_is_never_left_out_in_silence(key: str) -> None:
    server = RealtimeProtocol(Side.SERVER)
    server.receive(_update(NESTED))
    for session in ({**NESTED, key: "x"}, {key: "x"}):
        with pytest.raises(MalformedEvent) as caught:
            server.receive(_update(session))
        assert (caught.value.code, caught.value.param) == ("unknown_parameter", f"session.{key}")
        assert caught.value.event_id == "evt_1"


def test_all_fields_that_were_not_taken_are_named() -> None:
    server = RealtimeProtocol(Side.SERVER)
    server.receive(_update(NESTED))
    with pytest.raises(MalformedEvent) as caught:
        server.receive(_update(FLAT))
    assert all(f"session.{name}" in caught.value.message for name in FLAT)


def test_the_defaults_are_pcm_in_both_dialects() -> None:
    config = Driver().session.config
    assert config.input_format == PCM16_24K
    for dialect in (GA, BETA):
        assert dialect.encode_server(ev.SessionCreated(config), "event_1")
