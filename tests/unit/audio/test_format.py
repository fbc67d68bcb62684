from __future__ import annotations

import pytest

from audio.format import PCM16_8K, PCM16_16K, PCM16_24K, PCMA_8K, PCMU_8K, AudioFormat


@pytest.mark.parametrize(
    ("fmt", "frame_bytes"),
    [(PCMU_8K, 160), (PCMA_8K, 160), (PCM16_8K, 320), (PCM16_16K, 640), (PCM16_24K, 960)],
)
def test_a_frame_of_20_ms_has_its_exact_length(fmt: AudioFormat, frame_bytes: int) -> None:
    assert fmt.ms_to_bytes(20) == frame_bytes
    assert fmt.bytes_to_ms(frame_bytes) == 20


def test_a_started_millisecond_does_not_count() -> None:
    assert PCMU_8K.bytes_to_ms(159) == 19


@pytest.mark.parametrize("byte_count", [-2, 961])
def test_a_part_of_a_sample_and_a_negative_length_are_refused(byte_count: int) -> None:
    with pytest.raises(ValueError, match="not whole"):
        PCM16_24K.bytes_to_ms(byte_count)


def test_a_negative_duration_is_refused() -> None:
    with pytest.raises(ValueError, match="-1 ms"):
        PCM16_24K.ms_to_bytes(-1)


def test_silence_is_spelled_as_each_encoding_idles() -> None:
    assert PCMU_8K.silence(20) == b"\xff" * 160
    assert PCMA_8K.silence(20) == b"\xd5" * 160
    assert PCM16_16K.silence(1) == bytes(32)
