"""The first words of a turn: how soon speech is noticed, and whether its first sound is kept.

Every clip of the evaluation set is heard, from digital silence and from hiss, at the start of a
call and after another turn; by `make stress` at each alignment to the detector's windows: that is
thousands of looks at the network, and takes some seconds.
"""

from __future__ import annotations

import wave
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from app.engine.speech.vad import VoiceActivity
from tests.bench.speech_clips import FOLDER, line
from tests.fakes.stress import STRESS

_WINDOW_MS = 32
_STEP_MS = 4
_PIECE_BYTES = 640
_PADDING_MS = 200
"""`openai_realtime.turn_detection.prefix_padding_ms` as it comes."""
_AUDIBLE, _CLEAR = 300, 1_000
"""Of int16: a first breath or fricative, and a sound that nobody takes for noise."""


@cache
def _clips() -> tuple[NDArray[np.int16], ...]:
    clips = []
    for file in sorted(FOLDER.glob("*/*.wav")):
        with wave.open(str(file)) as wav:
            frames = wav.readframes(wav.getnframes())
        clips.append(np.frombuffer(frames, dtype="<i2").astype(np.int16))
    assert len(clips) > 90
    return tuple(clips)


def _lead(name: str, ms: int, offset_ms: int) -> NDArray[np.int16]:
    """The sound before a turn."""
    silence = np.zeros((ms + offset_ms) * 8, dtype=np.int16)
    if name == "hiss":
        hiss = np.random.default_rng(3).normal(size=len(silence)) * 30
        return np.rint(hiss).astype(np.int16)
    if name == "another turn":
        return np.concatenate([_clips()[0], silence])
    return silence


def _starts(pcm16: bytes, after_ms: float) -> Iterator[tuple[float, float]]:
    """The turns that begin late enough: when each was noticed, and where it begins."""
    activity = VoiceActivity(prefix_padding_ms=_PADDING_MS, silence_duration_ms=300)
    for at in range(0, len(pcm16), _PIECE_BYTES):
        for edge in activity.push(pcm16[at : at + _PIECE_BYTES]):
            if edge.started and activity.now_ms > after_ms:
                yield activity.now_ms, edge.at_ms


def _first_above(samples: NDArray[np.int16], level: int) -> float:
    return float(np.flatnonzero(np.abs(samples.astype(np.int32)) > level)[0]) / 8


@pytest.mark.stress
@pytest.mark.parametrize(
    ("before", "limits"),
    # p50, p90, p99, the worst in ms, and the share of turns that lose their first sound
    [
        ("silence", (90, 140, 350, 600, 0.03)),
        ("hiss", (90, 140, 350, 600, 0.03)),
        ("another turn", (60, 80, 110, 130, 0.0)),
    ],
)
def test_speech_is_heard_from_its_first_word(before: str, limits: tuple[float, ...]) -> None:
    late_ms, cut = [], 0
    for number, speech in enumerate(_clips()):
        # After another turn, which costs looks of its own, each clip has one alignment.
        offsets = range(0, _WINDOW_MS, _STEP_MS)
        if before == "another turn" or not STRESS:
            offsets = offsets[number % len(offsets) :][:1]
        for offset_ms in offsets:
            lead = _lead(before, 1_000 if before == "another turn" else 100, offset_ms)
            begins_ms = 300 + len(lead) / 8  # `line` puts 300 ms of silence in front
            audio = line(np.concatenate([lead, speech]))
            noticed_ms, start_ms = next(_starts(audio, begins_ms), (float("inf"), float("inf")))
            late_ms.append(noticed_ms - begins_ms - _first_above(speech, _CLEAR))
            cut += start_ms > begins_ms + _first_above(speech, _AUDIBLE)
    few = 0 if STRESS or before == "another turn" else 2  # of a hundred: two more may be odd ones
    shares = [50, 90 - few, 99 - few, 100]
    figures = [*np.percentile(late_ms, shares, method="higher"), cut / len(late_ms) - few / 100]
    assert all(f <= limit for f, limit in zip(figures, limits, strict=True)), figures
