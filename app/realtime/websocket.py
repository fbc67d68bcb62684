"""Voice models behind a websocket: OpenAI, Azure, and any server compatible with them.

Which one is configuration: url, headers, query and dialect. Connecting ends in a session, in
`VoiceRefused` or in `VoiceUnavailable`; which of the two is `app.realtime.faults`'s business.
Headers hold the key: they appear in no repr, log line or exception, and redirects are not
followed, so that they reach no other host. Limits by RELIABILITY section 0, rule 10.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextvars import copy_context
from types import MappingProxyType
from typing import Any, Final, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.datastructures import Headers
from websockets.exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    InvalidHandshake,
    InvalidProxy,
    InvalidStatus,
    InvalidURI,
    WebSocketException,
)
from websockets.frames import DATA_OPCODES, Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from app.errors import ConfigError, VoiceClosed, VoiceRefused, VoiceUnavailable
from app.framing import FrameReader, FrameWriter, Passthrough, masked_text_frame
from app.network import websocket_options
from app.realtime.connection import Room, VoiceConnection, give_up_late, open_connection
from app.realtime.dialect import GA, Dialect
from app.realtime.events import SessionConfig
from app.realtime.faults import find_code, refusal_for_status
from app.retry import parse_retry_after

__all__ = ["AZURE_PATH", "OPENAI_URL", "WebSocketModel", "WebSocketTransport"]

OPENAI_URL: Final = "wss://api.openai.com/v1/realtime"
AZURE_PATH: Final = "/openai/v1/realtime"

MAX_MESSAGE_BYTES: Final = 16 * 2**20  # an `item.retrieved` holds a whole turn's audio in base64
CLOSE_TIMEOUT_S: Final = 2.0
WRITE_LIMIT_BYTES: Final = 2**15  # beyond it a send waits for the peer
PING_S: Final = 20.0
_ACCEPTED: Final = Response(101, "", Headers())
ABNORMAL: Final = 1006  # no close frame came (RFC 6455, section 7.1.5)

# websockets traces request headers at DEBUG, and with them the key: its logger stays above that.
_wire_logger = logging.getLogger(f"{__name__}.wire")
_wire_logger.setLevel(logging.INFO)


def _keys() -> Iterator[bytes]:
    """Masking keys, fresh and unpredictable for every frame, at one system call for 256 of them."""
    while True:
        pool = secrets.token_bytes(1_024)
        for at in range(0, len(pool), 4):
            yield pool[at : at + 4]


_next_key: Final = _keys().__next__


class EagerConnection(ClientConnection):
    """A client's websocket whose text messages can come and go without a coroutine.

    `send` and `recv` cost more than converting the sound does, at 50 messages a second for each
    call. Whole text messages take a short way here, and all else - handshake, pings, closing,
    fragments, broken frames - is the library's. Uses attributes that are public by name but not by
    documentation; follows websockets 17.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reader: FrameReader | None = None
        self._head = b""  # the last bytes of the handshake, which may hold the half of its end
        self._on_message: Callable[[bytes], None] | None = None
        self._fragments: list[bytes] = []

    # Out ----------------------------------------------------------------------------------------

    def send_at_once(self, text: bytes) -> bool:
        """Write a message; False, and none written, while the peer is behind or gone."""
        frame_writer = self.frame_writer
        if not frame_writer.open:
            return False
        frame_writer.write(masked_text_frame(text, _next_key()))
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        self.frame_writer.open = False

    def resume_writing(self) -> None:
        super().resume_writing()
        self.frame_writer.open = not self._ended()

    def send_data(self) -> None:
        super().send_data()
        if self._ended():
            self.frame_writer.open = False

    def _ended(self) -> bool:
        """Nothing may be written any more: after our close frame, or since the peer has gone."""
        return self.protocol.close_sent is not None or self.protocol.eof_sent

    # In -----------------------------------------------------------------------------------------

    def listen(
        self, on_message: Callable[[bytes], None] | None, passthrough: Passthrough | None = None
    ) -> None:
        """Have messages come here from now on, not to `recv`; `passthrough` takes frames first."""
        self._on_message = on_message
        if self.reader is None:
            return
        self.reader.listen(on_message or self._queue)
        if passthrough is not None:
            self.reader.offer(passthrough.on_frame)
            self._read_by(passthrough.feed_of(self.reader))
        else:
            self._read_by(self.reader.feed)

    def hold(self) -> None:
        """Have the peer wait."""
        if self.reader is not None:
            self.reader.hold()

    def go_on(self) -> None:
        if self.reader is not None:
            self.reader.go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self.frame_writer.open = False
        super().connection_lost(exc)
        # Parts that know each other part: nothing of a call is left to the garbage collector. The
        # library keeps both errors, whose frames lead to whoever wrote when the socket broke.
        for error in (exc, self.protocol.parser_exc):
            if error is not None:
                error.__traceback__ = None
        if self.reader is not None:
            self.reader.close()
            self.reader = None  # or a listener that leaves now would hand it our own queue
        self.recv_messages.pause = self.recv_messages.resume = _nothing

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.frame_writer = FrameWriter(self.transport.write)
        # The library's queue for `recv` has the peer wait in the same way.
        self.recv_messages.pause = self.hold
        self.recv_messages.resume = self.go_on

    def data_received(self, data: bytes) -> None:
        frames = self._shake_hands(data)
        if self.protocol.state is not State.OPEN:
            return
        self.reader = FrameReader(
            self.transport,
            masked=False,
            max_bytes=MAX_MESSAGE_BYTES,
            on_text=self._on_message or self._queue,
            on_rest=self._on_rest,
            call_soon=self.loop.call_soon,
        )
        self._read_by(self.reader.feed)
        if frames:
            self.reader.feed(frames)

    def _read_by(self, feed: Callable[[bytes], None]) -> None:
        if self.data_received != feed:
            self.data_received = feed  # type: ignore[method-assign, assignment]
            self.transport.set_protocol(self)  # which keeps the function that it calls

    def _shake_hands(self, data: bytes) -> bytes:
        """Pass the head of the HTTP response on; what follows it, which may be frames."""
        seen = self._head + data
        end = seen.find(b"\r\n\r\n")
        cut = end + 4 - len(self._head) if end >= 0 else len(data)
        self._head = seen[-3:]
        super().data_received(data[:cut])
        if self.protocol.state is State.CONNECTING and data[cut:]:  # a refusal, with a body
            super().data_received(data[cut:])
        return data[cut:]

    def _queue(self, payload: bytes) -> None:
        """A message for `recv`."""
        if not self.recv_messages.closed:
            self.recv_messages.put(Frame(Opcode.TEXT, payload))

    def _on_rest(self, frame: bytes) -> None:
        super().data_received(frame)
        if self.protocol.close_rcvd is not None and self.reader is not None:
            self.reader.stop()  # nothing that follows a close counts

    def process_event(self, event: Any) -> None:
        if self._on_message is None or getattr(event, "opcode", None) not in DATA_OPCODES:
            super().process_event(event)
            return
        self._fragments.append(bytes(event.data))
        if event.fin:
            message = b"".join(self._fragments)
            self._fragments.clear()
            self._on_message(message)


