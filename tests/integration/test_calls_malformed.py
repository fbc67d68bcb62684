"""Nonsense from either side: what can be ignored is, what cannot costs one call and no other."""

from __future__ import annotations

import base64
import contextlib
import json
from dataclasses import replace

import pytest
from websockets.exceptions import ConnectionClosed

from app.calls.background_work import REFUSALS_RECORDED
from app.carrier.base import CarrierCallId
from app.carrier.twilio.caller_side import render_start
from app.events import CallerSaid, EndReason, ToolRan
from app.realtime.events import (
    AudioDelta,
    Item,
    OutputItemDone,
    Response,
    ResponseCreated,
    ResponseDone,
    ResponseStatus,
    TranscriptionCompleted,
)
from app.realtime.fields import MAX_TEXT_CHARS
from audio.format import PCM16_24K, PCMU_8K
from tests.fakes.carrier import FakeCall
from tests.fakes.voice import Reply, ScriptedVoiceServer, Trouble, tone
from tests.integration.server import App, trunkline

MIB = 2**20


def media(call: FakeCall, payload: str) -> str:
    """A media message with any payload."""
    return json.dumps(
        {
            "event": "media",
            "streamSid": call.identity.stream_id,
            "sequenceNumber": "900000",
            "media": {"track": "inbound", "chunk": "1", "timestamp": "1", "payload": payload},
        }
    )


async def still_talks(call: FakeCall) -> None:
    """Assert that the call goes on as if nothing had been."""
    await call.hear_quiet(ms=300)
    # A phone that was held up by its neighbor skips what it has missed: speak after that.
    sent = call.counters.frames_sent
    await call.wait_for(lambda: call.counters.frames_sent >= sent + 10)
    await call.speak(0.4)
    await call.hear(ms=300)
    await call.hang_up()
    call.assert_clean()


# From the phone -----------------------------------------------------------------------------------


PHONE_NONSENSE = [
    "",
    "not JSON",
    "null",
    "[]",
    "{}",
    '{"event": 7}',
    '{"event": "media"}',
    '{"event": "dtmf", "dtmf": {"digit": "55"}}',
    '{"event": "surprise", "surprise": {"of": "the year"}}',
    '{"event": "media", "streamSid": "MZ1", "media": {"payload": "//8=", "timestamp": "0"}}',
    "[" * 60_000,
    r'{"event": "\ud800"}',
    '{"event": "connected", "protocol": "Call", "version": "1.0.0"}',
    *['{"event": "media", "media": {"payload": 7}}'] * 30,
    *['{"event": "mark", "mark": "x"}'] * 30,
]


async def test_strange_messages_of_the_phone_are_ignored() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear(ms=100)
        for text in PHONE_NONSENSE:
            await call.send_raw(text)
        await still_talks(call)


async def test_sound_that_is_no_base64_is_ignored() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear(ms=100)
        for payload in ("%%%", "", "////A", "\N{GREEK SMALL LETTER ALPHA}"):
            await call.send_raw(media(call, payload))
        await still_talks(call)


async def closed_with(app: App, call: FakeCall, code: int) -> None:
    """Assert that the phone's socket is closed with a code and its call is over."""
    assert (await call.ended()).close_code == code
    assert (await app.ended(call)).reason is EndReason.CARRIER_LOST


@pytest.mark.parametrize("length", [70_000, MIB])
async def test_a_large_frame_of_the_phone_closes_its_socket(length: int) -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call, other = await twilio.call(app.url), await twilio.call(app.url)
        await call.hear(ms=100)
        await call.send_raw(media(call, base64.b64encode(bytes(length)).decode()))
        await closed_with(app, call, 1009)
        await still_talks(other)


async def test_a_binary_frame_of_the_phone_closes_its_socket() -> None:
    voice = ScriptedVoiceServer()
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear(ms=100)
        await call.send_raw(b"\x00" * 160)
        await closed_with(app, call, 1008)


async def test_a_second_start_closes_the_socket() -> None:
    voice = ScriptedVoiceServer()
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear(ms=100)
        other = call.identity.call_id.replace("CA", "CB")
        start = render_start(
            call.identity.stream_id,
            CarrierCallId(other),
            account_id=call.identity.account_id,
            parameters={},
        )
        await call.send_raw(start)
        await closed_with(app, call, 1008)
        assert len(voice.connections) == 1


async def test_a_phone_that_sends_nothing_but_nonsense_is_cut_off() -> None:
    voice = ScriptedVoiceServer()
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear(ms=100)
        for _ in range(20):
            await call.send_raw("nonsense")
        await closed_with(app, call, 1008)


