"""Agents of `config.yaml` on the phone: numbers, hours, tools, handoffs, servers of tools."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from app.errors import ConfigError
from app.events import AgentSaid, CallAdmitted, GuardrailTripped, ToolRan
from app.main import build
from app.realtime.events import (
    SAY_METADATA_KEY,
    ItemCreate,
    ResponseCreate,
    SessionConfig,
    SessionUpdate,
)
from app.settings import load
from tests.fakes.caller import phrase
from tests.fakes.forked import start_forked
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import time_limit
from tests.fakes.web_service import WebService, answer
from tests.integration.server import App, trunkline

NORTH, SOUTH = "+15005550001", "+15005550002"
ROOT = Path(__file__).parents[2]

TWO: dict[str, Any] = {
    "agents": {
        "clara": {"instructions": "You are Clara.", "greeting": "Clara speaking."},
        "nora": {"instructions": "You are Nora.", "greeting": "Nora speaking.", "voice": "cedar"},
    },
    "destinations": {"reception": {"number": "+15551230000", "ring_s": 15}},
}


def asked_session(voice: ScriptedVoiceServer) -> SessionConfig:
    update: SessionUpdate = voice.latest.of(SessionUpdate)[0]
    return update.session


async def greeted(app: App, voice: ScriptedVoiceServer, number: str) -> tuple[str, SessionConfig]:
    """The greeting for a caller of a number, and the session that was asked for."""
    async with app.twilio() as twilio:
        call = await (await twilio.ring(app.url, called_number=number)).connect()
        await call.hear(ms=100)
        await call.hang_up()
        await app.ended(call)
    metadata = voice.latest.of(ResponseCreate)[0].response.metadata
    assert metadata is not None
    return metadata[SAY_METADATA_KEY], asked_session(voice)


async def test_each_number_is_answered_by_its_agent_with_its_own_settings() -> None:
    numbers = {SOUTH: {"agent": "nora", "turn_detection": {"silence_duration_ms": 700}}}
    voice = ScriptedVoiceServer()
    async with voice, trunkline(voice, **TWO, numbers=numbers) as app:
        north, session = await greeted(app, voice, NORTH)
        assert (north, session.instructions) == ("Clara speaking.", "You are Clara.")
        south, session = await greeted(app, voice, SOUTH)
        assert (south, session.instructions) == ("Nora speaking.", "You are Nora.")
        assert session.voice == "cedar"
        assert "silence_duration_ms=700" in repr(session.turn_detection)


async def test_the_agent_who_answers_is_in_the_calls_first_event() -> None:
    voice = ScriptedVoiceServer()
    numbers = {SOUTH: {"agent": "nora"}}
    async with voice, trunkline(voice, **TWO, numbers=numbers) as app, app.twilio() as twilio:
        call = await (await twilio.ring(app.url, called_number=SOUTH)).connect()
        admitted = await app.event(call, CallAdmitted)
        await call.hang_up()
    assert (admitted.agent, admitted.called_number) == ("nora", SOUTH)
    assert admitted.tools == ("end_call",)


async def test_a_closed_number_speaks_and_puts_callers_through_without_a_model() -> None:
    never = {"time_zone": "UTC", "open": {"mon-sun": "closed"}}
    numbers = {
        NORTH: {"hours": never, "closed": {"say": "We open {next_opening}."}},
        SOUTH: {"hours": never, "closed": {"say": "One moment.", "transfer": "reception"}},
    }
    voice = ScriptedVoiceServer()
    async with voice, trunkline(voice, **TWO, numbers=numbers) as app, app.twilio() as twilio:
        closed = await twilio.ring(app.url, called_number=NORTH)
        assert [verb.name for verb in closed.verbs] == ["Say", "Hangup"]
        assert closed.verbs[0].text == "We open not in the coming year."
        through = await twilio.ring(app.url, called_number=SOUTH)
        assert [verb.name for verb in through.verbs] == ["Say", "Dial", "Hangup"]
        assert not voice.connections


async def test_callers_of_a_full_house_go_to_the_numbers_fallback() -> None:
    sections: dict[str, Any] = {
        **TWO,
        "numbers": {NORTH: {"fallback": "reception"}},
        "limits": {"max_calls": 1},
    }
    voice = ScriptedVoiceServer()
    async with voice, trunkline(voice, **sections) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        second = await twilio.ring(app.url, called_number=NORTH)
        assert [verb.name for verb in second.verbs] == ["Dial", "Hangup"]
        third = await twilio.ring(app.url, called_number=SOUTH)
        assert [verb.name for verb in third.verbs] == ["Say", "Hangup"]
        await call.hang_up()


async def test_an_http_tool_of_the_file_does_what_the_model_asks_for() -> None:
    service = WebService(answer(b'{"appointment": {"at": "nine"}}'))
    booking = Reply(audio_ms=200, tool=("book", '{"time": "nine"}'))
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=200), booking, Reply(audio_ms=200)])
    async with voice, service:
        tools = {
            "book": {
                "description": "Book it",
                "http": {
                    "method": "POST",
                    "url": f"http://127.0.0.1:{service.port}/for/{{context.called_number}}",
                    "headers": {"Authorization": "Bearer a-token-of-the-clinic"},
                    "parameters": {
                        "type": "object",
                        "properties": {"time": {"type": "string"}},
                        "required": ["time"],
                    },
                    "result": "/appointment",
                    "allow_private": True,
                },
            }
        }
        agents = {"clara": {"tools": ["book", "hold"]}}
        async with trunkline(voice, agents=agents, tools=tools) as app, app.twilio() as twilio:
            call = await twilio.call(app.url)
            await call.hear_quiet(ms=300)
            await call.speak(phrase("hours"))
            ran = await app.event(call, ToolRan)
            await voice.until(lambda: bool(outputs(voice)))
            await call.hang_up()
        session = asked_session(voice)
    [asked] = service.asked
    assert (ran.name, ran.error) == ("book", "")
    assert asked.target == "/for/%2B15005550001"
    assert asked.headers["authorization"] == "Bearer a-token-of-the-clinic"
    assert json.loads(asked.body) == {"time": "nine"}
    assert json.loads(outputs(voice)[0]) == {"result": {"at": "nine"}}
    assert isinstance(session.tools, tuple)
    assert {tool["name"] for tool in session.tools} == {"end_call", "hold", "book"}


def outputs(voice: ScriptedVoiceServer) -> list[str]:
    return [
        event.item.output
        for event in voice.latest.of(ItemCreate)
        if event.item.type == "function_call_output" and event.item.output is not None
    ]


@pytest.mark.parametrize(
    ("aside", "fail", "action", "stopped"),
    [
        ("STOP", "open", "stop", True),
        ("STOP", "open", "warn", False),
        ("I would say so.", "closed", "stop", True),
    ],
)
async def test_a_question_of_the_file_is_judged_by_the_calls_model(
    aside: str, fail: str, action: str, stopped: bool
) -> None:
    rule = {"question": "No word about illness.", "fail": fail, "action": action}
    if action == "stop":
        rule["say"] = "A doctor can tell."
    replies = [
        Reply(audio_ms=200),
        Reply(text="That is surely the flu.", audio_ms=4_000, hold_after_ms=600),
        Reply(audio_ms=200),
    ]
    agents = {"clara": {"guardrails": ["sick"], "guardrail_every_chars": 10}}
    voice = ScriptedVoiceServer(replies=replies, asides=[aside])
    async with (
        voice,
        trunkline(voice, agents=agents, guardrails={"sick": rule}) as app,
        app.twilio() as twilio,
    ):
        call = await twilio.call(app.url)
        await app.event(call, AgentSaid)
        await call.speak(0.6)
        tripped = await app.event(call, GuardrailTripped)
        assert (tripped.guardrail, tripped.stopped) == ("sick", stopped)
        if stopped:
            await app.event(call, AgentSaid, lambda line: line.text == "A doctor can tell.")
        await call.hang_up()
        said = [event for event in await app.events(call) if isinstance(event, AgentSaid)]
    assert any(line.cut_off for line in said if line.text.startswith("That is"))


async def test_tools_of_an_mcp_server_belong_to_the_agents_that_name_it() -> None:
    servers = {
        "math": {
            "command": sys.executable,
            "args": ["-m", "tests.fakes.mcp_server"],
            "env": {"PYTHONPATH": str(ROOT)},
            "allowed_tools": ["add", "echo"],
        }
    }
    agents = {"clara": {"mcp_servers": ["math"]}, "nora": {}}
    numbers = {SOUTH: {"agent": "nora"}}
    voice = ScriptedVoiceServer()
    async with (
        voice,
        trunkline(voice, agents=agents, mcp_servers=servers, numbers=numbers) as app,
    ):
        _, clara = await greeted(app, voice, NORTH)
        _, nora = await greeted(app, voice, SOUTH)
    assert isinstance(clara.tools, tuple)
    assert isinstance(nora.tools, tuple)
    assert [tool["name"] for tool in clara.tools] == ["end_call", "add", "echo"]
    assert [tool["name"] for tool in nora.tools] == ["end_call"]


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (
            {"command": "/no/such/program"},
            "Its command does not exist, or may not be run.",
        ),
        (
            {
                "command": sys.executable,
                "args": ["-m", "tests.fakes.mcp_server"],
                "env": {"PYTHONPATH": str(ROOT)},
                "allowed_tools": ["subtract"],
            },
            "it has no tool 'subtract'",
        ),
    ],
)
async def test_a_server_of_tools_that_is_not_as_described_keeps_the_process_from_starting(
    server: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    config = {"server": {"port": 0}, "voice_model": "openai", "mcp_servers": {"math": server}}
    config["openai_realtime"] = {"api_key": "a key of the model"}
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(config, indent=1))
    process = await start_forked(
        "app.cli", "serve", "-c", str(path), stderr=asyncio.subprocess.PIPE
    )
    async with time_limit():
        _, stderr = await process.communicate()
    line = path.read_text().splitlines().index('  "math": {') + 1
    assert "Traceback" not in stderr.decode()
    said = stderr.decode().splitlines()  # the log has a thread of its own, and may come after it
    assert f"config.yaml:{line}: mcp_servers.math: {expected}" in said
    assert process.returncode == 2


@pytest.mark.offline_speech
async def test_a_server_with_agents_that_do_not_fit_is_not_built(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("agents:\n  a:\n    instructions: '{nobody}'\n")
    with pytest.raises(ConfigError, match=r"config\.yaml:3: agents\.a\.instructions: "):
        build(load(path, {}))
