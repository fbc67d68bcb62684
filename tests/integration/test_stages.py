"""The HTTP sides of the speech stages, against servers that differ as the real ones do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import numpy as np
import pytest

from app.engine.stages.base import (
    Message,
    StageError,
    StageSpec,
    TextPiece,
    TextRequest,
    TextUsage,
    ToolCall,
    Words,
)
from app.engine.stages.fallback import Recognizers, TextModels, Voices
from app.engine.stages.text_models import ChatCompletions, Responses
from app.engine.stages.text_to_speech import HttpVoice
from app.engine.stages.transcriptions import HttpTranscriber
from app.http.streaming import StreamingHttp
from tests.fakes.engine_parts import speech
from tests.fakes.stage_servers import (
    chat_events,
    chat_stream,
    form_values,
    piecewise,
    silent,
    speech_events,
    sse,
    transcript_events,
    wav,
)
from tests.fakes.waiting import time_limit
from tests.fakes.web_service import Asked, Script, WebService, answer

HELLO = (Message(role="system", text="Be brief."), Message(role="user", text="Hello"))
TOOL = {
    "type": "function",
    "name": "find_slot",
    "description": "Find a slot",
    "parameters": {"type": "object", "properties": {"day": {"type": "string"}}},
}
BARE_TOOL = {"type": "function", "name": "hang_up"}
ASK = TextRequest(messages=HELLO, tools=(TOOL,))


@pytest.fixture
async def http() -> AsyncIterator[StreamingHttp]:
    made = StreamingHttp()
    yield made
    await made.close()


def spec(server: WebService, **settings: object) -> StageSpec:
    settings = {"timeout_s": 5.0, "api_key": "sk-test", **settings}
    return StageSpec(base_url=f"{server.url}/v1", model="some-model", **settings)  # type: ignore[arg-type]


async def read(model: ChatCompletions | Responses | TextModels, ask: TextRequest = ASK) -> (
    list[TextPiece]
):  # fmt: skip
    async with time_limit():
        return [piece async for piece in model.stream(ask)]


def text(pieces: list[TextPiece]) -> str:
    return "".join(piece.text for piece in pieces if isinstance(piece, Words))


async def test_the_first_request_builds_nothing_that_the_start_could_have(
    http: StreamingHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with WebService(answer(b'{"text": "Yes."}')) as server:
        await http.start()
        monkeypatch.delattr("app.http.routed.new_transport")
        async with time_limit():
            assert await HttpTranscriber(spec(server), http).transcribe(speech(200)) == "Yes."


# Speech to text -----------------------------------------------------------------------------------

TRANSCRIPTS: dict[str, Script] = {
    "openai": answer(b'{"text": "One table, please.", "usage": {"type": "tokens"}}'),
    "openai streamed": transcript_events("One table", ", please."),
    "groq": answer(b'{"text": " One table, please.", "x_groq": {"id": "req_1"}}'),
    "speaches segments": sse(
        {"type": "transcript.segment", "text": "One table,"},
        {"type": "transcript.segment", "text": " please."},
        "data: [DONE]\n\n",
    ),
    "vllm": answer(b'{"text": "One table, please.", "usage": null, "logprobs": null}'),
    "localai": answer(b'{"segments": [{"id": 0, "text": "x"}], "text": "One table, please."}'),
    "ollama text": answer(b"One table, please.\n", content_type="text/plain; charset=utf-8"),
    "JSON that is called text": answer(
        b'{"text": "One table, please."}', content_type="text/plain"
    ),
    "JSON that is called nothing": answer(b'{"text": "One table, please."}', content_type=""),
    "byte order mark": answer(b'\xef\xbb\xbf{"text": "One table, please."}'),
    "comments and no blank": sse(
        ": keep-alive\n\n",
        'data:{"type":"transcript.text.done","text":"One table, please."}\n\n',
    ),
}


@pytest.mark.parametrize(
    ("model", "own", "told", "one", "several"),
    [
        ("whisper-large-v3", "", (), [], []),
        ("whisper-large-v3", "en", (), ["en"], []),
        ("whisper-large-v3", "en", ("de",), ["de"], []),
        ("whisper-large-v3", "", ("pt-BR",), ["pt"], []),
        ("whisper-large-v3", "en", ("de", "fr"), [], []),
        ("gpt-transcribe", "en", (), [], ["en"]),
        ("gpt-transcribe", "", ("de", "fr"), [], ["de", "fr"]),
    ],
)
async def test_a_transcriber_is_told_the_languages_as_its_model_takes_them(
    model: str,
    own: str,
    told: tuple[str, ...],
    one: list[str],
    several: list[str],
    http: StreamingHttp,
) -> None:
    async with WebService(answer(b'{"text": "Yes."}')) as server, time_limit():
        stt = HttpTranscriber(
            StageSpec(base_url=f"{server.url}/v1", model=model), http, language=own
        )
        turn = Recognizers([stt]).listen("", told)
        turn.push(speech(300))
        await turn.finish()
        await stt.transcribe(speech(300))
    asked, apart = (request.body for request in server.asked)
    assert form_values(asked, "language") == one
    assert form_values(asked, "languages[]") == several
    # Turns of others are heard as the settings say.
    own_hints = form_values(apart, "language") + form_values(apart, "languages[]")
    assert own_hints == ([own] if own else [])


@pytest.mark.parametrize("name", TRANSCRIPTS)
async def test_a_transcript_is_read_however_the_server_writes_it(
    name: str, http: StreamingHttp
) -> None:
    async with WebService(TRANSCRIPTS[name]) as server:
        stt = HttpTranscriber(spec(server, extra_body={"temperature": 0}), http, language="en")
        hearing = stt.open()
        for _ in range(10):
            hearing.push(speech(50))
        async with time_limit():
            heard = await hearing.finish()
    assert heard.transcript == "One table, please."
    asked = server.asked[0]
    assert asked.target == "/v1/audio/transcriptions"
    assert asked.headers["authorization"] == "Bearer sk-test"
    assert b'filename="turn.wav"' in asked.body and b"RIFF" in asked.body
    for field in (b'name="model"\r\n\r\nsome-model', b'name="language"', b'name="temperature"'):
        assert field in asked.body


FAILURES: dict[str, tuple[Script, str]] = {
    "wrong key": (
        answer(b'{"error": {"code": "invalid_api_key"}}', status=401),
        "stage_key_refused",
    ),
    "wrong region": (answer(b"{}", status=403), "stage_key_refused"),
    "no such model": (answer(b"not found", status=404), "stage_not_found"),
    "a wrong field": (answer(b"{}", status=400), "stage_refused"),
    "too much asked": (answer(b"{}", status=429), "stage_rate_limited"),
    "no credit": (
        answer(b'{"error": {"code": "insufficient_quota"}}', status=429),
        "insufficient_quota",
    ),
    "broken": (answer(b"<html>", status=503), "stage_busy"),
    "silent": (silent, "stage_timeout"),
    "cut": (piecewise(b'{"tex', content_type="application/json", cut=True), "stage_cut"),
    "no text": (answer(b'{"result": 1}'), "stage_invalid"),
}


Ask = Callable[[StageSpec, StreamingHttp], Awaitable[object]]


async def transcribe(asked: StageSpec, http: StreamingHttp) -> None:
    await HttpTranscriber(asked, http).transcribe(speech(300))


async def chat(asked: StageSpec, http: StreamingHttp) -> None:
    await read(ChatCompletions(asked, http))


async def responses(asked: StageSpec, http: StreamingHttp) -> None:
    await read(Responses(asked, http))


async def speak(asked: StageSpec, http: StreamingHttp) -> None:
    async for _ in HttpVoice(asked, http).speak("Hello.", voice="marin", speed=1.0):
        pass


@pytest.mark.parametrize("ask", [transcribe, chat, responses, speak])
@pytest.mark.parametrize("name", FAILURES)
async def test_a_failing_server_says_how_it_failed(
    name: str, ask: Ask, http: StreamingHttp
) -> None:
    script, code = FAILURES[name]
    if (name, ask) == ("no text", speak):
        code = "stage_failed"
    async with WebService(script) as server, time_limit():
        with pytest.raises(StageError) as failed:
            await ask(spec(server, timeout_s=0.5), http)
    assert failed.value.code == code
    assert "sk-test" not in failed.value.message


# Text models --------------------------------------------------------------------------------------

_WHOLE_CALL = {"function": {"name": "find_slot", "arguments": {"day": "Monday"}}}
CHATS: dict[str, Script] = {
    "openai": chat_stream("Let me", " look.", calls=[("find_slot", '{"day": "Monday"}')]),
    "ollama: whole call, no id or index, reason stop": sse(
        {"choices": [{"delta": {"role": "assistant", "content": "Let me look."}}]},
        {"choices": [{"delta": {"content": "", "tool_calls": [_WHOLE_CALL]}}]},
        {"choices": [{"delta": {"content": ""}, "finish_reason": "stop"}]},
        "data: [DONE]\n\n",
    ),
    "groq: usage in a field of its own": sse(
        *chat_events("Let me look.", calls=[("find_slot", '{"day": "Monday"}')], usage=None),
        {"choices": [], "x_groq": {"id": "req_1", "usage": {"prompt_tokens": 20}}},
        "data: [DONE]\n\n",
    ),
    "vllm: thoughts beside the words": sse(
        {"choices": [{"delta": {"reasoning_content": "hm"}}]},
        {"choices": [{"delta": {"content": "<thi"}}]},
        {"choices": [{"delta": {"content": "nk>secret</think>\n\nLet me look."}}]},
        *chat_events(calls=[("find_slot", '{"day": "Monday"}')], usage=None)[1:],
        "data: [DONE]\n\n",
    ),
    "localai: no [DONE], null delta": sse(
        {"choices": [{"delta": None}]},
        *chat_events("Let me look.", calls=[("find_slot", '{"day": "Monday"}')]),
    ),
    "no stream at all": answer(
        json.dumps(
            {
                "choices": [{"message": {"content": "Let me look.", "tool_calls": [_WHOLE_CALL]}}],
                "usage": {"prompt_tokens": 20, "completion_tokens": 5},
            }
        ).encode()
    ),
    "parts": sse(
        {"choices": [{"delta": {"content": [{"type": "text", "text": "Let me look."}]}}]},
        {"choices": [{"delta": {"tool_calls": [_WHOLE_CALL]}, "finish_reason": "tool_calls"}]},
        "data: [DONE]\n\n",
    ),
}


@pytest.mark.parametrize("name", CHATS)
async def test_words_and_calls_are_read_however_the_server_writes_them(
    name: str, http: StreamingHttp
) -> None:
    async with WebService(CHATS[name]) as server:
        pieces = await read(ChatCompletions(spec(server), http))
    assert text(pieces) == "Let me look."
    (call,) = [piece for piece in pieces if isinstance(piece, ToolCall)]
    assert (call.name, json.loads(call.arguments)) == ("find_slot", {"day": "Monday"})
    assert call.call_id
    body = json.loads(server.asked[0].body)
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert body["tools"][0]["function"]["name"] == "find_slot"
    assert "max_tokens" not in body


@pytest.mark.parametrize("given", ['{"day": "Monday"}', {"day": "Monday"}])
@pytest.mark.parametrize("streams", [True, False])
async def test_arguments_that_are_an_object_are_a_calls_arguments(
    given: object, streams: bool, http: StreamingHttp
) -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "find_slot", "arguments": given}
    done = {"type": "response.completed", "response": {}}
    script = (
        sse({"type": "response.output_item.done", "item": call}, done)
        if streams
        else answer(json.dumps({"output": [call]}).encode())
    )
    async with WebService(script) as server:
        (made,) = await read(Responses(spec(server), http))
    assert isinstance(made, ToolCall)
    assert json.loads(made.arguments) == {"day": "Monday"}


async def test_two_calls_under_one_index_stay_two(http: StreamingHttp) -> None:
    calls = [
        {"index": 0, "id": f"c{n}", "function": {"name": "find_slot", "arguments": "{}"}}
        for n in (1, 2)
    ]
    events = [{"choices": [{"delta": {"tool_calls": [call]}}]} for call in calls]
    async with WebService(sse(*events, "data: [DONE]\n\n")) as server:
        pieces = await read(ChatCompletions(spec(server), http))
    assert [piece.call_id for piece in pieces if isinstance(piece, ToolCall)] == ["c1", "c2"]


async def test_usage_is_told_and_the_calls_of_before_are_answered_behind_them(
    http: StreamingHttp,
) -> None:
    call = ToolCall(call_id="c1", name="find_slot", arguments="{}")
    history = (
        *HELLO,
        Message(role="assistant", calls=(call,)),
        Message(role="tool", text="nine", call_id="c1"),
    )
    async with WebService(chat_stream("Nine.", usage=(31, 2))) as server:
        pieces = await read(
            ChatCompletions(spec(server), http), TextRequest(messages=history, max_tokens=50)
        )
    assert pieces[-1] == TextUsage(input_tokens=31, output_tokens=2)
    body = json.loads(server.asked[0].body)
    assert body["max_tokens"] == 50
    assert body["messages"][2]["tool_calls"][0]["id"] == "c1"
    assert body["messages"][3] == {"role": "tool", "content": "nine", "tool_call_id": "c1"}


@pytest.mark.parametrize("status", [400, 422])
async def test_a_server_that_refuses_stream_options_is_asked_without_them(
    http: StreamingHttp, status: int
) -> None:
    body = b'{"error": {"message": "unknown field stream_options"}}'
    refusal = answer(body, status=status)
    async with WebService(refusal, chat_stream("Hello.", usage=None)) as server:
        model = ChatCompletions(spec(server), http)
        assert text(await read(model)) == "Hello."
        assert text(await read(model)) == "Hello."
    assert ["stream_options" in json.loads(asked.body) for asked in server.asked] == [
        True,
        False,
        False,
    ]


async def test_a_server_that_repeats_the_request_in_its_refusal_is_understood(
    http: StreamingHttp,
) -> None:
    """As servers made with FastAPI do; each try leaves out one field of those that are named."""

    async def write(asked: Asked, writer: asyncio.StreamWriter) -> None:
        body = json.loads(asked.body)
        if {"max_tokens", "stream_options"} & body.keys():
            detail = [{"type": "extra_forbidden", "input": body}]
            refusal = json.dumps({"detail": detail}).encode()
            await answer(refusal, status=422)(asked, writer)
        else:
            await chat_stream("Fine.")(asked, writer)

    async with WebService(write) as server:
        model = ChatCompletions(spec(server), http)
        asked = TextRequest(messages=HELLO, max_tokens=50)
        assert text(await read(model, asked)) == text(await read(model, asked)) == "Fine."
    last = json.loads(server.asked[-1].body)
    assert last["max_completion_tokens"] == 50 and "stream_options" not in last
    assert len(server.asked) == 4


async def test_a_model_with_another_name_for_the_limit_is_asked_by_it(http: StreamingHttp) -> None:
    """As OpenAI's newer models are behind an address of Azure's or of a gateway."""
    told = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    refusal = {"error": {"message": told, "param": "max_tokens", "code": "unsupported_parameter"}}
    script = answer(json.dumps(refusal).encode(), status=400)
    async with WebService(script, chat_stream("Fine.")) as server:
        model = ChatCompletions(spec(server), http)
        assert text(await read(model, TextRequest(messages=HELLO, max_tokens=50))) == "Fine."
    names = [{"max_tokens", "max_completion_tokens"} & json.loads(a.body).keys()
             for a in server.asked]  # fmt: skip
    assert names == [{"max_tokens"}, {"max_completion_tokens"}]
    assert all("stream_options" in json.loads(asked.body) for asked in server.asked)


def refusing(*efforts: str | None) -> Script:
    """A text model that refuses these reasoning efforts as OpenAI's do, if it is given tools."""

    async def write(asked: Asked, writer: asyncio.StreamWriter) -> None:
        body = json.loads(asked.body)
        effort = body.get("reasoning_effort", body.get("reasoning", {}).get("effort"))
        if body.get("tools") and effort in efforts:
            where = "reasoning.effort" if "input" in body else "reasoning_effort"
            message = f"Function tools with {where} are not supported for gpt-6-luna"
            error = {"message": message, "param": where, "code": None}
            await answer(json.dumps({"error": error}).encode(), status=400)(asked, writer)
        elif "input" in body:
            words = {"type": "response.output_text.delta", "delta": "Fine."}
            await sse(words, {"type": "response.completed", "response": {}})(asked, writer)
        else:
            await chat_stream("Fine.")(asked, writer)

    return write


