"""Speech, tones and silence on a telephone line, told apart in frames of 20 ms.

For what is heard when somebody, or something, answers a call that was placed: the beep of a
mailbox, the tones of a fax, and when words begin and end. Frames are looked at in batches, since a
batch of ten costs hardly more than one. No I/O and no clock.

A tone is a frame whose power stands in one line of its spectrum: at least `TONE_SHARE` within
75 Hz of the strongest (Hann window, lines 50 Hz apart). A beep is such frames in a row, of one
pitch. A vowel is hardly ever that pure, and never steady. Speech is what stands above the line's
noise by `ABOVE_NOISE_DB` and is not a tone.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from audio.format import PCMU_8K
from audio.g711 import decode_ulaw

__all__ = ["FRAME_MS", "LineSounds", "SpeechBegan", "SpeechEnded", "Tone"]

FRAME_MS: Final = 20
FRAME_SAMPLES: Final = 160
TONE_SHARE: Final = 0.85
ABOVE_NOISE_DB: Final = 9.0
QUIETEST_DBFS: Final = -48.0
"""Speech on a telephone line is never quieter, and the noise of most lines is."""
_LEAST_NOISE_DBFS: Final = -60.0
_MOST_NOISE_DBFS: Final = -38.0
_NOISE_FRAMES: Final = 15
_NOISE_BLOCKS: Final = 6
"""The noise is the quietest frame of the last 1.8 s: words leave gaps that are longer than one."""
SPEECH_FRAMES: Final = 4
HANGOVER_FRAMES: Final = 12
"""Shorter gaps stand between syllables and words."""
TONE_FRAMES: Final = 8
"""With 20 ms to begin and to end in, a beep of 200 ms has at least so many whole frames."""
_SKIPPED_MS: Final = 2_000
_STEADY_HZ: Final = 20.0
_LINE_HZ: Final = 50.0
_LOWEST_LINE: Final = 6
_WINDOW: Final = np.hanning(FRAME_SAMPLES + 1)[:-1].astype(np.float32)
_FLOOR: Final = 1e-12


@dataclass(frozen=True, slots=True)
class SpeechBegan:
    """Somebody speaks, or something does, since `at_ms`."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """The last sound of speech ended at `at_ms`."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class Tone:
    """A single tone of `hz`, which began at `at_ms` and has lasted for `ms`.

    It is told when it is over; and while it goes on, `going_on` after each second.
    """

    at_ms: int
    hz: int
    ms: int
    going_on: bool = False