async def test_a_flood_of_messages_closes_the_socket_and_no_other() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call, other = await twilio.call(app.url), await twilio.call(app.url)
        await call.hear(ms=100)
        unknown = '{"event": "unknown"}'
        with contextlib.suppress(ConnectionClosed):
            for _ in range(10_000):
                await call.send_raw(unknown)
        await closed_with(app, call, 1008)
        await still_talks(other)


# From the model -----------------------------------------------------------------------------------


MODEL_NONSENSE = [
    "",
    "not JSON",
    "null",
    "[]",
    '{"type": 7}',
    '{"type": "response.output_audio.delta"}',
    '{"type": "response.output_audio.delta", "response_id": "r", "item_id": "i",'
    ' "output_index": 0, "content_index": 0, "delta": "%%%"}',
    '{"type": "response.done", "response": null}',
    '{"type": "response.done", "response": {"id": "resp_unknown", "status": "completed"}}',
    '{"type": "conversation.item.added", "item": {"type": "something_new", "id": "item_n"}}',
    '{"type": "session.surprise", "event_id": "e"}',
    '{"type": "error"}',
    "[" * 100_000,
    json.dumps({"type": "session.surprise", "filler": "x" * MIB}),
]


async def test_strange_messages_of_the_model_are_ignored() -> None:
    voice = ScriptedVoiceServer(
        replies=[Reply(audio_ms=300)], trouble=Trouble(texts=MODEL_NONSENSE)
    )
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        for text in MODEL_NONSENSE:
            voice.latest.emit_text(text)
        await still_talks(call)
        assert len(voice.connections) == 1


@pytest.mark.parametrize("text", MODEL_NONSENSE, ids=lambda text: text[:32] or "empty")
async def test_a_strange_message_in_the_middle_of_an_answer_leaves_it_whole(text: str) -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=1000, hold_after_ms=500)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.wait_for(lambda: call.counters.agent_audio_ms == 500)
        voice.latest.emit_text(text)
        assert voice.latest.free is not None
        voice.latest.free.release()
        await call.hear_quiet(ms=400)
        await call.hang_up()
        call.assert_clean()
        assert len(voice.connections) == 1
    assert len(call.agent_sound) == PCMU_8K.ms_to_bytes(1000)


async def test_a_model_that_sends_nothing_but_nonsense_is_replaced() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        for _ in range(50):
            voice.latest.emit_text("nonsense")
        await voice.until(lambda: len(voice.connections) == 2)
        await still_talks(call)


async def test_a_mebibyte_of_sound_in_one_event_is_heard_like_any_other() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=200, hold_after_ms=100)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear(ms=100)
        sound = tone(PCM16_24K, 16_000)
        assert len(base64.b64encode(sound)) > MIB - 100_000
        response = voice.latest.free
        assert response is not None
        voice.latest.emit(AudioDelta("resp_1", "item_2", 0, 0, sound))
        response.release()
        await call.wait_for(lambda: call.counters.agent_audio_ms == 16_200)
        await call.barge_in(0.4, after_ms=300)
        await call.wait_for(lambda: len(call.stream.clears) == 1)
        await call.hang_up()
        call.assert_clean()


async def test_a_message_of_the_model_beyond_all_measure_costs_its_connection_only() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        voice.latest.emit_text(json.dumps({"type": "session.surprise", "x": "x" * (17 * MIB)}))
        await voice.until(lambda: len(voice.connections) == 2)
        await still_talks(call)


async def test_megabytes_of_words_are_cut() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        for number in range(5):
            words = TranscriptionCompleted(f"u{number}", 0, "word " * (3 * MIB // 5))
            voice.latest.emit(words)
        said = await app.event(call, CallerSaid, lambda said: said.item_id == "u4")
        assert len(said.text) <= MAX_TEXT_CHARS
        await still_talks(call)
        assert len(voice.connections) == 1


async def test_a_model_that_calls_tools_without_end_fills_neither_log_nor_history() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        running = Response(id="resp_x", status=ResponseStatus.IN_PROGRESS)
        voice.latest.emit(ResponseCreated(running))
        for number in range(500):
            item = Item(type="function_call", id=f"f{number}", call_id=f"c{number}", name="no")
            voice.latest.emit(OutputItemDone("resp_x", number, item))
        await voice.until(lambda: len([i for i in voice.items if i.output is not None]) == 500)
        voice.latest.emit(ResponseDone(replace(running, status=ResponseStatus.COMPLETED)))
        await still_talks(call)
    ran = [event for event in await app.events(call) if isinstance(event, ToolRan)]
    assert len(ran) == 50 + REFUSALS_RECORDED