@pytest.mark.parametrize("kind", [ChatCompletions, Responses])
@pytest.mark.parametrize(
    ("wanted", "refused", "asked"),
    [
        ("none", (), ["none", "none"]),
        ("low", (), ["low", "low"]),
        (None, (), [None, None]),
        (None, (None,), [None, "none", "none"]),  # GPT-6 over chat completions, with tools
        ("minimal", ("minimal", None), ["minimal", "none", "none"]),
        ("none", ("none",), ["none", None, None]),  # GPT-4.1, and GPT-6 Astra over responses
        ("low", ("low", "none"), ["low", "none", None, None]),
    ],
)
async def test_a_reasoning_effort_that_is_refused_is_given_up_for_good(
    wanted: str | None,
    refused: tuple[str | None, ...],
    asked: list[str | None],
    kind: type[ChatCompletions | Responses],
    http: StreamingHttp,
) -> None:
    async with WebService(refusing(*refused)) as server:
        model = kind(spec(server), http, reasoning_effort=wanted)
        assert text(await read(model)) == "Fine."
        assert text(await read(model)) == "Fine."
    bodies = [json.loads(one.body) for one in server.asked]
    assert [
        body.get("reasoning_effort", body.get("reasoning", {}).get("effort")) for body in bodies
    ] == asked


