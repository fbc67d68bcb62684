"""`trunkline dial` against a server that speaks Media Streams, over real sockets.

The call runs eight times as fast as real time; the server's time is the caller's frames.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from app.dial import DialOptions, DialReport, dial, run
from app.dial.report import CallPrinter, print_report
from app.errors import ConfigError
from app.installation import command
from audio.wav import read_wav
from tests.fakes.caller import phrase_path
from tests.fakes.clock import FastClock
from tests.integration.frame_clocked_server import AUTH_TOKEN, CallTimers, SpeakingServer, serve

SHORT = "- listen: {quiet_ms: 400, at_most_ms: 4000}\n"


class Story:
    """A printer's console, kept as text."""

    def __init__(self) -> None:
        self.file = io.StringIO()
        self.printer = CallPrinter(Console(file=self.file, width=200))

    @property
    def text(self) -> str:
        return self.file.getvalue()


async def call(
    server: SpeakingServer, tmp_path: Path, script: str = SHORT, **options: Any
) -> tuple[DialReport, Story]:
    path = tmp_path / "script.yaml"
    for name in ("hours", "address", "goodbye"):
        (tmp_path / f"{name}.wav").write_bytes(phrase_path(name).read_bytes())
    path.write_text(script)
    settings: dict[str, Any] = {
        "to": server.url,
        "auth_token": AUTH_TOKEN,
        "script": path,
        "out": None,
        **options,
    }
    story = Story()
    report = await dial(DialOptions(**settings), story.printer, clock=FastClock(8))
    return report, story


CONVERSATION = """
- listen: {quiet_ms: 400}
- say: {file: hours.wav, text: "When are you open?"}
- barge_in: {file: address.wav, text: "What is your address?", after_ms: 600}
- listen: {quiet_ms: 400}
- say: {file: goodbye.wav, text: "Goodbye."}
- await_hang_up: {at_most_ms: 15000}
"""


async def test_a_conversation_with_one_barge_in_is_a_good_call(tmp_path: Path) -> None:
    async with serve(CallTimers(answer_ms=3_000, goodbye_after=3)) as server:
        report, story = await call(server, tmp_path, CONVERSATION, out=tmp_path / "call.wav")
    assert report.ok, report
    assert report.ended_by == "agent"
    (stream,) = report.streams
    assert len(stream.turn_latencies_ms) == 3
    # The server's turn ends after 300 ms of silent frames: less can only be a wrong measure.
    assert all(ms is not None and ms >= 280 for ms in stream.turn_latencies_ms)
    (barge_in,) = stream.barge_ins
    assert barge_in.reaction_ms is not None
    assert barge_in.reaction_ms >= 80  # it needs five loud frames to notice
    assert stream.clears == 1
    assert stream.counters.marks_received == stream.counters.marks_returned == 4
    assert server.marks == ["hello", "answer-1", "answer-2", "goodbye"]
    for words in ("When are you open?", "Goodbye.", "the agent hangs up"):
        assert words in story.text
    assert "We were cut off." in story.text  # the verb after <Connect> is performed
    assert [status["CallStatus"] for status in server.statuses] == ["in-progress", "completed"]


async def test_the_recording_holds_the_caller_left_and_the_agent_right(tmp_path: Path) -> None:
    script = SHORT + "- say: {file: hours.wav}\n- listen: {quiet_ms: 400}\n"
    async with serve() as server:
        report, _ = await call(server, tmp_path, script, out=tmp_path / "deep" / "call.wav")
    content = (tmp_path / "deep" / "call.wav").read_bytes()
    assert report.recording == str(tmp_path / "deep" / "call.wav")
    assert content[22:24] == b"\x02\x00"
    samples = memoryview(content[44:]).cast("h")
    left, right = samples[0::2].tolist(), samples[1::2].tolist()
    first_left = next(at for at, sample in enumerate(left) if abs(sample) > 300)
    first_right = next(at for at, sample in enumerate(right) if abs(sample) > 300)
    assert first_right < first_left  # the greeting comes first
    assert abs(len(left) / 8 - report.duration_ms) < 1_500


