"""The caller's speech, cut into 20 ms frames with silence between them, and the recording.

A frame that is sent at a time holds the 20 ms before it, as on a real line: speech begins 20 ms
before its first frame leaves and ends with its last one. Only `Recording` does I/O.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from app.dial.playout import BYTES_PER_MS
from app.dial.utterances import WINDOW_MS, audible_windows
from app.errors import ConfigError
from audio.format import PCMU_8K
from audio.g711 import decode_ulaw
from audio.wav import StereoRecorder

__all__ = ["FRAME_BYTES", "FRAME_MS", "SILENT_FRAME", "Recording", "SpeechPlayer", "Utterance"]


# Twilio sends 20 ms per media message (observed, not promised).
FRAME_MS: Final = 20
FRAME_BYTES: Final = FRAME_MS * BYTES_PER_MS
SILENT_FRAME: Final = b"\xff" * FRAME_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """One stretch of caller speech as it was sent; the times bound its audible part.

    `agent_playing_at_onset` and `..._at_end`: the agent could be heard at that moment.
    """

    text: str = ""
    onset_ms: int | None = None
    end_ms: int | None = None
    agent_playing_at_onset: bool = False
    agent_playing_at_end: bool = False


class _Speech:
    """An utterance being sent: its frames, and the position of the speech in them."""

    def __init__(self, ulaw: bytes, index: int) -> None:
        self.frames = deque(
            ulaw[at : at + FRAME_BYTES].ljust(FRAME_BYTES, b"\xff")
            for at in range(0, len(ulaw), FRAME_BYTES)
        )
        self.index = index
        windows = [at for at, audible in enumerate(audible_windows(ulaw)) if audible]
        self.onset_ms = windows[0] * WINDOW_MS if windows else None
        self.end_ms = (windows[-1] + 1) * WINDOW_MS if windows else None
        self.sent_ms = 0


class SpeechPlayer:
    """Gives one frame every 20 ms and keeps the times of each utterance."""

    def __init__(self) -> None:
        self._queue: deque[_Speech] = deque()
        self._utterances: list[Utterance] = []

    @property
    def utterances(self) -> tuple[Utterance, ...]:
        return tuple(self._utterances)

    @property
    def speaking(self) -> bool:
        return bool(self._queue)

    def say(self, ulaw: bytes, text: str = "") -> int:
        """Queue mu-law 8 kHz speech, padded to whole frames with silence; return its index."""
        self._utterances.append(Utterance(text=text))
        index = len(self._utterances) - 1
        if ulaw:
            self._queue.append(_Speech(ulaw, index))
        return index

    def next_frame(self, now_ms: int, *, agent_playing: bool) -> bytes:
        """The 160 bytes to send at `now_ms`."""
        if not self._queue:
            return SILENT_FRAME
        speech = self._queue[0]
        frame = speech.frames.popleft()
        begin_ms = speech.sent_ms
        speech.sent_ms += FRAME_MS
        self._note(speech, begin_ms, now_ms - FRAME_MS, agent_playing)
        if not speech.frames:
            self._queue.popleft()
        return frame

    def _note(self, speech: _Speech, begin_ms: int, spoken_at_ms: int, agent_playing: bool) -> None:
        """Note an onset or an end that lies in the frame; the end moves on until speech is over."""
        if speech.onset_ms is None or speech.end_ms is None:
            return
        utterance = self._utterances[speech.index]
        if utterance.onset_ms is None and speech.onset_ms < begin_ms + FRAME_MS:
            utterance = replace(
                utterance,
                onset_ms=spoken_at_ms + speech.onset_ms - begin_ms,
                agent_playing_at_onset=agent_playing,
            )
        if utterance.onset_ms is not None and speech.end_ms > begin_ms:
            utterance = replace(
                utterance,
                end_ms=spoken_at_ms + min(FRAME_MS, speech.end_ms - begin_ms),
                agent_playing_at_end=agent_playing,
            )
        self._utterances[speech.index] = utterance


class Recording:
    """A `stream.Recorder` that writes a stereo WAV file. One byte of mu-law is one sample.

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
        """Finish the file, or remove it when the call never had a stream."""
        self._recorder.close()
        self._file.close()
        if not self._begun:
            self._path.unlink(missing_ok=True)
