"""Recordings: each side as it was heard, on one clock, without what nobody may know."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from app.calls.recording.wav_files import FRAME, FRAMES_FORMAT, repair
from app.credentials.api_keys import Scope
from app.events import (
    BargeIn,
    KeyPressed,
    OperatorActed,
    RecordingStarted,
    RecordingStopped,
    ToolRan,
)
from app.realtime.events import ResponseCreate
from audio.wav import read_wav
from tests.fakes.caller import tone
from tests.fakes.carrier import FakeCall
from tests.fakes.stress import few_or
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import until
from tests.integration.server import App, trunkline
from tests.integration.test_api import TOKEN, client, is_problem, new_key

PER_MS = 8
SILENT = Reply(never_starts=True)
RECORDED = {"enabled": True, "notice": ""}


class BothSides:
    """Everything that one carrier's stream has heard of both sides, by its own clock."""

    def __init__(self) -> None:
        self.caller = bytearray()
        self.agent = bytearray()

    def caller_audio(self, at_byte: int, ulaw: bytes) -> None:
        _place(self.caller, at_byte, ulaw)

    def agent_audio(self, at_byte: int, ulaw: bytes) -> None:
        _place(self.agent, at_byte, ulaw)


def _place(sound: bytearray, at_byte: int, ulaw: bytes) -> None:
    sound.extend(b"\xff" * max(0, at_byte + len(ulaw) - len(sound)))
    sound[at_byte : at_byte + len(ulaw)] = ulaw


def listen(call: FakeCall) -> BothSides:
    sides = BothSides()
    call.stream._recorder = sides
    return sides


async def recorded(app: App, call: FakeCall) -> tuple[bytes, bytes]:
    """The channels of a call that is over, once its file is whole."""
    stopped = await app.event(call, RecordingStopped)
    path = Path(stopped.file)
    frames = stopped.duration_ms * PER_MS
    await until(lambda: path.exists() and len(channels(path)[0]) == frames, what=lambda: path)
    return channels(path)


def channels(path: Path) -> tuple[bytes, bytes]:
    data = path.read_bytes()
    assert data[:4] == b"RIFF" and data[20:24] == b"\x07\x00\x02\x00"
    size = int.from_bytes(data[54:58], "little")
    sound = data[58 : 58 + size]
    return sound[0::2], sound[1::2]


def check_files(path: Path) -> bytes:
    """Both files are their owner's, and the WAV can be read; the content of the other."""
    beside = path.with_suffix(".frames")
    assert [one.stat().st_mode & 0o777 for one in (path, beside)] == [0o600, 0o600]
    with path.open("rb") as file:
        assert read_wav(file)[0] == 8_000
    return beside.read_bytes()


def sounding(ulaw: bytes | bytearray) -> tuple[bytes, int, int]:
    """The samples that are not silence, and the ms of the first and the last of them."""
    samples = np.frombuffer(bytes(ulaw), np.uint8)
    at = np.flatnonzero(samples & 0x7F != 0x7F)
    return samples[at].tobytes(), int(at[0]) // PER_MS, int(at[-1]) // PER_MS


async def test_both_sides_are_recorded_as_they_were_heard_and_on_one_clock() -> None:
    """Real seconds: what is measured is time."""
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=600), Reply(audio_ms=700)])
    async with voice, trunkline(voice, recording=RECORDED) as app, app.twilio(speed=1) as twilio:
        call = await twilio.call(app.url)
        sides = listen(call)
        await call.hear(ms=500)
        await call.hear_quiet(ms=300)
        await call.speak(tone(400, hz=700))
        await call.hear(ms=600)
        await call.hear_quiet(ms=300)
        await call.hang_up()
        summary = await app.ended(call)
        started = await app.event(call, RecordingStarted)
        left, right = await recorded(app, call)
        assert started.file == summary.recording_file and summary.recording_end == "call_over"
        frames = check_files(Path(started.file))
    offsets = []
    for recording, heard in ((left, sides.caller), (right, sides.agent)):
        samples, *times = sounding(recording)
        heard_samples, *heard_times = sounding(heard)
        assert samples == heard_samples  # not one of them differs
        offsets += [there - here for there, here in zip(times, heard_times, strict=True)]
    assert max(offsets) - min(offsets) <= 20, offsets
    head, _, records = frames.partition(b"\n")
    assert json.loads(head)["format"] == FRAMES_FORMAT
    rows = list(FRAME.iter_unpack(records))
    assert len(rows) == summary.counters.caller_frames
    assert [row[1] for row in rows] == [20 * i for i in range(len(rows))]


async def test_a_barge_in_cuts_the_recording_where_the_caller_stopped_hearing() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=8000), SILENT])
    async with voice, trunkline(voice, recording=RECORDED) as app, app.twilio(speed=1) as twilio:
        call = await twilio.call(app.url)
        sides = listen(call)
        await call.wait_for(lambda: call.counters.agent_audio_ms == 8000)  # all of it was sent
        await call.barge_in(0.4, after_ms=900)
        barge_in = await app.event(call, BargeIn)
        await call.hear_quiet(ms=400)
        await call.hang_up()
        _, right = await recorded(app, call)
    samples, begin, end = sounding(right)
    heard, *_ = sounding(sides.agent)
    assert heard.startswith(samples)
    assert abs((end - begin) - barge_in.heard_ms) <= 20
    # Knowledge of what was heard is as old as the last mark, and a mark stands every 200 ms.
    assert len(heard) - 500 * PER_MS <= len(samples) < 4000 * PER_MS


