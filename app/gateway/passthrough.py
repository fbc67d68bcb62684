"""Sound that goes on in the very frame it came in, between two websockets of one dialect.

Nine tenths of all frames are sound, which the gateway checks and counts and nothing more: what runs
for each of them is one function, over few objects. What a server that is late finds in one read
goes on in one turn as well. Anything else is left to the readers of `app.framing`, and comes as
text (docs/decisions/0025).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from app.framing import FRAMES_AT_ONCE, FrameReader, FrameWriter, apply_mask
from app.gateway.wire import BACKSLASH, QUOTE, PlainAppend, delta_begin, sound_chars

__all__ = ["DownlinkPassthrough", "UplinkPassthrough"]

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

_Alike = tuple[int, bytes, bytes, slice, slice, int]


@lru_cache(maxsize=256)
def _alike(frame_bytes: int, head: bytes, begin: bytes) -> _Alike:
    """The head and beginning of frames that are equally long, and the place of their sound.

    One for all sessions: with a hundred, what each keeps for itself has left the cache.
    """
    sound_at = _TEXT_AT + len(begin)
    end = frame_bytes - len(b'"}')
    return frame_bytes, head, begin, slice(_TEXT_AT, sound_at), slice(sound_at, end), end - sound_at


class UplinkPassthrough:
    """The appends of a client, on their way to the upstream. `chars` counts their base64.

    A client writes its events alike: a frame that is as long as the last one and spelled like it is
    compared with it, and any other is looked at by `PlainAppend`.
    """

    __slots__ = (
        "_alike",
        "_check",
        "_feed",
        "_reader",
        "_writer",
        "chars",
    )

    def __init__(self, writer: FrameWriter) -> None:
        self._writer = writer
        self._check = PlainAppend()
        self._reader: FrameReader
        self._feed: Callable[[bytes], None]
        self._alike: _Alike = (0, b"", b"", _END, _END, 0)
        self.chars = 0

    def feed_of(self, reader: FrameReader) -> Callable[[bytes], None]:
        """As `app.framing.Passthrough`."""
        self._reader, self._feed = reader, reader.feed
        return self.feed

    def feed(self, data: bytes) -> None:
        """Take what the client's socket gave."""
        frame_bytes, head, begin, of_begin, of_sound, chars = self._alike
        writer = self._writer
        if len(data) == frame_bytes and writer.open and self._reader.plain and data[_HEAD] == head:
            # Slices, since methods of `bytes` parse their arguments at each call. The head is
            # unmasked as well, which spares a copy: it is two times as long as the key.
            text = apply_mask(data, data[_KEY])
            sound = text[of_sound]
            if (
                QUOTE not in sound
                and BACKSLASH not in sound
                and sound.isascii()
                and text[of_begin] == begin
                and text[_END] == b'"}'
            ):
                self.chars += chars
                write = writer.write  # two steps are the faster way to call what a slot holds
                write(data)
                return
        elif frame_bytes < len(data) <= frame_bytes * FRAMES_AT_ONCE:
            data = self._several(data)
        if data:
            self._feed(data)

    def _several(self, data: bytes) -> bytes:
        """Pass on the frames that are alike; what is left."""
        size, head, *_ = self._alike
        at = 0
        while len(data) - at >= size and data[at : at + 4] == head and self._reader.plain:
            frame = data[at : at + size]
            if not self.on_frame(apply_mask(frame[_TEXT_AT:], frame[_KEY]), frame):
                break
            at += size
        return data[at:]

    def on_frame(self, text: bytes, frame: bytes) -> bool:
        """As `app.framing.Passthrough`."""
        if not self._writer.open or not self._check(text):
            return False
        self.chars += sound_chars(text, "audio")
        self._writer.write(frame)
        begin = self._check.begin
        if begin and text.endswith(b'"}'):
            self._alike = _alike(len(frame), frame[_HEAD], begin)
        return True


class DownlinkPassthrough:
    """The deltas of an upstream, on their way to the client. `chars` counts their base64.

    A model writes them alike: one that begins as the last one did needs no other look at its type.
    """

    __slots__ = ("_begin", "_feed", "_others", "_reader", "_writer", "chars")

    def __init__(self, writer: FrameWriter) -> None:
        self._writer = writer
        self._reader: FrameReader
        self._feed: Callable[[bytes], None]
        self._begin = b""
        self._others = 0  # what else is in a delta: its ids are about as long in each
        self.chars = 0

    def feed_of(self, reader: FrameReader) -> Callable[[bytes], None]:
        """As `app.framing.Passthrough`."""
        self._reader, self._feed = reader, reader.feed
        return self.feed

    def feed(self, data: bytes) -> None:
        """Take what the upstream's socket gave: the deltas that it begins with go on at once."""
        begin, writer = self._begin, self._writer
        if begin and writer.open and self._reader.plain:
            at, chars, size = 0, 0, len(data)
            while size - at > _LEAST and data[at : at + 2] == _TEXT:
                start = at + _UNMASKED_HEAD
                end = start + (data[at + 2] << 8 | data[at + 3])
                text = data[start:end]
                if (
                    end > size
                    or end - start < _LEAST
                    or not text.startswith(begin)
                    or not text.isascii()
                ):
                    break
                chars += end - start - self._others
                at = end
            if at:
                self.chars += chars
                write = writer.write
                write(data[:at])
                if at == size:
                    return
                data = data[at:]
        if data:
            self._feed(data)

    def on_frame(self, text: bytes, frame: bytes) -> bool:
        """As `app.framing.Passthrough`."""
        begin = delta_begin(text)
        if not begin or not self._writer.open:
            return False
        self._writer.write(frame)
        if not self._others:
            self._others = len(text) - sound_chars(text, "delta")
        self.chars += len(text) - self._others
        self._begin = b"" if b"event_id" in begin else begin
        return True

    def stop(self) -> None:
        """Let nothing pass any more: the client turns out to speak the other dialect."""
        self._writer = FrameWriter(self._writer.write)
        self._writer.open = False
