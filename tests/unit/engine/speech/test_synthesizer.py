"""Sentences, levels and rates: the parts of speaking that need no process."""

from __future__ import annotations

import numpy as np
import pytest

from app.engine.speech.synthesizer import sentences
from app.engine.speech.synthesizer_worker import level, to_24k
from app.engine.speech.voices import no_such_voice, voice_of


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("cedar", "en-us+m3"),
        ("en-us", "en-us"),
        ("en-gb+f3", "en+f3"),  # espeak-ng's name for British English
        ("de", "de"),
        ("voice_of_mine", "en-us+f2"),
        ("../../en", "en-us+f2"),
        ("", "en-us+f2"),
    ],
)
def test_a_voice_is_one_of_realtime_or_of_espeak(name: str, variant: str) -> None:
    assert voice_of(name).variant == variant


def test_a_voice_that_is_not_there_is_told_with_the_nearest_one() -> None:
    assert no_such_voice("aloy", []) == "there is no voice 'aloy'; did you mean \"alloy\"?"
    assert no_such_voice("en-gbb", ["de", "en-gb"]).endswith('did you mean "en-gb"?')
    assert "alloy, ash, " in no_such_voice("xx-nope", ["de"])


def test_text_is_cut_at_sentence_ends() -> None:
    assert sentences("Hello. How are you?  Press 1, or wait!") == [
        "Hello.",
        "How are you?",
        "Press 1, or wait!",
    ]
    assert sentences('He said "stop." Then he left.') == ['He said "stop.', "Then he left."]
    assert sentences(" \n ") == []


def test_a_long_sentence_is_cut_after_a_comma_else_between_words() -> None:
    pieces = sentences("one two three, " * 40)
    assert all(len(piece) <= 240 for piece in pieces)
    assert all(piece.endswith("three,") for piece in pieces)
    words = sentences("word " * 100)
    assert all(len(piece) <= 240 for piece in words)
    assert " ".join(words) == ("word " * 100).strip()
    assert [len(piece) for piece in sentences("x" * 500)] == [240, 240, 20]


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050])
def test_a_tone_keeps_its_pitch_level_and_length(rate_hz: int) -> None:
    tone = 10_000 * np.sin(2 * np.pi * 1000 * np.arange(rate_hz) / rate_hz)
    out = to_24k(tone, rate_hz)
    assert len(out) == 24_000
    wanted = 10_000 * np.sin(2 * np.pi * 1000 * np.arange(24_000) / 24_000)
    error = (out - wanted)[500:-500]
    assert 20 * np.log10(np.sqrt((error**2).mean()) / 10_000) < -60


def test_resampling_leaves_no_images() -> None:
    noise = np.random.default_rng(1).normal(size=22_050) * 1000
    spectrum = np.abs(np.fft.rfft(to_24k(noise, 22_050) * np.hanning(24_000))) ** 2
    at_hz = np.fft.rfftfreq(24_000, 1 / 24_000)
    inside, beyond = spectrum[at_hz < 10_000].mean(), spectrum[at_hz > 11_500].mean()
    assert 10 * np.log10(beyond / inside) < -60


def test_24_khz_and_nothing_pass_as_they_are() -> None:
    samples = np.arange(10.0)
    assert to_24k(samples, 24_000) is samples
    assert len(to_24k(np.zeros(0), 22_050)) == 0


@pytest.mark.parametrize("loudness", [400.0, 2_000.0, 30_000.0])
def test_speech_comes_out_at_minus_16_dbfs_without_clipping(loudness: float) -> None:
    rng = np.random.default_rng(2)
    speech = np.clip(rng.laplace(size=24_000) * loudness, -32_768, 32_767)
    samples = np.concatenate([speech, np.zeros(24_000)])
    out = level(samples).astype(np.float64) / 32_768
    assert np.abs(out).max() <= 10 ** (-1 / 20)
    rms = 10 * np.log10((out[:24_000] ** 2).mean())
    assert -18 < rms < -14


def test_silence_stays_silence() -> None:
    assert not level(np.zeros(4800)).any()
