"""Frames cut out of a byte stream, beside the parser of `websockets` itself."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, SERVER, Protocol

from app.framing import FRAMES_AT_ONCE, FrameReader, masked_text_frame, text_frame

KEY = b"\x01\x02\x03\x04"
SIZES = [0, 1, 125, 126, 127, 300, 65_535, 65_536, 70_000]


class Socket:
    """A transport, a loop and both callbacks of a reader under test."""

    def __init__(self, *, masked: bool = False, max_bytes: int = 100_000) -> None:
        self.texts: list[bytes] = []
        self.rest = bytearray()
        self.order: list[str] = []
        self.reading = True
        self.closing = False
        self.soon: list[Callable[[], None]] = []
        self.on_next: Callable[[], None] | None = None
        self.reader = FrameReader(
            self,
            masked=masked,
            max_bytes=max_bytes,
            on_text=self._on_text,
            on_rest=self._on_rest,
            call_soon=self.soon.append,
        )

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        assert not self.closing
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.closing
        self.reading = True

    def _on_text(self, text: bytes) -> None:
        self.texts.append(text)
        self.order.append("text")
        self._react()

    def _on_rest(self, data: bytes) -> None:
        self.rest += data
        self.order.append("rest")
        self._react()

    def _react(self) -> None:
        react, self.on_next = self.on_next, None
        if react is not None:
            react()

    def turn(self) -> None:
        """One turn of the loop."""
        soon, self.soon[:] = self.soon[:], []
        for call in soon:
            call()

    def turns(self) -> None:
        while self.soon:
            self.turn()


def wire(*frames: Frame, masked: bool = False) -> bytes:
    return b"".join(frame.serialize(mask=masked, extensions=[]) for frame in frames)


def text(payload: bytes, *, fin: bool = True) -> Frame:
    return Frame(Opcode.TEXT, payload, fin)


PING = Frame(Opcode.PING, b"here")


@pytest.mark.parametrize("size", SIZES)
def test_what_is_written_is_what_the_library_writes(size: int) -> None:
    payload = random.randbytes(size)
    assert text_frame(payload) == wire(text(payload))
    server = Protocol(SERVER, max_size=100_000)
    server.receive_data(masked_text_frame(payload, KEY))
    assert [event.data for event in server.events_received() if isinstance(event, Frame)] == [
        payload
    ]


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("size", SIZES[1:])
def test_a_message_is_read_whole_and_in_pieces(size: int, masked: bool) -> None:
    payload = random.randbytes(size)
    data = wire(text(payload), masked=masked)
    whole, pieces = Socket(masked=masked), Socket(masked=masked)
    whole.reader.feed(data)
    for at in range(0, len(data), 7_001):
        pieces.reader.feed(data[at : at + 7_001])
    for byte in data[:20]:
        pieces.reader.feed(bytes([byte]))
    if data[20:]:
        pieces.reader.feed(data[20:])
    assert whole.texts == [payload]
    assert pieces.texts == [payload, payload]
    assert whole.reading
    assert pieces.reading
    assert not whole.rest


FRAMES = st.one_of(
    st.binary(max_size=300).map(lambda data: [text(data)]),
    st.just([PING]),
    st.just([Frame(Opcode.PONG, b"")]),
    st.just([Frame(Opcode.BINARY, b"\x00\x01")]),
    st.lists(st.binary(max_size=9), min_size=2, max_size=4).map(
        lambda parts: [
            Frame(Opcode.TEXT if not at else Opcode.CONT, part, at == len(parts) - 1)
            for at, part in enumerate(parts)
        ]
    ),
)


@given(messages=st.lists(FRAMES, max_size=30), masked=st.booleans(), seed=st.integers())
def test_any_cut_gives_what_the_librarys_own_parser_gives(
    messages: list[list[Frame]], masked: bool, seed: int
) -> None:
    data = wire(*[frame for message in messages for frame in message], masked=masked)
    expected = peer(masked)
    expected.receive_data(data)
    frames = [event for event in expected.events_received() if isinstance(event, Frame)]
    socket, strict = Socket(masked=masked), peer(masked)
    cuts, at = random.Random(seed), 0
    while at < len(data):
        size = cuts.choice([1, 2, 5, 100, 1_000])
        socket.reader.feed(data[at : at + size])
        socket.turns()
        at += size
    strict.receive_data(bytes(socket.rest))
    rest = [event for event in strict.events_received() if isinstance(event, Frame)]
    ours = iter([Frame(Opcode.TEXT, payload) for payload in socket.texts])
    others = iter(rest)
    merged = [next(ours) if kind == "text" else next(others) for kind in socket.order]
    assert [(f.opcode, bytes(f.data), f.fin) for f in merged] == [
        (f.opcode, bytes(f.data), f.fin) for f in frames
    ]


def peer(masked: bool) -> Protocol:
    return Protocol(SERVER if masked else CLIENT, max_size=100_000)


def test_one_turn_hands_out_so_many_frames_and_the_peer_waits_meanwhile() -> None:
    socket = Socket()
    count = 3 * FRAMES_AT_ONCE + 1
    socket.reader.feed(b"".join(text_frame(b"%d" % number) for number in range(count)))
    seen = []
    while socket.soon:
        seen.append((len(socket.texts), socket.reading))
        socket.turn()
    assert seen == [(turn * FRAMES_AT_ONCE, False) for turn in (1, 2, 3)]
    assert socket.texts == [b"%d" % number for number in range(count)]
    assert socket.reading


def test_empty_frames_count_as_any_other() -> None:
    socket = Socket()
    socket.reader.feed(wire(text(b"")) * 1_000)
    assert len(socket.order) == FRAMES_AT_ONCE
    assert not socket.texts


def test_nothing_is_handed_out_while_it_is_held() -> None:
    socket = Socket()
    socket.on_next = socket.reader.hold
    socket.reader.feed(wire(text(b"a"), text(b"b"), PING))
    assert (socket.texts, socket.reading) == ([b"a"], False)
    socket.reader.feed(wire(text(b"c" * 200)))  # read before the transport was told to stop
    socket.turns()
    assert socket.texts == [b"a"]
    socket.reader.go_on()
    assert socket.texts == [b"a"]  # in a turn of its own
    socket.turns()
    assert socket.texts == [b"a", b"b", b"c" * 200]
    assert socket.order == ["text", "text", "rest", "text"]
    assert socket.reading


def test_a_hold_between_messages_keeps_the_next_one() -> None:
    socket = Socket()
    socket.reader.hold()
    socket.reader.hold()
    socket.reader.feed(wire(text(b"a" * 200)))
    assert (socket.texts, socket.reading) == ([], False)
    socket.reader.go_on()
    socket.reader.go_on()
    socket.turns()
    assert (socket.texts, socket.reading) == ([b"a" * 200], True)


def test_a_hold_that_is_over_before_its_callback_returns_changes_nothing() -> None:
    socket = Socket()

    def hold_and_go_on() -> None:
        socket.reader.hold()
        socket.reader.go_on()

    socket.on_next = hold_and_go_on
    socket.reader.feed(wire(text(b"a"), text(b"b")))
    assert (socket.texts, socket.reading, socket.soon) == ([b"a", b"b"], True, [])


@pytest.mark.parametrize(
    ("data", "valid"),
    [
        (wire(text(b"x" * 101)), False),  # too large
        (wire(text(b"x"), masked=True), False),  # masked by a server
        (b"\xc1\x01x", False),  # a reserved bit
        (b"\x81\x7e\x00\x05hello", True),  # a length that is longer than it needs to be
    ],
    ids=["too large", "masked", "reserved bit", "long length"],
)
def test_what_breaks_a_rule_goes_to_the_strict_parser_untouched(data: bytes, valid: bool) -> None:
    for pieces in ([data], [data[:1], data[1:3], data[3:]]):
        socket = Socket(max_bytes=100)
        for piece in pieces:
            socket.reader.feed(piece)
        assert socket.texts == ([b"hello"] if valid else [])
        assert bytes(socket.rest) == (b"" if valid else data)


def test_a_text_inside_of_a_fragmented_message_is_left_to_the_strict_parser() -> None:
    socket = Socket()
    socket.reader.feed(wire(text(b"a", fin=False)))
    socket.reader.feed(wire(text(b"b" * 200)))
    assert not socket.texts
    assert bytes(socket.rest) == wire(text(b"a", fin=False), text(b"b" * 200))


def test_once_stopped_all_that_follows_goes_to_the_strict_parser() -> None:
    first, second, third = (wire(text(letter * 200)) for letter in (b"a", b"b", b"c"))
    socket = Socket()
    socket.on_next = socket.reader.stop
    socket.reader.feed(first + second)
    socket.reader.feed(third)
    assert socket.texts == [b"a" * 200]
    assert bytes(socket.rest) == second + third


def test_a_stop_between_frames_gives_up_the_beginning_of_one_and_what_was_held() -> None:
    part = wire(text(b"a" * 200))
    socket = Socket()
    socket.reader.feed(part[:50])
    socket.reader.stop()
    assert bytes(socket.rest) == part[:50]
    held = Socket()
    held.reader.hold()
    held.reader.feed(part)
    held.reader.stop()
    assert (bytes(held.rest), held.reading) == (part, True)
    quiet = Socket()
    quiet.reader.stop()
    assert not quiet.order


def test_a_transport_that_closes_is_left_alone() -> None:
    socket = Socket()
    socket.closing = True
    socket.reader.hold()
    socket.reader.feed(wire(text(b"a"), text(b"b")))
    socket.reader.go_on()
    socket.turns()
    assert socket.texts == [b"a", b"b"]
    busy = Socket()
    busy.reader.hold()
    busy.closing = True
    busy.reader.go_on()
    busy.turns()
    assert not busy.reading


def test_another_listener_takes_over() -> None:
    socket, heard = Socket(), list[bytes]()
    socket.reader.listen(heard.append)
    socket.reader.feed(wire(text(b"a" * 200)))
    assert (heard, socket.texts) == ([b"a" * 200], [])


LONG = [text(b"a" * 200), text(b"b" * 126), text(b"c" * 65_535)]
OTHERS = {
    "short": [text(b"a" * 125)],
    "of more than 64 KiB": [text(b"a" * 65_536)],
    "in pieces": [text(b"a" * 200, fin=False), Frame(Opcode.CONT, b"b" * 200, True)],
    "binary": [Frame(Opcode.BINARY, b"a" * 200)],
    "ping": [PING],
}


@pytest.mark.parametrize("cut", [1, 3, 200, 70_000, 200_000])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("passes", [True, False])
def test_a_frame_is_offered_whole_with_its_message(cut: int, masked: bool, passes: bool) -> None:
    socket, offered = Socket(masked=masked), list[tuple[bytes, bytes]]()
    socket.reader.offer(lambda message, frame: offered.append((message, frame)) or passes)  # type: ignore[func-returns-value]
    frames = [wire(one, masked=masked) for one in LONG]
    whole = b"".join(frames)
    for at in range(0, len(whole), cut):
        socket.reader.feed(whole[at : at + cut])
        socket.turns()
    assert offered == [(one.data, frame) for one, frame in zip(LONG, frames, strict=True)]
    assert socket.texts == ([] if passes else [one.data for one in LONG])


@pytest.mark.parametrize("kind", OTHERS)
def test_only_a_message_in_one_frame_of_common_size_is_offered(kind: str) -> None:
    for together in ([], [text(b"z" * 5)]):  # alone, and with another in the same read
        socket = Socket(masked=True)
        socket.reader.offer(lambda message, frame: pytest.fail("was offered"))
        socket.reader.feed(wire(*together, *OTHERS[kind], masked=True))
        socket.turns()
        assert len(socket.order) == len(together) + len(OTHERS[kind])


def test_a_length_in_more_bytes_than_it_needs_is_not_offered() -> None:
    socket = Socket()
    socket.reader.offer(lambda message, frame: pytest.fail("was offered"))
    frame = b"\x81\x7e\x00\x0ahelloworld"
    socket.reader.feed(frame)
    socket.reader.feed(frame + frame)
    assert socket.texts == [b"helloworld"] * 3
