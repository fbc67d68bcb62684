"""Caller audio keeps its timeline on the way to the model."""

from __future__ import annotations

from app.calls.uplink import Uplink
from app.events import CallCounters
from audio.format import PCM16_24K, PCMU_8K

FRAME = b"\x10" * 160


def uplink() -> tuple[Uplink, CallCounters]:
    counters = CallCounters()
    return Uplink(PCMU_8K, PCMU_8K, counters), counters


def test_every_frame_goes_out_at_once_in_the_models_format() -> None:
    counters = CallCounters()
    up = Uplink(PCMU_8K, PCM16_24K, counters)
    assert [len(up.push(FRAME, 20 * n, 20 * n)) for n in range(5)] == [960] * 5
    assert (counters.caller_frames, counters.caller_audio_ms) == (5, 100)


def test_skipped_time_becomes_silence() -> None:
    up, counters = uplink()
    up.push(FRAME, 0, 0)
    assert up.push(FRAME, 120, 120) == b"\xff" * 800 + FRAME
    assert counters.gap_filled_ms == 100


def test_a_gap_is_filled_up_to_ten_seconds() -> None:
    up, counters = uplink()
    up.push(FRAME, 0, 0)
    assert len(up.push(FRAME, 600_000, 0)) == 80_000 + 160
    assert counters.gap_filled_ms == 10_000


def test_late_and_early_timestamps_fill_nothing() -> None:
    up, counters = uplink()
    up.push(FRAME, 100, 0)
    assert up.push(FRAME, 0, 0) == FRAME
    assert up.push(FRAME, 39, 0) == FRAME
    assert counters.gap_filled_ms == 0


def test_a_stall_in_mid_speech_is_answered_by_a_second_of_silence() -> None:
    up, counters = uplink()
    assert up.on_tick(10_000, speaking=True) == b""  # nothing has come yet: no stall
    up.push(FRAME, 0, 0)
    assert up.on_tick(749, speaking=True) == b""
    assert up.on_tick(750, speaking=False) == b""
    assert up.on_tick(750, speaking=True) == b"\xff" * 8_000
    assert up.on_tick(750, speaking=True) == b""
    assert counters.stall_filled_ms == 1_000


def test_a_stall_that_lasts_is_silence_until_the_turn_ends() -> None:
    up, counters = uplink()
    up.push(FRAME, 0, 0)
    filled = sum(len(up.on_tick(now_ms, speaking=True)) for now_ms in range(0, 5_001, 200))
    assert PCMU_8K.bytes_to_ms(filled) == 5_000 - 750 + 1_000
    assert up.on_tick(5_200, speaking=False) == b""
    up.push(FRAME, 5_020, 5_220)
    assert counters.gap_filled_ms == 0
    assert len(up.on_tick(60_000, speaking=True)) == PCMU_8K.ms_to_bytes(15_000)
    assert up.on_tick(61_000, speaking=True) == b""


def test_silence_that_was_made_up_is_not_made_up_again() -> None:
    up, counters = uplink()
    up.push(FRAME, 0, 0)
    up.on_tick(750, speaking=True)
    up.push(FRAME, 3_020, 3_020)
    assert counters.gap_filled_ms == 2_000
