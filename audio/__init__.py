"""Telephone sound: formats, G.711, streaming rate changes, levels and WAV files.

No I/O but the files handed in, no clock, numpy only. Usable on its own; `docs/audio.md` has the
design and the measurements.
"""

from __future__ import annotations

from audio.format import PCM16_8K, PCM16_16K, PCM16_24K, PCMA_8K, PCMU_8K, AudioFormat, Encoding
from audio.g711 import decode_alaw, decode_ulaw, encode_alaw, encode_ulaw
from audio.level import SILENCE_DBFS, level_dbfs
from audio.resample import Resampler
from audio.transcoder import Transcoder
from audio.wav import StereoRecorder, read_wav

__all__ = [
    "PCM16_8K",
    "PCM16_16K",
    "PCM16_24K",
    "PCMA_8K",
    "PCMU_8K",
    "SILENCE_DBFS",
    "AudioFormat",
    "Encoding",
    "Resampler",
    "StereoRecorder",
    "Transcoder",
    "decode_alaw",
    "decode_ulaw",
    "encode_alaw",
    "encode_ulaw",
    "level_dbfs",
    "read_wav",
]
