"""The scripted server behaves as the real one, or tests that lean on it prove nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest

from app.realtime import events as ev
from app.realtime.connection import VoiceConnection
from app.realtime.websocket import WebSocketModel
from audio.format import PCM16_24K, PCMU_8K, AudioFormat
from tests.fakes.voice import Emit, Expect, Reply, ScriptedVoiceServer, tone
from tests.fakes.waiting import time_limit

_Kind = TypeVar("_Kind")


class Client:
    """A connection and the events that it has received."""

    def __init__(self, connection: VoiceConnection) -> None:
        self.connection = connection
        self.events: list[ev.ServerEvent] = []

    async def next(self, kind: type[_Kind]) -> _Kind:
        """Read on to the next event of a kind."""
        async with time_limit():
            async for event in self.connection:
                self.events.append(event)
                if isinstance(event, kind):
                    return event
        raise AssertionError(f"no {kind.__name__}")

    async def say(self, wire: AudioFormat, speech_ms: int, silence_ms: int = 0) -> None:
        sound = tone(wire, speech_ms) + wire.silence(silence_ms)
        for start in range(0, len(sound), 160):
            await self.connection.send(ev.InputAudioAppend(sound[start : start + 160]))

    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.events]


@asynccontextmanager
async def _client(
    server: ScriptedVoiceServer, wire: AudioFormat = PCMU_8K
) -> AsyncIterator[Client]:
    config = ev.SessionConfig(
        input_format=wire,
        output_format=wire,
        transcription=ev.Transcription(model="whisper-1"),
        turn_detection=ev.ServerVad(silence_duration_ms=200),
    )
    connection = await WebSocketModel(server.url).connect(config)
    try:
        yield Client(connection)
    finally:
        await connection.close()


@pytest.mark.parametrize("wire", [PCMU_8K, PCM16_24K], ids=["pcmu", "pcm16"])
async def test_speech_makes_a_turn_and_a_turn_an_answer(wire: AudioFormat) -> None:
    reply = Reply(audio_ms=600, text="One two three.")
    async with ScriptedVoiceServer(replies=[reply]) as server, _client(server, wire) as client:
        await client.say(wire, 300, silence_ms=400)
        done = await client.next(ev.ResponseDone)
        await server.until(lambda: server.audio == tone(wire, 300) + wire.silence(400))
    turn = ["SpeechStarted", "SpeechStopped", "InputAudioCommitted", "ItemAdded", "ItemDone"]
    turn += ["TranscriptionDelta", "TranscriptionCompleted", "ResponseCreated"]
    assert client.names()[1:9] == turn
    sound = b"".join(event.audio for event in client.events if isinstance(event, ev.AudioDelta))
    assert sound == tone(wire, 600)
    assert done.response.status is ev.ResponseStatus.COMPLETED
    assert done.response.usage is not None
    assert done.response.output[0].content[0].transcript == "One two three."


async def test_speech_interrupts_the_answer() -> None:
    reply = Reply(audio_ms=5_000, hold_after_ms=1_000)
    async with ScriptedVoiceServer(replies=[reply]) as server, _client(server) as client:
        await client.connection.send(ev.ResponseCreate())
        for _ in range(10):
            await client.next(ev.AudioDelta)
        await client.say(PCMU_8K, 200)
        done = await client.next(ev.ResponseDone)
        assert done.response.status is ev.ResponseStatus.CANCELLED
        assert done.response.status_reason == "turn_detected"
        assert done.response.output[0].status == "incomplete"
        assert client.names().count("AudioDelta") == 10


async def test_a_held_answer_goes_on_when_released() -> None:
    reply = Reply(audio_ms=400, hold_after_ms=200)
    async with ScriptedVoiceServer(replies=[reply]) as server, _client(server) as client:
        await client.connection.send(ev.ResponseCreate())
        await client.next(ev.AudioDelta)
        await client.next(ev.AudioDelta)
        assert server.latest.free is not None
        server.latest.free.release()
        done = await client.next(ev.ResponseDone)
        assert done.response.status is ev.ResponseStatus.COMPLETED


async def test_a_second_response_is_refused_while_one_runs() -> None:
    reply = Reply(hold_after_ms=100)
    async with ScriptedVoiceServer(replies=[reply]) as server, _client(server) as client:
        await client.connection.send(ev.ResponseCreate())
        await client.next(ev.ResponseCreated)
        second = await client.connection.send(ev.ResponseCreate())
        error = (await client.next(ev.ErrorEvent)).error
        assert error.code == "conversation_already_has_active_response"
        assert error.client_event_id == second
        await client.connection.send(ev.ResponseCancel())
        done = await client.next(ev.ResponseDone)
        assert done.response.status_reason == "client_cancelled"
        await client.connection.send(ev.ResponseCancel())
        assert (await client.next(ev.ErrorEvent)).error.code == "response_cancel_not_active"
        assert (server.created, server.cancelled) == (2, 2)


async def test_truncating_beyond_the_end_is_an_error() -> None:
    reply = Reply(audio_ms=500)
    async with ScriptedVoiceServer(replies=[reply]) as server, _client(server) as client:
        await client.connection.send(ev.ResponseCreate())
        delta = await client.next(ev.AudioDelta)
        await client.next(ev.ResponseDone)
        await client.connection.send(ev.ItemTruncate(delta.item_id, 0, 501))
        assert (await client.next(ev.ErrorEvent)).error.code == "invalid_value"
        await client.connection.send(ev.ItemTruncate(delta.item_id, 0, 240))
        assert (await client.next(ev.ItemTruncated)).audio_end_ms == 240
        await client.connection.send(ev.ItemTruncate("item_none", 0, 0))
        await client.next(ev.ErrorEvent)
        assert server.truncated[:2] == [(delta.item_id, 501), (delta.item_id, 240)]


async def test_what_it_is_told_to_say_word_for_word_is_its_transcript() -> None:
    async with ScriptedVoiceServer() as server, _client(server) as client:
        config = ev.ResponseConfig(metadata={ev.SAY_METADATA_KEY: "Welcome."})
        await client.connection.send(ev.ResponseCreate(config))
        assert (await client.next(ev.AudioTranscriptDone)).transcript == "Welcome."
        done = await client.next(ev.ResponseDone)
        assert done.response.metadata == {ev.SAY_METADATA_KEY: "Welcome."}


async def test_tools_failures_and_silence_can_be_had_in_turn() -> None:
    replies = [
        Reply(audio_ms=100, tool=("lookup", '{"id": 7}')),
        Reply(error_code="insufficient_quota"),
        Reply(never_starts=True),
    ]
    async with (
        ScriptedVoiceServer(replies=replies, heard=[None]) as server,
        _client(server) as client,
    ):
        await client.connection.send(ev.ResponseCreate())
        assert (await client.next(ev.FunctionArgumentsDone)).arguments == '{"id": 7}'
        assert len((await client.next(ev.ResponseDone)).response.output) == 2
        await client.connection.send(ev.ResponseCreate())
        failed = (await client.next(ev.ResponseDone)).response
        assert failed.status is ev.ResponseStatus.FAILED
        assert failed.error is not None
        assert failed.error.code == "insufficient_quota"
        await client.say(PCMU_8K, 200, silence_ms=300)
        await client.next(ev.TranscriptionFailed)
        await client.connection.send(ev.InputAudioClear())
        await client.next(ev.InputAudioCleared)
        assert client.names().count("ResponseCreated") == 2


async def test_turns_can_be_taken_by_hand() -> None:
    async with ScriptedVoiceServer() as server, _client(server) as client:
        manual = ev.SessionConfig(turn_detection=None)
        await client.connection.send(ev.SessionUpdate(manual))
        await client.next(ev.SessionUpdated)
        await client.connection.send(ev.InputAudioCommit())
        assert (await client.next(ev.ErrorEvent)).error.code == "input_audio_buffer_commit_empty"
        await client.say(PCMU_8K, 300, silence_ms=400)
        await client.connection.send(ev.InputAudioCommit())
        await client.next(ev.InputAudioCommitted)
        assert "SpeechStarted" not in client.names()


async def test_items_are_kept_and_recorded() -> None:
    typed = ev.ContentPart(type="input_text", text="[keypad] 5")
    async with ScriptedVoiceServer() as server, _client(server) as client:
        item = ev.Item(type="message", role="user", content=(typed,))
        await client.connection.send(ev.ItemCreate(item))
        added = (await client.next(ev.ItemAdded)).item
        assert added.id
        await client.connection.send(ev.ItemDelete(added.id))
        await client.next(ev.ItemDeleted)
        assert server.items == [item]


async def test_a_script_that_is_met_passes() -> None:
    script = [
        Expect(ev.ResponseCreate, lambda e: e.response is None),
        Emit(ev.SpeechStarted("item_1", 0)),
        Emit(lambda served: ev.ItemDeleted(f"after {len(served.events)} events")),
    ]
    async with ScriptedVoiceServer(script=script) as server, _client(server) as client:
        await client.connection.send(ev.InputAudioAppend(b"\xff"))
        await client.connection.send(ev.ResponseCreate())
        assert (await client.next(ev.ItemDeleted)).item_id == "after 2 events"


async def test_a_step_that_is_not_met_fails() -> None:
    server = ScriptedVoiceServer(script=[Expect(ev.ResponseCancel)])
    with pytest.raises(AssertionError, match="not met"):
        async with server, _client(server):
            pass


async def test_another_event_than_expected_fails() -> None:
    server = ScriptedVoiceServer(script=[Expect(ev.ResponseCancel)])
    with pytest.raises(AssertionError, match="expected ResponseCancel"):
        async with server, _client(server) as client:
            await client.connection.send(ev.ResponseCreate())
            await server.until(lambda: server.created == 1)