async def test_a_model_that_refuses_every_effort_fails_and_names_the_field(
    http: StreamingHttp,
) -> None:
    async with WebService(refusing("low", "none", None)) as server:
        model = ChatCompletions(spec(server), http, reasoning_effort="low")
        with pytest.raises(StageError, match=r"the server answered 400 \(reasoning_effort\)"):
            await read(model)
        assert len(server.asked) == 3


async def test_a_cut_answer_keeps_its_words_and_fails(http: StreamingHttp) -> None:
    for script in (
        sse(*chat_events("Let me")[:2]),
        sse(*chat_events("Let me")[:2], cut=True),
        sse(*chat_events("Let me")[:2], {"error": {"message": "overloaded"}}),
    ):
        async with WebService(script) as server:
            seen = []
            async with time_limit():
                with pytest.raises(StageError):
                    async for piece in ChatCompletions(spec(server), http).stream(ASK):
                        seen.append(piece)
        assert text(seen) == "Let me"


async def test_the_responses_endpoint_streams_words_calls_and_usage(http: StreamingHttp) -> None:
    call = {"type": "function_call", "call_id": "c7", "name": "find_slot", "arguments": '{"day":1}'}
    events = sse(
        {"type": "response.created", "response": {}},
        {"type": "response.reasoning_summary_text.delta", "delta": "hm"},
        {"type": "response.output_text.delta", "delta": "Let me "},
        {"type": "response.output_text.delta", "delta": "look."},
        {"type": "response.output_item.done", "item": call},
        {
            "type": "response.completed",
            "response": {"usage": {"input_tokens": 9, "output_tokens": 4,
                                   "input_tokens_details": {"cached_tokens": 3}}},
        },
    )  # fmt: skip
    async with WebService(events) as server:
        asked = TextRequest(messages=HELLO, tools=(TOOL, BARE_TOOL))
        pieces = await read(Responses(spec(server), http), asked)
    assert text(pieces) == "Let me look."
    assert pieces[-2:] == [
        ToolCall(call_id="c7", name="find_slot", arguments='{"day":1}'),
        TextUsage(input_tokens=9, output_tokens=4, cached_tokens=3),
    ]
    body = json.loads(server.asked[0].body)
    assert body["store"] is False
    nothing = {"type": "object", "properties": {}}
    bare = {**BARE_TOOL, "parameters": nothing}
    assert body["tools"] == [{**TOOL, "strict": False}, {**bare, "strict": False}]


