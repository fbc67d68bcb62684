"""The vendor's own client talks with the engine: real sockets, real speech parts, recorded callers.

What the recordings are and who made them is in tests/data/caller/LICENSE.md.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from websockets.asyncio.client import ClientConnection, connect

from app.engine.assembly import make_engine
from app.engine.server import Engine
from app.realtime.connection import VoiceConnection
from app.realtime.events import (
    InputAudioAppend,
    ResponseDone,
    ServerVad,
    SessionConfig,
    Transcription,
    TranscriptionCompleted,
)
from app.web.app import make_app
from app.web.clients import AccessRule
from app.web.metrics import Metrics
from app.web.realtime import realtime_router
from app.web.server.serving import make_server, running
from audio.format import PCM16_24K, PCMU_8K, AudioFormat
from audio.g711 import encode_ulaw
from audio.transcoder import Transcoder
from tests.fakes.fetched import JAVASCRIPT, command_of
from tests.fakes.gateway import engine_gateway
from tests.fakes.waiting import time_limit

CALLER = Path(__file__).parents[1] / "data" / "caller"
MODEL = "gpt-realtime-2.1"  # as clients name it, whatever they talk with
HOURS = "when are you open"
FRAME_MS = 20

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.offline_speech]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    made = make_engine(messages_dir=tmp_path_factory.mktemp("messages"), workers=2)
    await made.start()
    yield made
    await made.close()


@contextlib.asynccontextmanager
async def served(engine: Engine) -> AsyncIterator[AsyncOpenAI]:
    """The vendor's client, pointed at the engine behind the real HTTP edge."""

    async def no_drain() -> None:
        return None

    server = make_server(
        make_app(
            [realtime_router(engine_gateway(engine), Metrics(), AccessRule(open_to_local=True))]
        ),
        host="127.0.0.1",
        port=0,
        drain=no_drain,
        own_signals=False,
    )
    async with (
        running(server),
        AsyncOpenAI(
            api_key="none", websocket_base_url=f"ws://127.0.0.1:{server.port}/v1"
        ) as client,
    ):
        yield client


def caller_says(name: str, form: AudioFormat) -> bytes:
    """A recorded caller and a second of silence, in the session's format."""
    with wave.open(str(CALLER / f"{name}.wav"), "rb") as recording:
        assert recording.getparams()[:3] == (1, 2, 8_000)
        pcm = recording.readframes(-1)
    law = _mu_law(pcm) + PCMU_8K.silence(1_000)
    return Transcoder(PCMU_8K, form).push(law)


def _mu_law(pcm16: bytes) -> bytes:
    return encode_ulaw(np.frombuffer(pcm16, "<i2"))


def frames(sound: bytes, form: AudioFormat) -> list[bytes]:
    size = form.ms_to_bytes(FRAME_MS)
    return [sound[start : start + size] for start in range(0, len(sound), size)]


def session(form: AudioFormat, *, detects_turns: bool = True, **settings: Any) -> Any:
    spelled = {"type": "audio/pcmu"} if form == PCMU_8K else {"type": "audio/pcm", "rate": 24_000}
    heard: dict[str, Any] = {"format": spelled, "transcription": {"model": "any"}}
    if not detects_turns:
        heard["turn_detection"] = None
    audio = {"input": heard, "output": {"format": spelled}}
    return {"type": "realtime", "audio": audio, **settings}


async def say(connection: AsyncRealtimeConnection, name: str, form: AudioFormat) -> None:
    for frame in frames(caller_says(name, form), form):
        await connection.input_audio_buffer.append(audio=base64.b64encode(frame).decode())


async def read_until(connection: AsyncRealtimeConnection, last: str) -> list[Any]:
    events: list[Any] = []
    async with time_limit():
        async for event in connection:
            events.append(event)
            if event.type == last:
                return events
    raise AssertionError(f"the session ended before {last}")


def of(events: list[Any], kind: str) -> list[Any]:
    return [event for event in events if event.type == kind]


