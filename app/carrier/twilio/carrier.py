"""Twilio as a carrier: the shell around the media socket, and calls ended by REST.

I/O. `open_stream` reads a fresh websocket up to `start`; `TwilioStream` tells the events and takes
agent audio; `media.py` reads the messages. Checking tokens, pacing audio and ending calls belong to
the calls room. The websocket is any object with the methods of `MessageTransport`, which the
server's own have.

Everything that comes is read and told in the turn of the event loop that received it. Limits of a
stream, so that a stranger or a broken peer costs little: `start` within a deadline, no binary
frames, few malformed messages, a message rate, and a deadline on what is left unread.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context, copy_context
from dataclasses import asdict, replace
from typing import Final, Protocol

from app.carrier.base import (
    CallerAudio,
    CarrierCallId,
    NullListener,
    StreamEvent,
    StreamListener,
    StreamStarted,
    StreamStopped,
)
from app.carrier.twilio.media import (
    MESSAGE_TOO_LARGE,
    SECOND_START,
    MediaCounters,
    MediaProtocol,
    MediaState,
    Sound,
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
    "MessageTransport",
    "Messages",
    "TwilioCarrier",
    "TwilioStream",
    "open_stream",
]

logger = logging.getLogger(__name__)

# RFC 6455 section 7.4.1.
CLOSE_INVALID: Final = 1007
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

_PAID_TOGETHER: Final = 25
_SHORT_CHARS: Final = 200
"""A message of 20 ms has 300; marks, which are shorter, are not worth the try."""
_MAX_MESSAGES_BEFORE_START: Final = 16
_FATAL: Final = {SECOND_START: CLOSE_POLICY, MESSAGE_TOO_LARGE: CLOSE_TOO_LARGE}


class Messages(Protocol):
    """Takes what comes over a transport, as that of `app.web.server.sockets`, with its words."""

    def on_text(self, text: bytes) -> None: ...
    def on_binary(self) -> None: ...
    def on_end(self) -> None: ...
    def on_writable(self) -> None: ...


class MessageTransport(Protocol):
    """An accepted websocket: messages by callback, and sent without waiting."""

    def listen(self, messages: Messages) -> None:
        """Have messages told from now on, those first that have come already."""
        ...

    def hold(self) -> None:
        """Have the peer wait until the next `listen`."""
        ...

    def send(self, *texts: bytes) -> bool:
        """Send messages in one write; False, and none sent, while the peer is behind or gone."""
        ...

    def close(self, code: int = 1000, reason: str = "") -> None: ...


async def open_stream(
    transport: MessageTransport,
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
    opening = _Opening(transport)
    transport.listen(opening)
    try:
        async with asyncio.timeout(start_deadline_s):
            started = await opening.started
    except TimeoutError as error:
        raise RemoteProtocolError(
            f"no start within {start_deadline_s:g} s", code="start_too_late"
        ) from error
    finally:
        transport.hold()
    if expect_account is not None and not started.account_id:
        started = replace(started, account_id=expect_account)  # the token is bound to it as well
    if expect_account is not None and started.account_id != expect_account:
        raise RemoteProtocolError("the stream is of another account", code="wrong_account")
    return TwilioStream(transport, opening.protocol, started, send_timeout_s=send_timeout_s)


class _Opening:
    """Reads messages up to `start`; then the peer waits."""

    def __init__(self, transport: MessageTransport) -> None:
        self.protocol = MediaProtocol()
        self.started: asyncio.Future[StreamStarted] = asyncio.get_running_loop().create_future()
        self._transport = transport
        self._left = _MAX_MESSAGES_BEFORE_START

    def on_text(self, text: bytes) -> None:
        if self.started.done():
            return
        try:
            event = self.protocol.receive(text.decode("utf-8", "replace"))
        except RemoteProtocolError as error:
            self._refuse(error)
            return
        self._left -= 1
        if isinstance(event, StreamStarted):
            self.started.set_result(event)
            self._transport.hold()
        elif self.protocol.state is MediaState.STOPPED:
            self._refuse(CarrierUnavailable("the call ended before its stream started"))
        elif not self._left:
            self._refuse(RemoteProtocolError("too many messages before start"))

    def on_binary(self) -> None:
        self._refuse(RemoteProtocolError("a binary frame on a media stream"))

    def on_end(self) -> None:
        self._refuse(CarrierUnavailable("the stream's socket closed before start"))

    def on_writable(self) -> None:
        pass

    def _refuse(self, error: RemoteProtocolError | CarrierUnavailable) -> None:
        if not self.started.done():
            self.started.set_exception(error)


class TwilioStream:
    """One open media stream. `deliver` tells what follows `started`."""

    def __init__(
        self,
        transport: MessageTransport,
        protocol: MediaProtocol,
        started: StreamStarted,
        *,
        send_timeout_s: float = SEND_TIMEOUT_S,
    ) -> None:
        self.started = started
        self.malformed = 0
        self._transport = transport
        self._protocol = protocol
        self._send_timeout_s = send_timeout_s
        self._odd_logged: set[str] = set()
        self._traced = logger.isEnabledFor(logging.DEBUG)
        self._stopped = False
        self._stall: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._credit = float(BURST_MESSAGES)
        self._credit_at_s = self._loop.time()
        self._paid = 0  # messages that are paid for: the clock is read once for all of them
        self._listener: StreamListener
        self._context: Context
        self._over: asyncio.Future[None]

    @property
    def counters(self) -> MediaCounters:
        """The stream's counters, live."""
        return self._protocol.counters

    # In -----------------------------------------------------------------------------------------

    async def deliver(self, listener: StreamListener) -> None:
        """Tell a listener all that comes; returns after `StreamStopped`.

        Raises:
            CarrierUnavailable: the peer has left what we send unread for too long.
            Exception: what the listener raised.
        """
        if self._stopped:
            return
        self._over = self._loop.create_future()
        self._listener = listener
        self._on_audio = listener.on_audio
        self._context = copy_context()  # of the call, for what it logs and the tasks it starts
        # At DEBUG each message leaves a trace, which only the other way does.
        self._receive_audio = _never if self._traced else self._protocol.receive_audio
        self._transport.listen(self)
        try:
            await self._over
        finally:
            self._transport.hold()
            self._disarm()
            self._log_gaps()
            self._listener = nobody = NullListener()  # the one who listened knows the stream
            self._on_audio = nobody.on_audio

    def _log_gaps(self) -> None:
        """Tell, once for a stream, how many messages were lost, repeated or of no use."""
        counted = self.counters
        if counted.missing or counted.out_of_order or counted.duplicates or counted.ignored:
            facts = asdict(counted)
            del facts["odd"]  # each was told by its name
            logger.info("carrier messages were lost or repeated", extra=facts)

    def on_text(self, text: bytes) -> None:
        """Take a message of the transport."""
        try:
            if self._paid and len(text) > _SHORT_CHARS:
                sound = self._receive_audio(text)
                if sound is not None:
                    self._paid -= 1
                    self._on_audio(sound.payload, sound.timestamp)
                    return
            self._context.run(self._take, text)
        except Exception as error:
            self._fail(error)

    def on_binary(self) -> None:
        """Take a binary message of the transport, where only text exists."""
        self._context.run(self._tell, self._refuse("binary frame", CLOSE_POLICY))

    def on_end(self) -> None:
        """The socket is gone, or was closed by us."""
        self._context.run(self._tell, StreamStopped(hung_up=False))

    def _take(self, text: bytes) -> None:
        if self._stopped:
            return
        event = self._read(text)
        if isinstance(event, CallerAudio):
            self._listener.on_audio(event.payload, event.timestamp_ms)
        elif event is not None:
            self._tell(event)

    def _tell(self, event: StreamEvent) -> None:
        if self._stopped:
            return
        self._stopped = isinstance(event, StreamStopped)
        if not self._over.done():
            try:
                self._listener.on_event(event)
            except Exception as error:
                self._fail(error)
        if self._stopped:
            self._paid = 0
            self._disarm()
            if not self._over.done():
                self._over.set_result(None)

    def _fail(self, error: Exception) -> None:
        self._paid = 0
        if not self._over.done():
            self._over.set_exception(error)
            self._transport.hold()

    def _read(self, text: bytes) -> StreamEvent | None:
        """The event of a message, if it has one for the call."""
        if not self._within_rate():
            return self._refuse("too many messages", CLOSE_POLICY)
        try:
            event = self._protocol.receive(text.decode())
        except UnicodeDecodeError:
            return self._refuse("not UTF-8", CLOSE_INVALID)
        except RemoteProtocolError as error:
            self.malformed += 1
            if error.code in _FATAL:
                return self._refuse(error.code, _FATAL[error.code])
            if self.malformed >= MAX_MALFORMED:
                return self._refuse("too many malformed messages", CLOSE_POLICY)
            logger.debug("malformed stream message ignored", extra={"fault": error.message})
            return None
        if len(self._protocol.counters.odd) > len(self._odd_logged):
            self._log_odd()
        if self._traced:
            self._trace("<", type(event).__name__, len(text))
        if isinstance(event, Unknown):
            logger.debug("unknown stream message ignored", extra={"unknown": event.event})
            return None
        return event

    def _log_odd(self) -> None:
        """Log each field that was odd, once per stream."""
        for field in self.counters.odd.keys() - self._odd_logged:
            self._odd_logged.add(field)
            logger.info("carrier message differs from the protocol", extra={"field": field})

    def _refuse(self, fault: str, code: int) -> StreamStopped:
        logger.warning(
            "media stream closed for what its peer sent",
            extra={"stream_id": self.started.stream_id, "fault": fault, "close_code": code},
        )
        self._transport.close(code)
        return StreamStopped(hung_up=False)

    def _within_rate(self) -> bool:
        """A token bucket: one message costs one, `RATE_HZ` come back each second."""
        if self._paid:
            self._paid -= 1
            return True
        now_s = self._loop.time()
        earned = (now_s - self._credit_at_s) * RATE_HZ
        self._credit_at_s = now_s
        self._credit = min(self._credit + earned, BURST_MESSAGES)
        count = _PAID_TOGETHER if self._credit >= _PAID_TOGETHER else 1
        self._paid = count - 1
        self._credit -= count
        return self._credit >= 0

    # Out ----------------------------------------------------------------------------------------

    def send_audio(self, payload: bytes, mark: str | None = None) -> bool:
        """Queue agent audio at the carrier, in the stream's format; nothing is nothing to send.

        `mark` comes back once everything up to here was played or cleared. False, and nothing
        sent, while the peer is behind or once it is gone.
        """
        stream_id = self.started.stream_id
        if mark is None:
            return not payload or self._send("media", render_media(stream_id, payload))
        behind = render_mark(stream_id, mark)
        if not payload:
            return self._send("mark", behind)
        return self._send("media", render_media(stream_id, payload), behind)

    def clear(self) -> bool:
        """Drop what the carrier has not played; False as for `send_audio`."""
        return self._send("clear", render_clear(self.started.stream_id))

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the socket; the carrier goes on in its TwiML."""
        self._transport.close(code, reason)

    def on_writable(self) -> None:
        """The peer has caught up."""
        self._disarm()
        if not self._stopped:
            try:
                self._listener.on_writable()
            except Exception as error:
                self._fail(error)

    def _send(self, kind: str, *texts: str) -> bool:
        if self._stopped or not self._transport.send(*map(str.encode, texts)):
            if self._stall is None and not self._stopped:
                self._stall = self._loop.call_later(self._send_timeout_s, self._on_stall)
            return False
        if self._traced:
            self._trace(">", kind, sum(map(len, texts)))
        return True

    def _on_stall(self) -> None:
        gone = CarrierUnavailable("the stream's peer has stopped reading", code="stream_stalled")
        self._stopped = True
        self._fail(gone)

    def _disarm(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _trace(self, way: str, kind: str, length: int) -> None:
        # Kinds and lengths only: the texts hold sound, keys pressed and the stream's token.
        extra = {"peer": "twilio", "kind": kind, "characters": length}
        logger.debug(way, extra={**extra, "stream_id": self.started.stream_id})


def _never(_text: bytes) -> Sound | None:
    return None


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
