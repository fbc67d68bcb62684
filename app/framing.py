"""The incoming half of an open websocket, for messages that come fifty times a second. Pure.

`FrameReader` cuts a peer's byte stream into frames. A whole, unfragmented text message that is not
empty is unmasked and handed out here; every other frame - ping, pong, close, binary, a fragment,
one that breaks a rule - is handed on whole and untouched to the strict parser of the `websockets`
library, which therefore always stands at the beginning of a frame. `text_frame` and
`masked_text_frame` write a text message. A relay is offered a message with its frame, to pass on as
it came. Sockets belong to `app.web.server.sockets` (the carrier's) and
`app.realtime.websocket` (the model's).

At most `FRAMES_AT_ONCE` frames are handed out in one turn of the event loop; then other sockets
have theirs. Reading is paused meanwhile, so that the peer waits and not the memory fills.

Follows RFC 6455, section 5.2.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any, Final, Protocol

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without wheels
    from websockets.utils import apply_mask

__all__ = [
    "FRAMES_AT_ONCE",
    "FrameReader",
    "FrameWriter",
    "OnFrame",
    "Passthrough",
    "ReadControl",
    "apply_mask",
    "masked_text_frame",
    "text_frame",
]

FRAMES_AT_ONCE: Final = 16
"""A delta takes up to 0.1 ms, so that no peer holds the loop for longer than 2 ms."""

_TEXT_FIN: Final = 0x81
_BINARY: Final = 0x2
_FIN: Final = 0x80
_MASKED: Final = 0x80
_MEDIUM: Final = 126
_LARGE: Final = 127

OnFrame = Callable[[bytes, bytes], bool]
"""Takes a message and its whole frame, as the peer has masked it; False leaves it to `on_text`."""


class FrameWriter:
    """The writing half of a socket, for those who write whole frames fifty times a second.

    `open` is kept by the socket: it takes frames, and the peer has not fallen behind.
    """

    __slots__ = ("open", "write")

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.open = True
        self.write = write


class Passthrough(Protocol):
    """Takes what a socket gives before its reader does, to pass frames on as they came."""

    def feed_of(self, reader: FrameReader) -> Callable[[bytes], None]:
        """The function to call in place of `reader.feed`; all that does not pass goes on to it."""
        ...

    def on_frame(self, text: bytes, frame: bytes) -> bool:
        """As `OnFrame`, for what the reader has cut."""
        ...


_MEDIUM_HEAD: Final = Struct("!BBH").pack
_MEDIUM_MASKED_HEAD: Final = Struct("!BBH4s").pack
_LARGE_HEAD: Final = Struct("!BBQ").pack


class ReadControl(Protocol):
    """The part of a transport that a reader uses."""

    def is_closing(self) -> bool: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class FrameReader:
    """Bytes in, messages and other frames out, by callback and in order.

    The callbacks run inside `feed` or in a turn of their own, and may call `hold`, `go_on` and
    `stop`. What they raise is for the feeder.
    """

    __slots__ = (
        "_at",
        "_busy",
        "_call_soon",
        "_data",
        "_fragments",
        "_held",
        "_mask",
        "_max_bytes",
        "_need",
        "_on_frame",
        "_on_rest",
        "_on_text",
        "_paused",
        "_start",
        "_stopped",
        "_tail",
        "_transport",
        "plain",
    )

    def __init__(
        self,
        transport: ReadControl,
        *,
        masked: bool,
        max_bytes: int,
        on_text: Callable[[bytes], None],
        on_rest: Callable[[bytes], None],
        call_soon: Callable[[Callable[[], None]], Any],
    ) -> None:
        """`masked`: the peer is a client. `call_soon` runs something in the loop's next turn."""
        self._transport = transport
        self._mask = _MASKED if masked else 0
        self._start = 8 if masked else 4
        self._max_bytes = max_bytes
        self._on_text = on_text
        self._on_frame: OnFrame | None = None
        self._on_rest = on_rest
        self._call_soon = call_soon
        self.plain = True
        """The next bytes begin a frame, and may be handed out at once: nothing waits, no fragment
        came, and neither `hold` nor `stop`."""
        self._data = b""  # whole frames that wait for their turn, from `_at` on
        self._at = 0
        self._tail = bytearray()  # the beginning of a frame that has not arrived
        self._need = 0  # the bytes that it needs at least
        self._fragments = False  # in the middle of a fragmented message, which is not ours
        self._held = False
        self._stopped = False  # nothing of ours can follow
        self._paused = False
        self._busy = False

    # In -----------------------------------------------------------------------------------------

    def listen(self, on_text: Callable[[bytes], None]) -> None:
        """Hand messages to another from now on, and offer frames to nobody."""
        self._on_text = on_text
        self._on_frame = None

    def offer(self, on_frame: OnFrame | None) -> None:
        """Offer first to this one what comes as one frame of 126 bytes to 64 KiB."""
        self._on_frame = on_frame

    def feed(self, data: bytes) -> None:
        """Take what the socket gave."""
        if self.plain and len(data) > 8 and data[0] == _TEXT_FIN:
            # Nearly always: one message of less than 64 KiB, and nothing else.
            start = self._start
            length = data[1] ^ self._mask
            if length == _MEDIUM:
                length = data[2] << 8 | data[3]
            elif length < _MEDIUM:
                start -= 2
            else:
                length = 0
            if 0 < length <= self._max_bytes and length + start == len(data):
                payload = data[start:]
                if self._mask:
                    payload = apply_mask(payload, data[start - 4 : start])
                if self._on_frame is None or length < _MEDIUM or not self._on_frame(payload, data):
                    self._on_text(payload)
                return
        if self._stopped:
            self._on_rest(data)
            return
        if self._data:  # more than was asked for: a transport may give what it has read already
            self._data += data
            return
        if self._tail:
            self._tail += data
            if len(self._tail) < self._need:
                return
            data = bytes(self._tail)
            self._tail.clear()
        self._data, self._at = data, 0
        self._cut()

    def hold(self) -> None:
        """Hand nothing out until `go_on`; the peer has to wait."""
        self._held = True
        self.plain = False
        self._pause()

    def go_on(self) -> None:
        """Hand out what waits, in a turn of its own, and read on."""
        if self._held:
            self._held = False
            if not self._busy:
                self._call_soon(self._cut)

    def stop(self) -> None:
        """Leave everything that follows to the strict parser: the closing has begun."""
        self._stopped = True
        self.plain = False
        self._held = False
        if not self._busy:
            self._cut()

    def close(self) -> None:
        """The connection is gone: part with those who were called back."""
        self._on_text = self._on_rest = _ignore
        self._on_frame = None
        self.plain = False
        self._stopped = True
        self._data, self._at = b"", 0
        self._tail.clear()

    def _pause(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def _cut(self) -> None:
        """Hand out frames, as many as one turn may take."""
        self._busy = True
        try:
            left = FRAMES_AT_ONCE
            while left and self._data and not (self._held or self._stopped) and self._next():
                left -= 1
        finally:
            self._busy = False
        if self._stopped:
            rest = self._data[self._at :] + bytes(self._tail)
            self._data, self._at = b"", 0
            self._tail.clear()
            self._resume()
            if rest:
                self._on_rest(rest)
        elif self._held:
            self._pause()
        elif left:
            self.plain = not (self._tail or self._fragments)
            self._resume()
        else:
            self.plain = False
            self._pause()
            self._call_soon(self._cut)

    def _next(self) -> bool:
        """Hand out one frame; False where none is whole, and the rest waits for more."""
        data, at = self._data, self._at
        end = len(data)
        length, start = 0, at + 2
        if end >= start:
            length = data[at + 1] & 0x7F
            size = 2 if length == _MEDIUM else 8 if length == _LARGE else 0
            start += size
            if size:  # of a length that is not all there, the frame needs its head
                length = int.from_bytes(data[start - size : start], "big") if end >= start else 0
            if data[at + 1] & _MASKED:
                start += 4
            if length > self._max_bytes or data[at + 1] & _MASKED != self._mask:
                self._stopped = True  # the strict parser says what is wrong with it
                return False
        after = start + length
        if after > end:
            self._tail += data[at:]
            self._need = after - at
            self._data, self._at = b"", 0
            return False
        if after == end:
            self._data, self._at = b"", 0
        else:
            self._at = after
        if data[at] == _TEXT_FIN and length and not self._fragments:
            payload = data[start:after]
            if self._mask:
                payload = apply_mask(payload, data[start - 4 : start])
            if (
                self._on_frame is None
                or data[at + 1] & 0x7F != _MEDIUM
                or length < _MEDIUM  # in more bytes than it needs, which the next peer may refuse
                or not self._on_frame(payload, data[at:after])
            ):
                self._on_text(payload)
            return True
        if data[at] & 0x0F <= _BINARY:
            self._fragments = not data[at] & _FIN
        self._on_rest(data[at:after])
        return True


def _ignore(_data: bytes) -> None:
    pass


# Out ----------------------------------------------------------------------------------------------


def text_frame(payload: bytes) -> bytes:
    """A server's text message."""
    size = len(payload)
    if size < _MEDIUM:
        return bytes((_TEXT_FIN, size)) + payload
    if size < 65_536:
        return _MEDIUM_HEAD(_TEXT_FIN, _MEDIUM, size) + payload
    return _LARGE_HEAD(_TEXT_FIN, _LARGE, size) + payload


def masked_text_frame(payload: bytes, key: bytes) -> bytes:
    """A client's text message under a masking key of four bytes."""
    size = len(payload)
    if _MEDIUM <= size < 65_536:
        return _MEDIUM_MASKED_HEAD(_TEXT_FIN, _MASKED | _MEDIUM, size, key) + apply_mask(
            payload, key
        )
    if size < _MEDIUM:
        head = bytes((_TEXT_FIN, _MASKED | size))
    else:
        head = _LARGE_HEAD(_TEXT_FIN, _MASKED | _LARGE, size)
    return head + key + apply_mask(payload, key)