async def test_a_response_that_is_not_streamed_is_read_whole(http: StreamingHttp) -> None:
    said = {"type": "message", "content": [{"type": "output_text", "text": "Let me look."}]}
    call = {"type": "function_call", "call_id": "c7", "name": "find_slot", "arguments": "{}"}
    usage = {"input_tokens": 9, "output_tokens": 4}
    whole = {"object": "response", "error": None, "output": [{"type": "reasoning"}, said, call],
             "usage": usage}  # fmt: skip
    async with WebService(answer(json.dumps(whole).encode())) as server:
        pieces = await read(Responses(spec(server), http))
    assert pieces == [
        Words("Let me look."),
        ToolCall(call_id="c7", name="find_slot", arguments="{}"),
        TextUsage(input_tokens=9, output_tokens=4),
    ]


@pytest.mark.parametrize(
    "events",
    [
        [{"type": "response.failed", "response": {"error": {"message": "no"}}}],
        [{"type": "error", "message": "no"}],
        [{"type": "response.output_text.delta", "delta": "Let"}],
    ],
)
async def test_a_response_that_fails_or_is_cut_is_an_error(
    events: list[dict[str, object]], http: StreamingHttp
) -> None:
    async with WebService(sse(*events)) as server:
        with pytest.raises(StageError):
            await read(Responses(spec(server), http))


