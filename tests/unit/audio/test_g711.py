"""Both laws against the decision values of ITU-T G.711, and against `audioop`."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from numpy.typing import NDArray

from audio.g711 import decode_alaw, decode_ulaw, encode_alaw, encode_ulaw

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

EVERY_CODE = bytes(range(256))
EVERY_SAMPLE = np.arange(-32768, 32768).astype(np.int16)
# G.711 counts a negative sample's magnitude from the decision level at zero: -1 is the first.
MAGNITUDE = np.where(EVERY_SAMPLE < 0, ~EVERY_SAMPLE, EVERY_SAMPLE)


def decision_values(*segments: tuple[int, int, int]) -> NDArray[np.int64]:
    """The bounds of the codes: (first, last, step) per segment, ascending."""
    return np.concatenate([np.arange(first, last + 1, step) for first, last, step in segments])


# G.711 tables 2a and 1a, column "decision value number n, x_n", without their virtual last one.
ULAW_DECISIONS = decision_values(
    *((1, 31, 2), (35, 95, 4), (103, 223, 8), (239, 479, 16)),
    *((511, 991, 32), (1055, 2015, 64), (2143, 4063, 128), (4319, 7903, 256)),
)
ALAW_DECISIONS = decision_values(
    *((2, 64, 2), (68, 128, 4), (136, 256, 8), (272, 512, 16)),
    *((544, 1024, 32), (1088, 2048, 64), (2176, 3968, 128)),
)


def test_ulaw_encodes_every_sample_by_the_decision_values_of_the_recommendation() -> None:
    number = np.searchsorted(ULAW_DECISIONS, MAGNITUDE >> 2, side="right")
    expected = np.where(EVERY_SAMPLE < 0, 0x7F - number, 0xFF - number)
    assert np.array_equal(np.frombuffer(encode_ulaw(EVERY_SAMPLE), np.uint8), expected)


def test_alaw_encodes_every_sample_by_the_decision_values_of_the_recommendation() -> None:
    number = np.searchsorted(ALAW_DECISIONS, MAGNITUDE >> 3, side="right")
    expected = np.where(EVERY_SAMPLE < 0, number, 0x80 | number) ^ 0x55
    assert np.array_equal(np.frombuffer(encode_alaw(EVERY_SAMPLE), np.uint8), expected)


def test_ulaw_decodes_to_the_middle_between_decision_values() -> None:
    upper = np.append(ULAW_DECISIONS, 8159)
    lower = np.concatenate([[-1], ULAW_DECISIONS])  # the first interval is centered on zero
    middles = (lower + upper) // 2 * 4
    assert decode_ulaw(EVERY_CODE[:127:-1]).tolist() == middles.tolist()
    assert decode_ulaw(EVERY_CODE[127::-1]).tolist() == (-middles).tolist()


def test_alaw_decodes_to_the_middle_between_decision_values() -> None:
    upper = np.append(ALAW_DECISIONS, 4096)
    lower = np.concatenate([[0], ALAW_DECISIONS])
    middles = (lower + upper) // 2 * 8
    codes = np.arange(128, dtype=np.uint8) ^ 0x55
    assert decode_alaw((codes | 0x80).tobytes()).tolist() == middles.tolist()
    assert decode_alaw(codes.tobytes()).tolist() == (-middles).tolist()


def test_well_known_codes() -> None:
    samples = np.array([0, -1, 32767, -32768], np.int16)
    assert encode_ulaw(samples) == bytes([0xFF, 0x7F, 0x80, 0x00])
    assert encode_alaw(samples) == bytes([0xD5, 0x55, 0xAA, 0x2A])
    assert decode_ulaw(b"\xff\x7f\x80\x00").tolist() == [0, 0, 32124, -32124]
    assert decode_alaw(b"\xd5\x55\xaa\x2a").tolist() == [8, -8, 32256, -32256]


def test_a_decoded_code_encodes_to_itself_save_for_the_negative_zero_of_ulaw() -> None:
    assert encode_alaw(decode_alaw(EVERY_CODE)) == EVERY_CODE
    assert encode_ulaw(decode_ulaw(EVERY_CODE)) == EVERY_CODE.replace(b"\x7f", b"\xff")


@pytest.mark.parametrize(
    ("tone", "overload_dbm0", "decoded"),
    [
        # G.711 tables 6 and 5: the periodic sequence that sounds as 1 kHz at 0 dBm0.
        ("1e0b0b1e9e8b8b9e", 3.17, decode_ulaw),
        ("34212134b4a1a1b4", 3.14, decode_alaw),
    ],
)
def test_the_digital_milliwatt_is_a_kilohertz_at_its_level(
    tone: str, overload_dbm0: float, decoded: object
) -> None:
    assert callable(decoded)
    spectrum = np.abs(np.fft.rfft(decoded(bytes.fromhex(tone) * 10))) / 40
    assert spectrum.argmax() == 10  # ten periods in ten milliseconds
    full_scale = 8159 * 4 if overload_dbm0 == 3.17 else 4096 * 8
    assert 20 * np.log10(full_scale / spectrum[10]) == pytest.approx(overload_dbm0, abs=0.01)


def test_decoding_agrees_with_audioop() -> None:
    assert decode_ulaw(EVERY_CODE).tobytes() == audioop.ulaw2lin(EVERY_CODE, 2)
    assert decode_alaw(EVERY_CODE).tobytes() == audioop.alaw2lin(EVERY_CODE, 2)


def test_alaw_encoding_agrees_with_audioop() -> None:
    assert encode_alaw(EVERY_SAMPLE) == audioop.lin2alaw(EVERY_SAMPLE.tobytes(), 2)


def test_audioop_differs_in_ulaw_on_508_negative_samples_at_decision_values() -> None:
    ours = np.frombuffer(encode_ulaw(EVERY_SAMPLE), np.uint8).astype(int)
    theirs = np.frombuffer(audioop.lin2ulaw(EVERY_SAMPLE.tobytes(), 2), np.uint8).astype(int)
    differing = EVERY_SAMPLE[ours != theirs]
    # It divides by four towards minus infinity and only then takes the magnitude, so that all
    # four samples from just above a decision value on fall on the louder side of it.
    at_decisions = [-4 * x + low for x in ULAW_DECISIONS for low in range(4)]
    assert sorted(differing) == sorted(at_decisions)
    assert len(differing) == 508
    assert set((ours - theirs)[ours != theirs]) == {1}


@pytest.mark.parametrize("encode", [encode_ulaw, encode_alaw])
def test_samples_that_are_not_int16_are_refused(encode: object) -> None:
    assert callable(encode)
    with pytest.raises(TypeError, match="int32"):
        encode(np.array([40_000], np.int32))


def test_nothing_decodes_and_encodes_to_nothing() -> None:
    assert len(decode_ulaw(b"")) == 0
    assert encode_alaw(np.zeros(0, np.int16)) == b""
