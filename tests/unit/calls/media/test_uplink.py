"""Caller audio keeps its timeline on the way to the model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.calls.media.uplink import FILL_AHEAD_MS, Uplink
from app.carrier.base import CallerAudio, CarrierCallId, StreamId
from app.carrier.twilio.media import (
    MediaProtocol,
    render_caller_media,
    render_connected,
    render_start,
)
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
    assert len(up.push(FRAME, 600_000, 600_000)) == 80_000 + 160
    assert counters.gap_filled_ms == 10_000


def test_silence_is_made_up_for_real_time_only() -> None:
    up, counters = uplink()
    for count in range(500):  # ten seconds, in which each timestamp leaps by ten more
        up.push(FRAME, 10_000 * count, 20 * count)
    assert counters.gap_filled_ms <= 20 * 500 + FILL_AHEAD_MS
    assert counters.gap_filled_ms > 9_000


def test_late_and_early_timestamps_fill_nothing() -> None:
    up, counters = uplink()
    up.push(FRAME, 100, 0)
    assert up.push(FRAME, 0, 0) == FRAME
    assert up.push(FRAME, 39, 0) == FRAME
    assert counters.gap_filled_ms == 0


def test_one_wrong_timestamp_makes_no_seconds_of_silence() -> None:
    up, counters = uplink()
    up.push(FRAME, 60_000, 0)
    assert up.push(FRAME, 0, 20) == FRAME
    assert up.push(FRAME, 60_020, 40) == FRAME
    assert counters.gap_filled_ms == 0


@given(st.lists(st.integers(0, 499), min_size=1, max_size=600))
def test_what_is_lost_doubled_or_out_of_order_leaves_the_timeline_as_long_as_it_was(
    order: list[int],
) -> None:
    protocol = MediaProtocol()
    stream = StreamId("MZ1")
    protocol.receive(render_connected())
    protocol.receive(
        render_start(stream, CarrierCallId("CA1"), account_id="AC1", parameters={}, sequence=1)
    )
    up, _ = uplink()
    sound = now_ms = 0
    for n in order:
        event = protocol.receive(
            render_caller_media(stream, FRAME, sequence=n + 2, chunk=n + 1, timestamp_ms=20 * n)
        )
        if isinstance(event, CallerAudio):
            now_ms = max(now_ms, event.timestamp_ms)
            sound += len(up.push(event.payload, event.timestamp_ms, now_ms))
    timeline_ms = 20 * (max(order) - order[0] + 1)
    assert abs(PCMU_8K.bytes_to_ms(sound) - timeline_ms) <= 20


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