# Text to speech -----------------------------------------------------------------------------------

TONE = speech(600, 24_000)


def odd_pieces(sound: bytes) -> list[bytes]:
    return [sound[at : at + 1_001] for at in range(0, len(sound), 1_001)]


VOICES: dict[str, Script] = {
    "openai pcm": piecewise(*odd_pieces(TONE), content_type="application/octet-stream"),
    "openai sse": speech_events(TONE),
    "groq wav 48k": piecewise(
        *odd_pieces(wav(speech(600, 48_000), 48_000, size=0xFFFFFFFF)), content_type="audio/wav"
    ),
    "kokoro pcm": piecewise(*odd_pieces(TONE), content_type="audio/pcm"),
    "speaches wav 22.05k": answer(wav(speech(600, 22_050), 22_050), content_type="audio/x-wav"),
    "localai stereo": answer(
        wav(np.repeat(np.frombuffer(TONE, "<i2"), 2).tobytes(), 24_000, channels=2),
        content_type="audio/wav",
    ),
    "ollama wav without a type": answer(wav(TONE, 24_000), content_type="application/octet-stream"),
    "vllm rate in the type": piecewise(
        *odd_pieces(speech(600, 16_000)), content_type="audio/pcm;rate=16000;channels=1"
    ),
    "wav under a wrong type": answer(wav(TONE, 24_000, size=0), content_type="audio/pcm"),
}