@pytest.mark.parametrize("form", [PCMU_8K, PCM16_24K], ids=["pcmu", "pcm16"])
async def test_the_vendors_client_holds_a_spoken_turn(engine: Engine, form: AudioFormat) -> None:
    async with served(engine) as client, client.realtime.connect(model=MODEL) as connection:
        created = await read_until(connection, "session.created")
        assert created[0].session.model == "offline-receptionist"
        await connection.session.update(session=session(form))
        (updated,) = await read_until(connection, "session.updated")
        assert (
            updated.session.audio.output.format.type
            == session(form)["audio"]["output"]["format"]["type"]
        )
        await say(connection, "hours", form)
        events = await read_until(connection, "response.done")
    (heard,) = of(events, "conversation.item.input_audio_transcription.completed")
    assert heard.transcript == HOURS
    sound = b"".join(base64.b64decode(e.delta) for e in of(events, "response.output_audio.delta"))
    (spoken,) = of(events, "response.output_audio_transcript.done")
    assert "open" in spoken.transcript
    # Speech takes time: from 8 to 25 characters a second for any voice that can be followed.
    seconds = form.bytes_to_ms(len(sound)) / 1000
    assert 8 <= len(spoken.transcript) / seconds <= 25
    done = events[-1].response
    assert done.status == "completed"
    assert done.usage.output_token_details.audio_tokens == -(-form.bytes_to_ms(len(sound)) // 50)


async def test_the_vendors_client_barges_in_on_a_reply_that_was_all_sent(engine: Engine) -> None:
    async with served(engine) as client, client.realtime.connect(model=MODEL) as connection:
        await connection.session.update(session=session(PCMU_8K))
        await connection.response.create(response={"metadata": {"say": "Please listen. " * 30}})
        said = (await read_until(connection, "response.done"))[-1].response.output[0]
        await say(connection, "address", PCMU_8K)
        await read_until(connection, "input_audio_buffer.speech_started")
        await connection.conversation.item.truncate(
            item_id=said.id, content_index=0, audio_end_ms=1_500
        )
        answered = await read_until(connection, "response.done")
        (cut,) = of(answered, "conversation.item.truncated")
        assert (cut.item_id, cut.audio_end_ms) == (said.id, 1_500)
        assert not of(answered, "error")
        assert "Harbor" in answered[-1].response.output[0].content[0].transcript
        await connection.conversation.item.retrieve(item_id=said.id)
        kept = (await read_until(connection, "conversation.item.retrieved"))[-1].item
        assert not kept.content[0].transcript


async def test_the_vendors_client_commits_a_turn_of_its_own(engine: Engine) -> None:
    async with served(engine) as client, client.realtime.connect(model=MODEL) as connection:
        await connection.session.update(session=session(PCMU_8K, detects_turns=False))
        await say(connection, "address", PCMU_8K)
        await connection.input_audio_buffer.commit()
        await connection.response.create()
        events = await read_until(connection, "response.done")
    assert not of(events, "input_audio_buffer.speech_started")
    assert "Harbor" in events[-1].response.output[0].content[0].transcript


async def test_the_vendors_client_serves_a_tool_call(engine: Engine) -> None:
    end_call = {
        "type": "function",
        "name": "end_call",
        "description": "Hang up.",
        "parameters": {"type": "object", "properties": {}},
    }
    async with served(engine) as client, client.realtime.connect(model=MODEL) as connection:
        await connection.session.update(session=session(PCMU_8K, tools=[end_call]))
        await say(connection, "goodbye", PCMU_8K)
        events = await read_until(connection, "response.done")
        (call,) = of(events, "response.function_call_arguments.done")
        assert call.name == "end_call"
        await connection.conversation.item.create(
            item={"type": "function_call_output", "call_id": call.call_id, "output": "done"}
        )
        (added,) = of(
            await read_until(connection, "conversation.item.added"), "conversation.item.added"
        )
        assert added.item.type == "function_call_output"


async def test_a_typed_key_is_answered_in_text(engine: Engine) -> None:
    async with served(engine) as client, client.realtime.connect(model=MODEL) as connection:
        await connection.session.update(session=session(PCMU_8K, output_modalities=["text"]))
        content: Any = [{"type": "input_text", "text": "[keypad] 1"}]
        await connection.conversation.item.create(
            item={"type": "message", "role": "user", "content": content}
        )
        await connection.response.create()
        events = await read_until(connection, "response.done")
    (text,) = of(events, "response.output_text.done")
    assert text.text


async def test_eight_callers_at_once_are_all_understood(engine: Engine) -> None:
    config = SessionConfig(
        input_format=PCMU_8K,
        output_format=PCMU_8K,
        transcription=Transcription(model="any"),
        turn_detection=ServerVad(threshold=0.6, silence_duration_ms=300, prefix_padding_ms=200),
    )
    sound = frames(caller_says("hours", PCMU_8K), PCMU_8K)

    async def speak(connection: VoiceConnection) -> None:
        for frame in sound:
            await connection.send(InputAudioAppend(frame))

    async def call() -> str:
        connection = await engine.model().connect(config)
        transcript = ""
        async with time_limit(), asyncio.TaskGroup() as group:
            group.create_task(speak(connection))
            async for event in connection:
                if isinstance(event, TranscriptionCompleted):
                    transcript = event.transcript
                elif isinstance(event, ResponseDone):
                    break
        await connection.close()
        return transcript

    assert set(await asyncio.gather(*(call() for _ in range(8)))) == {HOURS}


async def test_nothing_is_left_of_an_engine_that_was_closed() -> None:
    before = asyncio.all_tasks()
    children = _children()
    made = make_engine(workers=1)
    await made.start()
    assert _children() > children
    connection = await made.model().connect(SessionConfig())
    await made.close()
    await connection.close()
    assert {task for task in asyncio.all_tasks() if not task.done()} <= before
    assert _children() == children


def _children() -> set[int]:
    """Processes that this one has started and that are still there (Linux)."""
    listed = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    if not listed.exists():
        pytest.skip("needs /proc")
    return {int(pid) for pid in listed.read_text().split()}


async def connected(client: AsyncOpenAI, **headers: str) -> ClientConnection:
    url = f"{str(client.websocket_base_url).rstrip('/')}/realtime?model={MODEL}"
    return await connect(url, additional_headers=headers, max_size=None)


async def receive_until(socket: ClientConnection, last: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    async with time_limit():
        while not events or events[-1]["type"] != last:
            events.append(json.loads(await socket.recv()))
    return events


@pytest.mark.parametrize("headers", [{"OpenAI-Beta": "realtime=v1"}, {}], ids=["header", "shape"])
async def test_a_client_of_the_beta_dialect_is_served_as_one(
    engine: Engine, headers: dict[str, str]
) -> None:
    settings = {
        "modalities": ["text", "audio"],
        "input_audio_format": "g711_ulaw",
        "output_audio_format": "g711_ulaw",
        "input_audio_transcription": {"model": "whisper-1"},
        "temperature": 0.8,
    }
    async with served(engine) as client, await connected(client, **headers) as socket:
        (created,) = await receive_until(socket, "session.created")
        assert ("input_audio_format" in created["session"]) == bool(headers)
        await socket.send(json.dumps({"type": "session.update", "session": settings}))
        (updated,) = await receive_until(socket, "session.updated")
        assert updated["session"]["input_audio_format"] == "g711_ulaw"
        for frame in frames(caller_says("hours", PCMU_8K), PCMU_8K):
            audio = base64.b64encode(frame).decode()
            await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
        events = await receive_until(socket, "response.done")
    kinds = {event["type"] for event in events}
    assert {"conversation.item.created", "response.audio.delta"} <= kinds
    assert not kinds & {"conversation.item.added", "conversation.item.done"}
    transcripts = [event["transcript"] for event in events if "transcript" in event]
    assert transcripts[0] == HOURS


@pytest.mark.parametrize("name", ["gpt-reeltime", "llama-3", "offline-receptionist-2", "any"])
async def test_a_model_that_is_not_here_is_named_and_nothing_is_broken(
    engine: Engine, name: str
) -> None:
    async with served(engine) as client, client.realtime.connect(model=name) as connection:
        (told,) = of(await read_until(connection, "error"), "error")
        assert (told.error.code, told.error.param) == ("model_not_found", "model")
        assert repr(name) in told.error.message
        update = {"type": "realtime", "model": name, "output_modalities": ["text"]}
        await connection.session.update(session=update)  # type: ignore[arg-type]
        (refused,) = of(await read_until(connection, "error"), "error")
        assert (refused.error.code, refused.error.param) == ("model_not_found", "session.model")
        await connection.session.update(session={"type": "realtime"})
        updated = (await read_until(connection, "session.updated"))[-1]
        assert (updated.session.model, updated.session.output_modalities) == (
            "offline-receptionist",
            ["audio"],
        )


@pytest.mark.parametrize("name", [MODEL, "gpt-4o-realtime-preview-2024-12-17", "gpt-realtime", ""])
async def test_a_model_of_openais_is_served_and_the_real_one_told(
    engine: Engine, name: str
) -> None:
    async with served(engine) as client, client.realtime.connect(model=name) as connection:
        update = {"type": "realtime", **({"model": name} if name else {})}
        await connection.session.update(session=update)  # type: ignore[arg-type]
        events = await read_until(connection, "session.updated")
    assert [event.type for event in events] == ["session.created", "session.updated"]
    assert {event.session.model for event in events} == {"offline-receptionist"}


async def test_an_append_may_hold_15_mib_of_sound(engine: Engine) -> None:
    settings = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
    audio = base64.b64encode(bytes(15 * 2**20)).decode()
    async with served(engine) as client, await connected(client) as socket:
        await socket.send(json.dumps({"type": "session.update", "session": settings}))
        await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
        await socket.send('{"type":"input_audio_buffer.clear"}')
        events = await receive_until(socket, "input_audio_buffer.cleared")
    assert "error" not in {event["type"] for event in events}


_JAVASCRIPT = """
import fs from 'node:fs';
const [url, folder, file] = process.argv.slice(2);
const {RealtimeAgent, RealtimeSession} = await import(folder + '/dist/index.mjs');
const session = new RealtimeSession(new RealtimeAgent({name: 'a', instructions: 'x'}), {
  transport: 'websocket', model: process.argv[5],
  config: {audio: {input: {turnDetection: {type: 'server_vad'}}}},
});
const end = (problem) => {
  const lines = session.history.map(item => item.content?.map(part => part.transcript).join());
  console.log(JSON.stringify({problem, lines}));
  process.exit(0);
};
session.on('error', error => end(JSON.stringify(error)));
session.transport.on('response.done', () => setTimeout(() => end(null), 500));
await session.connect({apiKey: 'none', url});
const sound = fs.readFileSync(file);
for (let at = 0; at < sound.length; at += 9600)
  session.sendAudio(new Uint8Array(sound.subarray(at, at + 9600)).buffer);
"""


async def test_the_vendors_javascript_client_holds_a_spoken_turn(
    engine: Engine, tmp_path: Path
) -> None:
    script, sound = tmp_path / "client.mjs", tmp_path / "hours.pcm"
    command = command_of(script, JAVASCRIPT)
    script.write_text(_JAVASCRIPT)
    sound.write_bytes(caller_says("hours", PCM16_24K))
    async with served(engine) as client:
        url = f"{str(client.websocket_base_url).rstrip('/')}/realtime?model={MODEL}"
        process = await asyncio.create_subprocess_exec(
            *command, url, str(JAVASCRIPT), str(sound), MODEL, stdout=asyncio.subprocess.PIPE
        )
        async with time_limit():
            out, _ = await process.communicate()
    told = json.loads(out)
    assert told["problem"] is None
    assert told["lines"][0] == HOURS
    assert "We are open" in told["lines"][1]
