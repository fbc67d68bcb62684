"""Sound that passes in the frames of its client: the short way agrees with the careful one."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from app.framing import FrameReader, Outlet, masked_text_frame
from app.gateway.passage import SoundUp
from app.gateway.wire import PlainAppend
from tests.unit.gateway.test_gateway_wire import APPENDS

SOUND = b"AbC+/09=" * 20
PLAIN = b'{"type":"input_audio_buffer.append","audio":"' + SOUND + b'"}'
SPACED = b'{ "type" : "input_audio_buffer.append" , "audio" : "' + SOUND + b'"}'


class Sockets:
    """A client's socket and an upstream's, with what reached either side of the gateway."""

    def __init__(self) -> None:
        self.passed: list[bytes] = []
        self.texts: list[bytes] = []
        self.later: list[Callable[[], None]] = []
        self.outlet = Outlet(self.passed.append)
        self.reader = FrameReader(
            self,
            masked=True,
            max_bytes=100_000,
            on_text=self.texts.append,
            on_rest=self.texts.append,
            call_soon=self.later.append,
        )
        self.sound = SoundUp(self.outlet)
        self.reader.offer(self.sound.on_frame)
        self.feed = self.sound.feed_of(self.reader)

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        """The test hands over what it likes."""

    def resume_reading(self) -> None:
        """The test hands over what it likes."""

    def send(self, text: bytes) -> bool:
        """A frame from the client; True if it went on as it was, else it has become a text."""
        frame = masked_text_frame(text, random.randbytes(4))
        before = len(self.passed), len(self.texts)
        self.feed(frame)
        passed, told = len(self.passed) - before[0], len(self.texts) - before[1]
        assert passed + told == 1
        assert (self.passed[-1] if passed else self.texts[-1]) == (frame if passed else text)
        return bool(passed)


def padded(text: bytes) -> bytes:
    """The same text in a frame that is long enough to be offered."""
    return text.replace(b"AA", b"A" * 160, 1)


@pytest.mark.parametrize("first", [b"", PLAIN, SPACED], ids=["new", "plain", "spaced"])
@pytest.mark.parametrize(("text", "plain"), APPENDS)
def test_only_sound_that_can_mean_nothing_else_passes(
    text: bytes, plain: bool, first: bytes
) -> None:
    sockets = Sockets()
    if first:
        assert sockets.send(first) and sockets.send(first)
    assert [sockets.send(padded(text)) for _ in range(3)] == [plain] * 3
    if plain:
        sound = text.count(b"A" * 4) * 162  # what `padded` makes of it
        assert sockets.sound.chars == pytest.approx(
            2 * len(SOUND) * bool(first) + 3 * sound, abs=60
        )


@pytest.mark.parametrize("like", [PLAIN, SPACED], ids=["plain", "spaced"])
def test_a_frame_as_long_as_the_last_one_is_judged_by_every_byte(like: bytes) -> None:
    sockets, check = Sockets(), PlainAppend()
    sockets.send(like)
    for at in range(len(like)):
        for byte in b'"\\\x80\xff{}:, A':
            text = like[:at] + bytes((byte,)) + like[at + 1 :]
            assert sockets.send(text) is check(text), text


def test_another_kind_of_frame_and_one_behind_it_do_not_pass() -> None:
    sockets = Sockets()
    assert sockets.send(PLAIN)
    frame = masked_text_frame(PLAIN, b"abcd")
    for head in (0x82, 0x01, 0xC1):  # binary, a fragment, compressed
        sockets.feed(bytes((head,)) + frame[1:])
        assert len(sockets.passed) == 1
    sockets = Sockets()
    text = PLAIN.replace(SOUND, SOUND + bytes(-len(PLAIN) % 4).replace(b"\0", b"A"))
    assert sockets.send(text)
    # Unmasked as one, both would begin and end as the last one did.
    frame = masked_text_frame(text, b"abcd")
    update = b'{"type":"session.update","session":{},"event_id":"' + b"x" * 150 + b'"}'
    sockets.feed(frame + masked_text_frame(update, b"abcd"))
    assert (sockets.passed[1:], sockets.texts) == ([frame], [update])


def test_two_lengths_in_turn_pass() -> None:
    sockets = Sockets()
    for _ in range(3):
        assert sockets.send(PLAIN)
        assert sockets.send(PLAIN.replace(SOUND, SOUND[:100]))


def test_nothing_passes_to_an_upstream_that_is_behind_or_past_a_text_that_waits() -> None:
    sockets = Sockets()
    assert sockets.send(PLAIN)
    sockets.outlet.open = False
    assert not sockets.send(PLAIN)
    sockets.outlet.open = True
    assert sockets.send(PLAIN)
    sockets.reader.hold()
    sockets.feed(masked_text_frame(PLAIN, b"abcd"))
    assert (len(sockets.passed), len(sockets.texts)) == (2, 1)
    sockets.reader.go_on()
    for call in sockets.later:
        call()
    assert len(sockets.passed) == 3


def test_a_frame_in_two_reads_and_two_in_one_pass() -> None:
    sockets = Sockets()
    assert sockets.send(PLAIN)
    frame = masked_text_frame(PLAIN, b"abcd")
    for data in (frame[:50], frame[50:] + frame[:3], frame[3:], frame + frame):
        sockets.feed(data)
    assert sockets.passed[1:] == [frame] * 4
