"""Sound that goes on in the very frame it came in, between two websockets of one dialect.

Nine tenths of all frames are sound, which the gateway checks and counts and nothing more: what runs
for each of them is one function, over few objects. Anything else is left to the readers of
`app.framing`, and comes as text (docs/decisions/0025).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from app.framing import FrameReader, Outlet, apply_mask
from app.gateway.wire import PlainAppend, is_delta, sound_chars

__all__ = ["SoundDown", "SoundUp"]

# A client's frame of 126 bytes to 64 KiB.
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
        self._feed(data)

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
    """The deltas of an upstream, on their way to the client. `chars` counts their base64."""

    __slots__ = ("_others", "_send", "chars")

    def __init__(self, send: Callable[[bytes], bool]) -> None:
        """`send` takes a whole frame, or says that the client is behind."""
        self._send = send
        self._others = 0  # what else is in a delta: its ids are about as long in each
        self.chars = 0

    def on_frame(self, text: bytes, frame: bytes) -> bool:
        """As `app.framing.OnFrame`."""
        if not is_delta(text) or not self._send(frame):
            return False
        if not self._others:
            self._others = len(text) - sound_chars(text, "delta")
        self.chars += len(text) - self._others
        return True

    def stop(self) -> None:
        """Let nothing pass any more: the client turns out to speak the other dialect."""
        self._send = _refuse


def _refuse(_frame: bytes) -> bool:
    return False
