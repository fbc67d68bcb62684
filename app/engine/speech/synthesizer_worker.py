"""The synthesizer's process: sentences in, 24 kHz PCM out, over pipes.

Run as `python -m app.engine.speech.synthesizer_worker` by `synthesizer.py`. Speaks with the
espeak-ng library of the `espeakng-loader` wheel, else with an `espeak-ng` or `flite` command on
PATH. The library is GPLv3: nothing else of Trunkline loads it, and this file only calls its public
C API (`speak_lib.h` of espeak-ng 1.52).

Every sentence is leveled to -16 dBFS of speech, a fair telephone level, with peaks bent to stay
below -1 dBFS. It is resampled by windowed sinc (Kaiser, 32 input samples to each side) as one
matrix product over blocks in which the phases repeat (147 in, 160 out at 22,050 Hz).
"""

from __future__ import annotations

import ctypes
import io
import itertools
import json
import math
import queue
import shutil
import signal
import subprocess
import sys
import threading
import wave
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import numpy as np
import numpy.typing as npt

from app.engine.speech.frames import Frame, Kind, pack, read_frame
from app.engine.speech.voices import REALTIME_VOICES, Voice, is_spelled, no_such_voice, voice_of

__all__ = ["level", "main", "to_24k"]


Samples = npt.NDArray[np.float64]

_OUT_HZ: Final = 24_000
_CHUNK_SAMPLES: Final = _OUT_HZ // 10
_HALF_TAPS: Final = 32
_KAISER_BETA: Final = 8.0
_PASS_SHARE: Final = 0.94

_FULL_SCALE: Final = 32768.0
_SPEECH_DBFS: Final = -16.0
_KNEE_DBFS: Final = -6.0
_PEAK_DBFS: Final = -1.0
_GATE_DBFS: Final = -45.0

_COMMAND_S: Final = 10.0
_WORDS_PER_MINUTE: Final = 160


class _Speaker(Protocol):
    """Something that turns a sentence into samples at a rate of its own."""

    def render(self, text: str, voice: Voice, speed: float) -> tuple[Samples, int]: ...

    def has(self, voice: Voice) -> bool:
        """True if espeak-ng has the voice."""
        ...

    def names(self) -> list[str]:
        """The names of espeak-ng's voices, as far as they are known."""
        ...


class _NotInstalled(Exception):
    """The synthesizer is not installed."""


class _EspeakVoice(ctypes.Structure):
    """The beginning of `espeak_VOICE` in speak_lib.h."""

    _fields_ = (("name", ctypes.c_char_p), ("languages", ctypes.c_void_p))


class _EspeakLibrary:
    """libespeak-ng, in this process. It has one global voice, which is set for each sentence."""

    # From speak_lib.h: output mode, initialization option, parameters, position type, flags.
    _SYNCHRONOUS, _DO_NOT_EXIT = 2, 0x8000
    _RATE, _PITCH = 1, 3
    _BY_CHARACTER, _UTF8 = 1, 1

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError:
            raise _NotInstalled from None
        try:
            self._library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        except OSError:
            raise _NotInstalled from None
        self._data = espeakng_loader.get_data_path()
        self._rate_hz = self._library.espeak_Initialize(
            self._SYNCHRONOUS, 0, self._data.encode(), self._DO_NOT_EXIT
        )
        if self._rate_hz <= 0:
            raise _NotInstalled
        self._parts: list[bytes] = []
        callback = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
        )
        self._callback = callback(self._take)  # kept: the library only borrows it
        self._library.espeak_SetSynthCallback(self._callback)

    def has(self, voice: Voice) -> bool:
        language, _, variant = voice.variant.partition("+")
        # The library takes a variant that it does not have, and speaks without.
        variants = Path(self._data, "voices", "!v")
        if variant and not (variants / variant).exists():
            return False
        return bool(self._library.espeak_SetVoiceByName(language.encode()) == 0)

    def names(self) -> list[str]:
        self._library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_EspeakVoice))
        voices = self._library.espeak_ListVoices(None)
        listed = itertools.takewhile(bool, (voices[at] for at in itertools.count()))
        # A language is a byte of priority and its name.
        return [ctypes.string_at(one.contents.languages + 1).decode() for one in listed]

    def _take(self, samples: Any, count: int, _events: Any) -> int:
        if count > 0:
            self._parts.append(ctypes.string_at(samples, count * 2))
        return 0

    def render(self, text: str, voice: Voice, speed: float) -> tuple[Samples, int]:
        library = self._library
        if library.espeak_SetVoiceByName(voice.variant.encode()) != 0:
            library.espeak_SetVoiceByName(b"en")
        library.espeak_SetParameter(self._RATE, _words_per_minute(speed), 0)
        library.espeak_SetParameter(self._PITCH, voice.pitch, 0)
        self._parts.clear()
        encoded = text.encode() + b"\0"
        library.espeak_Synth(
            encoded, ctypes.c_size_t(len(encoded)), 0, self._BY_CHARACTER, 0, self._UTF8, None, None
        )
        return _from_int16(b"".join(self._parts)), self._rate_hz