class LineSounds:
    """Tells speech and tones on one line; times are those of the sound, in ms."""

    def __init__(self, at_ms: int = 0) -> None:
        """`at_ms` is the time at which the first sample is heard."""
        self.at_ms = at_ms
        """The time of the next frame."""
        self._rest = b""
        self._quietest: deque[float] = deque(maxlen=_NOISE_BLOCKS)
        self._block_dbfs = 0.0
        self._block_frames = 0
        self._speaking = False
        self._loud = 0
        self._quiet = 0
        self._tone_frames = 0
        self._tone_sum_hz = 0.0
        self._tone_told = 0

    def push(self, ulaw: bytes) -> list[SpeechBegan | SpeechEnded | Tone]:
        """Take sound, mono mu-law at 8 kHz of any length; what was found in it, in order."""
        data = self._rest + ulaw
        whole = len(data) - len(data) % FRAME_SAMPLES
        self._rest = data[whole:]
        if not whole:
            return []
        frames = decode_ulaw(data[:whole]).reshape(-1, FRAME_SAMPLES).astype(np.float32)
        levels, shares, pitches = _measure(frames / np.float32(32768))
        found: list[SpeechBegan | SpeechEnded | Tone] = []
        for level, share, hz in zip(levels, shares, pitches, strict=True):
            found += self._on_frame(level, tonal=share >= TONE_SHARE, hz=hz)
            self.at_ms += FRAME_MS
        return found

    def skip(self, ms: int) -> list[SpeechBegan | SpeechEnded | Tone]:
        """Time has passed in which the line carried nothing."""
        self.at_ms += max(0, ms - _SKIPPED_MS)  # of a longer one, the end says as much
        return self.push(PCMU_8K.silence(min(ms, _SKIPPED_MS)))

    def _on_frame(
        self, level: float, *, tonal: bool, hz: float
    ) -> list[SpeechBegan | SpeechEnded | Tone]:
        loud = level > max(self._noise(level) + ABOVE_NOISE_DB, QUIETEST_DBFS)
        found = self._follow_tone(hz) if loud and tonal else self._end_tone()
        # A tone counts as one from its second frame of the same pitch.
        return found + self._follow_speech(voiced=loud and self._tone_frames < 2)

    def _noise(self, level: float) -> float:
        """The level of the line without words, this frame included."""
        self._block_dbfs = min(self._block_dbfs, level)
        self._block_frames += 1
        noise_dbfs = min(self._block_dbfs, *self._quietest, _MOST_NOISE_DBFS)
        if self._block_frames == _NOISE_FRAMES:
            self._quietest.append(self._block_dbfs)
            self._block_dbfs, self._block_frames = 0.0, 0
        return max(noise_dbfs, _LEAST_NOISE_DBFS)

    def _follow_speech(self, *, voiced: bool) -> list[SpeechBegan | SpeechEnded | Tone]:
        if voiced:
            self._loud += 1
            self._quiet = 0
            if not self._speaking and self._loud >= SPEECH_FRAMES:
                self._speaking = True
                return [SpeechBegan(self.at_ms - (SPEECH_FRAMES - 1) * FRAME_MS)]
            return []
        self._quiet += 1
        if not self._speaking:
            self._loud = max(0, self._loud - 1)
        elif self._quiet >= HANGOVER_FRAMES:
            self._speaking, self._loud = False, 0
            return [SpeechEnded(self.at_ms - (HANGOVER_FRAMES - 1) * FRAME_MS)]
        return []

    def _follow_tone(self, hz: float) -> list[SpeechBegan | SpeechEnded | Tone]:
        ended: list[SpeechBegan | SpeechEnded | Tone] = []
        if self._tone_frames and abs(hz - self._tone_sum_hz / self._tone_frames) > _STEADY_HZ:
            ended = self._end_tone()
        self._tone_frames += 1
        self._tone_sum_hz += hz
        if self._tone_frames - self._tone_told >= 1_000 // FRAME_MS:
            self._tone_told = self._tone_frames
            ended.append(self._tone(going_on=True))
        return ended

    def _tone(self, *, going_on: bool) -> Tone:
        ms = self._tone_frames * FRAME_MS
        begin_ms = self.at_ms + (FRAME_MS if going_on else 0) - ms
        return Tone(begin_ms, round(self._tone_sum_hz / self._tone_frames), ms, going_on)

    def _end_tone(self) -> list[SpeechBegan | SpeechEnded | Tone]:
        found: list[SpeechBegan | SpeechEnded | Tone] = []
        if self._tone_frames >= TONE_FRAMES:
            found = [self._tone(going_on=False)]
        self._tone_frames = self._tone_told = 0
        self._tone_sum_hz = 0.0
        return found


def _measure(frames: NDArray[np.float32]) -> tuple[list[float], list[float], list[float]]:
    """The level (dBFS) of each frame, the share of its strongest line, and that line's pitch."""
    power = np.einsum("ij,ij->i", frames, frames) / FRAME_SAMPLES
    spectrum = np.abs(np.fft.rfft(frames * _WINDOW, axis=1)) ** 2
    rows = np.arange(len(frames))
    peak = np.clip(spectrum[:, _LOWEST_LINE:-2].argmax(axis=1) + _LOWEST_LINE, 2, None)
    total = spectrum[:, 2:].sum(axis=1) + _FLOOR
    left, middle, right = (spectrum[rows, peak + step] for step in (-1, 0, 1))
    share = (left + middle + right) / total
    # Between two lines of a Hann window, the ratio of their amplitudes gives the place.
    root_left, root_middle, root_right = np.sqrt(left), np.sqrt(middle), np.sqrt(right)
    side = np.maximum(root_left, root_right)
    step = (2 * side - root_middle) / (side + root_middle + _FLOOR)
    hz = (peak + np.where(root_right >= root_left, step, -step)) * _LINE_HZ
    levels = 10 * np.log10(power + _FLOOR)
    return levels.tolist(), share.tolist(), hz.tolist()