def _nothing() -> None:
    pass


class WebSocketTransport:
    """A `Transport` over a client's websocket that is open."""

    def __init__(self, websocket: EagerConnection) -> None:
        self._websocket = websocket
        self.send_at_once = websocket.send_at_once
        self.frame_writer = websocket.frame_writer

    async def deliver(
        self, on_text: Callable[[str], None], room: Room, passthrough: Passthrough | None = None
    ) -> None:
        websocket = self._websocket
        context = copy_context()  # of the call, for what it logs and the tasks it starts
        new_future = asyncio.get_running_loop().create_future
        stopped: asyncio.Future[None] = new_future()

        def on_message(message: bytes) -> None:
            if not stopped.done():
                try:
                    # Some servers send binary frames; what is not UTF-8 is not an event either.
                    context.run(on_text, message.decode("utf-8", "replace"))
                except Exception as error:
                    stopped.set_exception(error)
                else:
                    if room.has_room:
                        return
                    stopped.set_result(None)
            websocket.hold()

        try:
            while len(websocket.recv_messages.frames):  # what came while nobody listened
                await room.room()
                on_text(await self.receive())
            websocket.listen(on_message, passthrough)
            lost = websocket.connection_lost_waiter
            while True:
                await asyncio.wait((lost, stopped), return_when=asyncio.FIRST_COMPLETED)
                if stopped.done():
                    stopped.result()  # raises what the listener raised
                    await room.room()
                    stopped = new_future()
                    websocket.go_on()
                elif lost.done():
                    raise _voice_closed(websocket.protocol.close_exc)
        finally:
            websocket.listen(None)
            websocket.go_on()

    async def send(self, text: str) -> None:
        sending = self._websocket.send(text)
        try:
            if self._websocket.transport.get_write_buffer_size() + len(text) < WRITE_LIMIT_BYTES:
                await sending  # cannot be made to wait
            else:
                await give_up_late(sending)
        except ConnectionClosed as closed:
            raise _voice_closed(closed) from None

    async def receive(self) -> str:
        try:
            message = await self._websocket.recv(decode=False)
        except ConnectionClosed as closed:
            raise _voice_closed(closed) from None
        # Some servers send binary frames; one that is not UTF-8 is not an event either.
        return message.decode("utf-8", "replace")

    async def close(self, code: int = 1000) -> None:
        try:
            await asyncio.gather(self._websocket.close(code), self._discard())
        finally:
            # A cancelled close must not leave the socket behind.
            self._websocket.transport.abort()

    async def _discard(self) -> None:
        """Read on to the peer's own goodbye: it may stand behind sound that nobody took."""
        with contextlib.suppress(ConnectionClosed, ConcurrencyError):  # or somebody reads already
            while True:
                await self._websocket.recv(decode=False)


