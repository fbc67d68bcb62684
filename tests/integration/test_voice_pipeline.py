"""`VoicePipeline`: what its events promise, and the faults of its peers that it does not have."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.engine.base import Heard, Hearing
from app.engine.stages.base import StageError, StageSpec
from app.engine.stages.text_models import ChatCompletions, Responses
from app.errors import ConfigError
from app.http.streaming import StreamingHttp
from app.pipeline import openai
from app.pipeline.inputs import AudioInput, StreamedAudioInput
from app.pipeline.pipeline import VoicePipeline, VoicePipelineConfig
from app.pipeline.workflows import AgentWorkflow, SimpleWorkflow, VoiceWorkflow
from app.realtime.events import SAY_METADATA_KEY, ResponseCreate
from app.settings.sections.pipeline import OPENAI_HTTP_URL, PipelineSettings
from tests.fakes.connect_proxy import Forwarder
from tests.fakes.engine_parts import LevelDetector, ToneSynthesizer, quiet, speech
from tests.fakes.stage_servers import chat_stream, routed, scripted_chat
from tests.fakes.voice import ScriptedVoiceServer
from tests.fakes.waiting import time_limit, until
from tests.fakes.web_service import Asked, Script, WebService, answer
from tests.integration.test_examples import example
from trunkline import Agent, Roster

CONFIG = VoicePipelineConfig(make_detector=LevelDetector)


class CountingTranscriber:
    """Hears how long the sound was, in words."""

    name = "counting"

    def __init__(self) -> None:
        self.fails = False
        self.heard_ms: list[int] = []

    def open(self) -> Hearing:
        return _Counted(self)

    async def transcribe(self, pcm16: bytes) -> str:
        if self.fails:
            raise StageError("deaf", code="stage_busy")
        self.heard_ms.append(len(pcm16) // 32)
        return f"turn {len(self.heard_ms)}"


class _Counted:
    def __init__(self, stt: CountingTranscriber) -> None:
        self._stt = stt
        self._audio = bytearray()

    def push(self, pcm16: bytes) -> None:
        self._audio += pcm16

    async def finish(self) -> Heard:
        return Heard(transcript=await self._stt.transcribe(bytes(self._audio)))

    def abandon(self) -> None:
        self._audio.clear()


class ToneVoice(ToneSynthesizer):
    """Speaks tones, and remembers the words."""

    name = "tones"

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    async def speak(self, text: str, *, voice: str, speed: float) -> AsyncGenerator[bytes, None]:
        self.said.append(text)
        async for chunk in super().speak(text, voice=voice, speed=speed):
            yield chunk


def samples(pcm16: bytes) -> np.ndarray[Any, np.dtype[np.int16]]:
    return np.frombuffer(pcm16, "<i2").astype(np.int16)


def kinds(events: list[Any]) -> list[str]:
    """The events as words, with a run of sound as one."""
    found: list[str] = []
    for event in events:
        kind = getattr(event, "event", event.type.removeprefix("voice_stream_event_"))
        if kind != "audio" or not found or found[-1] != "audio":
            found.append(kind)
    return found


async def play(
    workflow: VoiceWorkflow,
    audio: AudioInput | StreamedAudioInput,
    *pieces: np.ndarray[Any, Any] | None,
    stt: CountingTranscriber | None = None,
    tts: ToneVoice | None = None,
    config: VoicePipelineConfig = CONFIG,
) -> list[Any]:
    result = await VoicePipeline(
        workflow, stt or CountingTranscriber(), tts or ToneVoice(), config
    ).run(audio)

    async def feed() -> None:
        assert isinstance(audio, StreamedAudioInput)
        for piece in pieces:
            await audio.add_audio(piece)

    async with time_limit(), asyncio.TaskGroup() as group:
        if pieces:
            group.create_task(feed())
        return [event async for event in result.stream()]


async def test_one_turn_is_answered_between_its_marks() -> None:
    tts = ToneVoice()
    events = await play(
        SimpleWorkflow(lambda text: [f"You said: {text}."], greeting="Hello!"),
        AudioInput(samples(speech(500, 24_000))),
        tts=tts,
    )
    assert kinds(events) == ["turn_started", "audio", "turn_ended", "session_ended"]
    assert tts.said == ["You said: turn 1."]
    assert events[1].data.dtype == np.int16 and events[1].data.ndim == 1


@pytest.mark.parametrize("sound", [None, b"RIFF", "hours.wav"])
async def test_what_is_no_sound_is_refused_with_the_remedy(sound: Any) -> None:
    with pytest.raises(ConfigError, match="from_wav"):
        await VoicePipeline(SimpleWorkflow(str), CountingTranscriber(), ToneVoice()).run(sound)


async def test_turns_of_a_stream_are_answered_in_order_and_the_last_is_not_lost() -> None:
    said, pause = speech(400, 24_000), quiet(800, 24_000)
    stt, tts = CountingTranscriber(), ToneVoice()
    stream = samples(said + pause + said + pause + said)  # the last one has no end
    pieces = [stream[at : at + 777] for at in range(0, len(stream), 777)]
    events = await play(
        SimpleWorkflow(lambda text: f"Yes, {text}.", greeting="Hello! I am listening."),
        StreamedAudioInput(),
        *pieces,
        None,
        stt=stt,
        tts=tts,
    )
    assert tts.said == ["Hello! I am listening.", "Yes, turn 1.", "Yes, turn 2.", "Yes, turn 3."]
    assert kinds(events) == ["turn_started", "audio", "turn_ended"] * 4 + ["session_ended"]
    assert all(ms >= 390 for ms in stt.heard_ms)


_SOUND = samples(speech(600, 24_000))
_FLOATS = (_SOUND / 32_768).astype(np.float32)


@pytest.mark.parametrize(
    ("sound", "problem"),
    [
        (_SOUND.astype(">i2"), ""),
        (np.stack([_SOUND, _SOUND], axis=1), ""),
        (_FLOATS, ""),
        (_FLOATS.astype(np.float16), ""),
        (np.where(np.arange(len(_FLOATS)) == 7, np.nan, _FLOATS), ""),
        (np.where(np.arange(len(_FLOATS)) == 7, np.inf, _FLOATS), ""),
        (_SOUND[::-1], ""),
        # All of them would be heard as nothing, or as noise.
        (_SOUND.reshape(1, -1), "transpose it"),
        (np.stack([_SOUND, _SOUND]), "transpose it"),
        (_SOUND.reshape(1, 1, -1), "of shape"),
        (_SOUND.astype(np.int32), "convert it"),
        (_SOUND.astype(np.uint8), "convert it"),
        (_SOUND.tobytes(), "not bytes"),
        (_SOUND.tolist(), "not list"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_odd_sound_is_heard_whole_or_refused_with_the_cure(
    sound: Any, problem: str, streamed: bool
) -> None:
    stt, workflow = CountingTranscriber(), SimpleWorkflow(lambda text: text)
    if streamed:
        events = await play(workflow, StreamedAudioInput(), sound, None, stt=stt)
    else:
        events = await play(workflow, AudioInput(sound), stt=stt)
    if not problem:
        assert kinds(events)[-1] == "session_ended"
        (heard_ms,) = stt.heard_ms
        assert heard_ms >= 500
    else:
        assert isinstance(events[-1].error, ConfigError)
        assert problem in str(events[-1].error)


@pytest.mark.parametrize(
    ("answered", "ends"),
    [
        (None, ["session_ended"]),
        ("", ["session_ended"]),
        ([], ["session_ended"]),
        (["One.", "Two."], ["turn_started", "audio", "turn_ended", "session_ended"]),
        (5, ["error"]),
    ],
)
async def test_a_function_answers_with_text_or_with_nothing(answered: Any, ends: list[str]) -> None:
    workflow = SimpleWorkflow(lambda _: answered)
    events = await play(workflow, AudioInput(samples(speech(300))))
    assert kinds(events) == ends
    if ends == ["error"]:
        assert "returned int: return text" in str(events[-1].error)


async def test_the_events_are_there_once() -> None:
    pipeline = VoicePipeline(SimpleWorkflow(str), CountingTranscriber(), ToneVoice(), CONFIG)
    result = await pipeline.run(AudioInput(samples(speech(300))))
    async with time_limit():
        assert [event async for event in result.stream()]
        assert not [event async for event in result.stream()]


async def test_an_input_without_speech_ends_without_a_turn() -> None:
    events = await play(
        SimpleWorkflow(lambda text: text), StreamedAudioInput(), samples(quiet(900, 24_000)), None
    )
    assert kinds(events) == ["session_ended"]


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_sound_of_any_rate_and_type_keeps_its_length(rate_hz: int, dtype: type) -> None:
    sound = samples(speech(500, rate_hz))
    given = sound if dtype is np.int16 else (sound / 32767).astype(np.float32)
    stereo = np.stack([given, given], axis=1)
    for buffer in (given, stereo):
        pcm16 = AudioInput(buffer, rate_hz).pcm16_16k()
        assert len(pcm16) // 32 == pytest.approx(500, abs=4)
        assert np.abs(samples(pcm16).astype(int)).max() == pytest.approx(10_000, rel=0.06)


async def test_sound_comes_as_floats_where_they_are_asked_for() -> None:
    config = VoicePipelineConfig(dtype="float32", make_detector=LevelDetector)
    events = await play(
        SimpleWorkflow(lambda _: "Hello."), AudioInput(samples(speech(300, 24_000))), config=config
    )
    assert events[1].data.dtype == np.float32 and events[1].data.shape[1] == 1
    assert 0.2 < np.abs(events[1].data).max() < 1.0


def raises(_: str) -> str:
    raise ValueError("a fault of the workflow")


async def test_an_error_of_any_part_is_the_last_event() -> None:
    deaf, mute = CountingTranscriber(), ToneVoice()
    deaf.fails, mute.fails = True, True
    cases: list[tuple[VoiceWorkflow, CountingTranscriber, ToneVoice, type[Exception]]] = [
        (SimpleWorkflow(raises), CountingTranscriber(), ToneVoice(), ValueError),
        (SimpleWorkflow(str), deaf, ToneVoice(), StageError),
        (SimpleWorkflow(str), CountingTranscriber(), mute, Exception),
    ]
    for workflow, stt, tts, kind in cases:
        sound = samples(speech(400, 24_000) + quiet(800, 24_000))
        for audio, pieces in (
            (AudioInput(sound), ()),
            (StreamedAudioInput(), (sound,)),  # it never ends by itself
        ):
            events = await play(workflow, audio, *pieces, stt=stt, tts=tts)
            assert kinds(events)[-1] == "error"
            assert isinstance(events[-1].error, kind)


async def test_leaving_the_stream_early_ends_the_work() -> None:
    tts = ToneVoice()
    pipeline = VoicePipeline(
        SimpleWorkflow(lambda _: "A long answer. " * 50), CountingTranscriber(), tts
    )
    result = await pipeline.run(AudioInput(samples(speech(300, 24_000))))
    async with time_limit():
        stream = result.stream()
        async for event in stream:
            if event.type == "voice_stream_event_audio":
                break
        await stream.aclose()  # type: ignore[attr-defined]
        await until(lambda: tts.stopped_early == 1)


async def test_a_generator_speaks_while_it_goes_on() -> None:
    async def answer(_: str) -> AsyncIterator[str]:
        yield "The first sentence is here. And"
        yield " Dr. Smith is in at 9.30 today. "

    def several(_: str) -> Iterator[str]:
        yield "The first sentence is here."
        yield "And Dr. Smith is in at 9.30 today."

    for function in (answer, several):
        tts = ToneVoice()
        await play(SimpleWorkflow(function), AudioInput(samples(speech(300, 24_000))), tts=tts)
        assert tts.said == ["The first sentence is here.", "And Dr. Smith is in at 9.30 today."]


async def test_a_piece_without_a_word_is_not_spoken() -> None:
    tts = ToneVoice()
    events = await play(
        SimpleWorkflow(lambda _: ["It is all done.", "\U0001f60a", "--"]),
        AudioInput(samples(speech(300, 24_000))),
        tts=tts,
    )
    assert kinds(events) == ["turn_started", "audio", "turn_ended", "session_ended"]
    assert tts.said == ["It is all done."]


def find_slot(day: str) -> str:
    """Find a free appointment."""
    return f"{day} at nine"


async def test_markdown_of_a_workflow_is_not_spoken() -> None:
    tts = ToneVoice()
    pieces = [
        "# Today\n",
        "- **Fi",
        "sh** is 2 * 3 euros.\n",
        "- See [",
        "tea](https://a.example).",
    ]
    await play(SimpleWorkflow(lambda _: _each(pieces)), AudioInput(samples(speech(300))), tts=tts)
    assert tts.said == ["Today", "Fish is 2 * 3 euros.", "See tea."]


async def _each(pieces: list[str]) -> AsyncIterator[str]:
    for piece in pieces:
        yield piece


async def test_an_agent_answers_with_its_tools_and_remembers_the_turns() -> None:
    def reply(body: dict[str, Any]) -> Script:
        last = body["messages"][-1]
        if last["role"] == "tool":
            return chat_stream("You can come on ", "Monday at nine.")
        if last["content"] == "turn 1":
            return chat_stream(calls=[("find_slot", '{"day": "Monday"}')])
        return chat_stream("You are welcome.")

    agent = Agent(name="Desk", instructions="Be brief.", tools=[find_slot])
    said, pause = speech(400, 24_000), quiet(800, 24_000)
    tts = ToneVoice()
    async with WebService(scripted_chat(reply)) as server, StreamingHttp() as http:
        model = ChatCompletions(StageSpec(base_url=server.url, model="stand-in"), http)
        events = await play(
            AgentWorkflow(agent, model),
            StreamedAudioInput(),
            samples(said + pause + said),
            None,
            tts=tts,
        )
    assert kinds(events)[-1] == "session_ended", events[-1]
    assert tts.said == ["You can come on Monday at nine.", "You are welcome."]
    last = json.loads(server.asked[-1].body)["messages"]
    assert [m["content"] for m in last if m["role"] == "tool"] != []
    assert last[0]["content"].startswith("Be brief.")
    assert last[-1] == {"role": "user", "content": "turn 2"}


async def test_an_agents_first_sentence_is_spoken_while_its_model_writes_on() -> None:
    tts, goes_on = ToneVoice(), asyncio.Event()

    async def model(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 x\r\nContent-Type: text/event-stream\r\n\r\n")
        for words in ("We are open today. And ", "tomorrow."):
            writer.write(
                f"data: {json.dumps({'choices': [{'delta': {'content': words}}]})}\n\n".encode()
            )
            await writer.drain()
            await goes_on.wait()
        writer.write(b"data: [DONE]\n\n")
        writer.close()

    async with WebService(model) as server, StreamingHttp() as http, time_limit():
        text_model = ChatCompletions(StageSpec(base_url=server.url, model="stand-in"), http)
        workflow = AgentWorkflow(Agent(name="Desk", instructions="Be brief."), text_model)
        sound = AudioInput(samples(speech(400, 24_000)))
        result = await VoicePipeline(workflow, CountingTranscriber(), tts, CONFIG).run(sound)
        await until(lambda: tts.said == ["We are open today."])
        goes_on.set()
        assert kinds([event async for event in result.stream()])[-1] == "session_ended"
    assert tts.said == ["We are open today.", "And tomorrow."]


async def test_an_interrupted_turn_stops_and_the_model_is_told_what_was_heard() -> None:
    def reply(body: dict[str, Any]) -> Script:
        if body["messages"][-1]["content"] == "turn 1":
            return chat_stream("We have fish today. " * 20)
        return chat_stream("As you like.")

    said, pause = speech(400, 24_000), quiet(800, 24_000)
    tts, audio = ToneVoice(), StreamedAudioInput()
    async with WebService(scripted_chat(reply)) as server, StreamingHttp() as http, time_limit():
        model = ChatCompletions(StageSpec(base_url=server.url, model="stand-in"), http)
        workflow = AgentWorkflow(Agent(name="Desk", instructions="Be brief."), model)
        result = await VoicePipeline(workflow, CountingTranscriber(), tts, CONFIG).run(audio)
        await audio.add_audio(samples(said + pause))
        events: list[Any] = []
        stream = result.stream()
        async for event in stream:
            events.append(event)
            if event.type == "voice_stream_event_audio":
                await until(lambda: len(tts.said) > 1)
                await result.interrupt(heard_ms=300)
                break
        await result.interrupt()  # nothing is being said
        await audio.add_audio(samples(said + pause))
        await audio.add_audio(None)
        events += [event async for event in stream]
    turn = ["turn_started", "audio", "turn_ended"]
    assert kinds(events) == [*turn, *turn, "session_ended"]
    assert tts.said[-1] == "As you like."
    notes = [
        message["content"]
        for message in json.loads(server.asked[-1].body)["messages"]
        if message["role"] == "system" and "interrupted" in message["content"]
    ]
    assert notes == ['The user interrupted. Of your last answer they heard only: "We have fish"']


async def test_each_stage_of_a_turn_is_a_span() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("trunkline")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "get_tracer", lambda _name: tracer)
        await play(
            SimpleWorkflow(lambda text: "The first sentence is here. And another one is here."),
            AudioInput(samples(speech(300, 24_000))),
        )
    provider.shutdown()
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == ["stt", "tts", "tts", "workflow"]
    assert not any(span.attributes for span in spans)


@pytest.mark.offline_speech
async def test_the_examples_work_offline(capsys: pytest.CaptureFixture[str]) -> None:
    async with time_limit():
        await example("voice_pipeline").main()
        await example("voice_multi_turn").main()
    out = capsys.readouterr().out
    assert out.count("turn_started") == 1 + 3
    assert "heard: hello what are your opening hours" in out
    assert "heard: where are you located" in out


AGENT = Agent(name="Desk", instructions="Be brief.", tools=[find_slot])


def named(monkeypatch: pytest.MonkeyPatch, url: str, key: str = "") -> None:
    """Name a server in the environment, as a program of OpenAI's packages finds it."""
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    monkeypatch.setenv("OPENAI_API_KEY", key)


