"""Bounds the cost of a stranger's socket: deadlines and limits below the HTTP application.

uvicorn has no time limit for the receipt of a request, no limit for the size of its head (httptools
has none either), and waits without end for a peer that does not read. The two protocol classes here
add these bounds to uvicorn's own and change nothing else; a socket is cut off without a word, since
the peer at the other end is broken or hostile. They leave signatures, tokens and the count of open
media streams to the routes.

An accepted websocket offers a `MessageTransport` among its ASGI extensions: a route that takes it
has messages by callback, in the turn of the event loop that read them, and sends without a task
switch (docs/decisions/0017). Handshake, pings, closing, fragments and broken frames stay with
uvicorn and the strict parser of `websockets` in either case.

Follows uvicorn 0.54 (`protocols/http/httptools_impl.py`,
`protocols/websockets/websockets_sansio_impl.py`) and RFC 6455 for close codes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, ClassVar, Protocol, cast

from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request
from websockets.protocol import State

from app.framing import FrameReader, FrameWriter, Passthrough, text_frame

__all__ = [
    "MessageTransport",
    "Messages",
    "SocketCounts",
    "SocketLimits",
    "guarded_protocols",
    "transport_of",
    "vouch_for",
]

logger = logging.getLogger(__name__)

MAX_FRAGMENTS = 64
"""Frames in one fragmented message. Carriers and models do not fragment; empty frames cost memory
that the size limit does not see."""


MAX_PIPELINED = 8
"""Requests that wait behind the one in hand. Carriers and browsers do not pipeline; one read may
hold ten thousand requests, each of which would cost a task's memory."""

MAX_PIECES = 1_000
LEAST_PIECE_BYTES = 64
"""Beyond so many pieces of a body they have to hold so much on average. One read may hold 40,000
chunks of a byte, each of which costs a callback and a copy of what came before it."""

EMPTY_HZ = 50
EMPTY_BURST = 500
"""Frames that say nothing - pings, pongs, fragments, empty messages - on average and at once. Each
costs a parser's time, and peers send one in seconds."""

TRANSPORT = "trunkline.message_transport"
"""Name of the ASGI extension."""

_KNOWN = "trunkline.known"
"""The key of a request's scope that tells that somebody has vouched for its sender."""

QUIET_MS = 250
"""A peer that broke the rules has stopped sending once nothing has come for this long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketLimits:
    """The bounds of one listener."""

    request_receipt_ms: int = 10_000
    """From the first byte of a connection or request to its last; a websocket: to its upgrade."""

    waiting_sockets: int = 256
    """Sockets that have no request in hand. One more cuts the one that has waited longest: a
    flood of silent sockets thus never keeps out a peer that has something to say."""

    known_sockets: int = 128
    """The same for sockets that a request of the carrier came over, which strangers' do not cut."""

    idle_s: int = 3_660
    """The time that a socket may wait for its next request. Longer than any proxy keeps one by
    default (nginx and AWS 60 s, Caddy 2 min, Google 10 min, Cloudflare 15 min, Envoy 1 h), since a
    webhook that meets our close is lost, and its caller with it."""

    head_bytes: int = 65_536
    stall_ms: int = 20_000
    """The time that a peer may leave our answer unread once our buffer is full."""

    linger_ms: int = 2_000
    """From our end of a websocket to the cut, when the peer does not finish the closing."""

    message_bytes: int = 65_536
    """The largest websocket message; beyond it the socket is closed with 1009."""

    message_bytes_by_path: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class SocketCounts:
    """The counts of sockets that a listener's guards have cut off."""

    receipt_timeouts: int = 0
    flood_cuts: int = 0
    oversized_heads: int = 0
    stalls: int = 0
    refused_handshakes: int = 0