def _voice_closed(closed: ConnectionClosed) -> VoiceClosed:
    frame = closed.rcvd or closed.sent
    close_code = ABNORMAL if frame is None else frame.code
    error = VoiceClosed(
        f"the connection to the model ended with close code {close_code}", close_code=close_code
    )
    known = find_code(frame.reason) if frame is not None else None
    if known is not None:
        error.code = known
    return error


class _Connect(connect):
    """Opens a websocket where the url says, and nowhere else."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


def _check_key(key: object, meant: str, *, needed: bool) -> None:
    """A key of None would travel as the word, and the model would call it a wrong one."""
    if not isinstance(key, str) or (needed and not key.strip()):
        raise ConfigError(f"there is no API key: set {meant}, or give another one")


class WebSocketModel:
    """A voice model at a url.

    Args:
        url: `ws://` or `wss://`; its own query is kept.
        headers: sent with the handshake; the dialect's own are added.
        model: sent as `?model=`, unless empty.
        query: more of the query string.
        name: what logs and metrics call it; the model, or else the host.
        timeout_s: for opening the websocket, and again for agreeing on the session.

    Raises:
        ConfigError: the url or a header cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] = MappingProxyType({}),
        model: str = "",
        dialect: Dialect = GA,
        query: Mapping[str, str] = MappingProxyType({}),
        name: str = "",
        timeout_s: float = 5.0,
    ) -> None:
        self._url = _with_query(url, {**({"model": model} if model else {}), **query})
        self.name = name or model or urlsplit(self._url).hostname or "voice model"
        self._dialect = dialect
        self._headers = {**dialect.headers, **headers}
        _check_headers(self._headers)
        self._timeout_s = timeout_s

    @classmethod
    def openai(
        cls, api_key: str, model: str, *, url: str = OPENAI_URL, **options: Any
    ) -> WebSocketModel:
        """OpenAI, or a gateway that takes its key; `options` as for the class."""
        _check_key(api_key, "OPENAI_API_KEY", needed=url == OPENAI_URL)
        headers = {"Authorization": f"Bearer {api_key}", **options.pop("headers", {})}
        return cls(url, model=model, headers=headers, **options)

    @classmethod
    def azure(cls, endpoint: str, deployment: str, api_key: str, **options: Any) -> WebSocketModel:
        """Azure: `endpoint` is `https://<resource>.openai.azure.com`; GA events."""
        _check_key(api_key, "the key of its resource", needed=True)
        parts = urlsplit(endpoint)
        url = urlunsplit(("wss", parts.netloc, AZURE_PATH, "", ""))
        headers = {"api-key": api_key, **options.pop("headers", {})}
        return cls(url, model=deployment, headers=headers, **options)

    def __repr__(self) -> str:
        return f"WebSocketModel({self.name!r} at {urlsplit(self._url).hostname})"

    async def connect(self, config: SessionConfig) -> VoiceConnection:
        """Open the websocket and agree on the session.

        Raises:
            VoiceRefused: a key, a model, settings: no retry can heal it.
            VoiceUnavailable: not reached, overloaded, or too slow.
        """
        websocket = await self._open()
        return await open_connection(
            WebSocketTransport(websocket),
            config,
            self._dialect,
            timeout_s=self._timeout_s,
        )

    async def open(self) -> WebSocketTransport:
        """Open the websocket alone; what is said on it is the caller's to agree on.

        Raises:
            VoiceRefused, VoiceUnavailable: as `connect`.
        """
        return WebSocketTransport(await self._open())

    async def _open(self) -> EagerConnection:
        try:
            websocket = await _Connect(
                self._url,
                additional_headers=self._headers,
                user_agent_header="trunkline",
                compression=None,  # base64 of sound gains little, and costs memory per call
                **websocket_options(self._url),
                open_timeout=self._timeout_s,
                close_timeout=CLOSE_TIMEOUT_S,
                ping_interval=PING_S,
                ping_timeout=PING_S,
                max_size=MAX_MESSAGE_BYTES,
                write_limit=WRITE_LIMIT_BYTES,
                logger=_wire_logger,
                create_connection=EagerConnection,
            )
            # A few kB, and the key with it. The library asks whether there was a response.
            websocket.request, websocket.response = None, _ACCEPTED
            return cast(EagerConnection, websocket)
        except InvalidStatus as error:
            raise _refusal(error.response) from None
        except (InvalidProxy, ImportError):  # ImportError: a kind that needs another package
            raise VoiceRefused("the proxy cannot be used", code="invalid_proxy") from None
        except (OSError, InvalidHandshake, WebSocketException, EOFError) as error:
            raise _unavailable(error) from None