@pytest.mark.parametrize("name", VOICES)
async def test_speech_is_read_however_the_server_sends_it(name: str, http: StreamingHttp) -> None:
    async with WebService(VOICES[name]) as server:
        voice = HttpVoice(spec(server), http, voice="nova")
        async with time_limit():
            chunks = [c async for c in voice.speak("Hello.", voice="marin", speed=1.0)]
    assert all(len(chunk) % 2 == 0 and len(chunk) <= 9_600 for chunk in chunks)
    sound = np.frombuffer(b"".join(chunks), "<i2").astype(float)
    assert len(sound) == pytest.approx(14_400, abs=60)
    spectrum = np.abs(np.fft.rfft(sound[2_000:-2_000]))
    peak_hz = spectrum.argmax() * 24_000 / len(sound[2_000:-2_000])
    assert peak_hz == pytest.approx(440, abs=3)
    assert np.abs(sound).max() == pytest.approx(10_000, rel=0.05)
    body = json.loads(server.asked[0].body)
    assert (body["voice"], body["response_format"]) == ("nova", "pcm")


async def test_half_of_a_character_stops_no_stage(http: StreamingHttp) -> None:
    """A server that cuts an emoji between two tokens writes halves, as JSON can spell them."""
    halves = sse(
        'data: {"choices": [{"delta": {"content": "Fine \\ud83d"}}]}\n\n',
        'data: {"choices": [{"delta": {"content": "\\ude00."}}]}\n\n',
        "data: [DONE]\n\n",
    )
    heard = answer(b'{"text": "Hello \\ud83d"}')
    async with WebService(halves, heard, speech_events(TONE)) as server:
        said = text(await read(ChatCompletions(spec(server), http)))
        assert said == "Fine ??."
        async with time_limit():
            assert await HttpTranscriber(spec(server), http).transcribe(speech(200)) == "Hello ?"
            # A word of Python's may hold one as well.
            voice = HttpVoice(spec(server), http)
            assert [c async for c in voice.speak("Fine \ud83d.", voice="marin", speed=1.0)]
    assert json.loads(server.asked[2].body)["input"] == "Fine ?."