class _Command:
    """A synthesizer command that writes a WAV."""

    def __init__(self, name: str) -> None:
        found = shutil.which(name)
        if found is None:
            raise _NotInstalled
        self._path = found
        self._is_flite = name == "flite"

    def render(self, text: str, voice: Voice, speed: float) -> tuple[Samples, int]:
        if self._is_flite:
            stretch = f"duration_stretch={1 / _bounded(speed):.3f}"
            options = ["-voice", voice.flite, "--setf", stretch, "-t", text, "-o", "/dev/stdout"]
        else:
            rate = str(_words_per_minute(speed))
            options = ["-v", voice.variant, "-s", rate, "-p", str(voice.pitch), "--stdout"]
        done = subprocess.run(
            [self._path, *options],
            input=b"" if self._is_flite else text.encode(),
            capture_output=True,
            timeout=_COMMAND_S,
            check=True,
        )
        with wave.open(io.BytesIO(done.stdout)) as file:
            # A WAV on a pipe does not know its length: read what there is.
            samples = file.readframes(len(done.stdout))
            return _from_int16(samples), file.getframerate()

    def has(self, voice: Voice) -> bool:
        if self._is_flite:  # it has voices of its own only, and speaks with one of them
            return True
        options = ["-q", "-v", voice.variant, "a"]
        done = subprocess.run([self._path, *options], capture_output=True, timeout=_COMMAND_S)
        return done.returncode == 0

    def names(self) -> list[str]:
        return []


def _find_speaker() -> _Speaker | None:
    for make in (_EspeakLibrary, lambda: _Command("espeak-ng"), lambda: _Command("flite")):
        try:
            speaker: _Speaker = make()
        except _NotInstalled:
            continue
        return speaker
    return None


def _bounded(speed: float) -> float:
    return min(2.0, max(0.5, speed))


def _words_per_minute(speed: float) -> int:
    return round(_WORDS_PER_MINUTE * _bounded(speed))


def _from_int16(data: bytes) -> Samples:
    return np.frombuffer(data[: len(data) & ~1], dtype="<i2").astype(np.float64)


@lru_cache(maxsize=4)
def _bank(up: int, down: int) -> Samples:
    """One block's filter: `down` new input samples with `_HALF_TAPS` around them, to `up` out."""
    width = down + 2 * _HALF_TAPS
    wanted_at = np.arange(up) * down / up + _HALF_TAPS - 1
    away = np.arange(width)[:, None] - wanted_at[None, :]
    cut = _PASS_SHARE * min(1.0, up / down)
    inside = np.clip(1.0 - (away / _HALF_TAPS) ** 2, 0.0, None)
    window = np.i0(_KAISER_BETA * np.sqrt(inside)) / np.i0(_KAISER_BETA)
    bank = cut * np.sinc(cut * away) * np.where(np.abs(away) <= _HALF_TAPS, window, 0.0)
    normal: Samples = bank / bank.sum(axis=0)
    return normal