class _Deadline:
    """One timer of one socket: armed, disarmed, or fired once."""

    __slots__ = ("_handle",)

    def __init__(self) -> None:
        self._handle: asyncio.TimerHandle | None = None

    @property
    def armed(self) -> bool:
        return self._handle is not None

    def arm(self, loop: asyncio.AbstractEventLoop, delay_ms: int, then: Any) -> None:
        self.disarm()
        self._handle = loop.call_later(delay_ms / 1000, then)

    def disarm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class _Transport:
    """A transport that drops what is written once the socket is closed, as asyncio's own does.

    uvloop raises instead, and a peer can close at any moment: each write of uvicorn and of the
    classes here would have to look first.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.write_unguarded, self._is_closing = transport.write, transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._is_closing():
            self.write_unguarded(data)


def vouch_for(request: HTTPConnection) -> None:
    """Tell that the carrier has signed a request: its socket is not a stranger's."""
    request.scope[_KNOWN] = True


class GuardedHttp(HttpToolsProtocol):
    """uvicorn's HTTP connection with a deadline for requests and a bound for their heads."""

    limits: ClassVar[SocketLimits]
    counts: ClassVar[SocketCounts]
    waiting: ClassVar[dict[GuardedHttp, None]]
    known: ClassVar[dict[GuardedHttp, None]]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, _Transport(transport)))
        self._receipt = _Deadline()
        self._stall = _Deadline()
        self._head_bytes = 0
        self._head_complete = False
        self._pieces = self._body_bytes = 0
        self._is_known = False
        self._arm_receipt()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._receipt.disarm()
        self._stall.disarm()
        self._stop_waiting()
        super().connection_lost(exc)
        # uvicorn leaves the timer of a socket that was reset, and so the socket, until it is due.
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        if not self._answering and not self._receipt.armed:
            self._arm_receipt()
            self._wait()  # anew: it has something to say
        self._head_complete = False
        super().data_received(data)
        self._count_head(len(data))

    def on_headers_complete(self) -> None:
        self._head_complete = True
        if len(self.pipeline) >= MAX_PIPELINED:
            self.counts.flood_cuts += 1
            self.transport.abort()
            raise ValueError("too many requests at once")  # ends the parsing of this read
        self._pieces = self._body_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head_complete = True
        self._pieces += 1
        self._body_bytes += len(body)
        if self._pieces > MAX_PIECES and self._body_bytes < self._pieces * LEAST_PIECE_BYTES:
            self.counts.flood_cuts += 1
            self.transport.abort()
            raise ValueError("a body in too many pieces")
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._head_complete = True
        self._receipt.disarm()
        if self._answering:
            self._stop_waiting()
        elif self.cycle is not None and not self.transport.is_closing():
            # The end of a request that was answered before: uvicorn has stopped the idle time.
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._is_known = self._is_known or _KNOWN in self.cycle.scope
        if not self.pipeline and not self.transport.is_closing():
            self._wait()

    def handle_websocket_upgrade(self) -> None:
        self._receipt.disarm()
        self._stall.disarm()
        self._stop_waiting()
        self._unset_keepalive_if_required()
        super().handle_websocket_upgrade()
        self.parser = None  # type: ignore[assignment]  # nothing is left to the collector

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall.arm(self.loop, self.limits.stall_ms, self._on_stall)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stall.disarm()

    def _arm_receipt(self) -> None:
        self._receipt.arm(self.loop, self.limits.request_receipt_ms, self._on_receipt_timeout)

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self) -> None:
        """Wait among the sockets of its kind, as the one that came last."""
        self._stop_waiting()
        waiting, most = (
            (self.known, self.limits.known_sockets)
            if self._is_known
            else (self.waiting, self.limits.waiting_sockets)
        )
        waiting[self] = None
        if len(waiting) > most:
            oldest = next(iter(waiting))
            del waiting[oldest]
            self.counts.flood_cuts += 1
            oldest.transport.abort()

    def _stop_waiting(self) -> None:
        self.waiting.pop(self, None)
        self.known.pop(self, None)

    def _count_head(self, size_bytes: int) -> None:
        # A chunk that completed a head, or held body, starts the count anew: what follows it in
        # the same chunk is bounded by the size of one read.
        self._head_bytes = 0 if self._head_complete else self._head_bytes + size_bytes
        if self._head_bytes > self.limits.head_bytes and not self.transport.is_closing():
            self.counts.oversized_heads += 1
            self.transport.abort()

    def _on_receipt_timeout(self) -> None:
        self.counts.receipt_timeouts += 1
        self.transport.abort()

    def _on_stall(self) -> None:
        self.counts.stalls += 1
        self.transport.abort()


