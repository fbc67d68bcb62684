"""The stages that speak over websockets: a Realtime session that reads, and Deepgram's socket."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.asyncio.server import ServerConnection, serve

from app.engine.stages.base import StageError, StageSpec
from app.engine.stages.deepgram import DeepgramTranscriber
from app.engine.stages.fallback import Recognizers
from app.engine.stages.realtime_transcriber import RealtimeTranscriber
from app.engine.stages.realtime_voice import RealtimeVoice, same_words
from app.realtime.events import UNSET, ResponseCreate, SessionUpdate
from app.realtime.websocket import WebSocketModel
from tests.fakes.engine_parts import speech
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import time_limit, until
from tests.integration.engine_site import open_site


async def test_a_realtime_session_reads_each_sentence_and_is_used_again() -> None:
    async with open_site() as site:
        voice = RealtimeVoice(site.engine.model(), voice="alloy")
        async with time_limit():
            for sentence in ("We are open.", "Do come by."):
                sound = [c async for c in voice.speak(sentence, voice="x", speed=1.0)]
                assert len(b"".join(sound)) == len(sentence) * 20 * 48
        assert site.engine.sessions == 1
        assert voice.differences == 0
        site.synthesizer.fails = True
        with pytest.raises(StageError):
            async for _ in voice.speak("Hello.", voice="x", speed=1.0):
                pass
        await voice.close()


async def read(voice: RealtimeVoice, text: str, spoken_by: str = "marin") -> int:
    """Read a text; the length of its sound in milliseconds."""
    async with time_limit():
        sound = [c async for c in voice.speak(text, voice=spoken_by, speed=1.0)]
    return len(b"".join(sound)) // 48


async def test_sentences_that_were_read_in_other_words_are_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    replies = [Reply(), Reply(reads="We're open."), Reply(), Reply(reads="Come by, do.")]
    async with ScriptedVoiceServer(replies=replies) as server:
        voice = RealtimeVoice(WebSocketModel(server.url))
        for text in ("We are open.", "We are open.", "Do come by.", "Do come by."):
            assert await read(voice, text) == 600
        await voice.close()
    assert len(server.connections) == 1
    assert voice.differences == 2
    told = [r for r in caplog.records if r.message == "voice read other words"]
    assert [vars(record)["count"] for record in told] == [1, 2]
    assert not any("open" in record.getMessage() for record in told)


async def test_each_voice_has_sessions_of_its_own() -> None:
    async with ScriptedVoiceServer() as server:
        voice = RealtimeVoice(WebSocketModel(server.url))
        for spoken_by in ("marin", "cedar", "marin", "cedar"):
            await read(voice, "We are open.", spoken_by)
        await voice.close()
    assert [one.free and one.free.session.voice for one in server.connections] == [
        "marin",
        "cedar",
    ]
    assert [len(one.of(ResponseCreate)) for one in server.connections] == [2, 2]


@pytest.mark.parametrize(
    ("model", "effort"),
    [("gpt-realtime-2.1-mini", "minimal"), ("gpt-realtime-1.5", UNSET), ("kokoro", UNSET)],
)
async def test_a_model_that_can_think_is_told_not_to(model: str, effort: object) -> None:
    async with ScriptedVoiceServer() as server:
        voice = RealtimeVoice(WebSocketModel(server.url, model=model))
        await read(voice, "We are open.")
        await voice.close()
        (asked,) = server.latest.of(SessionUpdate)
    assert asked.session.reasoning_effort == effort


async def test_a_session_that_ended_between_two_sentences_is_replaced() -> None:
    async with ScriptedVoiceServer() as server:
        voice = RealtimeVoice(WebSocketModel(server.url))
        await read(voice, "We are open.")
        server.latest.close(1001)
        await until(lambda: server.open_connections == 0)
        assert await read(voice, "Do come by.") == 600
        await voice.close()
    assert len(server.connections) == 2


async def test_a_session_that_reads_nothing_has_failed() -> None:
    async with ScriptedVoiceServer(replies=[Reply(audio_ms=0)]) as server:
        voice = RealtimeVoice(WebSocketModel(server.url))
        with pytest.raises(StageError, match="read nothing"):
            await read(voice, "We are open.")
    assert server.open_connections == 0


async def test_a_reader_that_is_stopped_early_closes_its_connection() -> None:
    async with open_site() as site:
        voice = RealtimeVoice(site.engine.model())
        site.synthesizer.may_go_on.clear()
        async with time_limit():
            speaking = voice.speak("A long sentence to be cut.", voice="x", speed=1.0)
            assert await anext(speaking)
            await speaking.aclose()
        await until(lambda: site.engine.sessions == 0)
        await voice.close()


def test_words_are_compared_without_case_and_punctuation() -> None:
    assert same_words("We're open, 9 to 5!", "we're open 9 to 5")
    assert not same_words("I am here.", "I'm here.")


class Deepgram:
    """A stand-in: answers two results for each turn, then what `Finalize` brings, if anything."""

    def __init__(self) -> None:
        self.finalizes = True
        self.audio_bytes = 0
        self.paths: list[str] = []
        self.tokens: list[str] = []
        self.cuts = False

    async def __call__(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.paths.append(socket.request.path)
        self.tokens.append(socket.request.headers["Authorization"])
        await socket.send(json.dumps({"type": "Metadata"}))
        async for message in socket:
            if isinstance(message, bytes):
                self.audio_bytes += len(message)
            elif json.loads(message)["type"] == "CloseStream":
                await socket.send(json.dumps({"type": "Metadata", "duration": 0.5, "channels": 1}))
                return
            elif self.cuts:
                return
            else:
                for text, last in (("a table", False), ("", False), ("for two", True)):
                    alternatives = [{"transcript": text, "confidence": 0.9}]
                    last = last and self.finalizes
                    result = {"type": "Results", "is_final": True, "from_finalize": last}
                    await socket.send(
                        json.dumps({**result, "channel": {"alternatives": alternatives}})
                    )


@asynccontextmanager
async def deepgram(model: str = "nova-3") -> AsyncIterator[tuple[Deepgram, DeepgramTranscriber]]:
    fake = Deepgram()
    async with serve(fake, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        spec = StageSpec(
            base_url=f"ws://127.0.0.1:{port}/v1", model=model, api_key="dg-key", timeout_s=20
        )
        yield fake, DeepgramTranscriber(spec, language="en")


@pytest.mark.parametrize(
    ("model", "told", "hints"),
    [
        ("nova-3", (), {"language": ["en"]}),
        ("nova-3", ("de-CH",), {"language": ["de-CH"]}),
        ("nova-3", ("de", "fr"), {"language": ["multi"], "language_hint": ["de", "fr"]}),
        # Deepgram hears English where it is told nothing.
        ("nova-2", ("de", "fr"), {"language": ["de"]}),
    ],
)
async def test_deepgram_is_told_the_languages_as_its_model_takes_them(
    model: str, told: tuple[str, ...], hints: dict[str, list[str]]
) -> None:
    async with deepgram(model) as (fake, stt), time_limit():
        turn = Recognizers([stt]).listen("", told)
        turn.push(speech(300))
        await turn.finish()
    query = parse_qs(urlsplit(fake.paths[0]).query)
    assert {key: query[key] for key in query if key.startswith("language")} == hints


@pytest.mark.parametrize(
    ("told", "hints"),
    [((), ["en"]), (("pt-BR",), ["pt"]), (("de", "fr"), ["de", "fr"])],
)
async def test_a_transcription_session_is_told_the_languages(
    told: tuple[str, ...], hints: list[str]
) -> None:
    async with transcription_server() as (fake, stt), time_limit():
        turn = Recognizers([stt]).listen("", told)
        turn.push(speech(300))
        await turn.finish()
        turn.abandon()
    (session,) = fake.sessions
    assert session["audio"]["input"]["transcription"]["languages"] == hints


@pytest.mark.parametrize("finalizes", [True, False])
async def test_a_turn_is_streamed_and_its_finals_are_joined(finalizes: bool) -> None:
    async with deepgram() as (fake, stt), time_limit():
        fake.finalizes = finalizes  # it may not where nothing is left to be processed
        turn = stt.open()
        for _ in range(5):
            turn.push(speech(100))
        assert (await turn.finish()).transcript == "a table for two"
        turn.abandon()
        assert await stt.transcribe(speech(300)) == "a table for two"
    assert fake.audio_bytes == 800 * 32
    assert fake.tokens[0] == "Token dg-key"
    assert "model=nova-3" in fake.paths[0] and "sample_rate=16000" in fake.paths[0]


async def test_a_socket_that_fails_is_a_failed_stage() -> None:
    async with deepgram() as (fake, stt), time_limit():
        fake.cuts = True
        with pytest.raises(StageError) as cut:
            await stt.transcribe(speech(200))
        assert cut.value.code == "stage_cut"
        turn = stt.open()
        turn.push(speech(100))
        turn.abandon()
    unreachable = DeepgramTranscriber(StageSpec(base_url="ws://127.0.0.1:9/v1", model="nova-3"))
    with pytest.raises(StageError) as refused:
        await unreachable.transcribe(speech(200))
    assert refused.value.code == "stage_unreachable"


class TranscriptionServer:
    """A stand-in for transcription sessions: says how much of each item it has heard."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.sessions: list[dict[str, Any]] = []
        self.fault = ""
        self.tells_commits = True

    async def __call__(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.paths.append(socket.request.path)
        await socket.send(json.dumps({"type": "session.created", "session": {}}))
        heard_ms, items = 0, 0
        async for message in socket:
            event = json.loads(message)
            match event["type"]:
                case "session.update":
                    self.sessions.append(event["session"])
                    answer = {"type": self.fault or "session.updated", "error": {"message": "no"}}
                    await socket.send(json.dumps(answer))
                case "input_audio_buffer.append":
                    heard_ms += len(base64.b64decode(event["audio"])) // 48
                case "input_audio_buffer.commit":
                    items += 1
                    named = {"item_id": f"item_{items}"}
                    kind = "conversation.item.input_audio_transcription"
                    for told in (
                        {"type": "input_audio_buffer.committed", **named},
                        {"type": f"{kind}.delta", "delta": "x", **named},
                        {"type": f"{kind}.completed", "transcript": f"{heard_ms} ms", **named},
                    ):
                        if self.tells_commits or "transcription" in told["type"]:
                            await socket.send(json.dumps(told))
                    heard_ms = 0


@asynccontextmanager
async def transcription_server() -> AsyncIterator[tuple[TranscriptionServer, RealtimeTranscriber]]:
    fake = TranscriptionServer()
    async with serve(fake, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        spec = StageSpec(
            base_url=f"ws://127.0.0.1:{port}/v1/realtime", model="gpt-live-transcribe", timeout_s=20
        )
        yield fake, RealtimeTranscriber(spec, language="en")


@pytest.mark.parametrize("tells_commits", [True, False])
async def test_a_transcription_session_hears_a_turn_while_it_is_spoken(tells_commits: bool) -> None:
    async with transcription_server() as (fake, stt), time_limit():
        fake.tells_commits = tells_commits
        turn = stt.open()
        for _ in range(5):
            turn.push(speech(100))
        assert (await turn.so_far()).transcript == "500 ms"
        turn.go_on()
        turn.push(speech(300))
        assert (await turn.finish()).transcript == "500 ms 300 ms"
        turn.push(speech(20))  # too little to commit
        assert (await turn.finish()).transcript == "500 ms 300 ms"
        turn.abandon()
    assert fake.paths == ["/v1/realtime?intent=transcription"]
    (session,) = fake.sessions
    assert session["type"] == "transcription"
    assert session["audio"]["input"]["turn_detection"] is None
    assert session["audio"]["input"]["transcription"] == {
        "model": "gpt-live-transcribe",
        "languages": ["en"],
    }


async def test_a_transcription_session_that_fails_is_a_failed_stage() -> None:
    async with transcription_server() as (fake, stt), time_limit():
        fake.fault = "error"
        with pytest.raises(StageError) as refused:
            await stt.transcribe(speech(200))
        assert refused.value.code == "stage_refused"
    gone = RealtimeTranscriber(StageSpec(base_url="ws://127.0.0.1:9/v1", model="m", timeout_s=20))
    with pytest.raises(StageError) as unreachable:
        await gone.transcribe(speech(200))
    assert unreachable.value.code == "connection_refused"