def to_24k(samples: Samples, rate_hz: int) -> Samples:
    """Mono samples at `rate_hz` as mono samples at 24 kHz, in step with each other."""
    if rate_hz == _OUT_HZ or not len(samples):
        return samples
    common = math.gcd(_OUT_HZ, rate_hz)
    up, down = _OUT_HZ // common, rate_hz // common
    bank = _bank(up, down)
    blocks = -(-len(samples) // down)
    padded = np.zeros(blocks * down + 2 * _HALF_TAPS)
    padded[_HALF_TAPS - 1 : _HALF_TAPS - 1 + len(samples)] = samples
    views = np.lib.stride_tricks.sliding_window_view(padded, bank.shape[0])[::down]
    out: Samples = (views @ bank).reshape(-1)
    return out[: -(-len(samples) * up // down)]


def level(samples: Samples) -> npt.NDArray[np.int16]:
    """Bring speech to its level; pauses do not count, silence stays silence.

    Peaks over -6 dBFS are bent softly towards -1 dBFS, which they never reach.
    """
    frame = _OUT_HZ // 50
    whole = samples[: len(samples) // frame * frame].reshape(-1, frame)
    power = (whole**2).mean(axis=1)
    loud = power[power > _FULL_SCALE**2 * 10 ** (_GATE_DBFS / 10)]
    if not len(loud):
        return np.rint(samples).astype(np.int16)
    gain = 10 ** (_SPEECH_DBFS / 20) / math.sqrt(float(loud.mean()))
    size = np.abs(samples) * gain
    knee, room = 10 ** (_KNEE_DBFS / 20), 10 ** (_PEAK_DBFS / 20) - 10 ** (_KNEE_DBFS / 20)
    bent = np.where(size > knee, knee + room * np.tanh((size - knee) / room), size)
    return np.rint(np.sign(samples) * bent * _FULL_SCALE).astype(np.int16)


class _SentenceQueue:
    """Requested sentences, spoken one after another unless they are abandoned."""

    def __init__(self, speaker: _Speaker, out: BinaryIO) -> None:
        self._speaker = speaker
        self._out = out
        self._wanted: set[int] = set()
        self._requests: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()

    def read(self, stream: BinaryIO) -> None:
        """Take requests until the pipe closes (a thread of its own: an end cuts speech short)."""
        while (frame := read_frame(stream)) is not None:
            if frame.kind is Kind.BEGIN:
                self._wanted.add(frame.number)
                self._requests.put(frame)
            elif frame.kind is Kind.ABANDON:
                self._wanted.discard(frame.number)
        self._requests.put(None)

    def serve(self) -> None:
        while (frame := self._requests.get()) is not None:
            if frame.number in self._wanted:
                self._speak(frame)

    def _speak(self, frame: Frame) -> None:
        request = json.loads(frame.body)
        voice = voice_of(request["voice"])
        try:
            samples, rate_hz = self._speaker.render(request["text"], voice, request["speed"])
        except (OSError, subprocess.SubprocessError, wave.Error, EOFError) as error:
            self._send(Kind.FAILED, frame.number, type(error).__name__.encode())
            return
        speech = level(to_24k(samples, rate_hz)).astype("<i2")
        for start in range(0, len(speech), _CHUNK_SAMPLES):
            if frame.number not in self._wanted:
                return
            chunk = speech[start : start + _CHUNK_SAMPLES]
            self._send(Kind.SOUND, frame.number, chunk.tobytes())
        self._wanted.discard(frame.number)
        self._send(Kind.DONE, frame.number, b"")

    def _send(self, kind: Kind, number: int, body: bytes) -> None:
        self._out.write(pack(kind, number, body))
        self._out.flush()


def _missing_voices(voices: Mapping[str, str], speaker: _Speaker) -> list[str]:
    """Describe each missing voice, with the setting that names it."""
    return [
        f"{place}: {no_such_voice(name, speaker.names())}"
        for name, place in voices.items()
        if name not in REALTIME_VOICES and not (is_spelled(name) and speaker.has(voice_of(name)))
    ]


def _refuse(out: BinaryIO, reason: str) -> None:
    out.write(pack(Kind.REFUSED, 0, reason.encode()))
    out.flush()


def main() -> None:
    """Speak until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which then closes us
    stdin, out = sys.stdin.buffer, sys.stdout.buffer
    setup = read_frame(stdin)
    if setup is None:
        return
    speaker = _find_speaker()
    if speaker is None:
        _refuse(
            out,
            "no speech synthesizer: install trunkline with its `offline` extra, or put "
            "espeak-ng or flite on PATH",
        )
        return
    if missing := _missing_voices(json.loads(setup.body)["voices"], speaker):
        _refuse(out, "\n".join(missing))
        return
    sentences = _SentenceQueue(speaker, out)
    threading.Thread(target=sentences.read, args=(stdin,), daemon=True).start()
    out.write(pack(Kind.READY))
    out.flush()
    sentences.serve()


if __name__ == "__main__":
    main()