async def test_audio_that_was_cleared_is_not_in_the_recording(tmp_path: Path) -> None:
    script = SHORT + "- say: {file: hours.wav}\n- barge_in: {file: address.wav, after_ms: 400}\n"
    async with serve(CallTimers(answer_ms=20_000)) as server:
        report, _ = await call(server, tmp_path, script, out=tmp_path / "call.wav")
    assert report.streams[0].counters.agent_audio_ms >= 20_000
    with (tmp_path / "call.wav").open("rb") as file:
        rate_hz, samples = read_wav(file)
    assert len(samples) / rate_hz < 15


async def test_the_servers_transcript_is_told_with_what_it_understood(tmp_path: Path) -> None:
    async with serve(CallTimers(transcript=True)) as server:
        guess = {"who": "caller", "text": "when are you open", "unverified": True}
        server.lines.append({"at_ms": 900, **guess})
        cut = {"who": "agent", "text": "a b c", "heard_text": "a b", "cut_off": True}
        server.lines.append({"at_ms": 65_432, **cut})
        report, story = await call(server, tmp_path)
    assert report.ok, report
    assert "the server made out: when are you open" in story.text
    assert re.search(r"01:0[345]\.\d  agent   a b - cut off", story.text)
    assert [line.text for line in report.transcript] == ["when are you open", "a b c", "hello"]


async def test_without_a_transcript_agent_speech_is_told_from_its_sound(tmp_path: Path) -> None:
    async with serve(CallTimers(greeting_ms=700)) as server:
        _, story = await call(server, tmp_path)
    assert "agent   (agent speaks 0.7 s)" in story.text


async def test_keys_reach_the_server(tmp_path: Path) -> None:
    script = SHORT + "- press: {digits: 15#, gap_ms: 40}\n- wait: {ms: 200}\n"
    async with serve() as server:
        report, story = await call(server, tmp_path, script)
    assert server.digits == ["1", "5", "#"]
    assert server.stopped
    assert report.ended_by == "caller"
    assert "caller presses 5" in story.text


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (b"\xff" * 160, "31950"),
        ("not json", "31951"),
        ('{"event":"media","streamSid":"MZwrong","media":{"payload":"AAAA"}}', "31951"),
        ('{"event":"media","streamSid":"$SID","media":{"payload":"AAAA","extra":1}}', "31951"),
        ('{"event":"mark","stream_sid":"$SID","mark":{"name":"x"}}', "31951"),
        ('{"event":"hangup","streamSid":"$SID"}', "31951"),
    ],
)
async def test_a_broken_message_of_the_server_makes_it_a_bad_call(
    tmp_path: Path, bad: str | bytes, code: str
) -> None:
    async with serve(CallTimers(bad_messages=(bad,))) as server:
        report, _ = await call(server, tmp_path)
    assert [fault.code for fault in report.faults] == [code]
    assert not report.ok
    assert report.failures == ()


async def test_an_agent_that_cannot_be_interrupted_shows_in_the_figures(tmp_path: Path) -> None:
    script = SHORT + "- say: {file: hours.wav}\n- barge_in: {file: address.wav, after_ms: 400}\n"
    async with serve(CallTimers(answer_ms=6_000, obeys_barge_in=False)) as server:
        report, _ = await call(server, tmp_path, script)
    assert [measure.reaction_ms for measure in report.streams[0].barge_ins] == [None]
    assert report.streams[0].turn_latencies_ms[1] is None


async def test_an_agent_that_hangs_up_on_its_own_goodbye_is_found(tmp_path: Path) -> None:
    script = SHORT + "- say: {file: goodbye.wav}\n- await_hang_up: {}\n"
    async with serve(CallTimers(goodbye_after=1, cuts_its_goodbye=True)) as server:
        report, _ = await call(server, tmp_path, script)
    assert report.ended_by == "agent"
    (failure,) = report.failures
    assert failure.startswith("the agent hung up on its own words")


async def test_a_dropped_stream_is_a_failure_and_its_next_verb_is_performed(tmp_path: Path) -> None:
    async with serve(CallTimers(close_code_after_greeting=1011)) as server:
        report, story = await call(server, tmp_path, CONVERSATION)
    assert report.ended_by == "a lost connection"
    assert report.failures[0] == "the server dropped the stream (code 1011)"
    assert "before the caller had said everything: 3 more" in report.failures[1]
    assert "We were cut off." in story.text


