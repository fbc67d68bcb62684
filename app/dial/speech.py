"""The caller's recorded speech: WAV files as mu-law 8 kHz, and the packaged demo call.

Reads PCM16 of any usual rate, mono or stereo. Other files are refused with the command that
converts them.
"""

from __future__ import annotations

import io
import shlex
from importlib import resources
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from app.dial.playout import BYTES_PER_MS
from app.dial.script import Step
from app.dial.script_file import load_script
from app.dial.utterances import WINDOW_MS, audible_windows
from app.errors import ConfigError
from audio.g711 import encode_ulaw
from audio.wav import read_wav

__all__ = ["DEMO_SCRIPT", "SpeechFolder", "demo_script", "parse_wav", "read_script"]

DEMO_SCRIPT: Final = "demo.yaml"
_RATE_HZ: Final = 8_000
_RATES_HZ: Final = range(8_000, 192_001)
_LOBES: Final = 24  # of the low-pass, on each side: beyond what a telephone line keeps
_BLOCK: Final = 2_048  # samples made at a time: bounds the memory
_KEPT_TAIL_MS: Final = 40


class _Folder(Protocol):
    """The common part of a path and a packaged resource."""

    def joinpath(self, *descendants: str) -> _Folder: ...

    def read_bytes(self) -> bytes: ...


class SpeechFolder:
    """The WAV files that a script names, relative to where the script is."""

    def __init__(self, folder: _Folder) -> None:
        self._folder = folder

    def load(self, file: str) -> bytes:
        """Load a file's speech as mu-law 8 kHz.

        Raises:
            ConfigError: it is not there, or is not a WAV file that can be read.
        """
        try:
            content = self._folder.joinpath(file).read_bytes()
        except OSError as error:
            raise ConfigError(f"{file}: {error.strerror or 'cannot be read'}") from error
        return parse_wav(content, file)


def demo_script() -> tuple[tuple[Step, ...], SpeechFolder]:
    """The packaged call, which `trunkline dial` makes by default."""
    data = resources.files(__package__) / "data"
    text = (data / DEMO_SCRIPT).read_text(encoding="utf-8")
    return load_script(text, DEMO_SCRIPT), SpeechFolder(data)


def read_script(path: Path) -> tuple[tuple[Step, ...], SpeechFolder]:
    """Read an operator's script; its WAV files lie beside it.

    Raises:
        ConfigError: it cannot be read, or a line of it is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    return load_script(text, str(path)), SpeechFolder(path.parent)


def parse_wav(content: bytes, name: str) -> bytes:
    """Convert a WAV file to mu-law 8 kHz, without the silence at its end, which would add latency.

    Raises:
        ConfigError: not a WAV file, not PCM16, or a rate that is not read.
    """
    try:
        rate_hz, samples = read_wav(io.BytesIO(content))
    except ValueError as error:
        raise ConfigError(f"{name}: {error}. {_convert(name)}") from error
    if rate_hz not in _RATES_HZ:
        text = f"{name}: {rate_hz} Hz; 8000 to 192000 can be read. {_convert(name)}"
        raise ConfigError(text)
    if not len(samples):
        raise ConfigError(f"{name}: holds no sound")
    return _trimmed(encode_ulaw(_at_8khz(samples, rate_hz)))


def _at_8khz(samples: NDArray[np.int16], rate_hz: int) -> NDArray[np.int16]:
    """Resample a whole recording with a windowed sinc, without delay."""
    if rate_hz == _RATE_HZ:
        return samples
    step = rate_hz / _RATE_HZ
    reach = int(_LOBES * step)
    padded = np.concatenate([np.zeros(reach), samples, np.zeros(reach + 1)])
    window = np.arange(-reach, reach + 1)
    pieces = []
    for first in range(0, len(samples) * _RATE_HZ // rate_hz, _BLOCK):
        last = min(first + _BLOCK, len(samples) * _RATE_HZ // rate_hz)
        at = np.arange(first, last) * step
        nearest = at.astype(np.int64)
        away = (window + nearest[:, None] - at[:, None]) / step
        taps = np.sinc(away) * np.cos(np.clip(away / _LOBES, -1, 1) * np.pi / 2) ** 2 / step
        pieces.append((padded[nearest[:, None] + window + reach] * taps).sum(axis=1))
    whole: NDArray[np.float64] = np.rint(np.concatenate(pieces))
    return whole.clip(-32_768, 32_767).astype(np.int16)


def _convert(name: str) -> str:
    file = shlex.quote(f"./{name}" if name.startswith("-") else name)
    return f"Convert it with: sox {file} -b 16 -r 8000 -c 1 converted.wav"


def _trimmed(ulaw: bytes) -> bytes:
    windows = [at for at, audible in enumerate(audible_windows(ulaw)) if audible]
    if not windows:
        return ulaw
    return ulaw[: ((windows[-1] + 1) * WINDOW_MS + _KEPT_TAIL_MS) * BYTES_PER_MS]
