"""The stereo WAV of a simulated call: what the caller said left, what the ear heard right."""

from __future__ import annotations

from pathlib import Path

from app.dial.mouth import SILENT_FRAME
from app.errors import ConfigError
from audio.format import PCMU_8K
from audio.g711 import decode_ulaw
from audio.wav import StereoRecorder

__all__ = ["Recording"]


class Recording:
    """A `line.Tap` that writes a file. One byte of mu-law is one sample.

    A call may hold several streams; each begins `offset_ms` after the call.
    """

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            ConfigError: it cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w+b")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
        self._recorder = StereoRecorder(self._file, PCMU_8K.rate_hz)
        self._path = path
        self._origin = 0
        self._begun = False

    def begin_stream(self, offset_ms: int) -> None:
        self._begun = True
        self._origin = PCMU_8K.ms_to_bytes(offset_ms)

    def caller_audio(self, at_byte: int, ulaw: bytes) -> None:
        if ulaw != SILENT_FRAME:
            self._recorder.write_left(self._origin + at_byte, decode_ulaw(ulaw))

    def agent_audio(self, at_byte: int, ulaw: bytes) -> None:
        self._recorder.write_right(self._origin + at_byte, decode_ulaw(ulaw))

    def close(self) -> None:
        """Finish the file; of a call that never had a stream nothing is kept."""
        self._recorder.close()
        self._file.close()
        if not self._begun:
            self._path.unlink(missing_ok=True)