async def test_the_action_of_connect_decides_how_the_call_goes_on(tmp_path: Path) -> None:
    after = "<Response><Say>Thank you for calling.</Say><Hangup/></Response>"
    timers = CallTimers(close_code_after_greeting=1000, action_twiml=after)
    async with serve(timers) as server:
        report, story = await call(server, tmp_path)
    assert report.ok, report
    assert "Thank you for calling." in story.text
    assert "We were cut off." not in story.text


async def test_a_silent_agent_is_a_failure(tmp_path: Path) -> None:
    async with serve(CallTimers(greeting_ms=0)) as server:
        report, _ = await call(server, tmp_path)
    assert "the agent was never heard: no media message came" in report.failures
    assert "the agent said nothing for 4000 ms" in report.failures
    assert report.streams[0].answer_to_first_audio_ms is None


async def test_a_polite_refusal_is_told_and_is_no_good_call(tmp_path: Path) -> None:
    twiml = "<Response><Say>All lines are busy.</Say><Reject/></Response>"
    async with serve(CallTimers(twiml=twiml)) as server:
        report, story = await call(server, tmp_path)
    assert report.failures == ("the server opened no media stream for the call",)
    assert "All lines are busy." in story.text


async def test_a_refused_handshake_is_explained_and_the_next_verb_performed(tmp_path: Path) -> None:
    async with serve(CallTimers(refuses_handshake=True)) as server:
        report, story = await call(server, tmp_path)
    assert "HTTP 403" in report.failures[0]
    assert "31920" in report.failures[0]
    assert "We were cut off." in story.text


async def test_a_forged_signature_is_explained(tmp_path: Path) -> None:
    async with serve() as server:
        report, _ = await call(server, tmp_path, auth_token="wrong")
    assert "refused our signature" in report.failures[0]
    assert "--auth-token" in report.failures[0]


async def test_an_answer_that_is_no_twiml_is_explained(tmp_path: Path) -> None:
    async with serve(CallTimers(twiml="{}", content_type="application/json")) as server:
        report, _ = await call(server, tmp_path)
    assert report.failures == ("the answer is application/json, not text/xml (Twilio 12300)",)


async def test_twiml_that_redirects_for_ever_is_ended(tmp_path: Path) -> None:
    twiml = "<Response><Redirect>/twilio/voice</Redirect></Response>"
    async with serve(CallTimers(twiml=twiml)) as server:
        report, _ = await call(server, tmp_path)
    assert report.failures == ("the TwiML went on to more than 10 documents",)


async def test_a_server_behind_a_tunnel_is_signed_as_it_knows_itself(tmp_path: Path) -> None:
    async with serve(CallTimers(public_host="voice.example.com")) as server:
        report, _ = await call(server, tmp_path, public_url="https://voice.example.com")
    assert report.ok, report


async def test_a_call_that_does_not_end_is_ended(tmp_path: Path) -> None:
    async with serve() as server:
        script = "- wait: {ms: 60000}\n"
        report, _ = await call(server, tmp_path, script, at_most_s=2)
    assert "the call was still going on after 2 s" in report.failures
    assert server.stopped


async def test_wav_files_are_spoken_as_turns() -> None:
    async with serve(CallTimers(answer_ms=300)) as server:
        wavs = (phrase_path("hours"), phrase_path("goodbye"))
        options = DialOptions(to=server.url, auth_token=AUTH_TOKEN, wavs=wavs, out=None)
        report = await dial(options, clock=FastClock(8))
    assert report.ok, report
    assert len(report.streams[0].turn_latencies_ms) == 2


def tasks_of_dial() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if "/app/dial/" in repr(task)]


async def test_nothing_is_left_when_the_call_is_over(tmp_path: Path) -> None:
    async with serve() as server:
        calling = asyncio.create_task(call(server, tmp_path))
        seen: set[str] = set()
        while not calling.done():
            seen.update(tasks_of_dial())
            await asyncio.wait([calling], timeout=0.02)
        assert seen  # the question is asked rightly
        assert tasks_of_dial() == []


