"""Sound that goes on in the very frame it came in, between two websockets of one dialect.

Nine tenths of all frames are sound, which the gateway checks and counts and nothing more: what runs
for each of them is one function, over few objects. What a server that is late finds in one read
goes on in one turn as well. Anything else is left to the readers of `app.framing`, and comes as
text (docs/decisions/0025).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from app.framing import FRAMES_AT_ONCE, FrameReader, Outlet, apply_mask
from app.gateway.wire import PlainAppend, delta_begin, sound_chars

__all__ = ["SoundDown", "SoundUp"]

_LEAST: Final = 126
"""A frame of 126 bytes to 64 KiB has its length in two bytes; of fewer, one peer or another may
refuse it."""
_TEXT: Final = b"\x81\x7e"
_UNMASKED_HEAD: Final = 4

# A client's frame of that size.
_HEAD: Final = slice(0, 4)
_KEY: Final = slice(4, 8)
_TEXT_AT: Final = 8
_END: Final = slice(-2, None)


class SoundUp:
    """The appends of a client, on their way to the upstream. `chars` counts their base64.

    A client writes its events alike: a frame that is as long as the last one and spelled like it is
    compared with it, and any other is looked at by `PlainAppend`.
    """

    __slots__ = (
        "_begin",
        "_check",
        "_feed",
        "_frame_bytes",
        "_head",
        "_of_begin",
        "_of_sound",
        "_outlet",
        "_reader",
        "chars",
    )

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._check = PlainAppend()
        self._reader: FrameReader
        self._feed: Callable[[bytes], None]
        self._frame_bytes = 0
        self._head = self._begin = b""
        self._of_begin = self._of_sound = _END
        self.chars = 0

    def feed_of(self, reader: FrameReader) -> Callable[[bytes], None]:
        """As `app.framing.Passage`."""
        self._reader, self._feed = reader, reader.feed
        return self.feed

    def feed(self, data: bytes) -> None:
        """Take what the client's socket gave."""
        outlet = self._outlet
        if (
            len(data) == self._frame_bytes
            and outlet.open
            and self._reader.plain
            and data[_HEAD] == self._head
        ):
            # Slices, since methods of `bytes` parse their arguments at each call. The head is
            # unmasked as well, which spares a copy: it is two times as long as the key.
            text = apply_mask(data, data[_KEY])
            sound = text[self._of_sound]
            if (
                b'"' not in sound
                and b"\\" not in sound
                and sound.isascii()
                and text[self._of_begin] == self._begin
                and text[_END] == b'"}'
            ):
                self.chars += len(sound)
                write = outlet.write  # two steps are the faster way to call what a slot holds
                write(data)
                return
        elif self._frame_bytes < len(data) <= self._frame_bytes * FRAMES_AT_ONCE:
            data = self._several(data)
        if data:
            self._feed(data)

    def _several(self, data: bytes) -> bytes:
        """Pass on the frames that are alike; what is left."""
        size = self._frame_bytes
        at = 0
        while len(data) - at >= size and data[at : at + 4] == self._head and self._reader.plain:
            frame = data[at : at + size]
            if not self.on_frame(apply_mask(frame[_TEXT_AT:], frame[_KEY]), frame):
                break
            at += size
        return data[at:]

    def on_frame(self, text: bytes, frame: bytes) -> bool:
        """As `app.framing.Passage`."""
        if not self._outlet.open or not self._check(text):
            return False
        self.chars += sound_chars(text, "audio")
        self._outlet.write(frame)
        begin = self._check.begin
        if begin and text.endswith(b'"}'):
            self._frame_bytes, self._head, self._begin = len(frame), frame[_HEAD], begin
            sound_at = _TEXT_AT + len(begin)
            self._of_begin = slice(_TEXT_AT, sound_at)
            self._of_sound = slice(sound_at, len(frame) - 2)
        return True


class SoundDown:
    """The deltas of an upstream, on their way to the client. `chars` counts their base64.

    A model writes them alike: one that begins as the last one did needs no other look at its type.
    """

    __slots__ = ("_begin", "_feed", "_others", "_reader", "_send", "chars")

    def __init__(self, send: Callable[[bytes], bool]) -> None:
        """`send` takes whole frames, or says that the client is behind."""
        self._send = send
        self._reader: FrameReader
        self._feed: Callable[[bytes], None]
        self._begin = b""
        self._others = 0  # what else is in a delta: its ids are about as long in each
        self.chars = 0

    def feed_of(self, reader: FrameReader) -> Callable[[bytes], None]:
        """As `app.framing.Passage`."""
        self._reader, self._feed = reader, reader.feed
        return self.feed

    def feed(self, data: bytes) -> None:
        """Take what the upstream's socket gave: the deltas that it begins with go on at once."""
        begin = self._begin
        if begin and self._reader.plain:
            at = chars = 0
            while data[at : at + 2] == _TEXT:
                start = at + _UNMASKED_HEAD
                end = start + int.from_bytes(data[at + 2 : start])
                text = data[start:end]
                if (
                    end > len(data)
                    or end - start < _LEAST
                    or not text.startswith(begin)
                    or not text.isascii()
                ):
                    break
                chars += end - start - self._others
                at = end
            if at and self._send(data[:at]):
                self.chars += chars
                data = data[at:]
        if data:
            self._feed(data)

    def on_frame(self, text: bytes, frame: bytes) -> bool:
        """As `app.framing.Passage`."""
        begin = delta_begin(text)
        if not begin or not self._send(frame):
            return False
        if not self._others:
            self._others = len(text) - sound_chars(text, "delta")
        self.chars += len(text) - self._others
        self._begin = b"" if b"event_id" in begin else begin
        return True

    def stop(self) -> None:
        """Let nothing pass any more: the client turns out to speak the other dialect."""
        self._send = _refuse


def _refuse(_frame: bytes) -> bool:
    return False