async def test_a_voice_that_takes_wav_alone_is_asked_for_it_from_then_on(
    http: StreamingHttp,
) -> None:
    refusal = answer(b'{"error": {"message": "response_format must be one of [wav]"}}', status=400)
    spoken = answer(wav(speech(600, 48_000), 48_000), content_type="audio/wav")
    async with WebService(refusal, spoken) as server:
        voice = HttpVoice(spec(server), http)
        async with time_limit():
            for _ in range(2):
                assert [c async for c in voice.speak("Hello.", voice="marin", speed=1.0)]
    forms = [json.loads(asked.body)["response_format"] for asked in server.asked]
    assert forms == ["pcm", "wav", "wav"]


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (answer(b"\xff\xfb\x90\x00" * 99, content_type="audio/mpeg"), "stage_invalid"),
        # Each of them would be a burst of noise in the caller's ear.
        (answer(b"\xff" * 8_000, content_type="audio/basic"), "stage_invalid"),
        (answer(b"\xff" * 8_000, content_type="audio/PCMU;rate=8000"), "stage_invalid"),
        (answer(b"<html>Sign in</html>", content_type="text/html"), "stage_invalid"),
        (answer(b"Out of memory", content_type="text/plain; charset=utf-8"), "stage_invalid"),
        (answer(b"RIFF\0\0\0\0WAVE", content_type="audio/wav"), "stage_invalid"),
        (answer(b"RIFF\0\0\0", content_type="application/octet-stream"), "stage_invalid"),
        (answer(b"ID3" + bytes(99), content_type="application/octet-stream"), "stage_invalid"),
        (answer(b'{"error": "no voice"}'), "stage_failed"),
        (answer(b"", content_type="audio/pcm"), "stage_invalid"),
        (speech_events(TONE, cut=True), "stage_cut"),
        (piecewise(TONE[:2_000], content_type="audio/pcm", cut=True), "stage_cut"),
        (silent, "stage_timeout"),
        (answer(b"{}", status=429), "stage_rate_limited"),
    ],
)
async def test_speech_that_is_none_is_an_error_and_no_noise(
    script: Script, code: str, http: StreamingHttp
) -> None:
    async with WebService(script) as server:
        voice = HttpVoice(spec(server, timeout_s=0.5), http)
        async with time_limit():
            with pytest.raises(StageError) as failed:
                async for _ in voice.speak("Hello.", voice="marin", speed=1.0):
                    pass
    assert failed.value.code == code


# Failover -----------------------------------------------------------------------------------------


async def test_a_late_recognizer_is_replaced_with_all_of_the_sound(
    http: StreamingHttp, caplog: pytest.LogCaptureFixture
) -> None:
    async with WebService(silent) as dead, WebService(TRANSCRIPTS["openai"]) as live:
        stages = [HttpTranscriber(spec(server), http) for server in (dead, live)]
        stt = Recognizers(stages, switch_s=0.3)
        turn = stt.listen("")
        turn.push(speech(400))
        turn.push(speech(400))
        async with time_limit():
            assert (await turn.finish()).transcript == "One table, please."
            again = stt.listen("")
            again.push(speech(300))
            assert (await again.finish()).transcript == "One table, please."
    assert len(live.asked[0].body) > 800 * 32
    assert len(dead.asked) == 1, "the side that failed rests"
    assert [record.message for record in caplog.records] == ["stage switched"]


async def test_a_text_model_is_replaced_before_its_first_word_and_not_behind_it(
    http: StreamingHttp,
) -> None:
    cut_late = sse(*chat_events("Let me")[:2], cut=True)
    for script, said in ((silent, "Fine."), (answer(b"", status=500), "Fine."), (cut_late, None)):
        async with WebService(script) as bad, WebService(chat_stream("Fine.")) as good:
            sides = [ChatCompletions(spec(server), http) for server in (bad, good)]
            models = TextModels(sides, switch_s=0.3)
            if said is None:
                with pytest.raises(StageError):
                    await read(models)
                assert not good.asked
            else:
                pieces = await read(models)
                assert text(pieces) == said
                used = [piece for piece in pieces if isinstance(piece, TextUsage)]
                # One that is late has the question, and bills it; one that refuses it does not.
                assert [usage.estimated for usage in used] == [True, False][script is not silent :]


EMPTY: dict[str, tuple[type[ChatCompletions | Responses], Script]] = {
    "no words": (ChatCompletions, chat_stream()),
    "the end alone": (ChatCompletions, sse("data: [DONE]\n\n")),
    "blanks": (ChatCompletions, chat_stream(" ", "\n\n")),
    "blanks for ever": (
        Responses,
        sse(*[{"type": "response.output_text.delta", "delta": " "}] * 2_000, pause_s=0.02),
    ),
    "usage before blanks": (
        ChatCompletions,
        sse(*chat_events()[-1:], *chat_events(" ", usage=None), "data: [DONE]\n\n"),
    ),
    "thoughts": (ChatCompletions, chat_stream("<think>", "Well.", "</think>", "\n")),
    "no content": (ChatCompletions, answer(b'{"choices": [{"message": {"content": null}}]}')),
    "no output": (Responses, sse({"type": "response.completed", "response": {"output": []}})),
    "empty output": (Responses, answer(b'{"output": []}')),
}


