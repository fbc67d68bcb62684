"""Test speech as a telephone line carries it: flite voices, which the engine itself never uses.

Clips are read from `tests/data/speech_eval` (8 kHz mono PCM16 WAV, band-limited to 250-3400 Hz);
what is not checked in there is made by the `flite` command when it is on PATH.
`python -m tests.bench.speech_clips` writes the checked-in ones again.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import wave
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audio.format import PCM16_16K, PCMU_8K
from audio.g711 import encode_ulaw
from audio.transcoder import Transcoder

__all__ = ["HELD_OUT_VOICES", "TUNED_VOICES", "Phrase", "clip", "line", "phrases"]

FOLDER = Path(__file__).parents[1] / "data" / "speech_eval"
TUNED_VOICES = ("slt", "rms")
HELD_OUT_VOICES = ("awb", "kal16")
_BAND_HZ = (250.0, 3400.0)
_SPEECH_RMS = 2500.0
_LEAD_MS, _TAIL_MS = 300, 500
"""Around the speech, as a session hears a turn: prefix padding and the silence that ends it."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """A sentence, the dialogue state that it is said in, and what it asks for (`None`: nothing)."""

    text: str
    state: str
    intent: str | None
    set: str


@cache
def phrases() -> tuple[Phrase, ...]:
    rows = json.loads((FOLDER / "phrases.json").read_text(encoding="utf-8"))
    return tuple(Phrase(**row) for row in rows)


def clip(text: str, voice: str) -> NDArray[np.int16] | None:
    """Speech at 8 kHz, or `None` when it is not checked in and flite is not installed."""
    file = _file(text, voice)
    if file.exists():
        with wave.open(str(file)) as wav:
            return np.frombuffer(wav.readframes(wav.getnframes()), dtype="<i2").astype(np.int16)
    return _made(text, voice) if shutil.which("flite") else None


def line(speech: NDArray[np.int16], *, noise_db: float | None = None) -> bytes:
    """Speech as the recognizer gets it from a call: through mu-law, int16 at 16 kHz.

    `noise_db` adds white noise of the telephone band that much under the speech.
    """
    lead, tail = np.zeros(_LEAD_MS * 8), np.zeros(_TAIL_MS * 8)
    samples = np.concatenate([lead, speech.astype(np.float64), tail])
    if noise_db is not None:
        noise = _band(np.random.default_rng(1).normal(size=len(samples)), 8_000)
        samples += noise / noise.std() * _SPEECH_RMS / 10 ** (noise_db / 20)
    wire = encode_ulaw(np.clip(np.rint(samples), -32768, 32767).astype(np.int16))
    bridge = Transcoder(PCMU_8K, PCM16_16K)
    return bridge.push(wire) + bridge.flush()


@cache
def _made(text: str, voice: str) -> NDArray[np.int16]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "speech.wav"
        subprocess.run(["flite", "-voice", voice, "-t", text, "-o", str(file)], check=True)
        with wave.open(str(file)) as wav:
            assert wav.getframerate() == 16_000
            read = np.frombuffer(wav.readframes(wav.getnframes()), dtype="<i2")
    narrow = _band(np.concatenate([np.zeros(800), read.astype(np.float64), np.zeros(800)]), 16_000)
    samples = narrow[::2]
    loud = np.flatnonzero(np.abs(samples) > np.abs(samples).max() * 0.02)
    samples = samples[max(0, loud[0] - 160) : loud[-1] + 320]
    samples *= _SPEECH_RMS / np.sqrt((samples**2).mean())
    return np.clip(np.rint(samples), -32000, 32000).astype(np.int16)


def _band(samples: NDArray[np.float64], rate_hz: int) -> NDArray[np.float64]:
    spectrum = np.fft.rfft(samples)
    at_hz = np.fft.rfftfreq(len(samples), 1 / rate_hz)
    spectrum[(at_hz < _BAND_HZ[0]) | (at_hz > _BAND_HZ[1])] = 0
    return np.fft.irfft(spectrum, len(samples)).astype(np.float64)


def _file(text: str, voice: str) -> Path:
    return FOLDER / voice / (re.sub(r"[^a-z]+", "-", text) + ".wav")


def _kept(phrase: Phrase) -> tuple[str, ...]:
    """The voices in which a phrase is checked in: enough to test and to measure without flite."""
    return {"tuned": ("slt",), "held_out": ("awb",)}.get(phrase.set, ("kal16",))


def main() -> None:
    for phrase in phrases():
        for voice in _kept(phrase):
            file = _file(phrase.text, voice)
            file.parent.mkdir(exist_ok=True)
            with wave.open(str(file), "wb") as wav:
                wav.setnchannels(1)
                wav.setsampwidth(2)
                wav.setframerate(8_000)
                wav.writeframes(_made(phrase.text, voice).astype("<i2").tobytes())


if __name__ == "__main__":
    main()
