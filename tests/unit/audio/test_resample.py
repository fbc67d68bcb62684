"""The figures that the rate changes are built to (ARCHITECTURE, section 11)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from audio.resample import PCM16_READER, BlockFilter, Resampler
from tests.unit.audio.tones import RATIOS, Ratio, amplitudes, filtered_tone, tone


def every_ratio(ratios: Sequence[Ratio]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("ratio", ratios, ids=lambda r: f"{r.source_hz}to{r.target_hz}")


EVERY_RATIO = every_ratio(RATIOS)


def decibels(amplitude: complex | float) -> float:
    return float(20 * np.log10(abs(amplitude) + 1e-12))


def images(ratio: Ratio, freq_hz: int) -> set[int]:
    """Frequencies besides its own at which a tone may come out, up to half the new rate."""
    common_hz = ratio.source_hz * ratio.up
    mirrored = {abs(k * ratio.source_hz + sign * freq_hz) for k in range(4) for sign in (1, -1)}
    inside = {hz for hz in mirrored if hz <= common_hz // 2}
    folded = {min(hz % ratio.target_hz, -hz % ratio.target_hz) for hz in inside}
    return folded - {freq_hz}


@EVERY_RATIO
def test_the_passband_is_flat_within_a_tenth_of_a_decibel(ratio: Ratio) -> None:
    gains = [
        decibels(amplitudes(filtered_tone(ratio, hz))[hz])
        for hz in [*range(300, ratio.pass_hz, 100), ratio.pass_hz]
    ]
    assert max(gains) - min(gains) <= 0.1
    assert max(map(abs, gains)) <= 0.1


@every_ratio([r for r in RATIOS if r.up > 1])
def test_images_of_speech_are_ninety_decibels_down(ratio: Ratio) -> None:
    highest = min(ratio.source_hz, ratio.target_hz) - ratio.stop_hz  # 3700 or 7400 Hz
    for hz in [*range(300, highest, 131), highest]:
        found = amplitudes(filtered_tone(ratio, hz))
        assert images(ratio, hz)
        for image in images(ratio, hz):
            assert decibels(found[image]) <= -90, f"{hz} Hz is heard at {image} Hz"


@every_ratio([r for r in RATIOS if r.target_hz < r.source_hz])
def test_tones_above_the_new_band_are_ninety_decibels_down(ratio: Ratio) -> None:
    for hz in [*range(ratio.stop_hz, ratio.source_hz // 2, 173), ratio.source_hz // 2 - 1]:
        loudest = np.abs(amplitudes(filtered_tone(ratio, hz))).max()
        assert decibels(loudest) <= -90, f"{hz} Hz comes through"


@EVERY_RATIO
def test_no_tone_is_late_by_more_than_a_millisecond(ratio: Ratio) -> None:
    held_ms = (ratio.down - 1) * 1000 / ratio.source_hz
    for hz in [*range(300, ratio.pass_hz - 10, 100), ratio.pass_hz - 10]:
        low, high = (amplitudes(filtered_tone(ratio, at))[at] for at in (hz, hz + 10))
        delay_ms = -float(np.angle(high / low)) / (2 * np.pi * 10) * 1000
        assert delay_ms + held_ms <= 1, f"{hz} Hz takes {delay_ms + held_ms:.3f} ms"


@EVERY_RATIO
def test_a_tone_at_half_scale_keeps_85_decibels_of_signal_to_noise(ratio: Ratio) -> None:
    sound = tone(1_000, ratio.source_hz, amplitude=32768 * 10 ** (-6 / 20), seconds=2)
    second = Resampler(ratio.up, ratio.down).push(sound)[ratio.target_hz :].astype(np.float64)
    power = np.abs(np.fft.rfft(second)) ** 2
    noise = power.sum() - power[1_000]
    assert 10 * np.log10(power[1_000] / noise) >= 85


@EVERY_RATIO
def test_silence_stays_silence(ratio: Ratio) -> None:
    quiet = Resampler(ratio.up, ratio.down).push(np.zeros(ratio.source_hz, np.int16))
    assert not quiet.any()


@EVERY_RATIO
def test_a_square_of_full_scale_saturates_and_never_wraps(ratio: Ratio) -> None:
    half_period = np.full(ratio.source_hz // 400, 32767, np.int16)
    square = np.tile(np.concatenate([half_period, ~half_period]), 20)
    levels = BlockFilter(ratio.up, ratio.down, PCM16_READER).push(square.astype("<i2").tobytes())
    assert levels.max() > 33_000  # the filter overshoots, so there is something to saturate
    assert levels.min() < -33_000
    result = Resampler(ratio.up, ratio.down).push(square)
    assert np.array_equal(result, np.clip(np.rint(levels), -32768, 32767))


@EVERY_RATIO
@pytest.mark.parametrize("frame_ms", [1, 10, 20, 200])
def test_nothing_is_held_back_at_whole_milliseconds(ratio: Ratio, frame_ms: int) -> None:
    resampler = Resampler(ratio.up, ratio.down)
    frame = np.ones(ratio.source_hz * frame_ms // 1000, np.int16)
    for _ in range(3):
        assert len(resampler.push(frame)) == ratio.target_hz * frame_ms // 1000
    assert len(resampler.flush()) == 0


@settings(max_examples=60, deadline=None)
@given(
    ratio=st.sampled_from(RATIOS),
    seed=st.integers(0, 2**32 - 1),
    pieces=st.lists(st.integers(0, 700), max_size=12),
)
def test_the_output_does_not_depend_on_how_the_input_was_cut(
    ratio: Ratio, seed: int, pieces: list[int]
) -> None:
    noise = np.random.default_rng(seed).integers(-32768, 32768, sum(pieces)).astype(np.int16)
    whole = Resampler(ratio.up, ratio.down)
    expected = np.concatenate([whole.push(noise), whole.flush()])
    cut = Resampler(ratio.up, ratio.down)
    parts: list[NDArray[np.int16]] = []
    for piece in np.split(noise, np.cumsum(pieces)):
        parts.append(cut.push(piece))
    parts.append(cut.flush())
    assert np.array_equal(np.concatenate(parts), expected)
    assert len(expected) == -(-len(noise) * ratio.up // ratio.down)


@EVERY_RATIO
def test_a_minute_in_one_push_equals_the_minute_in_frames(ratio: Ratio) -> None:
    noise = np.random.default_rng(7).integers(-32768, 32768, ratio.source_hz * 60)
    samples = noise.astype(np.int16)
    frames = np.split(samples, 3_000)
    cut = Resampler(ratio.up, ratio.down)
    whole = Resampler(ratio.up, ratio.down).push(samples)
    assert np.array_equal(np.concatenate([cut.push(frame) for frame in frames]), whole)


@EVERY_RATIO
def test_every_sum_is_exact_so_that_blocking_cannot_change_a_bit(ratio: Ratio) -> None:
    loudest = np.full(ratio.source_hz, -32768, np.int16)
    noise = np.random.default_rng(1).integers(-32768, 32768, ratio.source_hz).astype(np.int16)
    for sound in (loudest, noise):
        block_filter = BlockFilter(ratio.up, ratio.down, PCM16_READER)
        scaled = block_filter.push(sound.astype("<i2").tobytes()) * 2.0**22
        assert np.array_equal(scaled, np.rint(scaled))
        assert np.abs(scaled).max() < 2.0**53


@EVERY_RATIO
def test_after_a_flush_the_next_stream_starts_from_silence(ratio: Ratio) -> None:
    sound = tone(700, ratio.source_hz, amplitude=20_000)[:1_000]
    resampler = Resampler(ratio.up, ratio.down)
    first = np.concatenate([resampler.push(sound), resampler.flush()])
    second = np.concatenate([resampler.push(sound), resampler.flush()])
    assert np.array_equal(first, second)


def test_other_ratios_are_refused() -> None:
    with pytest.raises(ValueError, match="4/1"):
        Resampler(4, 1)


def test_samples_that_are_not_int16_are_refused() -> None:
    with pytest.raises(TypeError, match="float64"):
        Resampler(3, 1).push(np.zeros(4))  # type: ignore[arg-type]
