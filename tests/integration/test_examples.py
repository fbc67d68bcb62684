"""The examples do what they say: against a scripted server, and offline without any key."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from app.realtime import events as ev
from app.realtime.websocket import WebSocketModel
from audio.format import PCM16_24K
from tests.fakes.voice import Reply, ScriptedVoiceServer, Trouble, tone
from tests.fakes.waiting import time_limit
from tests.integration.server import Leftovers

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def model_of(server: ScriptedVoiceServer) -> WebSocketModel:
    return WebSocketModel(server.url, headers={}, model="scripted")


async def test_the_quickstart_prints_both_sides(capsys: pytest.CaptureFixture[str]) -> None:
    left = Leftovers()
    async with ScriptedVoiceServer(replies=[Reply(text="From nine to five.")]) as server:
        async with time_limit():
            await example("quickstart").main(model_of(server))
        session = server.latest.of(ev.SessionUpdate)[0].session
        assert session.turn_detection.silence_duration_ms == 200
    assert capsys.readouterr().out.splitlines() == [
        "You: Hello! When are you open?",
        "Assistant: From nine to five.",
    ]
    await left.are_gone()


@pytest.mark.offline_speech
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("quickstart", "Assistant: We are open Monday to Friday"),
        ("realtime_agents", "agent: Nobody can be reached right now."),
    ],
)
async def test_an_example_works_offline_as_a_program(name: str, said: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / f"{name}.py"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=EXAMPLES.parent,
        env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(EXAMPLES.parent)},
    )
    async with time_limit():
        out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert said in out.decode()


async def test_an_example_is_skipped_where_a_probe_proves_that_the_model_fails(
    capsys: pytest.CaptureFixture[str],
) -> None:
    quickstart = example("quickstart")
    replies = [Reply(error_code="insufficient_quota")]
    async with ScriptedVoiceServer(replies=replies) as server, time_limit():
        model = model_of(server)
        await quickstart.unless_upstream_fails(model, quickstart.main(model))
        assert "SKIPPED: scripted: quota: " in (out := capsys.readouterr().out)
        assert "(insufficient_quota, session sess_fake)" in out

    async with ScriptedVoiceServer(trouble=Trouble(connections=1, http_status=401)) as server:
        model = model_of(server)
        with pytest.raises(SystemExit, match=r"cannot be talked with: .* \(http_401\)"):
            await quickstart.unless_upstream_fails(model, quickstart.main(model))


async def test_agents_use_tools_hand_over_and_listen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    replies = [
        Reply(text="Let me look.", tool=("get_weather", '{"city": "Lisbon"}')),
        Reply(text="It is sunny."),
        Reply(text="I will put you through.", tool=("transfer_to_tech_support", "{}")),
        Reply(text="Support here."),
    ]
    heard = ["My phone is broken."]
    recording = tone(PCM16_24K, 1_050)
    async with ScriptedVoiceServer(replies=replies, heard=heard) as server:
        async with time_limit():
            spoken = await example("realtime_agents").main(model_of(server), recording)
        assert server.audio == recording
        assert len(server.latest.of(ev.InputAudioCommit)) == 1
    assert spoken == 4 * PCM16_24K.ms_to_bytes(600)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    told = [line for line in lines if not line.startswith("audio")]
    assert told == [
        "caller: What is the weather in Lisbon?",
        "agent start: Greeter",
        "agent: Let me look.",
        'tool call: get_weather {"city": "Lisbon"}',
        'tool output: {"result": "The weather in Lisbon is sunny, 22 degrees."}',
        "agent start: Greeter",
        "agent: It is sunny.",
        "caller: My phone is broken.",
        "agent start: Greeter",
        "agent: I will put you through.",
        "handoff: Greeter -> Tech Support",
        "agent start: Tech Support",
        "agent: Support here.",
        "you spoke last with Tech Support",
    ]
    assert lines.count("audio segment completed") == 4
