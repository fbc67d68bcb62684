"""Telephone sound: formats, G.711, streaming rate changes, levels and WAV files."""

from __future__ import annotations

from audio import (
    PCM16_16K,
    PCM16_24K,
    PCMA_8K,
    PCMU_8K,
    SILENCE_DBFS,
    AudioFormat,
    Encoding,
    Resampler,
    StereoRecorder,
    Transcoder,
    decode_alaw,
    decode_ulaw,
    encode_alaw,
    encode_ulaw,
    level_dbfs,
    read_wav,
)

__all__ = [
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
