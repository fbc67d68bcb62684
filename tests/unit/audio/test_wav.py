from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from audio.wav import StereoRecorder, read_wav


def sides(file: io.BytesIO) -> tuple[list[int], list[int]]:
    """Left and right as the header declares them, checked byte for byte against RIFF/WAVE."""
    data = file.getvalue()
    assert data[:4] == b"RIFF"
    assert data[8:16] == b"WAVEfmt "
    assert struct.unpack_from("<IHHIIHH", data, 16) == (16, 1, 2, 8_000, 32_000, 4, 16)
    assert data[36:40] == b"data"
    riff_bytes, data_bytes = (struct.unpack_from("<I", data, at)[0] for at in (4, 40))
    assert riff_bytes == 36 + data_bytes
    frames = np.frombuffer(data, "<i2", data_bytes // 2, 44).reshape(-1, 2)
    return frames[:, 0].tolist(), frames[:, 1].tolist()


def pcm(*samples: int) -> NDArray[np.int16]:
    return np.array(samples, np.int16)


def test_a_recording_is_a_valid_file_before_anything_was_said() -> None:
    file = io.BytesIO()
    StereoRecorder(file, 8_000)
    assert sides(file) == ([], [])


def test_the_caller_is_left_the_agent_right_and_missing_time_is_silence() -> None:
    file = io.BytesIO()
    recorder = StereoRecorder(file, 8_000)
    recorder.write_left(1, pcm(1, 2))
    recorder.write_right(2, pcm(-5, -6, -7))
    recorder.write_left(6, pcm(9))
    recorder.close()
    assert sides(file) == ([0, 1, 2, 0, 0, 0, 9], [0, 0, -5, -6, -7, 0, 0])


def test_of_two_writes_at_one_place_the_later_one_stays() -> None:
    file = io.BytesIO()
    recorder = StereoRecorder(file, 8_000)
    recorder.write_right(0, pcm(1, 1, 1, 1))
    recorder.write_left(0, pcm(7, 7, 7, 7, 7))
    recorder.write_right(2, pcm(2, 2, 2, 2))
    recorder.close()
    assert sides(file) == ([7, 7, 7, 7, 7, 0], [1, 1, 2, 2, 2, 2])


def test_every_flush_leaves_a_valid_header_and_writing_goes_on() -> None:
    file = io.BytesIO()
    recorder = StereoRecorder(file, 8_000)
    recorder.write_left(0, pcm(1))
    recorder.flush()
    assert sides(file) == ([1], [0])
    recorder.write_right(0, pcm(2, 3))
    assert sides(file) == ([1], [2])  # the length is that of the last flush
    recorder.flush()
    assert sides(file) == ([1, 0], [2, 3])


WRITES = st.lists(
    st.tuples(
        st.booleans(), st.integers(0, 400), st.lists(st.integers(-32768, 32767), max_size=60)
    ),
    max_size=12,
)


@given(writes=WRITES)
def test_any_order_of_writes_equals_writing_into_one_long_array(
    writes: list[tuple[bool, int, list[int]]],
) -> None:
    file = io.BytesIO()
    recorder = StereoRecorder(file, 8_000)
    expected = np.zeros((460, 2), np.int16)
    length = 0
    for right, at_sample, samples in writes:
        write = recorder.write_right if right else recorder.write_left
        write(at_sample, pcm(*samples))
        expected[at_sample : at_sample + len(samples), int(right)] = samples
        if samples:
            length = max(length, at_sample + len(samples))
    recorder.close()
    assert sides(file) == (expected[:length, 0].tolist(), expected[:length, 1].tolist())
    assert recorder.duration_ms == length // 8


def test_long_gaps_and_long_writes_go_through_in_pieces(tmp_path: Path) -> None:
    loud = np.arange(50_000).astype(np.int16)
    with (tmp_path / "call.wav").open("w+b") as file:
        recorder = StereoRecorder(file, 24_000)
        recorder.write_right(100_000, loud)
        recorder.write_left(120_000, loud)
        recorder.close()
        frames = np.fromfile(tmp_path / "call.wav", "<i2", offset=44).reshape(-1, 2)
    expected = np.zeros((170_000, 2), np.int16)
    expected[100_000:150_000, 1] = loud
    expected[120_000:170_000, 0] = loud
    assert np.array_equal(frames, expected)


def test_a_recording_starts_where_the_file_stands() -> None:
    file = io.BytesIO()
    file.write(b"before")
    recorder = StereoRecorder(file, 8_000)
    recorder.write_left(0, pcm(5))
    recorder.close()
    assert file.getvalue()[:10] == b"beforeRIFF"
    file.seek(6)
    assert read_wav(file)[1].tolist() == [2]


def test_what_a_file_held_before_is_not_heard_in_a_gap() -> None:
    file = io.BytesIO(b"\x55" * 1_000)
    recorder = StereoRecorder(file, 8_000)
    recorder.write_left(3, pcm(1))
    recorder.close()
    assert sides(file) == ([0, 0, 0, 1], [0, 0, 0, 0])
    assert len(file.getvalue()) == 44 + 16


def test_a_closed_recording_takes_nothing_more_and_closes_again_in_peace() -> None:
    file = io.BytesIO()
    recorder = StereoRecorder(file, 8_000)
    recorder.close()
    recorder.close()
    with pytest.raises(ValueError, match="closed"):
        recorder.write_left(0, pcm(1))
    assert not file.closed


def test_positions_outside_a_wav_file_are_refused() -> None:
    recorder = StereoRecorder(io.BytesIO(), 8_000)
    with pytest.raises(ValueError, match="-1"):
        recorder.write_left(-1, pcm(1))
    with pytest.raises(ValueError, match="4 GiB"):
        recorder.write_left(1 << 30, pcm(1))


def test_a_recording_refuses_samples_that_are_not_int16() -> None:
    with pytest.raises(TypeError, match="float32"):
        StereoRecorder(io.BytesIO(), 8_000).write_left(0, np.zeros(3, np.float32))


def test_a_file_that_cannot_be_read_back_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "call.wav").open("wb") as file, pytest.raises(ValueError, match=r"w\+b"):
        StereoRecorder(file, 8_000)


