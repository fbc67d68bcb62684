"""The socket around a `CarrierStream`, and the clock that paces it.

A thin shell: `CarrierStream` decides what is sent, the `on_frame` callback what is said. Frames
leave every 20 ms by absolute deadlines, so that a slow frame does not delay those after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from app.dial.speaking import FRAME_MS
from app.dial.stream import CarrierStream
from app.errors import DialError
from app.network import websocket_options

__all__ = ["HANDSHAKE_REFUSED", "Clock", "EndedBy", "Leg", "LegEnd", "RealClock", "open_stream"]


HANDSHAKE_REFUSED: Final = "31920"
# A frame this late is lost instead of sent in a burst: Twilio drops audio that a server does not
# take in time (31930).
_LATE_MS: Final = 500
# A second of frames that the server's socket does not take: what follows is lost as well.
_OUTBOX_MESSAGES: Final = 50
# Ten minutes of mu-law in one message, base64: the most that a queue could take.
_MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024
_OPEN_TIMEOUT_S: Final = 10
_CLOSE_TIMEOUT_S: Final = 2
# A close frame with 1000, or with no code at all, is a server that meant it.
_MEANT: Final = frozenset({1000, 1005})


class Clock(Protocol):
    """Milliseconds of call time. A fast clock makes a call play faster than real time."""

    def now_ms(self) -> int: ...

    async def sleep_until(self, at_ms: int) -> None: ...


class RealClock:
    """Monotonic time of this machine."""

    def now_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    async def sleep_until(self, at_ms: int) -> None:
        await asyncio.sleep(max(0, at_ms - self.now_ms()) / 1000)


class EndedBy(StrEnum):
    """The side that ended the stream; `LOST` is a socket that broke or closed with an error."""

    CALLER = "caller"
    AGENT = "agent"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class LegEnd:
    """The end of a stream; `close_code` is the server's, 1006 when it sent none."""

    by: EndedBy
    close_code: int
    reason: str = ""


async def open_stream(url: str, signature: str) -> ClientConnection:
    """Open the media websocket with a signed handshake.

    Raises:
        DialError: the server refused, is unreachable, or does not speak websocket.
    """
    try:
        return await connect(
            url,
            additional_headers={"X-Twilio-Signature": signature},
            user_agent_header="trunkline-dial",
            compression=None,
            **websocket_options(url),
            open_timeout=_OPEN_TIMEOUT_S,
            close_timeout=_CLOSE_TIMEOUT_S,
            ping_interval=None,
            max_size=_MAX_MESSAGE_BYTES,
        )
    except InvalidStatus as error:
        status = error.response.status_code
        why = "; it does not accept the signature of the handshake" if status == 403 else ""
        raise DialError(
            f"{url} answered the websocket handshake with HTTP {status}{why} (Twilio 31920)",
            code=HANDSHAKE_REFUSED,
        ) from error
    except TimeoutError as error:
        text = f"{url} did not finish the websocket handshake in {_OPEN_TIMEOUT_S} s (Twilio 31901)"
        raise DialError(text, code="31901") from error
    except InvalidURI as error:
        text = f"{url!r} is not a websocket URL (Twilio 31920)"
        raise DialError(text, code=HANDSHAKE_REFUSED) from error
    except (OSError, InvalidHandshake, EOFError) as error:
        raise DialError(
            f"cannot open {url}: {error or type(error).__name__} (Twilio 31901)."
            " When the server's public URL is not reachable from here, give it as --public-url",
            code="31901",
        ) from error


class Leg:
    """One open media stream of one simulated caller.

    Three tasks: one reads, one speaks, one writes what both have to send, in order. The reader
    never waits for the writer. Caller audio that the server does not take is lost, not queued.
    """

    def __init__(self, socket: ClientConnection, stream: CarrierStream, clock: Clock) -> None:
        self.socket = socket
        self.stream = stream
        self._clock = clock
        self._hung_up = False
        self._muted = False
        self._outbox: deque[str] = deque()
        self._filled = asyncio.Event()
        self._drained = asyncio.Event()

    def hang_up(self) -> None:
        """Hang up: `stop` goes out with the next frame, then the socket closes."""
        self._hung_up = True

    def mute(self, muted: bool) -> None:
        """Stop sending media while time goes on, as in a carrier's gap."""
        self._muted = muted

    def press(self, digits: str) -> None:
        """Press keys, one message each."""
        self.post(self.stream.press(digit) for digit in digits)

    def post(self, messages: Iterable[str]) -> None:
        """Queue messages for the writer."""
        self._outbox.extend(messages)
        if self._outbox:
            self._drained.clear()
            self._filled.set()

    async def run(self, on_frame: Callable[[int], None]) -> LegEnd:
        """Speak and listen until either side ends it; `on_frame(now_ms)` before each frame."""
        self.post(self.stream.opening())
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._write()), group.create_task(self._pace(on_frame))]
                end = await self._read()
                for task in tasks:
                    task.cancel()
        finally:
            await self.socket.close()
        return end

    async def _read(self) -> LegEnd:
        try:
            while True:
                frame = await self.socket.recv()
                if not self._hung_up:
                    self.post(self.stream.receive(frame, self._clock.now_ms()))
        except ConnectionClosed as error:
            if self._hung_up:
                return LegEnd(EndedBy.CALLER, 1000)
            if error.rcvd is None:
                return LegEnd(EndedBy.LOST, 1006, "the connection broke")
            by = EndedBy.AGENT if error.rcvd.code in _MEANT else EndedBy.LOST
            return LegEnd(by, error.rcvd.code, error.rcvd.reason)

    async def _write(self) -> None:
        with contextlib.suppress(ConnectionClosed):  # the reader tells how it ended
            while True:
                await self._filled.wait()
                while self._outbox:
                    await self.socket.send(self._outbox.popleft())
                self._filled.clear()
                self._drained.set()

    async def _pace(self, on_frame: Callable[[int], None]) -> None:
        due_ms = self.stream.start_ms
        while not self._hung_up:
            due_ms += FRAME_MS
            await self._clock.sleep_until(due_ms)
            now_ms = self._clock.now_ms()
            on_frame(now_ms)
            late = now_ms - due_ms > _LATE_MS or len(self._outbox) > _OUTBOX_MESSAGES
            self.post(self.stream.frame(now_ms, discard=late or self._muted))
        self.post([self.stream.stop()])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._drained.wait()
        await self.socket.close()