@pytest.mark.parametrize("kind", EMPTY)
async def test_a_text_model_that_answers_nothing_is_replaced(
    kind: str, http: StreamingHttp, caplog: pytest.LogCaptureFixture
) -> None:
    made, script = EMPTY[kind]
    good_script = sse(
        {"type": "response.output_text.delta", "delta": "Fine."},
        {"type": "response.completed", "response": {}},
    )
    script_of = {ChatCompletions: chat_stream("Fine."), Responses: good_script}
    async with WebService(script) as bad, WebService(script_of[made]) as good:
        pieces = await read(
            TextModels([made(spec(server), http) for server in (bad, good)], switch_s=0.4)
        )
        bad.let_go()
    words = [piece for piece in pieces if isinstance(piece, Words)]
    assert words == [Words("Fine.")]
    # The empty answer is billed as well, beside that of the next one.
    assert [p.estimated for p in pieces if isinstance(p, TextUsage)][:1] == [True]
    (switched,) = caplog.records
    late = kind == "blanks for ever"
    assert (switched.message, switched.code) == (  # type: ignore[attr-defined]
        "stage switched",
        "stage_timeout" if late else "stage_empty",
    )


async def test_a_tool_call_without_a_word_is_an_answer(http: StreamingHttp) -> None:
    async with WebService(chat_stream(calls=[("find_slot", "{}")])) as server:
        pieces = await read(TextModels([ChatCompletions(spec(server), http)]))
    assert [type(piece) for piece in pieces] == [ToolCall, TextUsage]


async def test_an_answer_of_the_only_text_model_that_is_empty_is_a_failure(
    http: StreamingHttp,
) -> None:
    async with WebService(chat_stream()) as server:
        pieces = []
        with pytest.raises(StageError, match="some-model: the answer is empty") as failed:
            async for piece in TextModels([ChatCompletions(spec(server), http)]).stream(ASK):
                pieces.append(piece)
    assert failed.value.code == "stage_empty"
    assert pieces == [TextUsage(input_tokens=20, output_tokens=5)]


async def test_a_voice_that_is_cut_off_is_continued_by_the_next_one(http: StreamingHttp) -> None:
    sentence = "We are open from nine to five on weekdays and until noon on Saturdays, so come by."
    half = speech(2_000, 24_000)
    async with (
        WebService(piecewise(half, content_type="audio/pcm", cut=True)) as bad,
        WebService(piecewise(TONE, content_type="audio/pcm")) as good,
    ):
        sides = [HttpVoice(spec(server), http) for server in (bad, good)]
        async with time_limit():
            sound = [c async for c in Voices(sides).speak(sentence, voice="x", speed=1.0)]
    assert len(b"".join(sound)) == len(half) + len(TONE)
    rest = json.loads(good.asked[0].body)["input"]
    assert sentence.endswith(rest) and 20 < len(rest) < len(sentence)


async def test_a_piece_without_a_word_is_not_given_to_a_voice(http: StreamingHttp) -> None:
    async with WebService(piecewise(TONE, content_type="audio/pcm")) as server:
        voices = Voices([HttpVoice(spec(server), http)])
        async with time_limit():
            for text_ in ("\U0001f60a", "--", "***\n\n", "Hello, dear caller!\n\n\U0001f60a"):
                sound = [c async for c in voices.speak(text_, voice="x", speed=1.0)]
                assert bool(sound) == ("Hello" in text_)
    assert [json.loads(a.body)["input"] for a in server.asked] == ["Hello, dear caller!"]


async def test_closing_a_reply_early_closes_the_request(http: StreamingHttp) -> None:
    gone = asyncio.Event()

    async def endless(_: object, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 x\r\nContent-Type: audio/pcm\r\n\r\n")
        try:
            while True:
                writer.write(TONE)
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            gone.set()
            raise

    async with WebService(endless) as server, time_limit():
        speaking = HttpVoice(spec(server), http).speak("Hello.", voice="x", speed=1.0)
        assert await anext(speaking)
        await speaking.aclose()
        await gone.wait()