async def test_wrong_options_are_told_before_anything_is_dialed(tmp_path: Path) -> None:
    wav = phrase_path("hours")
    for options, words in (
        (DialOptions(to="localhost:8080", auth_token="t"), "--to"),
        (DialOptions(script=tmp_path / "no.yaml", auth_token="t"), "cannot be read"),
        (DialOptions(wavs=(tmp_path / "no.wav",), auth_token="t"), "No such file"),
        (DialOptions(wavs=(wav,), script=wav, auth_token="t"), "exclude each other"),
        (DialOptions(token_file=tmp_path / "none"), "trunkline serve"),
        (DialOptions(auth_token="t", out=tmp_path), "cannot be written"),
    ):
        with pytest.raises(ConfigError, match=words):
            await dial(options)


async def test_the_report_holds_every_figure(tmp_path: Path) -> None:
    async with serve(CallTimers(answer_ms=2_000, bad_messages=("x",))) as server:
        script = SHORT + "- say: {file: hours.wav}\n- barge_in: {file: hours.wav, after_ms: 200}\n"
        report, _ = await call(server, tmp_path, script)
    file = io.StringIO()
    print_report(report, Console(file=file, width=200))
    for words in (
        "first sound of the agent",
        "answers came after",
        "silent when interrupted",
        "sound of the caller",
        "sound of the agent",
        "playing confirmed",
        "31951",
    ):
        assert words in file.getvalue()


def test_the_command_exits_with_one_and_plain_words_when_nothing_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], unused_tcp_port: int
) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    out = tmp_path / "call.wav"
    assert run(DialOptions(to=url, auth_token="t", out=out)) == 1
    assert f"start it with `{command()} serve`" in capsys.readouterr().err
    assert not out.exists()


def test_the_command_gives_json_for_machines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], unused_tcp_port: int
) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    assert run(DialOptions(to=url, auth_token="t", out=None, json=True)) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert "no server answers" in document["failures"][0]


def test_the_command_exits_with_two_when_an_option_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(DialOptions(token_file=tmp_path / "none", out=None)) == 2
    assert "no auth token" in capsys.readouterr().err


async def test_a_transfer_ends_the_simulation_and_names_its_target(tmp_path: Path) -> None:
    after = (
        '<Response><Pause length="2"/><Play>a.mp3</Play>'
        "<Dial><Number>+15005550009</Number></Dial></Response>"
    )
    timers = CallTimers(close_code_after_greeting=1000, action_twiml=after)
    async with serve(timers) as server:
        report, story = await call(server, tmp_path)
    assert report.ended_by == "a transfer"
    assert "transfers the call to +15005550009" in story.text
    assert "silent for 2 s" in story.text
    assert "<Play> is not simulated" in story.text


async def test_a_stream_on_a_dead_address_is_explained(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    url = f"ws://127.0.0.1:{unused_tcp_port}/media?token=1"
    twiml = f'<Response><Connect><Stream url="{url}"/></Connect></Response>'
    async with serve(CallTimers(twiml=twiml)) as server:
        report, _ = await call(server, tmp_path)
    assert "cannot open" in report.failures[0]
    assert "31901" in report.failures[0]
    assert [fault.code for fault in report.faults] == ["31920"]  # the query string
    assert report.streams == ()


async def test_a_server_that_fails_its_status_callbacks_is_told(tmp_path: Path) -> None:
    async with serve(CallTimers(status_code=500)) as server:
        report, _ = await call(server, tmp_path)
    assert report.failures == (
        "status callback in-progress: answered HTTP 500",
        "status callback completed: answered HTTP 500",
    )


async def test_a_server_that_ends_with_the_call_has_answered_it_well(tmp_path: Path) -> None:
    async with serve(CallTimers(gone_at_end=True)) as server:
        report, story = await call(server, tmp_path)
    assert report.ok, report
    assert "the server took no report of the end" in story.text


async def test_the_command_prints_the_call_and_its_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "script.yaml"
    script.write_text("- listen: {quiet_ms: 100}\n")
    out = tmp_path / "call.wav"
    async with serve(CallTimers(greeting_ms=100)) as server:
        options = DialOptions(to=server.url, auth_token=AUTH_TOKEN, script=script, out=out)
        assert await asyncio.to_thread(run, options) == 0
    printed = capsys.readouterr().out
    assert "caller hangs up" in printed
    assert "first sound of the agent" in printed
    assert out.stat().st_size > 44
