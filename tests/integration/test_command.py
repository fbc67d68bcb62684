"""The `trunkline` command as its user has it: one process serves, another calls, signals come."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import wave
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.dial.leg import EndedBy
from app.realtime.events import SessionUpdate
from tests.fakes.carrier import FakeTwilio
from tests.fakes.forked import ForkedProcess, start_forked
from tests.fakes.twilio_rest import Trouble as CarrierTrouble
from tests.fakes.twilio_rest import TwilioApi
from tests.fakes.voice import Reply, ScriptedVoiceServer, Trouble
from tests.fakes.waiting import TIME_LIMIT_S, time_limit, until

ROOT = Path(__file__).parents[2]
PUBLIC_URL = "https://voice.example.com"


async def start(*arguments: str, folder: Path, **variables: str) -> ForkedProcess:
    """The command in `folder`, with an environment that holds nothing of the developer's."""
    path = os.environ.get("PATH", "")
    return await start_forked(
        "app.cli",
        *arguments,
        cwd=folder,
        env={"PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def outcome(*arguments: str, folder: Path, **variables: str) -> tuple[int | None, str, str]:
    """Exit code, standard output and standard error of the command."""
    process = await start(*arguments, folder=folder, **variables)
    async with asyncio.timeout(3 * TIME_LIMIT_S):  # some hold a conversation, in real time
        out, errors = await process.communicate()
    return process.returncode, out.decode(), errors.decode()


@dataclass
class Served:
    """A server process: what it has said so far, and its log."""

    process: ForkedProcess
    folder: Path
    banner: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        listening = next(line for line in self.banner if "listening" in line)
        return listening.split()[1]

    async def until_logged(self, text: str, *, times: int = 1) -> None:
        async with time_limit():
            while sum(text in line for line in self.log) < times:  # noqa: ASYNC110 - read elsewhere
                await asyncio.sleep(0.02)

    async def ended(self) -> int | None:
        async with time_limit():
            return await self.process.wait()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log]


@contextlib.asynccontextmanager
async def served(
    folder: Path, *options: str, config: Mapping[str, Any] | None = None, **variables: str
) -> AsyncIterator[Served]:
    """`trunkline serve` on a free port, ready to answer."""
    (folder / "config.yaml").write_text(json.dumps(config or {}))
    process = await start("serve", "--port", "0", *options, folder=folder, **variables)
    server = Served(process, folder)
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.TaskGroup() as tasks:
        for stream, lines in ((process.stdout, server.banner), (process.stderr, server.log)):
            tasks.create_task(_read(stream, lines))
        try:
            await _until_ready(server)
            yield server
        finally:
            await process.end()


async def _read(stream: asyncio.StreamReader, lines: list[str]) -> None:
    while line := await stream.readline():
        lines.append(line.decode().rstrip("\n"))


async def _until_ready(server: Served) -> None:
    async with time_limit(), httpx2.AsyncClient(trust_env=False, timeout=TIME_LIMIT_S) as client:
        while True:
            assert server.process.returncode is None, server.log
            if any("Ctrl-C" in line for line in server.banner):
                with contextlib.suppress(httpx2.HTTPError):
                    if (await client.get(server.url + "/readyz")).status_code == 200:
                        return
            await asyncio.sleep(0.02)


# The two commands of the README -------------------------------------------------------------------


@pytest.mark.offline_speech
async def test_run_and_demo_hold_a_spoken_conversation_without_key_account_or_phone(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as server:
        assert any("offline demo (no OpenAI key is set)" in line for line in server.banner)
        demo = next(line for line in server.banner if "a simulated call" in line)
        options = demo.partition(" dial ")[2].partition("  ")[0].split()  # as the banner says it
        code, out, errors = await outcome("dial", "--json", *options, folder=tmp_path)
        assert (code, errors) == (0, "")
        report = json.loads(out)
        _check_conversation(report)
        _check_recording(tmp_path / "var" / "dial.wav", report["duration_ms"])
        await server.until_logged("call ended")
        _check_log(server)
        server.process.send_signal(signal.SIGINT)
        assert await server.ended() == 0


def _check_conversation(report: dict[str, Any]) -> None:
    heard = [line["text"] for line in report["transcript"] if line["who"] == "caller"]
    # Not word for word: this call is held in real time, and a busy machine may cost it a word.
    for line, words in zip(heard, ("opening hours", "located", "goodbye"), strict=True):
        assert words in line
    said = " ".join(line["text"] for line in report["transcript"] if line["who"] == "agent")
    for words in ("robot", "Harbor Street", "Goodbye"):
        assert words in said
    (stream,) = report["streams"]
    assert [barge_in["reaction_ms"] is not None for barge_in in stream["barge_ins"]] == [True]
    assert None not in stream["turn_latencies_ms"]
    assert not report["faults"]


def _check_recording(path: Path, duration_ms: int) -> None:
    with wave.open(str(path)) as recording:
        assert recording.getnchannels() == 2
        assert abs(recording.getnframes() / recording.getframerate() - duration_ms / 1000) < 1


def _check_log(server: Served) -> None:
    """The milestones of a call, between its admission and its end; no speech, no whole number."""
    lines = server.lines()
    # A busy machine blocks the loop, which the server says.
    lines = [line for line in lines if not line["message"].startswith("event loop")]
    messages = [line["message"] for line in lines]
    assert messages[0] == "call admitted"
    assert {"model ready", "first sound", "tool ran"} == set(messages[1:-1])
    assert messages[-1] == "call ended"
    assert len({line["call_id"] for line in lines}) == 1
    assert lines[0]["pii.caller"] == "+1500***0006"
    assert lines[-1]["reason"] == "agent_hung_up"
    for fact in ("duration_ms", "turn_latency_p95_ms", "barge_ins", "caller_frames", "turns"):
        assert lines[-1][fact] > 0
    text = "".join(server.log).lower()
    assert "5005550006" not in text
    assert "located" not in text


MY_AGENTS = """
from trunkline import Agent

desk = Agent(name="Desk", instructions="Be brief.", greeting="Desk speaking.")
"""


async def test_agents_of_a_module_beside_the_configuration_are_served(tmp_path: Path) -> None:
    (tmp_path / "my_own_agents.py").write_text(MY_AGENTS)
    async with ScriptedVoiceServer() as voice:
        async with live(tmp_path, voice, "my_own_agents:desk") as (server, phone, _api):
            call = await phone.call(server.url)
            await call.hear(ms=200)
            await call.hang_up()
            await server.until_logged("call ended")
        assert voice.latest.of(SessionUpdate)[0].session.instructions == "Be brief."
    [admitted] = [line for line in server.lines() if line["message"] == "call admitted"]
    assert admitted["agent"] == "Desk"


async def test_a_wrong_path_of_agents_ends_the_start_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{}")
    (tmp_path / "my_own_agents.py").write_text(MY_AGENTS)
    code, out, errors = await outcome("serve", "my_own_agents:dusk", folder=tmp_path)
    assert (code, out) == (2, "")
    assert errors == (
        "in my_own_agents, there is no agent or roster 'dusk'; did you mean \"desk\"?\n"
    )


@pytest.mark.offline_speech
async def test_a_port_in_use_is_named_and_nothing_is_said_to_listen(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{}")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, errors = await outcome("serve", "--port", str(port), folder=tmp_path)
    assert code == 2
    assert f"cannot listen on 127.0.0.1:{port}: " in errors
    assert out == ""


@pytest.mark.offline_speech
async def test_a_receptionist_that_is_not_there_is_named_by_check_and_by_serve(
    tmp_path: Path,
) -> None:
    (tmp_path / "config.yaml").write_text("offline:\n  receptionist: mine.yaml\n")
    missing = "config.yaml:2: offline.receptionist: there is no file mine.yaml\n"
    for command in (("config", "check"), ("serve", "--port", "0")):
        assert await outcome(*command, folder=tmp_path) == (2, "", missing)
    (tmp_path / "mine.yaml").write_text("states: {}\nfoo: bar\n")
    for command in (("config", "check"), ("serve", "--port", "0")):
        code, out, errors = await outcome(*command, folder=tmp_path)
        assert (code, out) == (2, "")
        *missing_keys, last = errors.splitlines()
        assert "mine.yaml:1: `greeting` is missing" in missing_keys
        assert last.startswith("mine.yaml:2: no key is called `foo`")


@pytest.mark.offline_speech
async def test_a_voice_that_is_not_there_is_named_by_check_and_by_serve(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("offline:\n  voice: en-gbb\n")
    missing = "config.yaml:2: offline.voice: there is no voice 'en-gbb'; did you mean \"en-gb\"?\n"
    for command in (("config", "check"), ("serve", "--port", "0")):
        # Nothing says that it listens.
        code, out, errors = await outcome(*command, folder=tmp_path)
        assert (code, out, errors.endswith(missing)) == (2, "", True)


# Real credentials ---------------------------------------------------------------------------------

SECRETS = {
    "OPENAI_API_KEY": "sk-canary-of-the-model-1",
    "TWILIO_AUTH_TOKEN": "canary0of0the0carrier0000000002",
    "TWILIO_AUTH_TOKEN_SECONDARY": "canary0of0the0carrier0000000003",
    "METRICS_TOKEN": "canary-of-the-metrics-4",
}
ACCOUNT = "AC" + "1" * 32


@contextlib.asynccontextmanager
async def live(
    folder: Path,
    voice: ScriptedVoiceServer,
    *options: str,
    log_level: str = "INFO",
    **sections: Any,
) -> AsyncIterator[tuple[Served, FakeTwilio, TwilioApi]]:
    """A server with credentials, the carrier that calls it, and the carrier's REST API.

    `sections` of the configuration are those besides what this needs.
    """
    token = SECRETS["TWILIO_AUTH_TOKEN"]
    phone = FakeTwilio(auth_token=token, account_sid=ACCOUNT, speed=6, public_url=PUBLIC_URL)
    async with TwilioApi(account_sid=ACCOUNT, auth_token=token) as api, phone:
        config = {
            "openai_realtime": {
                "url": voice.url,
                "api_key": "${OPENAI_API_KEY}",
                "headers": {"x-canary": "canary-of-a-header-5"},
            },
            "twilio": {
                "account_sid": ACCOUNT,
                "auth_token": "${TWILIO_AUTH_TOKEN}",
                "auth_token_secondary": "${TWILIO_AUTH_TOKEN_SECONDARY}",
                "rest_url": api.url,
            },
            "server": {
                "public_url": PUBLIC_URL,
                "metrics_token": "${METRICS_TOKEN}",
                "transcript_feed": "on",
            },
            "logging": {"level": log_level},
            **sections,
        }
        async with served(folder, *options, config=config, **SECRETS) as server:
            yield server, phone, api


async def test_no_secret_leaves_the_process_at_debug_whatever_happens(tmp_path: Path) -> None:
    answers: list[str] = []
    replies = [Reply(text="Hello."), Reply(text="We open at nine.")]
    voice = ScriptedVoiceServer(replies=replies, heard=["My number is +14155552671."])
    async with voice, live(tmp_path, voice, log_level="DEBUG") as (server, phone, _api):
        call = await phone.call(server.url)
        await call.hear(ms=200)
        await call.speak(0.5)
        await call.hear(ms=200)
        await call.hang_up()
        await server.until_logged("call ended")

        voice.trouble = Trouble(http_status=401, http_code="invalid_api_key")
        refused = await phone.ring(server.url)
        answers.append(str(refused.verbs))
        await server.until_logged("call ended", times=2)

        async with httpx2.AsyncClient(trust_env=False, timeout=TIME_LIMIT_S) as client:
            for path in ("/healthz", "/readyz", "/metrics", "/twilio/voice", "/nothing"):
                for headers in ({}, {"authorization": f"Bearer {SECRETS['METRICS_TOKEN']}"}):
                    got = await client.get(server.url + path, headers=headers)
                    answers.append(f"{got.headers} {got.text}")
        server.process.send_signal(signal.SIGTERM)
        assert await server.ended() == 0
    everything = "\n".join((*server.banner, *server.log, *answers))
    assert "trunkline_calls_total" in everything
    assert '"debug"' in everything
    assert "canary" not in everything
    assert "14155552671" not in everything


async def test_calls_that_a_second_signal_ends_are_said_to_be_drained(tmp_path: Path) -> None:
    voice = ScriptedVoiceServer()
    async with voice, live(tmp_path, voice) as (server, phone, _api):
        call = await phone.call(server.url)
        await call.hear(ms=200)
        server.process.send_signal(signal.SIGTERM)
        await server.until_logged("draining")
        server.process.send_signal(signal.SIGTERM)
        assert await server.ended() == 1
        await server.until_logged("call ended")
    lines = server.lines()
    (ended,) = [line for line in lines if line["message"] == "call ended"]
    assert ended["reason"] == "drained"
    assert not [line for line in lines if line["level"] == "error"]


async def test_a_live_server_answers_strangers_on_these_paths_only(tmp_path: Path) -> None:
    expected = {"/healthz": 200, "/readyz": 200}
    signed = ("/twilio/voice", "/calls/CA1/transcript")  # the feed is on here
    expected |= dict.fromkeys(("/metrics", *signed), 403) | {"/twilio/status": 405}
    nothing = ("/", "/docs", "/redoc", "/openapi.json", "/v1/realtime")
    expected |= dict.fromkeys((*nothing, "/twilio/media-stream", "/config.yaml", "/.env"), 404)
    voice = ScriptedVoiceServer()
    client = httpx2.AsyncClient(trust_env=False, timeout=TIME_LIMIT_S)
    async with voice, live(tmp_path, voice) as (server, _phone, _api), client:
        for path, status in expected.items():
            assert (await client.get(server.url + path)).status_code == status, path


async def test_callers_whom_a_second_signal_cuts_off_are_left_to_the_words_behind_the_stream(
    tmp_path: Path,
) -> None:
    voice = ScriptedVoiceServer()
    async with voice, live(tmp_path, voice) as (server, phone, api):
        call = await phone.call(server.url)
        await call.hear(ms=200)
        server.process.send_signal(signal.SIGTERM)
        await server.until_logged("draining")
        server.process.send_signal(signal.SIGTERM)
        assert (await call.ended()).by is EndedBy.LOST
        assert await server.ended() == 1
        assert api.requests == []


async def test_a_carrier_that_does_not_answer_cannot_hold_up_the_second_signal(
    tmp_path: Path,
) -> None:
    goodbye = Reply(audio_ms=300, text="Goodbye.", tool=("end_call", '{"reason": "task_complete"}'))
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), goodbye])
    async with voice, live(tmp_path, voice) as (server, phone, api):
        call = await phone.call(server.url)
        await call.hear_quiet(ms=200)
        api.troubles += [CarrierTrouble(status=None)] * 9
        await call.speak(0.4)
        await until(lambda: bool(api.requests))
        server.process.send_signal(signal.SIGTERM)
        await server.until_logged("draining")
        server.process.send_signal(signal.SIGTERM)
        assert await server.ended() == 1
        assert [request.fields for request in api.requests] == [{"Status": "completed"}]
        await server.until_logged("agent_hung_up")


async def test_a_state_directory_that_takes_no_key_keeps_no_server_from_starting(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")
    async with ScriptedVoiceServer() as voice:
        config = {
            "state_dir": "file/below",
            "store": "off",
            "openai_realtime": {"url": voice.url, "api_key": "${OPENAI_API_KEY}"},
            "twilio": {"account_sid": ACCOUNT, "auth_token": "${TWILIO_AUTH_TOKEN}"},
            "server": {"public_url": PUBLIC_URL},
        }
        async with served(tmp_path, config=config, **SECRETS) as server:
            await server.until_logged("api keys cannot be written")
