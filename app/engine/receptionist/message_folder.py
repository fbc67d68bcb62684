"""Callers' messages as files that only their owner may read.

One WAV per spoken message (RIFF, PCM16 mono 16 kHz), one text file per typed one, named by time and
item. Writing blocks: call it in
a thread. The log gets the path of the file, never its content.
"""

from __future__ import annotations

import os
import re
import wave
from datetime import UTC, datetime
from pathlib import Path

from audio.format import PCM16_16K

__all__ = ["MessageFolder"]


class MessageFolder:
    """The folder of messages, created with the first one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, item_id: str, message: bytes | str) -> Path:
        """Write a message (int16 mono, 16 kHz, or what was typed) and return its file.

        Raises:
            OSError: the disk does not take it.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        # A client names the items that it creates, and is not to name files.
        name = f"{stamp}-{re.sub('[^A-Za-z0-9_-]', '_', item_id)[:64]}"
        path = self._folder / f"{name}.{'txt' if isinstance(message, str) else 'wav'}"
        # Created with its rights: a file that is made private later was readable until then.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            if isinstance(message, str):
                file.write(message.encode(errors="replace"))
                return path
            with wave.open(file, "wb") as recording:
                recording.setnchannels(1)
                recording.setsampwidth(PCM16_16K.bytes_per_sample)
                recording.setframerate(PCM16_16K.rate_hz)
                recording.writeframes(message)
        return path
