"""Sound that passes in the frames of its sender: the short way agrees with the careful one."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from app.framing import FRAMES_AT_ONCE, FrameReader, FrameWriter, masked_text_frame, text_frame
from app.gateway.passthrough import DownlinkPassthrough, UplinkPassthrough
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
        self.frame_writer = FrameWriter(self.passed.append)
        self.reader = FrameReader(
            self,
            masked=True,
            max_bytes=100_000,
            on_text=self.texts.append,
            on_rest=self.texts.append,
            call_soon=self.later.append,
        )
        self.sound = UplinkPassthrough(self.frame_writer)
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
    sockets.frame_writer.open = False
    assert not sockets.send(PLAIN)
    sockets.frame_writer.open = True
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


def test_of_several_frames_in_one_read_those_in_front_of_another_pass() -> None:
    sockets = Sockets()
    assert sockets.send(PLAIN)
    frame = masked_text_frame(PLAIN, b"abcd")
    update = b'{"type":"session.update","session":{}}'
    sockets.feed(frame * 3 + masked_text_frame(update, b"abcd") + frame)
    assert sockets.passed[1:] == [frame] * 4 and sockets.texts == [update]


def test_a_flood_in_one_read_has_its_turns() -> None:
    sockets = Sockets()
    assert sockets.send(PLAIN)
    sockets.feed(masked_text_frame(PLAIN, b"abcd") * (FRAMES_AT_ONCE + 2))
    assert len(sockets.passed) == 1 + FRAMES_AT_ONCE
    for call in sockets.later:
        call()
    assert len(sockets.passed) == 1 + FRAMES_AT_ONCE + 2


def test_a_client_is_held_behind_frames_that_the_upstream_did_not_take() -> None:
    sockets = Sockets()
    assert sockets.send(PLAIN)
    frame = masked_text_frame(PLAIN, b"abcd")

    def full(frame: bytes) -> None:
        sockets.passed.append(frame)
        sockets.frame_writer.open = False
        sockets.reader.hold()

    sockets.frame_writer.write = full
    sockets.feed(frame * 4)
    assert (len(sockets.passed), sockets.texts) == (2, [])
    sockets.frame_writer.write, sockets.frame_writer.open = sockets.passed.append, True
    sockets.reader.go_on()
    for call in sockets.later:
        call()
    assert sockets.passed[1:] == [frame] * 4


# From the upstream --------------------------------------------------------------------------------

DELTA = (
    b'{"type":"response.output_audio.delta","event_id":"event_1","item_id":"item_1","delta":"'
    + SOUND
    + b'"}'
)
DELTAS = [
    (DELTA, True),
    (DELTA.replace(b"output_audio", b"audio"), True),
    (DELTA.replace(b'":"', b'" : "'), True),
    (b'{"event_id":"event_1","type":"response.audio.delta","delta":"' + SOUND + b'"}', True),
    (DELTA.replace(b"audio.delta", b"audio_transcript.delta"), False),
    (DELTA.replace(b"audio.delta", b"audio.done"), False),
    (DELTA.replace(b"item_1", b"item_\xff"), False),
    (DELTA.replace(b"item_1", "item_é".encode()), False),
    (b'{"item_id":"item_1","type":"response.audio.delta","delta":"' + SOUND + b'"}', False),
    (b'{"type":"response.output_audio.delta","delta":"AAAA"}', False),  # a short frame
    (DELTA.replace(SOUND, SOUND * 500), False),  # one of more than 64 KiB
    (b'{"type":"response.done","response":{"id":"' + b"r" * 200 + b'"}}', False),
]


class Below:
    """An upstream's socket and a client's, which keeps everything in order."""

    def __init__(self) -> None:
        self.came: list[bytes] = []
        self.passed = 0
        self.later: list[Callable[[], None]] = []
        self.frame_writer = FrameWriter(self._write)
        self.reader = FrameReader(
            self,
            masked=False,
            max_bytes=100_000,
            on_text=lambda text: self.came.append(text_frame(text)),
            on_rest=self.came.append,
            call_soon=self.later.append,
        )
        self.sound = DownlinkPassthrough(self.frame_writer)
        self.reader.offer(self.sound.on_frame)
        self.feed = self.sound.feed_of(self.reader)

    def _write(self, frames: bytes) -> None:
        self.came.append(frames)
        self.passed += len(frames)

    def turns(self) -> None:
        while self.later:
            self.later.pop(0)()

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        """The test hands over what it likes."""

    def resume_reading(self) -> None:
        """The test hands over what it likes."""

    def send(self, text: bytes) -> bool:
        """A frame from the upstream; True if it went on as it was, else it has become a text."""
        before, frame = self.passed, text_frame(text)
        self.feed(frame)
        assert self.came[-1] == frame
        return self.passed - before == len(frame)


@pytest.mark.parametrize("first", [b"", *(text for text, passes in DELTAS if passes)])
@pytest.mark.parametrize(("text", "passes"), DELTAS)
def test_only_deltas_pass(text: bytes, passes: bool, first: bytes) -> None:
    below = Below()
    assert not first or (below.send(first) and below.send(first))
    assert [below.send(text) for _ in range(3)] == [passes] * 3
    assert len(below.came) == 2 * bool(first) + 3


@pytest.mark.parametrize("head", [b"\x82\x7e", b"\x01\x7e", b"\xc1\x7e", b"\x81\xfe", b"\x89\x7e"])
def test_a_frame_that_is_no_text_does_not_pass(head: bytes) -> None:
    below = Below()
    assert below.send(DELTA)
    below.feed(head + text_frame(DELTA)[2:])
    assert below.passed == len(text_frame(DELTA))


def test_a_length_in_more_bytes_than_it_needs_does_not_pass() -> None:
    below, short = Below(), b'{"type":"response.output_audio.delta","delta":"AAAA"}'
    assert below.send(DELTA)
    below.feed(b"\x81\x7e" + len(short).to_bytes(2) + short)
    assert below.came[-1] == text_frame(short)


@pytest.mark.parametrize("seed", range(30))
def test_whatever_a_read_holds_everything_comes_once_and_in_order(seed: int) -> None:
    chance = random.Random(seed)
    frames = [
        chance.choice((text_frame(DELTA), text_frame(chance.choice(DELTAS)[0]), b"\x89\x00"))
        for _ in range(100)
    ]
    below, stream = Below(), b"".join(frames)
    whole = stream
    while stream:
        size = chance.choice((1, 3, 130, len(frames[0]), 700, 20_000))
        below.frame_writer.open = chance.random() >= 0.1
        below.feed(stream[:size])
        stream = stream[size:]
        if chance.random() < 0.1:
            below.reader.hold()
            below.reader.go_on()
        below.turns()
    assert b"".join(below.came) == whole
    assert below.passed > len(whole) / 100


def test_the_sound_of_deltas_is_counted_however_they_come() -> None:
    below, frame = Below(), text_frame(DELTA)
    for data in (frame, frame, frame * 3, frame[:50], frame[50:] + frame[:3], frame[3:]):
        below.feed(data)
    assert below.sound.chars == 7 * len(SOUND)
    below.frame_writer.open = False
    below.feed(frame * 2)
    assert below.sound.chars == 7 * len(SOUND)  # those have become texts


def test_nothing_passes_once_the_client_speaks_the_other_dialect() -> None:
    below = Below()
    assert below.send(DELTA)
    below.sound.stop()
    assert not below.send(DELTA)