class Messages(Protocol):
    """Takes what comes over a transport. Waits for nothing, and raises nothing."""

    def on_text(self, text: bytes) -> None:
        """Take one message that is not empty, UTF-8 as the peer claims."""
        ...

    def on_binary(self) -> None:
        """The peer has sent a binary message."""
        ...

    def on_end(self) -> None:
        """Nothing more comes; perhaps told more than once."""
        ...

    def on_writable(self) -> None:
        """The peer has caught up: `send` may succeed again."""
        ...


class MessageTransport:
    """One accepted websocket, for its one reader and its one writer, without ASGI for a message."""

    __slots__ = ("_socket", "frame_writer", "send")

    def __init__(self, socket: GuardedWebSocket) -> None:
        self._socket = socket
        self.send = socket.send_texts
        """Send messages in one write; False, and none sent, while the peer is behind or gone."""
        self.frame_writer = socket.frame_writer
        """Takes whole frames of a server's."""

    def listen(self, messages: Messages, passthrough: Passthrough | None = None) -> None:
        """Have messages told from now on, those first that have come already.

        `passthrough` takes frames before they are messages.
        """
        self._socket.hand_over(messages, passthrough)

    def hold(self) -> None:
        """Have the peer wait: nothing is told until `go_on`. Its close, once we sent ours, is."""
        if not self._socket.close_sent:
            self._socket.reader.hold()

    def go_on(self) -> None:
        self._socket.reader.go_on()

    @property
    def close_code(self) -> int:
        """The code that the end came with, once `on_end` was told; 1005 for none."""
        ends = self._socket.queue
        return (ends.code if isinstance(ends, _Ends) else 0) or CloseCode.NO_STATUS_RCVD

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin the closing; a socket that is closing already is left alone."""
        self._socket.begin_closing(code, reason)


def transport_of(websocket: WebSocket) -> MessageTransport:
    """The transport of an accepted websocket of this server."""
    return cast(MessageTransport, websocket.scope["extensions"][TRANSPORT])


class GuardedWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's websocket with bounds for messages by path, for stalls and for the closing.

    Once it is accepted, whole text messages go from the socket to its transport, or to ASGI.
    """

    limits: ClassVar[SocketLimits]
    counts: ClassVar[SocketCounts]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.close_timeout = self.limits.linger_ms / 1000
        self._stall = _Deadline()
        self._linger = _Deadline()
        self._quiet = _Deadline()
        self.reader: FrameReader
        self._accepted = False
        self._early = b""
        self._full = False
        self.frame_writer: FrameWriter
        self._messages: Messages | None = None
        self._empty_credit = float(EMPTY_BURST)
        self._empty_at_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.frame_writer = FrameWriter(cast(_Transport, transport).write_unguarded)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stall.disarm()
        self._linger.disarm()
        self._quiet.disarm()
        super().connection_lost(exc)
        self._look_at_writer()
        # Parts that know each other part: nothing of a call is left to the garbage collector.
        self._messages = None
        if isinstance(self.queue, _Ends):
            self.queue.forget()
        if self._accepted:
            self.reader.close()

    # In -----------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.handshake_initiated and not self.handshake_complete:
            # Frames of a peer that does not wait for our answer, which may be a refusal.
            self._early += data
            self.transport.pause_reading()
        else:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        """Give the strict parser what the reader does not understand."""
        super().data_received(data)
        self._look_at_writer()
        if not self.handshake_initiated:
            # uvicorn hands over a complete head at once. One that the websocket parser refuses (too
            # many headers, a line too long) makes no event, and uvicorn would leave the client
            # without an answer and keep its socket for as long as it likes.
            self._refuse_handshake()

    def _on_rest(self, frame: bytes) -> None:
        if self.transport.is_closing():
            return
        if not self._pays_for_empty():
            self.counts.flood_cuts += 1
            self.transport.abort()
            return
        self._parse(frame)

    def _pays_for_empty(self) -> bool:
        now_s = self.loop.time()
        earned = (now_s - self._empty_at_s) * EMPTY_HZ
        self._empty_at_s = now_s
        self._empty_credit = min(self._empty_credit + earned, EMPTY_BURST) - 1
        return self._empty_credit >= 0

    def _queue_text(self, payload: bytes) -> None:
        """A message for ASGI: nobody has taken the transport."""
        self.frames = [payload]
        self.curr_msg_data_type = "text"
        self.send_receive_event_to_app()

    def send_receive_event_to_app(self) -> None:
        messages = self._messages
        if messages is not None and not self.close_sent:  # fragments, put together
            text, self.frames = b"".join(self.frames), []
            if self.curr_msg_data_type == "bytes":
                messages.on_binary()
            elif text:
                messages.on_text(text)
            return
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                # uvicorn logs a traceback, which a stranger can have as often as they like.
                self.conn.fail(CloseCode.INVALID_DATA, "not UTF-8")
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()
        if self._accepted and self.read_paused:
            self.read_paused = False
            self.reader.hold()

    async def receive(self) -> Any:
        message = await super().receive()
        if self._accepted and self.queue.empty():
            self.reader.go_on()
        return message

    # The handshake ------------------------------------------------------------------------------

    def handle_connect(self, event: Request) -> None:
        path = event.path.partition("?")[0]
        limits = self.limits
        self.conn.max_message_size = limits.message_bytes_by_path.get(path, limits.message_bytes)
        super().handle_connect(event)
        if not self.close_sent:
            cast(dict[str, Any], self.scope["extensions"])[TRANSPORT] = MessageTransport(self)

    async def send(self, message: Any) -> None:
        await super().send(message)
        self._look_at_writer()
        if message["type"] == "websocket.accept" and self.conn.state is State.OPEN:
            self._accept()
        elif message["type"] == "websocket.close" and self._accepted:
            self._drop_texts()

    def _drop_texts(self) -> None:
        """We have sent a close: only the peer's own is waited for."""
        self.reader.listen(_ignore)
        self.reader.go_on()

    def _accept(self) -> None:
        self.reader = FrameReader(
            self.transport,
            masked=True,
            max_bytes=self.conn.max_message_size or self.limits.message_bytes,
            on_text=self._queue_text,
            on_rest=self._on_rest,
            call_soon=self.loop.call_soon,
        )
        self._accepted = True
        self._read_by(self.reader.feed)
        self.request = self.response = None  # type: ignore[assignment]  # a few kB of headers
        early, self._early = self._early, b""
        if early:
            self.transport.resume_reading()
            self.reader.feed(early)

    def _read_by(self, feed: Callable[[bytes], None]) -> None:
        self.data_received = feed  # type: ignore[method-assign, assignment]
        self.transport.set_protocol(self)  # which keeps the function that it calls

    def _refuse_handshake(self) -> None:
        if self.disconnected:
            return
        self.counts.refused_handshakes += 1
        self.handshake_initiated = True
        self.handshake_complete = True
        self.close_sent = True
        self.disconnected = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": CloseCode.ABNORMAL_CLOSURE})
        status = HTTPStatus.BAD_REQUEST
        self.transport.write(
            f"HTTP/1.1 {status.value} {status.phrase}\r\n"
            "content-length: 0\r\nconnection: close\r\n\r\n".encode("ascii")
        )
        self.transport.close()

    # Broken peers -------------------------------------------------------------------------------

    def handle_cont(self, event: Frame) -> None:
        if self.close_sent:
            return
        if len(self.frames) >= MAX_FRAGMENTS:
            self.conn.fail(CloseCode.POLICY_VIOLATION, "too many fragments")
            self.handle_parser_exception()
            return
        super().handle_cont(event)

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._look_at_writer()

    def shutdown(self) -> None:
        super().shutdown()
        self._look_at_writer()

    def handle_parser_exception(self) -> None:
        close = self.conn.close_sent
        if close is None:
            # A frame before the handshake was answered; uvicorn asserts that there is none.
            self._refuse_handshake()
            return
        if not self.close_sent:
            self.close_sent = True
            self.queue.put_nowait(
                {"type": "websocket.disconnect", "code": close.code, "reason": close.reason}
            )
            self.transport.write(b"".join(self.conn.data_to_send()))
            if self.read_paused:
                self.read_paused = False
                self.transport.resume_reading()
            self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)
            if self._accepted:
                self.reader.stop()
        # uvicorn closes at once, which resets a connection on which the peer still sends: it would
        # lose our close frame. What comes now is dropped, and comes through here again.
        self._quiet.arm(self.loop, QUIET_MS, self.transport.close)

    # Messages without ASGI ------------------------------------------------------------------------

    def hand_over(self, messages: Messages, passthrough: Passthrough | None) -> None:
        """As `MessageTransport.listen`."""
        self._messages = messages
        waiting = self.queue
        self.queue = cast(Any, _Ends(self._tell_end))
        self.reader.listen(messages.on_text)
        if passthrough is not None:
            self.reader.offer(passthrough.on_frame)
            self._read_by(passthrough.feed_of(self.reader))
        while not waiting.empty():
            event = waiting.get_nowait()
            if event["type"] != "websocket.receive":
                self.queue.put_nowait(event)
            elif (text := event.get("text")) is not None:
                messages.on_text(text.encode())
            else:
                messages.on_binary()
        self.reader.go_on()

    def _tell_end(self) -> None:
        # In a turn of its own: what ends a socket may be what its listener has done to it.
        if self._messages is not None:
            self.loop.call_soon(self._messages.on_end)

    def send_texts(self, *texts: bytes) -> bool:
        """As `MessageTransport.send`."""
        if not self.frame_writer.open:
            return False
        self.frame_writer.write(b"".join(map(text_frame, texts)))
        return True

    def _look_at_writer(self) -> None:
        """Open or close the writer: after everything that may have sent or taken a close frame."""
        closed = self.close_sent or self.disconnected or self.conn.close_sent is not None
        self.frame_writer.open = not (closed or self._full)

    def begin_closing(self, code: int, reason: str) -> None:
        """As `MessageTransport.close`."""
        if self.close_sent or self.disconnected or self.conn.state is not State.OPEN:
            return
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self._look_at_writer()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self._drop_texts()
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._full = True
        self.frame_writer.open = False
        self._stall.arm(self.loop, self.limits.stall_ms, self._on_stall)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._full = False
        self._look_at_writer()
        self._stall.disarm()
        if self._messages is not None:
            self._messages.on_writable()

    async def run_asgi(self) -> None:
        try:
            await super().run_asgi()
        finally:
            cast(dict[str, Any], self.scope["extensions"]).pop(
                TRANSPORT, None
            )  # it knows the socket
            # `transport.close()` waits without end for a peer that does not read.
            if not self.disconnected:
                self._linger.arm(self.loop, self.limits.linger_ms, self.transport.abort)

    def _on_stall(self) -> None:
        self.counts.stalls += 1
        self.transport.abort()


def _ignore(_text: bytes) -> None:
    pass


def _nothing() -> None:
    pass


class _Ends:
    """In place of uvicorn's queue when a transport is taken: only the end comes this way."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        self._on_end = on_end
        self._ended = False
        self.code = 0

    def put_nowait(self, event: Mapping[str, Any]) -> None:
        self._ended = True
        self.code = self.code or int(event.get("code") or 0)
        self._on_end()

    def forget(self) -> None:
        """Tell nobody any more."""
        self._on_end = _nothing

    def empty(self) -> bool:
        return not self._ended

    def get_nowait(self) -> dict[str, str]:
        self._ended = False
        return {"type": "websocket.disconnect"}


def guarded_protocols(
    limits: SocketLimits, counts: SocketCounts
) -> tuple[type[GuardedHttp], type[GuardedWebSocket]]:
    """The two protocol classes of one listener; uvicorn makes their instances itself."""
    shared: dict[str, Any] = {"limits": limits, "counts": counts}
    http = type("Http", (GuardedHttp,), {**shared, "waiting": {}, "known": {}})
    websocket = type("WebSocket", (GuardedWebSocket,), dict(shared))
    return http, websocket
