"""Twilio as a carrier: the shell around the media socket, and calls ended by REST.

I/O. `open_stream` reads a fresh websocket up to `start`; `TwilioStream` gives the events and takes
agent audio; `media.py` reads the messages. Checking tokens, pacing audio and ending calls belong to
the calls room. The websocket is any object with the three methods
of `WebSocket`, such as Starlette's after `accept`.

Limits of a stream, so that a stranger or a broken peer costs little: `start` within a deadline, no
binary frames, few malformed messages, a message rate, and a deadline on every send.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, MutableMapping
from dataclasses import replace
from typing import Any, Final, Protocol

from app.carrier.base import CarrierCallId, StreamEvent, StreamStarted, StreamStopped
from app.carrier.twilio.media import (
    MESSAGE_TOO_LARGE,
    SECOND_START,
    MediaCounters,
    MediaProtocol,
    MediaState,
    Unknown,
    render_clear,
    render_mark,
    render_media,
)
from app.carrier.twilio.rest import TwilioRest
from app.errors import CarrierRefused, CarrierUnavailable, RemoteProtocolError

__all__ = [
    "BURST_MESSAGES",
    "CLOSE_POLICY",
    "CLOSE_TOO_LARGE",
    "MAX_MALFORMED",
    "RATE_HZ",
    "SEND_TIMEOUT_S",
    "TwilioCarrier",
    "TwilioStream",
    "WebSocket",
    "open_stream",
]

logger = logging.getLogger(__name__)

# RFC 6455 section 7.4.1.
CLOSE_POLICY: Final = 1008
CLOSE_TOO_LARGE: Final = 1009

MAX_MALFORMED: Final = 20
"""Malformed messages before the stream is closed: one bad message does not end a call."""

RATE_HZ: Final = 150
"""Messages per second on average; Twilio sends 50 of audio and now and then a mark or a key."""

BURST_MESSAGES: Final = 3_000
"""Messages at once: what piles up in a minute of a stalled network and then arrives together."""

SEND_TIMEOUT_S: Final = 5.0
"""The time that a peer may leave its window shut before it counts as gone."""

_CLOSE_TIMEOUT_S: Final = 2.0
_MAX_MESSAGES_BEFORE_START: Final = 16
_FATAL: Final = {SECOND_START: CLOSE_POLICY, MESSAGE_TOO_LARGE: CLOSE_TOO_LARGE}


class WebSocket(Protocol):
    """The part of an accepted ASGI websocket that a stream uses."""

    async def receive(self) -> MutableMapping[str, Any]:
        """Give `websocket.receive` with `text` or `bytes`, or `websocket.disconnect`."""
        ...

    async def send_text(self, data: str) -> None: ...

    async def close(self, code: int = 1000, reason: str | None = None) -> None: ...


class _BinaryFrame(Exception):
    """The peer sent bytes where only text exists."""


async def open_stream(
    websocket: WebSocket,
    *,
    start_deadline_s: float = 5.0,
    expect_account: str | None = None,
    send_timeout_s: float = SEND_TIMEOUT_S,
) -> TwilioStream:
    """Read an accepted websocket up to `start`. The caller closes it when this raises.

    Raises:
        RemoteProtocolError: no valid `start` in time, or of another account (close with 1008).
        CarrierUnavailable: the socket went away, or the call ended, before it.
    """
    protocol = MediaProtocol()
    try:
        async with asyncio.timeout(start_deadline_s):
            started = await _read_start(websocket, protocol)
    except TimeoutError as error:
        raise RemoteProtocolError(
            f"no start within {start_deadline_s:g} s", code="start_too_late"
        ) from error
    if expect_account is not None and not started.account_id:
        started = replace(started, account_id=expect_account)  # the token is bound to it as well
    if expect_account is not None and started.account_id != expect_account:
        raise RemoteProtocolError("the stream is of another account", code="wrong_account")
    return TwilioStream(websocket, protocol, started, send_timeout_s=send_timeout_s)


async def _read_start(websocket: WebSocket, protocol: MediaProtocol) -> StreamStarted:
    for _ in range(_MAX_MESSAGES_BEFORE_START):
        try:
            text = await _read_text(websocket)
        except _BinaryFrame as error:
            raise RemoteProtocolError("a binary frame on a media stream") from error
        if text is None:
            raise CarrierUnavailable("the stream's socket closed before start")
        event = protocol.receive(text)
        if isinstance(event, StreamStarted):
            return event
        if protocol.state is MediaState.STOPPED:
            raise CarrierUnavailable("the call ended before its stream started")
    raise RemoteProtocolError("too many messages before start")


async def _read_text(websocket: WebSocket) -> str | None:
    """One text message, or None once the socket is gone.

    Raises:
        _BinaryFrame: the peer sent one.
    """
    message = await websocket.receive()
    text = message.get("text")
    if text is not None:
        return str(text)
    if message["type"] == "websocket.disconnect":
        return None
    raise _BinaryFrame


class TwilioStream:
    """One open media stream; iterating gives what follows `started`. For one reader, one writer."""

    def __init__(
        self,
        websocket: WebSocket,
        protocol: MediaProtocol,
        started: StreamStarted,
        *,
        send_timeout_s: float = SEND_TIMEOUT_S,
    ) -> None:
        self.started = started
        self.malformed = 0
        self._websocket = websocket
        self._protocol = protocol
        self._send_timeout_s = send_timeout_s
        self._odd_logged: set[str] = set()
        self._over = False
        self._gone = ""  # why nothing more can be sent
        self._closed = False
        self._clock = asyncio.get_running_loop().time
        self._credit = float(BURST_MESSAGES)
        self._credit_at_s = self._clock()

    @property
    def counters(self) -> MediaCounters:
        """The stream's counters, live."""
        return self._protocol.counters

    def __aiter__(self) -> AsyncIterator[StreamEvent]:
        return self

    async def __anext__(self) -> StreamEvent:
        if self._over:
            raise StopAsyncIteration
        while True:
            try:
                text = await _read_text(self._websocket)
            except _BinaryFrame:
                return await self._refuse("binary frame", CLOSE_POLICY)
            if text is None:
                self._closed = True
                return self._stopped(hung_up=False)
            if not self._within_rate():
                return await self._refuse("too many messages", CLOSE_POLICY)
            try:
                event = self._protocol.receive(text)
            except RemoteProtocolError as error:
                self.malformed += 1
                if error.code in _FATAL:
                    return await self._refuse(error.code, _FATAL[error.code])
                if self.malformed >= MAX_MALFORMED:
                    return await self._refuse("too many malformed messages", CLOSE_POLICY)
                logger.debug("malformed stream message ignored", extra={"fault": error.message})
                continue
            if len(self.counters.odd) > len(self._odd_logged):
                self._log_odd()
            if logger.isEnabledFor(logging.DEBUG):
                self._trace("<", type(event).__name__, len(text))
            if isinstance(event, StreamStopped):
                return self._stopped(hung_up=True)
            if isinstance(event, Unknown):
                logger.debug("unknown stream message ignored", extra={"unknown": event.event})
            elif event is not None:
                return event

    def _log_odd(self) -> None:
        """Log each field that was odd, once per stream."""
        for field in self.counters.odd.keys() - self._odd_logged:
            self._odd_logged.add(field)
            logger.info("carrier message differs from the protocol", extra={"field": field})

    def _stopped(self, *, hung_up: bool) -> StreamStopped:
        self._over = True
        self._gone = self._gone or "the stream is over"
        return StreamStopped(hung_up=hung_up)

    async def _refuse(self, fault: str, code: int) -> StreamStopped:
        logger.warning(
            "media stream closed for what its peer sent",
            extra={"stream_id": self.started.stream_id, "fault": fault, "close_code": code},
        )
        await self.close(code)
        return self._stopped(hung_up=False)

    def _within_rate(self) -> bool:
        """A token bucket: one message costs one, `RATE_HZ` come back each second."""
        now_s = self._clock()
        earned = (now_s - self._credit_at_s) * RATE_HZ
        self._credit_at_s = now_s
        self._credit = min(self._credit + earned, BURST_MESSAGES) - 1
        return self._credit >= 0

    async def send_audio(self, payload: bytes) -> None:
        """Queue agent audio at the carrier, in the stream's format; nothing is nothing to send.

        Raises:
            CarrierUnavailable: the socket is gone, or its peer has stopped reading.
        """
        if payload:
            await self._send("media", render_media(self.started.stream_id, payload))

    async def send_mark(self, name: str) -> None:
        """Ask for `name` back once everything before it was played or cleared.

        Raises:
            CarrierUnavailable: as for `send_audio`.
        """
        await self._send("mark", render_mark(self.started.stream_id, name))

    async def clear(self) -> None:
        """Drop what the carrier has not played.

        Raises:
            CarrierUnavailable: as for `send_audio`.
        """
        await self._send("clear", render_clear(self.started.stream_id))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the socket, at most once and never for long; the carrier goes on in its TwiML."""
        if self._closed:
            return
        self._closed = True
        self._gone = self._gone or "the stream's socket was closed"
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._websocket.close(code, reason)
        except Exception as error:
            # Whatever a dead socket raises (see `_send`), closing it has come to its end.
            logger.debug("closing a media socket failed", extra={"error": type(error).__name__})

    async def _send(self, kind: str, text: str) -> None:
        if self._gone:
            raise CarrierUnavailable(self._gone, code="stream_gone")
        if logger.isEnabledFor(logging.DEBUG):
            self._trace(">", kind, len(text))
        try:
            async with asyncio.timeout(self._send_timeout_s):
                await self._websocket.send_text(text)
        except TimeoutError as error:
            self._gone = "the stream's peer has stopped reading"
            raise CarrierUnavailable(self._gone, code="stream_stalled") from error
        except Exception as error:
            # Servers and frameworks each have their own exception for a socket that is gone, and
            # this room may import none of them. Only their code runs inside this block.
            self._gone = "the stream's socket is gone"
            raise CarrierUnavailable(self._gone, code="stream_gone") from error

    def _trace(self, way: str, kind: str, length: int) -> None:
        # Kinds and lengths only: the texts hold sound, keys pressed and the stream's token.
        extra = {"peer": "twilio", "kind": kind, "characters": length}
        logger.debug(way, extra={**extra, "stream_id": self.started.stream_id})


class TwilioCarrier:
    """The requests of calls to Twilio, besides the stream. Without REST, calls end by TwiML."""

    def __init__(self, rest: TwilioRest | None) -> None:
        self._rest = rest

    async def hang_up(self, carrier_call_id: CarrierCallId) -> None:
        """End the call; one that is already gone is success.

        Raises:
            CarrierUnavailable: after all tries.
            CarrierRefused: the carrier said no.
        """
        if self._rest is None:
            logger.debug(
                "no carrier credentials, call left to its TwiML",
                extra={"carrier_call_id": carrier_call_id},
            )
            return
        await self._rest.hang_up(carrier_call_id)

    async def in_progress(self, carrier_call_id: CarrierCallId) -> bool:
        """True while the call goes on at Twilio.

        Raises:
            CarrierUnavailable, CarrierRefused: Twilio did not say.
        """
        if self._rest is None:
            raise CarrierRefused("there is no carrier account here", code="no_carrier_account")
        return await self._rest.in_progress(carrier_call_id)

    async def aclose(self) -> None:
        """Close what REST holds open."""
        if self._rest is not None:
            await self._rest.aclose()
