from __future__ import annotations

import numpy as np
import pytest

from audio.format import PCM16_24K, PCMA_8K, PCMU_8K, AudioFormat
from audio.level import SILENCE_DBFS, level_dbfs, peak_dbfs
from tests.unit.audio.tones import tone


def test_a_square_of_full_scale_is_the_overload_point() -> None:
    assert level_dbfs(np.full(160, -32768, np.int16)) == 0


def test_a_sine_of_full_scale_is_three_decibels_below_the_overload_point() -> None:
    assert level_dbfs(tone(1_000, 8_000, amplitude=32_767)) == pytest.approx(-3.01, abs=0.01)


def test_half_the_amplitude_is_six_decibels_less() -> None:
    loud, soft = (tone(440, 24_000, amplitude=peak) for peak in (20_000, 10_000))
    assert level_dbfs(loud) - level_dbfs(soft) == pytest.approx(6.02, abs=0.01)


@pytest.mark.parametrize("samples", [[], [0], [0] * 160])
def test_nothing_is_as_low_as_the_scale_goes(samples: list[int]) -> None:
    assert level_dbfs(np.array(samples, np.int16)) == SILENCE_DBFS


def test_a_single_bit_in_a_long_silence_does_not_leave_the_scale() -> None:
    samples = np.zeros(100_000, np.int16)
    samples[0] = 1
    assert level_dbfs(samples) == SILENCE_DBFS


@pytest.mark.parametrize("wire", [PCMU_8K, PCMA_8K, PCM16_24K])
def test_the_peak_of_silence_is_far_below_that_of_speech(wire: AudioFormat) -> None:
    assert peak_dbfs(wire.silence(20), wire) < -60
    assert peak_dbfs(b"", wire) == SILENCE_DBFS


def test_the_peak_is_that_of_the_loudest_sample_of_either_sign() -> None:
    assert peak_dbfs(np.array([0, -32768, 5], dtype="<i2").tobytes(), PCM16_24K) == 0.0
    half = np.array([0, 16384], dtype="<i2").tobytes()
    assert peak_dbfs(half, PCM16_24K) == pytest.approx(-6.02, abs=0.01)
