"""Audio formats and the exact arithmetic between bytes and milliseconds.

Mono only, little-endian PCM. No format is ever guessed: an unknown one is an error.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

__all__ = ["PCM16_8K", "PCM16_16K", "PCM16_24K", "PCMA_8K", "PCMU_8K", "AudioFormat", "Encoding"]


class Encoding(StrEnum):
    """The coding of a sample: G.711 mu-law, G.711 A-law, or signed 16-bit little-endian."""

    PCMU = "pcmu"
    PCMA = "pcma"
    PCM16 = "pcm16"


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """An encoding at a rate, mono."""

    encoding: Encoding
    rate_hz: int
    # Made once: they are asked for with each piece of sound.
    bytes_per_sample: int = field(init=False, repr=False, compare=False)
    bytes_per_second: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        size = 2 if self.encoding is Encoding.PCM16 else 1
        object.__setattr__(self, "bytes_per_sample", size)
        object.__setattr__(self, "bytes_per_second", size * self.rate_hz)

    def bytes_to_ms(self, byte_count: int) -> int:
        """Whole milliseconds that `byte_count` bytes last, rounded down.

        Raises:
            ValueError: negative, or a part of a sample.
        """
        if byte_count < 0 or byte_count % self.bytes_per_sample:
            raise ValueError(f"{byte_count} bytes are not whole {self.encoding} samples")
        return byte_count * 1000 // self.bytes_per_second

    def ms_to_bytes(self, ms: int) -> int:
        """Bytes that last `ms` milliseconds; exact, since every rate here is whole per ms.

        Raises:
            ValueError: negative.
        """
        if ms < 0:
            raise ValueError(f"a duration cannot be {ms} ms")
        return ms * self.rate_hz // 1000 * self.bytes_per_sample

    def silence(self, ms: int) -> bytes:
        """`ms` milliseconds of digital silence: 0xFF in mu-law, 0xD5 in A-law, else zeros."""
        idle = {Encoding.PCMU: b"\xff", Encoding.PCMA: b"\xd5", Encoding.PCM16: b"\x00"}
        return idle[self.encoding] * self.ms_to_bytes(ms)


PCMU_8K: Final = AudioFormat(Encoding.PCMU, 8_000)
PCMA_8K: Final = AudioFormat(Encoding.PCMA, 8_000)
PCM16_8K: Final = AudioFormat(Encoding.PCM16, 8_000)
PCM16_16K: Final = AudioFormat(Encoding.PCM16, 16_000)
PCM16_24K: Final = AudioFormat(Encoding.PCM16, 24_000)
