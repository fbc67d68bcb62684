"""The files of recordings: whole after every write, whatever happens to the disk or the process."""

from __future__ import annotations

import json
import os
import resource
import threading
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from app.calls.recording.recorder import LAG_MS, WRITE_EVERY_MS, Recorder, RecordingWriter
from app.calls.recording.tape import AGENT, CALLER, NO_PLACE, Batch
from app.calls.recording.wav_files import FRAME, FRAMES_FORMAT, repair
from app.events import CallId
from app.store.files import CallFiles
from audio.g711 import decode_ulaw
from audio.wav import ULAW_STEREO_HEADER_BYTES, read_wav
from tests.fakes.waiting import until

CALL = CallId("call_0123")


def channels(path: Path) -> tuple[bytes, bytes]:
    sound = path.read_bytes()[ULAW_STEREO_HEADER_BYTES:]
    return sound[0::2], sound[1::2]


def code(value: int, ms: int) -> bytes:
    return bytes([value]) * (8 * ms)


def test_each_sound_stands_in_its_place_also_when_it_comes_late(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "call.wav"
    writer = RecordingWriter(path, {})
    writer.add(Batch(5_000, sounds=[(CALLER, 1_000, code(1, 20)), (AGENT, 4_900, code(2, 20))]))
    assert len(channels(path)[0]) == 8 * (5_000 - LAG_MS)
    writer.add(Batch(5_200, sounds=[(CALLER, 4_390, code(3, 20)), (AGENT, 2_000, code(4, 20))]))
    writer.add(Batch(5_400, sounds=[(CALLER, 1_010, code(0xFF, 20))]))  # taken out afterwards
    writer.finish(6_000)
    left, right = channels(path)
    assert len(left) == len(right) == 8 * 6_000
    expected = bytearray(b"\xff" * 8 * 6_000)
    expected[8_000:8_080] = code(1, 10)
    expected[8 * 4_390 : 8 * 4_410] = code(3, 20)
    assert left == expected
    expected = bytearray(b"\xff" * 8 * 6_000)
    expected[8 * 4_900 : 8 * 4_920] = code(2, 20)
    expected[8 * 2_000 : 8 * 2_020] = code(4, 20)
    assert right == expected


def test_an_hour_away_is_an_hour_of_silence(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    writer = RecordingWriter(path, {})
    writer.add(Batch(3_600_000, sounds=[(CALLER, 0, code(1, 20))]))
    writer.finish(3_600_000)
    left, right = channels(path)
    assert len(left) == 8 * 3_600_000
    assert not left[160:].strip(b"\xff") and not right.strip(b"\xff")


def test_the_wav_opens_after_every_write_and_at_most_two_seconds_are_missing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "call.wav"
    writer = RecordingWriter(path, {})
    for now_ms in range(200, 10_000, 200):
        writer.add(Batch(now_ms, sounds=[(CALLER, now_ms - 200, code(5, 200))]))
        with path.open("rb") as file:
            rate_hz, samples = read_wav(file)
        assert rate_hz == 8_000
        assert now_ms - len(samples) / 8 <= LAG_MS + WRITE_EVERY_MS
        assert np.all(samples == (int(decode_ulaw(b"\x05")[0]) + 0) >> 1)
    writer.finish(10_000)


def test_the_frames_are_described_by_their_first_line(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "call.wav", {"call_id": "call", "admitted_at": 12.5})
    writer.add(Batch(40, frames=array("I", [20, 0, 0, 160, 41, 20, NO_PLACE, 160])))
    writer.finish(40)
    head, _, rest = (tmp_path / "call.frames").read_bytes().partition(b"\n")
    assert json.loads(head) == {
        "format": FRAMES_FORMAT,
        "record": FRAME.format,
        "call_id": "call",
        "admitted_at": 12.5,
    }
    assert list(FRAME.iter_unpack(rest)) == [(20, 0, 0, 160), (41, 20, NO_PLACE, 160)]


def test_no_recording_takes_the_place_of_another(tmp_path: Path) -> None:
    RecordingWriter(tmp_path / "call.wav", {}).finish(0)
    with pytest.raises(FileExistsError):
        RecordingWriter(tmp_path / "call.wav", {})


# The thread ---------------------------------------------------------------------------------------


async def test_calls_are_written_beside_each_other(tmp_path: Path) -> None:
    ended: list[str] = []
    async with Recorder(CallFiles(tmp_path, tmp_path)).open() as recorder:
        live = [recorder.begin(CallId(f"call_{n}"), {}, ended.append) for n in range(20)]
        for now_ms in range(200, 3_000, 200):
            for n, one in enumerate(live):
                one.put(Batch(now_ms, sounds=[(CALLER, now_ms - 200, code(n, 200))]))
        for one in live:
            one.close(3_000)
    assert ended == [""] * 20
    for n, one in enumerate(live):
        left, _ = channels(one.path)
        assert left[: 8 * 2_800] == code(n, 2_800) and len(left) == 8 * 3_000


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file of this process can grow beyond 100 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("full_disk")
async def test_a_disk_that_is_full_ends_the_recording_and_keeps_what_there_is(
    tmp_path: Path,
) -> None:
    ended: list[str] = []
    async with Recorder(CallFiles(tmp_path, tmp_path)).open() as recorder:
        live = recorder.begin(CALL, {}, ended.append)
        for now_ms in range(200, 20_000, 200):
            live.put(Batch(now_ms, sounds=[(CALLER, now_ms - 200, code(7, 200))]))
        await until(lambda: bool(ended), what=lambda: ended)
        other = recorder.begin(CallId("call_4567"), {}, ended.append)
        other.put(Batch(2_000, sounds=[(CALLER, 0, code(8, 2_000))]))
        other.close(2_000)
    assert ended == ["disk_full", ""]
    with live.path.open("rb") as file:
        _, samples = read_wav(file)
    assert 4_000 < len(samples) / 8 < 6_250  # what fits into 100 kB, at most a write less
    assert len(channels(other.path)[0]) == 8 * 2_000  # which still fits


async def test_a_folder_that_cannot_be_written_ends_the_recording(tmp_path: Path) -> None:
    (tmp_path / "recordings").write_text("a file")
    failures: list[str] = []
    async with Recorder(CallFiles(tmp_path / "recordings", tmp_path)).open() as recorder:
        recorder.begin(CALL, {}, failures.append).put(Batch(20))
        await until(lambda: bool(failures), what=lambda: failures)
    assert failures == ["failed"]


async def test_a_folder_that_may_not_be_read_keeps_no_server_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(folder: Path) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("app.calls.recording.recorder.repair", refused)
    async with Recorder(CallFiles(tmp_path, tmp_path)).open() as recorder:
        recorder.begin(CALL, {}, lambda _reason: None).close(100)
    assert len(channels(tmp_path / f"{CALL}.wav")[0]) == 800


async def test_a_disk_that_is_slow_costs_sound_and_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = threading.Event()

    def slow(writer: RecordingWriter, batch: Batch) -> None:
        free.wait()

    monkeypatch.setattr(RecordingWriter, "add", slow)
    monkeypatch.setattr("app.calls.recording.recorder.MAX_WAITING", 50)
    try:
        async with Recorder(CallFiles(tmp_path, tmp_path)).open() as recorder:
            live = recorder.begin(CALL, {}, lambda _reason: None)
            for now_ms in range(200, 20_000, 200):
                live.put(Batch(now_ms, sounds=[(CALLER, now_ms - 200, code(7, 200))]))
            assert 0 < live.lost_ms < 20_000
            free.set()
    finally:
        free.set()


# The files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("call_id", ["", "../secret", "a/b", "a.b", "x" * 81, "call\n"])
def test_no_id_leads_out_of_the_folder(call_id: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a call id"):
        CallFiles(tmp_path, tmp_path).recording(call_id)


def test_headers_that_a_killed_process_left_are_completed(tmp_path: Path) -> None:
    path = tmp_path / f"{CALL}.wav"
    RecordingWriter(path, {}).finish(500)
    with path.open("ab") as file:
        file.write(b"\x10" * 1_601)  # half a pair of samples at the end
    old = tmp_path / "call_old.wav"
    old.write_bytes(path.read_bytes())
    os.utime(old, (1, 1))
    assert repair(tmp_path) == 1 and repair(tmp_path) == 0
    with path.open("rb") as file:
        assert len(read_wav(file)[1]) == 4_000 + 800
