"""Streams of bytes between every two formats."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio.format import (
    PCM16_8K,
    PCM16_16K,
    PCM16_24K,
    PCMA_8K,
    PCMU_8K,
    AudioFormat,
    Encoding,
)
from audio.g711 import decode_alaw, decode_ulaw, encode_alaw, encode_ulaw
from audio.resample import PCM16_READER, BlockFilter, Resampler
from audio.transcoder import Transcoder
from tests.unit.audio.tones import tone

FORMATS = (PCMU_8K, PCMA_8K, PCM16_8K, PCM16_16K, PCM16_24K)
PAIRS = list(itertools.product(FORMATS, FORMATS))
EVERY_PAIR = pytest.mark.parametrize(
    ("src", "dst"), PAIRS, ids=lambda f: f"{f.encoding}{f.rate_hz // 1000}"
)


@settings(max_examples=150, deadline=None)
@given(
    pair=st.sampled_from(PAIRS),
    seed=st.integers(0, 2**32 - 1),
    pieces=st.lists(st.integers(0, 1_500), max_size=12),
)
def test_the_output_does_not_depend_on_how_the_bytes_were_cut(
    pair: tuple[AudioFormat, AudioFormat], seed: int, pieces: list[int]
) -> None:
    src, dst = pair
    data = np.random.default_rng(seed).bytes(sum(pieces))
    whole = Transcoder(src, dst)
    expected = whole.push(data) + whole.flush()
    cut = Transcoder(src, dst)
    ends = list(itertools.accumulate(pieces))
    parts = [cut.push(data[end - size : end]) for size, end in zip(pieces, ends, strict=True)]
    assert b"".join(parts) + cut.flush() == expected
    if src != dst:
        samples = len(data) // src.bytes_per_sample
        length = -(-samples * dst.rate_hz // src.rate_hz) * dst.bytes_per_sample
        assert len(expected) == length


@EVERY_PAIR
def test_every_frame_comes_out_at_once_and_in_its_full_length(
    src: AudioFormat, dst: AudioFormat
) -> None:
    transcoder = Transcoder(src, dst)
    for _ in range(3):
        assert len(transcoder.push(src.silence(20))) == dst.ms_to_bytes(20)
    assert transcoder.flush() == b""


@EVERY_PAIR
def test_idle_stays_idle(src: AudioFormat, dst: AudioFormat) -> None:
    out = Transcoder(src, dst).push(src.silence(200))
    if src is PCMA_8K and dst is not PCMA_8K:
        # A-law has no zero: its idle is the quarter of a mu-law step above it.
        assert set(Transcoder(dst, PCMU_8K).push(out)) <= {0xFF, 0xFE}
    else:
        assert out == dst.silence(200)


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_equal_formats_hand_back_the_same_bytes_object(fmt: AudioFormat) -> None:
    transcoder = Transcoder(fmt, AudioFormat(fmt.encoding, fmt.rate_hz))
    odd = bytes(161)
    assert transcoder.push(odd) is odd
    assert transcoder.flush() == b""


def test_between_the_laws_each_code_becomes_the_nearest_of_the_other() -> None:
    every_code = bytes(range(256))
    to_alaw = Transcoder(PCMU_8K, PCMA_8K).push(every_code)
    to_ulaw = Transcoder(PCMA_8K, PCMU_8K).push(every_code)
    assert to_alaw == encode_alaw(decode_ulaw(every_code))
    assert to_ulaw == encode_ulaw(decode_alaw(every_code))


def test_at_one_rate_each_sample_becomes_its_nearest_code_and_each_code_its_level() -> None:
    codes = bytes(range(256))
    samples = np.arange(-32768, 32768).astype("<i2")
    for law, decode, encode in (
        (PCMU_8K, decode_ulaw, encode_ulaw),
        (PCMA_8K, decode_alaw, encode_alaw),
    ):
        assert Transcoder(law, PCM16_8K).push(codes) == decode(codes).astype("<i2").tobytes()
        assert Transcoder(PCM16_8K, law).push(samples.tobytes()) == encode(samples)


@pytest.mark.parametrize("rate_hz", [16_000, 24_000])
def test_linear_sound_at_8_khz_takes_the_resampler_alone(rate_hz: int) -> None:
    wide = AudioFormat(Encoding.PCM16, rate_hz)
    noise = np.random.default_rng(6).integers(-32768, 32768, 4_800).astype(np.int16)
    sent = noise.astype("<i2").tobytes()
    up = Resampler(rate_hz // 8_000, 1).push(noise).astype("<i2").tobytes()
    down = Resampler(1, rate_hz // 8_000).push(noise).astype("<i2").tobytes()
    assert Transcoder(PCM16_8K, wide).push(sent) == up
    assert Transcoder(wide, PCM16_8K).push(sent) == down


@pytest.mark.parametrize("rate_hz", [16_000, 24_000])
def test_uplink_is_the_resampler_behind_the_decoder(rate_hz: int) -> None:
    codes = np.random.default_rng(3).bytes(1_000)
    expected = Resampler(rate_hz // 8_000, 1).push(decode_ulaw(codes)).astype("<i2").tobytes()
    assert Transcoder(PCMU_8K, AudioFormat(Encoding.PCM16, rate_hz)).push(codes) == expected


@pytest.mark.parametrize("rate_hz", [16_000, 24_000])
def test_downlink_is_the_encoder_behind_the_resampler(rate_hz: int) -> None:
    noise = np.random.default_rng(4).integers(-32768, 32768, 4_800).astype(np.int16)
    samples = Resampler(1, rate_hz // 8_000).push(noise)
    src = AudioFormat(Encoding.PCM16, rate_hz)
    assert Transcoder(src, PCMU_8K).push(noise.astype("<i2").tobytes()) == encode_ulaw(samples)
    assert Transcoder(src, PCMA_8K).push(noise.astype("<i2").tobytes()) == encode_alaw(samples)


def test_a_loud_square_saturates_at_the_loudest_code_and_never_wraps() -> None:
    half_period = np.full(60, 32767, np.int16)
    square = np.tile(np.concatenate([half_period, ~half_period]), 50).astype("<i2").tobytes()
    levels = BlockFilter(1, 3, PCM16_READER).push(square)
    assert levels.max() > 33_000
    assert levels.min() < -33_000
    out = np.frombuffer(Transcoder(PCM16_24K, PCMU_8K).push(square), np.uint8)
    assert set(out[levels > 32_767]) == {0x80}
    assert set(out[levels < -32_768]) == {0x00}


def test_the_way_to_the_model_and_back_costs_no_more_than_companding_twice() -> None:
    def signal_to_noise_db(codes: bytes) -> float:
        power = np.abs(np.fft.rfft(decode_ulaw(codes)[8_000:].astype(np.float64))) ** 2
        return float(10 * np.log10(power[1_009] / (power.sum() - power[1_009])))

    sent = encode_ulaw(tone(1_009, 8_000, amplitude=16_384, seconds=2))
    back = Transcoder(PCM16_24K, PCMU_8K).push(Transcoder(PCMU_8K, PCM16_24K).push(sent))
    assert signal_to_noise_db(back) >= signal_to_noise_db(sent) - 3.1  # noise twice is 3.01 dB


@EVERY_PAIR
def test_after_a_flush_the_next_stream_starts_from_silence(
    src: AudioFormat, dst: AudioFormat
) -> None:
    data = np.random.default_rng(5).bytes(1_201)
    transcoder = Transcoder(src, dst)
    first = transcoder.push(data) + transcoder.flush()
    assert transcoder.push(data) + transcoder.flush() == first


@pytest.mark.parametrize(
    ("src", "dst"),
    [
        (AudioFormat(Encoding.PCM16, 44_100), PCMU_8K),
        (PCMU_8K, AudioFormat(Encoding.PCMU, 16_000)),
    ],
)
def test_an_unknown_format_is_an_error_and_never_guessed(
    src: AudioFormat, dst: AudioFormat
) -> None:
    with pytest.raises(ValueError, match="no transcoder"):
        Transcoder(src, dst)