@pytest.mark.parametrize("agents", [AGENT, [AGENT], Roster([AGENT])], ids=["one", "list", "roster"])
@pytest.mark.parametrize("model", [(), ("llama3.2",)], ids=["default", "by name"])
async def test_an_agent_without_a_text_model_asks_the_one_of_the_environment(
    agents: Agent | list[Agent] | Roster,
    model: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def reply(body: dict[str, Any]) -> Script:
        if body["messages"][-1]["role"] == "tool":
            return chat_stream("You can come on Monday.")
        return chat_stream(calls=[("find_slot", '{"day": "Monday"}')])

    tts = ToneVoice()
    async with WebService(scripted_chat(reply)) as server:
        named(monkeypatch, f"{server.url}/v1/", "sk-own")
        workflow = AgentWorkflow(agents, *model)
        events = await play(workflow, AudioInput(samples(speech(400, 24_000))), tts=tts)
        events += await play(workflow, AudioInput(samples(speech(400, 24_000))), tts=tts)
    assert kinds(events).count("session_ended") == 2, events[-1]
    assert tts.said == ["You can come on Monday."] * 2
    first = server.asked[0]
    assert (first.target, first.headers["authorization"]) == (
        "/v1/chat/completions",
        "Bearer sk-own",
    )
    assert json.loads(first.body)["model"] == (*model, "gpt-6-luna")[0]


async def test_a_stage_may_have_several_sides_of_which_one_that_fails_is_replaced() -> None:
    deaf, hears, mute, speaks = (
        CountingTranscriber(),
        CountingTranscriber(),
        ToneVoice(),
        ToneVoice(),
    )
    deaf.fails = mute.fails = True
    said = samples(speech(400, 24_000))
    async with (
        WebService(answer(b"{}", status=500)) as dead,
        WebService(chat_stream("We are open today.")) as live,
        StreamingHttp() as http,
        time_limit(),
    ):
        models = [
            ChatCompletions(StageSpec(base_url=server.url, model="stand-in"), http)
            for server in (dead, live)
        ]
        for audio in (AudioInput(said), StreamedAudioInput()):
            workflow = AgentWorkflow(AGENT, models)
            pipeline = VoicePipeline(workflow, [deaf, hears], [mute, speaks], CONFIG)
            result = await pipeline.run(audio)
            if isinstance(audio, StreamedAudioInput):
                await audio.add_audio(said)
                await audio.add_audio(None)
            events = [event async for event in result.stream()]
            turn = ["turn_started", "audio", "turn_ended", "session_ended"]
            assert kinds(events) == turn, events[-1]
    assert speaks.said == ["We are open today."] * 2
    assert hears.heard_ms == [400, 400]


async def test_stages_that_are_not_given_are_those_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with (
        WebService(
            routed(
                stt=answer(b'{"text": "When are you open?"}'),
                llm=chat_stream("We are open today. And tomorrow."),
            )
        ) as server,
        ScriptedVoiceServer() as reader,
        Fronted(server.port, urlsplit(reader.url).port) as front,
    ):
        named(monkeypatch, f"{front.url}/v1")
        pipeline = VoicePipeline(AgentWorkflow(AGENT))
        result = await pipeline.run(AudioInput(samples(speech(400, 24_000))))
        async with time_limit():
            events = [event async for event in result.stream()]
        spoken = [
            event.response.metadata[SAY_METADATA_KEY] for event in reader.latest.of(ResponseCreate)
        ]
        assert reader.open_connections == 0
    assert kinds(events) == ["turn_started", "audio", "turn_ended", "session_ended"]
    assert spoken == ["We are open today.", "And tomorrow."]
    assert b"gpt-transcribe" in server.asked[0].body
    assert len(reader.connections) == 1


async def test_a_stage_that_is_given_stands_beside_those_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tts = ToneVoice()
    async with WebService(answer(b'{"text": "When are you open?"}')) as server, time_limit():
        named(monkeypatch, server.url)
        pipeline = VoicePipeline(SimpleWorkflow(str), tts=tts)
        result = await pipeline.run(AudioInput(samples(speech(400, 24_000))))
        assert kinds([event async for event in result.stream()])[-1] == "session_ended"
    assert tts.said == ["When are you open?"]


@pytest.mark.parametrize("key", ["", " "])
def test_a_program_without_stages_and_key_is_told_what_to_do(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    named(monkeypatch, "", key)
    for make, lack in (
        (
            lambda: AgentWorkflow(AGENT),
            "AgentWorkflow has no text model: give it one, such as Chat",
        ),
        (lambda: VoicePipeline(SimpleWorkflow(str)), "VoicePipeline lacks stt or tts: give it"),
        (lambda: VoicePipeline(SimpleWorkflow(str), tts=ToneVoice()), "VoicePipeline lacks stt"),
    ):
        with pytest.raises(ConfigError, match=lack) as told:
            make()
        assert told.value.message.endswith("; or set OPENAI_API_KEY, and OpenAI's is used")


def test_an_empty_list_of_servers_is_refused() -> None:
    stt, tts = CountingTranscriber(), ToneVoice()
    for make, stage in (
        (lambda: AgentWorkflow(AGENT, []), "llm"),
        (lambda: VoicePipeline(SimpleWorkflow(str), [], tts), "stt"),
        (lambda: VoicePipeline(SimpleWorkflow(str), stt, []), "tts"),
    ):
        with pytest.raises(ConfigError, match=f"{stage}: the list of its servers is empty"):
            make()


def test_the_stages_of_the_environment_are_those_of_a_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-own")
    settings = PipelineSettings()
    (llm,) = settings.llm
    assert llm.model == openai.TEXT_MODEL
    assert settings.stt[0].model == openai.STT_MODEL
    assert settings.tts[0].model == openai.TTS_MODEL
    assert openai.openai_server("any", "").base_url == OPENAI_HTTP_URL
    # The endpoint at which OpenAI's models that think use tools as well.
    assert isinstance(openai.text_model("gpt-6-astra", StreamingHttp()), Responses)


class Fronted(Forwarder):
    """One address for a server of HTTP and one of a websocket, as OpenAI's are."""

    def __init__(self, http_port: int, socket_port: int | None) -> None:
        super().__init__()
        self._ports = http_port, socket_port

    async def _onward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        line = await reader.readline()
        port = self._ports[b" /v1/realtime" in line]
        theirs, onward = await asyncio.open_connection("127.0.0.1", port)
        onward.write(line)
        return theirs, onward


@pytest.mark.offline_speech
async def test_the_example_with_an_agent_works_over_a_stand_in(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def reply(body: dict[str, Any]) -> Script:
        if body["messages"][-1]["role"] == "tool":
            return chat_stream(body["messages"][-1]["content"][:200])
        return chat_stream(calls=[("opening_hours", '{"day": "Monday"}')])

    async with WebService(scripted_chat(reply)) as server, time_limit():
        named(monkeypatch, server.url)
        await example("voice_with_agent").main("stand-in")
        assert len(server.asked) == 2
    assert capsys.readouterr().out.splitlines()[:2] == ["turn_started", "turn_ended"]


@pytest.mark.offline_speech
@pytest.mark.parametrize("status", [401, 500])
async def test_the_example_with_an_agent_is_skipped_where_its_model_fails_by_itself(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    async with WebService(answer(b"{}", status=status)) as server, time_limit():
        named(monkeypatch, server.url)
        await example("voice_with_agent").main("stand-in")
    assert "SKIPPED: the text model fails by itself: " in capsys.readouterr().out


@pytest.mark.offline_speech
async def test_the_example_with_an_agent_fails_where_its_model_answers_a_probe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def only_without_tools(body: dict[str, Any]) -> Script:
        return answer(b"{}", status=400) if body.get("tools") else chat_stream("OK.")

    async with WebService(scripted_chat(only_without_tools)) as server, time_limit():
        named(monkeypatch, server.url)
        with pytest.raises(SystemExit, match="pipeline error"):
            await example("voice_with_agent").main("stand-in")
