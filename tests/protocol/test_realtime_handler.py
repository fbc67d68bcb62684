"""`OpenAIRealtimeHandler` against the scripted server, and its example."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest

from app.agents.session.handler import UPLINK_MAX_MS, OpenAIRealtimeHandler
from app.errors import ConfigError, VoiceClosed, VoiceError, VoiceRefused
from app.realtime import events as ev
from app.realtime.connection import VoiceConnection
from app.realtime.dialect import BETA
from app.realtime.events import SessionConfig
from app.realtime.websocket import WebSocketModel
from audio.format import PCM16_24K
from tests.fakes.voice import Close, Emit, Expect, Reply, ScriptedVoiceServer, Served, Trouble, tone
from tests.fakes.waiting import time_limit

EXAMPLE = Path(__file__).parents[2] / "examples" / "realtime_handler.py"
CHUNK = bytes(960)


@asynccontextmanager
async def _connected(
    server: ScriptedVoiceServer, prompt: str | None = None, **callbacks: object
) -> AsyncIterator[OpenAIRealtimeHandler]:
    handler = OpenAIRealtimeHandler("sk-test", url=server.url)
    handler.set_callbacks(**callbacks)  # type: ignore[arg-type]
    await handler.connect(prompt)
    try:
        yield handler
    finally:
        await handler.disconnect()


async def _until(holds: Callable[[], bool]) -> None:
    async with time_limit():
        while not holds():  # noqa: ASYNC110 - what a callback did has no event to wait for
            await asyncio.sleep(0.001)


# Behavior that the seed documents -----------------------------------------------------------------


async def test_the_session_is_the_one_that_the_seed_describes() -> None:
    async with ScriptedVoiceServer() as server, _connected(server):
        asked = server.latest.of(ev.SessionUpdate)[0].session
        assert (asked.input_format, asked.output_format) == (PCM16_24K, PCM16_24K)
        assert asked.voice == "alloy"
        assert asked.instructions == "You are a helpful AI assistant."
        assert asked.transcription == ev.Transcription(model="gpt-transcribe")
        assert asked.turn_detection == ev.ServerVad(
            threshold=0.6, prefix_padding_ms=200, silence_duration_ms=300
        )
        assert server.latest.path.endswith("?model=gpt-realtime-2.1")


async def test_a_prompt_is_answered_in_sound_and_words() -> None:
    said: list[tuple[str, bool]] = []
    turns: list[str] = []
    reply = Reply(text="Good day.", audio_ms=300)
    async with (
        ScriptedVoiceServer(replies=[reply]) as server,
        _connected(
            server,
            "Hello!",
            on_transcript=lambda text, final: said.append((text, final)),
            on_turn_complete=lambda: turns.append("agent"),
        ) as handler,
    ):
        sound = b""
        while len(sound) < len(tone(PCM16_24K, 300)):
            sound += await handler.get_audio()
        await _until(lambda: bool(turns))
        assert sound == tone(PCM16_24K, 300)
        assert said == [("Good ", False), ("day. ", False), ("Good day.", True)]
        assert server.items[0].content[0].text == "Hello!"


async def test_speech_is_heard_transcribed_and_answered() -> None:
    heard: list[str] = []
    stopped = asyncio.Event()

    async def on_user_turn_complete() -> None:
        stopped.set()

    async with (
        ScriptedVoiceServer(heard=["Is anybody there?"]) as server,
        _connected(
            server, on_user_transcript=heard.append, on_user_turn_complete=on_user_turn_complete
        ) as handler,
    ):
        speech = tone(PCM16_24K, 300) + PCM16_24K.silence(400)
        for start in range(0, len(speech), 960):
            await handler.send_audio(speech[start : start + 960])
        async with time_limit():
            await stopped.wait()
        assert await handler.get_audio()
        assert heard == ["Is anybody there?"]
        assert server.audio == speech


async def test_text_without_an_end_of_turn_is_not_answered_yet() -> None:
    async with ScriptedVoiceServer() as server, _connected(server) as handler:
        await handler.send_text("First,", end_of_turn=False)
        await handler.send_text("second.")
        await handler.get_audio()
        assert [item.content[0].text for item in server.items] == ["First,", "second."]
        assert server.created == 1


async def test_a_text_sent_while_the_model_speaks_is_answered_after_it() -> None:
    replies = [Reply(audio_ms=200, hold_after_ms=100), Reply(audio_ms=100)]
    async with (
        ScriptedVoiceServer(replies=replies) as server,
        _connected(server, "Hello!") as handler,
    ):
        await handler.get_audio()
        await handler.send_text("One more thing.")
        await server.until(lambda: len(server.items) == 2)
        assert server.created == 1
        assert server.latest.free is not None
        server.latest.free.release()
        await server.until(lambda: server.created == 2)


async def test_a_rejected_request_is_made_again_when_the_way_is_free() -> None:
    def rejected(served: Served) -> ev.ErrorEvent:
        code = "conversation_already_has_active_response"
        event_id = served.of(ev.ResponseCreate)[0].event_id
        return ev.ErrorEvent(ev.ErrorDetail(code=code, client_event_id=event_id))

    done = ev.Response(id="resp_by_vad", status=ev.ResponseStatus.COMPLETED)
    script = [
        Expect(ev.ItemCreate),
        Expect(ev.ResponseCreate),
        Emit(rejected),
        Emit(ev.ResponseDone(done)),
        Expect(ev.ResponseCreate),
    ]
    async with ScriptedVoiceServer(script=script) as server, _connected(server, "Hello!"):
        await server.until(lambda: server.created == 2)


# Sound --------------------------------------------------------------------------------------------


class _Stuck:
    """A model whose connection takes nothing until it is let go."""

    name = "stuck"

    def __init__(self, url: str) -> None:
        self.free = asyncio.Event()
        self.reached = asyncio.Event()
        self.error: VoiceClosed | None = None
        self._model = WebSocketModel(url)

    async def connect(self, config: SessionConfig) -> VoiceConnection:
        connection = await self._model.connect(config)
        send = connection.send

        async def send_when_free(event: ev.ClientEvent) -> str:
            self.reached.set()
            await self.free.wait()
            if self.error is not None:
                raise self.error
            return await send(event)

        connection.send = send_when_free  # type: ignore[method-assign]
        return connection


async def test_chunks_that_piled_up_travel_ten_at_a_time() -> None:
    async with ScriptedVoiceServer() as server:
        model = _Stuck(server.url)
        handler = OpenAIRealtimeHandler("sk-test", voice_model=model)
        await handler.connect()
        await handler.send_audio(CHUNK)
        await model.reached.wait()
        for _ in range(25):
            await handler.send_audio(CHUNK)
        model.free.set()
        await server.until(lambda: len(server.audio) == 26 * len(CHUNK))
        assert server.latest.appends == [960, 9600, 9600, 4800]
        await handler.disconnect()


async def test_sound_older_than_two_seconds_is_dropped_first() -> None:
    async with ScriptedVoiceServer() as server:
        model = _Stuck(server.url)
        handler = OpenAIRealtimeHandler("sk-test", voice_model=model)
        await handler.connect()
        await handler.send_audio(b"\x01\x00")
        await model.reached.wait()
        for number in range(2, 202):
            await handler.send_audio(bytes([number % 256, 0]) * 480)
        model.free.set()
        await server.until(lambda: len(server.audio) == 2 + PCM16_24K.ms_to_bytes(UPLINK_MAX_MS))
        assert server.audio[-2] == 201 % 256
        await handler.disconnect()


async def test_a_recording_that_is_sent_all_at_once_arrives_whole() -> None:
    recording = tone(PCM16_24K, 10_000)
    async with ScriptedVoiceServer() as server, _connected(server) as handler:
        for start in range(0, len(recording), len(CHUNK)):
            await handler.send_audio(recording[start : start + len(CHUNK)])
        await server.until(lambda: len(server.audio) == len(recording))
        assert server.audio == recording


async def test_a_long_chunk_is_cut() -> None:
    recording = tone(PCM16_24K, 5_000)
    async with ScriptedVoiceServer() as server, _connected(server) as handler:
        await handler.send_audio(recording)
        await server.until(lambda: len(server.audio) == len(recording))
        assert server.audio == recording
        assert max(server.latest.appends) <= PCM16_24K.ms_to_bytes(UPLINK_MAX_MS)


async def test_sound_that_had_to_be_dropped_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with ScriptedVoiceServer() as server:
        model = _Stuck(server.url)
        handler = OpenAIRealtimeHandler("sk-test", voice_model=model)
        await handler.connect()
        for _ in range(120):
            await handler.send_audio(CHUNK)
        assert caplog.messages.count("sound dropped, the model is slow") == 1
        model.free.set()
        await handler.disconnect()


async def test_speaking_over_the_model_drops_what_was_not_fetched() -> None:
    replies = [Reply(audio_ms=1_000, hold_after_ms=900), Reply(audio_ms=100)]
    deltas: list[bytes] = []
    async with (
        ScriptedVoiceServer(replies=replies) as server,
        _connected(server, "Hello!", on_audio=deltas.append) as handler,
    ):
        await _until(lambda: len(deltas) == 9)
        await handler.send_audio(tone(PCM16_24K, 200) + PCM16_24K.silence(400))
        await _until(lambda: len(deltas) == 10)
        assert await handler.get_audio() == tone(PCM16_24K, 100)


async def test_a_cancelled_wait_for_sound_loses_none() -> None:
    async with ScriptedVoiceServer() as server, _connected(server) as handler:
        waiting = asyncio.ensure_future(handler.get_audio())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await handler.send_text("Go on.")
        assert await handler.get_audio() == tone(PCM16_24K, 600)[:4800]


# Callbacks ----------------------------------------------------------------------------------------


async def test_a_slow_callback_does_not_hold_up_the_sound() -> None:
    release = asyncio.Event()

    async def slow(_: bytes) -> None:
        await release.wait()

    async with (
        ScriptedVoiceServer() as server,
        _connected(server, "Hello!", on_audio=slow) as handler,
    ):
        async with time_limit():
            for _ in range(6):
                await handler.get_audio()
        release.set()


async def test_a_callback_that_raises_is_logged_and_the_next_is_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    turns: list[int] = []

    def broken(_: bytes) -> None:
        raise RuntimeError("not my day")

    async with (
        ScriptedVoiceServer() as server,
        _connected(server, "Hello!", on_audio=broken, on_turn_complete=lambda: turns.append(1)),
    ):
        await _until(lambda: turns == [1])
    assert "callback failed" in caplog.messages


async def test_a_callback_may_disconnect() -> None:
    handler: OpenAIRealtimeHandler
    ended = asyncio.Event()

    async def hang_up() -> None:
        await handler.disconnect()
        ended.set()

    async with ScriptedVoiceServer() as server:
        handler = OpenAIRealtimeHandler("sk-test", url=server.url)
        handler.set_callbacks(on_turn_complete=hang_up)
        await handler.connect("Goodbye.")
        async with time_limit():
            await ended.wait()
        await server.until(lambda: server.open_connections == 0)


async def test_a_callback_that_never_returns_does_not_stop_the_disconnect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.agents.session.handler.DISCONNECT_TIMEOUT_S", 0.05)
    called = asyncio.Event()

    async def stuck() -> None:
        called.set()
        await asyncio.Event().wait()

    async with (
        ScriptedVoiceServer() as server,
        _connected(server, "Hello!", on_turn_complete=stuck),
    ):
        await called.wait()


# Not connected, and not any more ------------------------------------------------------------------


async def test_nothing_hangs_without_a_connection() -> None:
    handler = OpenAIRealtimeHandler("sk-test")
    for use in (handler.get_audio(), handler.send_audio(CHUNK), handler.send_text("Hello?")):
        with pytest.raises(VoiceClosed, match="connect"):
            await use
    await handler.disconnect()
    await handler.disconnect()


async def test_disconnecting_twice_is_no_trouble() -> None:
    async with ScriptedVoiceServer() as server, _connected(server) as handler:
        await handler.disconnect()
        await handler.disconnect()
        with pytest.raises(VoiceClosed):
            await handler.send_audio(CHUNK)


async def test_a_wait_for_sound_ends_with_our_disconnect() -> None:
    async with ScriptedVoiceServer() as server, _connected(server) as handler:
        waiting = asyncio.ensure_future(handler.get_audio())
        await asyncio.sleep(0)
        await handler.disconnect()
        with pytest.raises(VoiceClosed):
            await waiting


async def test_what_came_before_the_end_is_still_handed_out() -> None:
    reply = Reply(close_after_ms=300, close_code=1011)
    async with (
        ScriptedVoiceServer(replies=[reply]) as server,
        _connected(server, "Hello!") as handler,
    ):
        pieces = [await handler.get_audio() for _ in range(3)]
        assert b"".join(pieces) == tone(PCM16_24K, 300)
        with pytest.raises(VoiceClosed) as caught:
            await handler.get_audio()
        assert caught.value.close_code == 1011
        with pytest.raises(VoiceClosed):
            await handler.send_text("Are you there?")


async def test_a_model_that_leaves_at_once_is_noticed() -> None:
    async with (
        ScriptedVoiceServer(script=[Close(1012)]) as server,
        _connected(server) as handler,
    ):
        with pytest.raises(VoiceClosed) as caught:
            await handler.get_audio()
        assert caught.value.close_code == 1012


async def test_a_model_that_takes_nothing_more_ends_the_conversation() -> None:
    async with ScriptedVoiceServer() as server:
        model = _Stuck(server.url)
        model.error = VoiceClosed("takes no more", close_code=1006)
        handler = OpenAIRealtimeHandler("sk-test", voice_model=model)
        await handler.connect()
        await handler.send_audio(CHUNK)
        model.free.set()
        with pytest.raises(VoiceClosed, match="takes no more"):
            await handler.get_audio()
        await server.until(lambda: server.open_connections == 0)
        await handler.disconnect()


async def test_an_empty_piece_of_sound_is_not_sent() -> None:
    async with ScriptedVoiceServer() as server, _connected(server) as handler:
        await handler.send_audio(b"")
        await handler.send_audio(CHUNK)
        await server.until(lambda: bool(server.latest.appends))
        assert server.latest.appends == [len(CHUNK)]


async def test_a_model_that_does_not_answer_is_noticed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    replies = [Reply(never_starts=True), Reply(audio_ms=100)]
    async with (
        ScriptedVoiceServer(replies=replies) as server,
        _connected(server, "Hello!") as handler,
    ):
        await server.until(lambda: server.created == 1)
        loop = asyncio.get_running_loop()
        time_s = loop.time
        monkeypatch.setattr(loop, "time", lambda: time_s() + 5)  # more than a model may take
        await _until(lambda: "model did not answer" in caplog.messages)
        await handler.send_text("Hello?")
        assert await handler.get_audio()


async def test_connecting_again_starts_anew() -> None:
    async with ScriptedVoiceServer() as server, _connected(server) as handler:
        await handler.connect("Hello again!")
        assert await handler.get_audio()
        await server.until(lambda: server.open_connections == 1)
        assert server.attempts == 2


async def test_a_wrong_key_is_said_at_once() -> None:
    trouble = Trouble(http_status=401, http_code="invalid_api_key")
    async with ScriptedVoiceServer(trouble=trouble) as server:
        handler = OpenAIRealtimeHandler("sk-wrong", url=server.url)
        with pytest.raises(VoiceRefused) as caught:
            await handler.connect()
        assert caught.value.code == "invalid_api_key"
        assert server.attempts == 1
        assert "sk-wrong" not in repr(handler)


async def test_a_failed_response_and_an_error_are_logged_by_code(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    turns: list[int] = []
    replies = [Reply(error_code="insufficient_quota")]
    async with (
        ScriptedVoiceServer(replies=replies) as server,
        _connected(server, "Hello!", on_turn_complete=lambda: turns.append(1)),
    ):
        await _until(lambda: turns == [1])
    assert [getattr(r, "code", None) for r in caplog.records] == ["insufficient_quota"]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (ev.ResponseStatus.FAILED, None),
        (ev.ResponseStatus.INCOMPLETE, "max_output_tokens"),
    ],
)
async def test_a_response_that_was_not_completed_is_never_silent(
    status: ev.ResponseStatus, reason: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    done = ev.ResponseDone(ev.Response(id="resp_1", status=status, status_reason=reason))
    script = [Expect(ev.ItemCreate), Expect(ev.ResponseCreate), Emit(done), Close(1000)]
    async with (
        ScriptedVoiceServer(script=script) as server,
        _connected(server, "Hello!") as handler,
    ):
        with pytest.raises(VoiceClosed):
            await handler.get_audio()
    (record,) = [r for r in caplog.records if r.message == "response not completed"]
    assert (record.status, record.code) == (status.value, reason)  # type: ignore[attr-defined]


# The example --------------------------------------------------------------------------------------


def _example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("realtime_handler_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class _Sound:
    """A microphone with the pace of one, and a speaker that counts."""

    spoken: bytes
    played: list[bytes] = field(default_factory=list)
    enough: asyncio.Event = field(default_factory=asyncio.Event)

    async def microphone(self) -> bytes:
        await asyncio.sleep(0.02)
        piece, self.spoken = self.spoken[:960], self.spoken[960:]
        return piece or CHUNK

    async def speaker(self, sound: bytes) -> None:
        self.played.append(sound)
        if sum(map(len, self.played)) >= len(tone(PCM16_24K, 400)):
            self.enough.set()


@asynccontextmanager
async def _example_with(
    server: ScriptedVoiceServer, monkeypatch: pytest.MonkeyPatch, sound: _Sound
) -> AsyncIterator[asyncio.Future[None]]:
    example = _example()
    real = example.OpenAIRealtimeHandler
    monkeypatch.setattr(example, "OpenAIRealtimeHandler", lambda **kw: real(**kw, url=server.url))
    monkeypatch.setattr(example, "get_audio_from_microphone", sound.microphone)
    monkeypatch.setattr(example, "play_audio", sound.speaker)
    running = asyncio.ensure_future(example.main("sk-test"))
    try:
        yield running
    finally:
        running.cancel()
        await asyncio.wait({running})


async def test_the_example_talks_at_a_microphone_s_pace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = _Sound(tone(PCM16_24K, 100) + PCM16_24K.silence(600))
    replies = [Reply(audio_ms=200, text="Hello."), Reply(audio_ms=200, text="Yes.")]
    async with (
        ScriptedVoiceServer(replies=replies, heard=["Can you hear me?"]) as server,
        _example_with(server, monkeypatch, sound),
        time_limit(),
    ):
        await sound.enough.wait()
    shown = capsys.readouterr().out
    assert "User: Can you hear me?" in shown
    assert "AI: Hello." in shown


async def test_the_example_hears_the_user_while_the_model_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A microphone that is read only between two pieces of sound would fall behind."""
    sound = _Sound(b"")
    async with (
        ScriptedVoiceServer(replies=[Reply(never_starts=True)]) as server,
        _example_with(server, monkeypatch, sound),
    ):
        await server.until(lambda: any(len(one.appends) >= 20 for one in server.connections))
        assert not sound.played