async def test_nothing_of_a_caller_is_kept_before_they_have_heard_the_notice() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=2000), Reply(audio_ms=300)])
    rules = {"enabled": True, "notice": "This call is recorded."}
    async with voice, trunkline(voice, recording=rules) as app, app.twilio(speed=1) as twilio:
        call = await twilio.call(app.url)
        sides = listen(call)
        await call.hear(ms=200)
        call.press("5")
        await call.speak(tone(500, hz=500))  # neither stops the notice
        await call.hear(ms=1000)
        await call.hear_quiet(ms=300)
        await call.speak(tone(400, hz=900))
        await call.hear_quiet(ms=300)
        await call.hang_up()
        left, right = await recorded(app, call)
    assert not call.stream.clears
    spoken = sounding(sides.caller)[0]
    kept = sounding(left)[0]
    assert spoken.endswith(kept) and len(kept) < 450 * PER_MS
    assert sounding(sides.agent)[0] == sounding(right)[0]
    said = voice.connections[0].of(ResponseCreate)[0].response
    assert said is not None and "This call is recorded." in str(said.instructions)


async def test_keys_that_nobody_may_know_are_in_no_recording() -> None:
    digits = json.dumps({"max_digits": 4, "terminator": "#"})
    voice = ScriptedVoiceServer(
        replies=[Reply(audio_ms=300, tool=("collect_digits", digits)), Reply()]
    )
    agents = {"desk": {"tools": ["collect_digits"], "instructions": "Ask for the PIN."}}
    async with (
        voice,
        trunkline(voice, recording=RECORDED, agents=agents) as app,
        app.twilio(speed=1) as twilio,
    ):
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=400)
        for digit in "4711":
            call.press(digit)
            await call.speak(tone(150, hz=1200))  # as an analogue line carries it
            if digit != "1":
                await call.speak(tone(700, hz=600))  # who says each digit aloud
        await app.event(call, KeyPressed)
        await call.hear(ms=300)
        await call.hear_quiet(ms=400)
        await call.speak(tone(300, hz=900))
        await call.hang_up()
        left, _ = await recorded(app, call)
    kept = np.frombuffer(sounding(left)[0], np.uint8)
    wanted = np.frombuffer(tone(300, hz=900), np.uint8)
    assert len(kept) <= len(wanted)


KILLED = """
import asyncio, sys
from pathlib import Path
from app.store.files import CallFiles
from app.calls.recording.tape import Batch
from app.calls.recording import recorder
from app.calls.recording.recorder import Recorder

recorder.GATHER_S = 0.001  # the clock below runs a hundred times as fast as time does

async def main():
    async with Recorder(CallFiles(Path(sys.argv[1]), Path())).open() as recorder:
        live = recorder.begin("call_killed", {}, print)
        now_ms = 0
        while True:
            now_ms += 200
            live.put(Batch(now_ms, sounds=[(0, now_ms - 200, bytes([now_ms // 200 % 100]) * 1600)]))
            print(now_ms, flush=True)
            await asyncio.sleep(0.001)

asyncio.run(main())
"""


@pytest.mark.stress
def test_a_recording_opens_after_its_process_was_killed_at_any_moment(tmp_path: Path) -> None:
    """In real time, about a second for each: processes have to start."""
    path = tmp_path / "call_killed.wav"
    for attempt in range(few_or(4, 50)):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(random.Random(attempt).randrange(30, 90)):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        repair(tmp_path)
        with path.open("rb") as file:
            _, samples = read_wav(file)
        lasts_ms = len(samples) // 8
        assert lasts_ms >= 1_000
        left, _ = channels(path)
        for at_ms in range(0, lasts_ms - 200, 200):
            assert left[8 * at_ms] == (at_ms // 200 + 1) % 100
        for one in tmp_path.iterdir():
            one.unlink()


async def test_a_recording_is_paused_by_a_tool_and_by_an_operator() -> None:
    voice = ScriptedVoiceServer(
        replies=[Reply(audio_ms=300, tool=("pause_recording", '{"paused": true}')), Reply()]
    )
    agents = {"desk": {"tools": ["pause_recording"], "instructions": "Take the card number."}}
    async with (
        voice,
        trunkline(voice, recording=RECORDED, agents=agents, server=TOKEN) as app,
        client(app, new_key(app, Scope.OPERATOR)) as operator,
        app.twilio(speed=1) as twilio,
    ):
        call = await twilio.call(app.url)
        await app.event(call, ToolRan)
        started = await app.event(call, RecordingStarted)
        path = f"/calls/{started.call_id}/pause_recording"
        [live] = (await operator.get("/live/calls")).json()["calls"]
        assert live["recording"] == "paused"
        await call.speak(tone(400, hz=1200))
        assert (await operator.post(path, json={"paused": False})).status_code == 202
        await call.speak(tone(300, hz=900))
        await call.hang_up()
        left, _ = await recorded(app, call)
        is_problem(await operator.post(path, json={"paused": True}), 404, "call_not_live")
        acted = [e.action for e in await app.events(call) if isinstance(e, OperatorActed)]
        assert acted == ["resume_recording"]
    # A frame or two may be on the way when it goes on.
    assert 200 * PER_MS < len(sounding(left)[0]) <= 360 * PER_MS
