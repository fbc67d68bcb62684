"""Callers' recorded messages as files that only their owner may read.

One WAV per message (RIFF, PCM16 mono 16 kHz), named by time and item. Writing blocks: call it in
a thread. The log gets the path of the file, never its content.
"""

from __future__ import annotations

import os
import wave
from datetime import UTC, datetime
from pathlib import Path

from audio.format import PCM16_16K

__all__ = ["MessageFolder"]


class MessageFolder:
    """The folder of messages, created with the first one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, item_id: str, pcm16: bytes) -> Path:
        """Write a message (int16 mono, 16 kHz) and return its file.

        Raises:
            OSError: the disk does not take it.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        path = self._folder / f"{stamp}-{item_id}.wav"
        # Created with its rights: a file that is made private later was readable until then.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file, wave.open(file, "wb") as recording:
            recording.setnchannels(1)
            recording.setsampwidth(PCM16_16K.bytes_per_sample)
            recording.setframerate(PCM16_16K.rate_hz)
            recording.writeframes(pcm16)
        return path