async def test_the_example_ends_with_the_model_s_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = _Sound(b"")
    replies = [Reply(error_code="insufficient_quota")]
    async with (
        ScriptedVoiceServer(replies=replies) as server,
        _example_with(server, monkeypatch, sound) as running,
        time_limit(),
    ):
        with pytest.raises(VoiceError):
            await running
    assert "Error: insufficient_quota" in capsys.readouterr().out


def test_the_example_without_a_key_or_a_network_ends_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = _example()
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(SystemExit, match="Set OPENAI_API_KEY"):
        example.run()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    nowhere = WebSocketModel("ws://127.0.0.1:9")
    monkeypatch.setattr(example.WebSocketModel, "openai", lambda *_, **__: nowhere)
    example.run()
    skipped = r"SKIPPED: 127.0.0.1: unreachable: .* \(connection_refused\)\n"
    assert re.fullmatch(skipped, capsys.readouterr().out)


# Failures, interruptions, settings ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("replies", "codes"),
    [
        ([Reply(error_code="server_error"), Reply(text="Hello.")], ["server_error"]),
        ([Reply(error_code="insufficient_quota")], ["insufficient_quota"]),
    ],
)
async def test_a_failure_of_the_model_is_told(replies: list[Reply], codes: list[str]) -> None:
    told: list[tuple[str, str]] = []
    async with (
        ScriptedVoiceServer(replies=replies) as server,
        _connected(server, "Hi", on_error=lambda code, message: told.append((code, message))),
    ):
        await _until(lambda: len(told) >= len(codes))
        assert [code for code, _ in told][: len(codes)] == codes


