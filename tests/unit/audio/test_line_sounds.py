"""Tones and speech on a line: what is a beep, what is a voice, and what is only noise."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from audio.g711 import encode_ulaw
from audio.line_sounds import LineSounds, SpeechBegan, SpeechEnded, Tone

Samples = NDArray[np.float64]
Found = SpeechBegan | SpeechEnded | Tone


def tone(hz: int, ms: int) -> Samples:
    sine: Samples = 6_000 * np.sin(2 * np.pi * hz * np.arange(8 * ms) / 8_000)
    return sine


def quiet(ms: int) -> Samples:
    return np.zeros(8 * ms)


def voice(ms: int, pitch_hz: float = 120.0) -> Samples:
    """A buzz with the harmonics of a voice, whose pitch glides as one does."""
    seconds = np.arange(8 * ms) / 8_000
    phase = 2 * np.pi * np.cumsum(pitch_hz * (1 + 0.2 * np.sin(2 * np.pi * 2 * seconds))) / 8_000
    made: Samples = sum(
        (np.sin(n * phase) * 3_000 / n**0.5 for n in range(3, 25)), np.zeros(8 * ms)
    )
    return made


def heard(*parts: Samples, noise: float = 0.0, batch_ms: int = 200) -> list[Found]:
    line = np.concatenate(parts)
    line = line + np.random.default_rng(1).normal(size=len(line)) * noise
    wire = encode_ulaw(np.clip(line, -32_768, 32_767).astype(np.int16))
    sounds, found = LineSounds(), []
    for at in range(0, len(wire), 8 * batch_ms):
        found += sounds.push(wire[at : at + 8 * batch_ms])
    return found


@pytest.mark.parametrize("noise", [0.0, 60.0, 250.0])
@pytest.mark.parametrize("ms", [200, 400, 980])
@pytest.mark.parametrize("hz", [440, 475, 850, 1_000, 1_023, 1_100, 1_400, 2_100])
def test_a_tone_is_told_with_its_pitch_and_length(hz: int, ms: int, noise: float) -> None:
    found = heard(quiet(1_000), tone(hz, ms), quiet(1_000), noise=noise)
    [told] = [one for one in found if isinstance(one, Tone)]
    assert abs(told.hz - hz) <= 10 and abs(told.ms - ms) <= 40 and abs(told.at_ms - 1_000) <= 40
    assert not any(isinstance(one, SpeechBegan) for one in found)


def test_a_long_tone_is_told_while_it_goes_on() -> None:
    found = heard(quiet(500), tone(2_100, 2_500))
    assert [(type(one), getattr(one, "going_on", None)) for one in found] == [
        (Tone, True),
        (Tone, True),
    ]


@pytest.mark.parametrize("noise", [0.0, 60.0, 150.0])
@pytest.mark.parametrize("pitch_hz", [95.0, 140.0, 220.0])
def test_a_voice_is_speech_and_no_tone(pitch_hz: float, noise: float) -> None:
    found = heard(quiet(600), voice(1_500, pitch_hz), quiet(1_000), noise=noise)
    assert [type(one) for one in found] == [SpeechBegan, SpeechEnded]
    assert abs(found[0].at_ms - 600) <= 60 and abs(found[1].at_ms - 2_100) <= 60


def test_gaps_between_words_are_part_of_the_speech() -> None:
    found = heard(quiet(500), voice(400), quiet(150), voice(400), quiet(800))
    assert [type(one) for one in found] == [SpeechBegan, SpeechEnded]


@pytest.mark.parametrize("noise", [0.0, 60.0, 250.0, 600.0])
def test_the_noise_of_a_line_is_nothing(noise: float) -> None:
    assert heard(quiet(6_000), noise=noise) == []


def test_a_click_is_nothing() -> None:
    assert heard(quiet(500), voice(40), quiet(1_000), tone(1_000, 60), quiet(1_000)) == []


def test_batches_of_any_length_find_the_same() -> None:
    parts = (quiet(500), voice(900), quiet(700), tone(1_000, 300), quiet(900))
    wanted = heard(*parts)
    assert len(wanted) == 3
    for batch_ms in (1, 7, 20, 33, 1_000):
        assert heard(*parts, batch_ms=batch_ms) == wanted