_UNAVAILABLE: Final = (
    (TimeoutError, "connect_timeout", "the model did not answer in time"),
    (socket.gaierror, "dns_failed", "the model's host name was not found"),
    (ssl.SSLError, "tls_failed", "no secure connection to the model"),
    (ConnectionRefusedError, "connection_refused", "the model's host refused the connection"),
    (OSError, "connection_failed", "the model's host could not be reached"),
    (Exception, "handshake_failed", "the model's host does not speak websocket"),
)


def _unavailable(error: Exception) -> VoiceUnavailable:
    """No websocket, and no HTTP answer that would say why. The message holds no peer's text."""
    code, message = next(each[1:] for each in _UNAVAILABLE if isinstance(error, each[0]))
    if isinstance(error, ssl.SSLCertVerificationError):  # OpenSSL's words: expired, self-signed
        message = f"the certificate of the model's host is not valid: {error.verify_message}"
    return VoiceUnavailable(message, code=code)


def _refusal(response: Response) -> VoiceRefused | VoiceUnavailable:
    body = bytes(response.body or b"")[:4096].decode("utf-8", "replace")
    return refusal_for_status(
        response.status_code,
        code=find_code(body),
        retry_after_s=parse_retry_after(response.headers.get("Retry-After")),
    )


def _with_query(url: str, query: Mapping[str, str]) -> str:
    try:
        parse_uri(url)
        parts = urlsplit(url)
    except (InvalidURI, ValueError):
        raise ConfigError(
            "the voice model's url must be like wss://host/path, with a port if need be"
        ) from None
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    return urlunsplit(parts._replace(query=urlencode({**query, **given})))


def _check_headers(headers: Mapping[str, str]) -> None:
    """Refuse what HTTP cannot carry; a key with a line break is the usual case."""
    for name, value in headers.items():
        if not (name + value).isascii() or not (name + value).isprintable():
            raise ConfigError(f"the header {name!r} holds characters that HTTP does not allow")