async def test_a_connection_that_ends_is_told() -> None:
    told: list[str] = []
    async with (
        ScriptedVoiceServer() as server,
        _connected(server, on_error=lambda code, message: told.append(code)) as handler,
    ):
        server.latest.close(1011)
        await _until(lambda: bool(told))
        with pytest.raises(VoiceClosed):
            await handler.get_audio()
    assert len(told) == 1


async def test_an_interruption_is_told() -> None:
    calls: list[str] = []
    async with (
        ScriptedVoiceServer(replies=[Reply(audio_ms=9_000, hold_after_ms=200)]) as server,
        _connected(
            server,
            "Hi",
            on_audio=lambda audio: calls.append("audio"),
            on_interrupted=lambda: calls.append("interrupted"),
        ) as handler,
    ):
        await _until(lambda: "audio" in calls)
        await handler.send_audio(tone(PCM16_24K, 300))
        await _until(lambda: "interrupted" in calls)
        assert calls.count("interrupted") == 1


async def test_turn_detection_transcription_and_dialect_are_the_user_s() -> None:
    async with ScriptedVoiceServer(dialect=BETA, replies=[Reply(text="Yes.")]) as server:
        said: list[str] = []
        handler = OpenAIRealtimeHandler(
            "sk-test", url=server.url, turn_detection=None, transcription=None, dialect="beta"
        )
        handler.set_callbacks(
            on_transcript=lambda text, final: said.append(text) if final else None
        )
        await handler.connect()
        try:
            await handler.send_audio(tone(PCM16_24K, 300), commit=True)
            await _until(lambda: said == ["Yes."])
        finally:
            await handler.disconnect()
        session = server.latest.of(ev.SessionUpdate)[0].session
        assert session.turn_detection is None
        assert session.transcription is None
        assert server.latest.malformed == []


def test_a_dialect_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="dialect is ga or beta, and not 'alpha'"):
        OpenAIRealtimeHandler("sk-test", dialect="alpha")  # type: ignore[arg-type]