PCM_SUBFORMAT = bytes.fromhex("0100000000001000800000aa00389b71")


def wav(
    samples: bytes, *, tag: int = 1, channels: int = 1, bits: int = 16, rate_hz: int = 16_000
) -> bytes:
    block = channels * bits // 8
    fmt = struct.pack("<HHIIHH", tag, channels, rate_hz, rate_hz * block, block, bits)
    if tag == 0xFFFE:
        fmt += struct.pack("<HHI", 22, bits, 0) + PCM_SUBFORMAT
    chunks = b"fmt " + struct.pack("<I", len(fmt)) + fmt
    chunks += b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def test_a_mono_file_is_read_as_it_is() -> None:
    rate_hz, samples = read_wav(io.BytesIO(wav(struct.pack("<3h", 1, -2, 32767))))
    assert rate_hz == 16_000
    assert samples.dtype == np.int16
    assert samples.tolist() == [1, -2, 32767]


def test_two_channels_are_averaged_without_overflow() -> None:
    data = wav(struct.pack("<6h", 32767, 32767, -32768, -32768, 10, 20), channels=2)
    assert read_wav(io.BytesIO(data))[1].tolist() == [32767, -32768, 15]


def test_the_extensible_form_of_pcm_is_read() -> None:
    data = wav(struct.pack("<2h", 3, 4), tag=0xFFFE)
    assert read_wav(io.BytesIO(data))[1].tolist() == [3, 4]


def test_other_chunks_are_skipped_with_their_padding() -> None:
    plain = wav(struct.pack("<2h", 3, 4))
    odd = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    assert read_wav(io.BytesIO(plain[:12] + odd + plain[12:]))[1].tolist() == [3, 4]


def test_a_length_left_open_by_a_pipe_means_up_to_the_end() -> None:
    plain = wav(b"")
    open_ended = plain[:-4] + struct.pack("<I", 0x7FFFF000) + struct.pack("<2h", 3, 4) + b"\1"
    assert read_wav(io.BytesIO(open_ended))[1].tolist() == [3, 4]


def test_a_recording_reads_back_as_the_average_of_its_sides() -> None:
    file = io.BytesIO()
    recorder = StereoRecorder(file, 24_000)
    recorder.write_left(0, pcm(100, 200))
    recorder.write_right(1, pcm(400))
    recorder.close()
    file.seek(0)
    rate_hz, samples = read_wav(file)
    assert rate_hz == 24_000
    assert samples.tolist() == [50, 300]


NO_FORMAT = b"RIFF\x0c\0\0\0WAVEdata\2\0\0\0\1\0"
SHORT_FORMAT = b"RIFF\x0c\0\0\0WAVEfmt \4\0\0\0\1\0\1\0"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no RIFF/WAVE header"),
        (b"RIFX" + wav(b"")[4:], "no RIFF/WAVE header"),
        (wav(b"")[:8] + b"AVI " + wav(b"")[12:], "no RIFF/WAVE header"),
        (wav(b"")[:36], "no samples"),
        (NO_FORMAT, "samples before their format"),
        (SHORT_FORMAT, "cut short"),
        (wav(b"", tag=6, bits=8), "0x0006 with 8 bits"),
        (wav(b"", tag=7, bits=16), "0x0007 with 16 bits"),
        (wav(b"", bits=24), "24 bits"),
        (wav(b"", tag=0xFFFE).replace(PCM_SUBFORMAT, bytes(16)), "0xfffe"),
        (wav(b"", channels=6), "6 channels"),
        (wav(b"", rate_hz=0), "rate is zero"),
    ],
)
def test_files_that_are_not_pcm16_are_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_wav(io.BytesIO(data))


def test_a_length_of_zero_means_up_to_the_end() -> None:
    plain = wav(struct.pack("<2h", 3, 4))
    at = plain.index(b"data") + 4
    open_ended = plain[:at] + bytes(4) + plain[at + 4 :]
    assert read_wav(io.BytesIO(open_ended))[1].tolist() == [3, 4]
    assert read_wav(io.BytesIO(open_ended[: at + 4]))[1].tolist() == []


@pytest.mark.parametrize("pad", [b"", b"\0"], ids=["no pad", "pad"])
@pytest.mark.parametrize("size", [1, 3, 27])
@pytest.mark.parametrize("before", [b"fmt ", b"data"])
def test_a_chunk_of_odd_length_may_lack_its_pad_byte(before: bytes, size: int, pad: bytes) -> None:
    plain = wav(struct.pack("<2h", 3, 4))
    at = plain.index(before)
    chunk = struct.pack("<4sI", b"LIST", size) + b"x" * size + pad
    for chunks in (chunk, chunk * 2):
        data = plain[:at] + chunks + plain[at:]
        assert read_wav(io.BytesIO(data))[1].tolist() == [3, 4]
