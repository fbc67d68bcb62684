"""The seam to a voice model: connections, and the handshake that all of them share.

`Transport` carries text either way (a websocket, or one end of a `pipe()`), `VoiceConnection` is
a configured session of events over it, `VoiceModel` opens one. `open_connection` is the handshake
of every client: `session.created`, our `session.update`, `session.updated`, formats checked.
The websocket side is `app.realtime.websocket`, retries are `app.realtime.connecting`; the events
are left to the caller.

A server is read leniently. Fields that differ from the protocol are counted and logged once
per connection; they cost neither the event nor the call.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Final, Protocol

from app.errors import (
    RemoteProtocolError,
    VoiceClosed,
    VoiceError,
    VoiceRefused,
    VoiceUnavailable,
)
from app.framing import FRAMES_AT_ONCE, FrameWriter, Passthrough
from app.realtime.dialect import GA, Dialect
from app.realtime.events import (
    UNSET,
    ClientEvent,
    ErrorEvent,
    ServerEvent,
    SessionConfig,
    SessionCreated,
    SessionUpdate,
    SessionUpdated,
    Transcription,
    Unset,
)
from app.realtime.faults import refusal_for_close, refusal_for_error
from app.realtime.fields import MalformedEvent
from app.realtime.protocol import RealtimeProtocol, Side
from app.realtime.trace import wire_facts

__all__ = [
    "ClientTransport",
    "RealtimeConnection",
    "Room",
    "Transport",
    "VoiceConnection",
    "VoiceModel",
    "close_at_once",
    "differing_fields",
    "formats_match",
    "give_up_late",
    "open_connection",
    "pipe",
]

logger = logging.getLogger(__name__)

CREATED_WAIT_S: Final = 0.5
"""Some servers send `session.created` late, or nothing at all before the first update."""
_NEWER_TRANSCRIPTION: Final = frozenset({"gpt-transcribe", "gpt-live-transcribe"})
_OLDER_TRANSCRIPTION: Final = "whisper-1"
EARLY_EVENTS: Final = 1_000
"""The latest events that are kept while the session is not agreed: a model may send any number."""
ODDITIES_LOGGED: Final = 20
"""Per connection; a server that differs in more is described well enough by these."""
MALFORMED_LIMIT: Final = 50  # so many malformed events ...
MALFORMED_WINDOW_S: Final = 10.0  # ... in so long, and the peer is not worth listening to
SEND_TIMEOUT_S: Final = 5.0  # by then a caller's voice outbox has overflown (ARCHITECTURE 4)
PIPE_CAPACITY: Final = 256  # messages: five seconds of 20 ms frames
_LARGE: Final = ("instructions", "tools")
_INDEX: Final = re.compile(r"\[\d+\]")


class Transport(Protocol):
    """Carries JSON texts both ways. One task sends, one receives; `close` from any."""

    async def send(self, text: str) -> None:
        """Send one message; waits while the peer is slow, a client's end `SEND_TIMEOUT_S` at most.

        Raises:
            VoiceClosed: the connection has ended, or the peer takes nothing any more.
        """
        ...

    async def receive(self) -> str:
        """The next message.

        Raises:
            VoiceClosed: the connection has ended; `close_code` says how.
        """
        ...

    async def close(self, code: int = 1000) -> None:
        """End the connection within a bounded time; safe to call twice."""
        ...


class Room(Protocol):
    """Tells when what comes next has a place to go."""

    @property
    def has_room(self) -> bool: ...

    async def room(self) -> None:
        """Wait until there is room."""
        ...


class ClientTransport(Transport, Protocol):
    """A client's end, which moves sound without a task switch where it can."""

    def send_at_once(self, text: bytes) -> bool:
        """Send one message without waiting; False, and nothing sent, when that cannot be."""
        ...

    @property
    def frame_writer(self) -> FrameWriter | None:
        """For whole frames, masked by a client; None without a websocket."""
        ...

    async def deliver(
        self, on_text: Callable[[str], None], room: Room, passthrough: Passthrough | None = None
    ) -> None:
        """Tell of each message, in place of `receive`; the peer waits while there is no room.

        `passthrough` takes frames of a websocket before they are messages, and only those that
        there is room for.

        Raises:
            VoiceClosed: the connection has ended.
            Exception: what `on_text` raised.
        """
        ...


class VoiceConnection(Protocol):
    """A configured session with a voice model."""

    @property
    def session(self) -> SessionConfig:
        """The session as the server confirmed it last."""
        ...

    @property
    def differences(self) -> tuple[str, ...]:
        """Names of the settings that the server confirmed otherwise than asked (not formats)."""
        ...

    @property
    def malformed(self) -> int:
        """The number of the server's events that were skipped because they were unreadable."""
        ...

    @property
    def oddities(self) -> int:
        """The number of fields of its events that differed from the protocol and were left out."""
        ...

    def __aiter__(self) -> VoiceConnection: ...

    async def __anext__(self) -> ServerEvent:
        """The next event; iteration ends after our own `close`.

        Raises:
            VoiceClosed: the server or the network ended the connection.
        """
        ...

    async def send(self, event: ClientEvent) -> str:
        """Send one event and return its id.

        Raises:
            VoiceClosed: the connection has ended.
        """
        ...

    def append_at_once(self, audio: bytes) -> bool:
        """Send one `InputAudioAppend` without waiting and without a task switch.

        False, and nothing sent, when the peer has fallen behind or is gone: `send` then waits or
        says so.
        """
        ...

    async def deliver(self, on_event: Callable[[ServerEvent], None], room: Room) -> None:
        """Tell of each event, in place of iterating; returns after our own `close`.

        The server waits while there is no room.

        Raises:
            VoiceClosed: the server or the network ended the connection.
            Exception: what `on_event` raised.
        """
        ...

    async def close(self) -> None:
        """End the connection within a bounded time; safe to call twice."""
        ...


class VoiceModel(Protocol):
    """Something that a caller can talk with."""

    @property
    def name(self) -> str: ...

    async def connect(self, config: SessionConfig) -> VoiceConnection:
        """Open a session that has confirmed `config`.

        Raises:
            VoiceRefused: for a reason that no retry can heal.
            VoiceUnavailable: not now.
        """
        ...


# Sessions asked for and confirmed -----------------------------------------------------------------


def formats_match(asked: SessionConfig, confirmed: SessionConfig) -> bool:
    """True if every audio format that was asked for is the one confirmed.

    A format that the server does not name is not confirmed: sound in another one is static.
    """
    return all(
        wanted is UNSET or wanted == got
        for wanted, got in (
            (asked.input_format, confirmed.input_format),
            (asked.output_format, confirmed.output_format),
        )
    )


def differing_fields(asked: SessionConfig, confirmed: SessionConfig) -> tuple[str, ...]:
    """Settings that were asked for and came back with another value; unnamed ones do not count."""
    skipped = {"id", "expires_at", "model", "type", "input_format", "output_format"}
    return tuple(
        field.name
        for field in fields(SessionConfig)
        if field.name not in skipped
        and getattr(asked, field.name) is not UNSET
        and getattr(confirmed, field.name) is not UNSET
        and getattr(asked, field.name) != getattr(confirmed, field.name)
    )


def _updated(before: SessionConfig, update: SessionConfig) -> SessionConfig:
    """The session after an update that names only some of its settings."""
    named = {
        field.name: value
        for field in fields(SessionConfig)
        if (value := getattr(update, field.name)) is not UNSET and value != field.default
    }
    return replace(before, **named)


def _with_older_transcription(config: SessionConfig) -> SessionConfig:
    """The session with a transcription model that servers have known for longer."""
    asked = config.transcription
    if not isinstance(asked, Transcription) or asked.model not in _NEWER_TRANSCRIPTION:
        return config
    # It takes one language at most, and no keywords.
    language = asked.languages[0] if len(asked.languages) == 1 else asked.language
    older = Transcription(model=_OLDER_TRANSCRIPTION, language=language, prompt=asked.prompt)
    return replace(config, transcription=older)


# Connections --------------------------------------------------------------------------------------


class _TooManyMalformed(Exception):
    """The peer is not worth listening to."""


class RealtimeConnection:
    """A `VoiceConnection` over any transport. Made by `open_connection`.

    Malformed events are counted and skipped; too many of them end the connection. `oddities` counts
    the fields that differed from the protocol and were left out.
    """

    def __init__(self, transport: ClientTransport, dialect: Dialect = GA) -> None:
        self.session = SessionConfig()
        self.differences: tuple[str, ...] = ()
        self.malformed = 0
        self.oddities = 0
        self._logged: set[str] = set()
        self._agreed = False
        self._traced = logger.isEnabledFor(logging.DEBUG)
        self._transcription_refused = False
        self._older_transcription = False
        self._transport = transport
        self._protocol = RealtimeProtocol(Side.CLIENT, dialect)
        self._early: list[ServerEvent] = []
        self._recent_malformed: list[float] = []
        self._closed = False

    def __aiter__(self) -> RealtimeConnection:
        return self

    async def __anext__(self) -> ServerEvent:
        if self._early:
            return self._early.pop(0)
        if self._closed:
            raise StopAsyncIteration
        try:
            return await self._receive()
        except VoiceClosed:
            if self._closed:
                raise StopAsyncIteration from None
            raise

    async def send(self, event: ClientEvent) -> str:
        if self._closed:
            raise VoiceClosed("the connection was closed by us", close_code=1000)
        if self._older_transcription and isinstance(event, SessionUpdate):
            event = replace(event, session=_with_older_transcription(event.session))
        text = self._protocol.send(event)
        event_id = self._protocol.last_event_id
        _trace(">", text)
        await self._transport.send(text)
        return event_id

    def append_at_once(self, audio: bytes) -> bool:
        if self._closed:
            return False
        text = self._protocol.append(audio)
        sent = self._transport.send_at_once(text)
        if sent and self._traced:
            _trace(">", text.decode())
        return sent

    async def deliver(self, on_event: Callable[[ServerEvent], None], room: Room) -> None:
        while self._early:
            early, self._early = self._early[:FRAMES_AT_ONCE], self._early[FRAMES_AT_ONCE:]
            for event in early:
                await room.room()
                on_event(event)
            await asyncio.sleep(0)  # others have their turn
        if self._closed:
            return

        def on_text(text: str) -> None:
            event = self._read(text)
            if event is not None:
                on_event(event)

        try:
            await self._transport.deliver(on_text, room)
        except _TooManyMalformed:
            raise await self._give_up() from None
        except VoiceClosed:
            if not self._closed:
                raise

    async def close(self) -> None:
        self._closed = True
        await self._transport.close()

    async def _receive(self) -> ServerEvent:
        while True:
            try:
                event = self._read(await self._transport.receive())
            except _TooManyMalformed:
                raise await self._give_up() from None
            if event is not None:
                return event

    def _read(self, text: str) -> ServerEvent | None:
        """One event; None when it is skipped.

        Raises:
            VoiceRefused: the session cannot be used.
            _TooManyMalformed: one more than is tolerated.
        """
        if self._traced:
            _trace("<", text)
        try:
            event = self._protocol.receive(text)
        except RemoteProtocolError as error:
            self._count_malformed()
            event_type = error.event_type if isinstance(error, MalformedEvent) else ""
            if event_type == "session.created":
                # Unknown settings, which are about to be replaced by ours.
                return SessionCreated(SessionConfig())
            if event_type == "session.updated" and not self._agreed:
                raise VoiceRefused(
                    f"the model's session cannot be used: {error.message}",
                    code="protocol_mismatch",
                ) from None
            return None
        if self._protocol.oddities:
            self._note_oddities()
        if isinstance(event, SessionUpdated):
            if self._agreed:  # later updates may name only what they changed
                event = replace(event, session=_updated(self.session, event.session))
            self.session = replace(event.session, id=event.session.id or self.session.id)
        return event

    def _note_oddities(self) -> None:
        for oddity in self._protocol.oddities:
            self.oddities += 1
            kind = _INDEX.sub("[]", oddity)
            if kind not in self._logged and len(self._logged) < ODDITIES_LOGGED:
                self._logged.add(kind)
                logger.info("model event differs from the protocol", extra={"field": kind})
        self._protocol.oddities.clear()

    def _count_malformed(self) -> None:
        self.malformed += 1
        now = asyncio.get_running_loop().time()
        recent = self._recent_malformed
        recent.append(now)
        del recent[:-MALFORMED_LIMIT]
        if len(recent) == MALFORMED_LIMIT and now - recent[0] <= MALFORMED_WINDOW_S:
            raise _TooManyMalformed

    async def _give_up(self) -> VoiceClosed:
        await self._transport.close(1002)  # protocol error (RFC 6455, section 7.4.1)
        return VoiceClosed("too many malformed events", close_code=1002)

    async def handshake(self, config: SessionConfig) -> None:
        """Agree on the session, as `open_connection` says."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CREATED_WAIT_S):
                await self._await_session(SessionCreated, update_id=None)
        try:
            confirmed = await self._agree(config)
        except VoiceRefused:
            if not self._transcription_refused or _with_older_transcription(config) == config:
                raise
            self._older_transcription = True
            confirmed = await self._agree(config)
        if not formats_match(config, confirmed):
            raise VoiceRefused(
                "the model did not confirm the audio format that was asked for",
                code="format_mismatch",
            )
        self.differences = differing_fields(config, confirmed)
        # Values that came back as they were asked for are kept once, not per call: texts are long.
        same = {
            name: value
            for name in _LARGE
            if (value := getattr(config, name)) == getattr(confirmed, name)
        }
        self.session = replace(self.session, **same)
        self._agreed = True
        if confirmed.transcription is None and _with_older_transcription(config) != config:
            self._older_transcription = True
            # Not waited for: a lean server may confirm once only.
            await self.send(SessionUpdate(SessionConfig(transcription=config.transcription)))

    async def _agree(self, config: SessionConfig) -> SessionConfig:
        update_id = await self.send(SessionUpdate(config))
        tools = () if isinstance(config.tools, Unset) else config.tools
        return await self._await_session(SessionUpdated, update_id=update_id, tools=tools)

    async def _await_session(
        self,
        kind: type[SessionCreated] | type[SessionUpdated],
        *,
        update_id: str | None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> SessionConfig:
        """Wait for one step; other events are kept for the iteration that follows."""
        while True:
            event = await self._receive()
            if isinstance(event, kind):
                # A lean server tells its id at the beginning only.
                known = event.session.id or self.session.id
                self.session = replace(event.session, id=known)
                return event.session
            if isinstance(event, ErrorEvent) and event.error.client_event_id in {None, update_id}:
                self._transcription_refused = "transcription" in (event.error.param or "")
                raise refusal_for_error(event.error, tools)
            if not isinstance(event, SessionCreated):  # one that comes late says nothing new
                self._early.append(event)
                del self._early[:-EARLY_EVENTS]


def _trace(way: str, text: str) -> None:
    if logger.isEnabledFor(logging.DEBUG):
        logger.debug(way, extra=wire_facts(text))


async def open_connection(
    transport: ClientTransport,
    config: SessionConfig,
    dialect: Dialect = GA,
    *,
    timeout_s: float = 5.0,
) -> RealtimeConnection:
    """Shake hands over a transport that is connected: the same for sockets and pipes.

    Waits a moment for `session.created`, sends `session.update`, waits for `session.updated`, all
    within `timeout_s`, and checks the audio formats. The transport is closed when it fails.

    Raises:
        VoiceRefused: the settings were refused, or `format_mismatch`, or `protocol_mismatch`.
        VoiceUnavailable: no answer in time, or the connection ended.
    """
    connection = RealtimeConnection(transport, dialect)
    agreed = False
    try:
        async with asyncio.timeout(timeout_s):
            await connection.handshake(config)
        agreed = True
    except TimeoutError:
        if connection.malformed:  # the event that we wait for was probably among them
            text = "the model's first events break the protocol"
            refused = VoiceRefused(text, code="protocol_mismatch")
            raise _of_session(refused, connection) from None
        text = "the model did not set up the session in time"
        late = VoiceUnavailable(text, code="session_timeout")
        raise _of_session(late, connection) from None
    except VoiceClosed as closed:
        raise _of_session(refusal_for_close(closed), connection) from None
    except VoiceError as error:
        raise _of_session(error, connection) from None
    except asyncio.CancelledError:
        await close_at_once(connection)
        raise
    finally:
        if not agreed:
            await connection.close()
    return connection


async def close_at_once(connection: VoiceConnection) -> None:
    """Part with a connection that nobody waits for: its peer's goodbye is not waited for either."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0):
            await connection.close()


def _of_session(error: VoiceError, connection: RealtimeConnection) -> VoiceError:
    """The error with the id that the model has given the session, by which its maker finds it."""
    error.session_id = connection.session.id or ""
    return error


async def give_up_late(sending: Awaitable[None]) -> None:
    """Wait for a send that may have to wait: the transports' slow path, since timers cost.

    Raises:
        VoiceClosed: the peer took nothing for `SEND_TIMEOUT_S`.
    """
    try:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await sending
    except TimeoutError:
        raise VoiceClosed("the model takes no more messages", close_code=1006) from None


# In memory ----------------------------------------------------------------------------------------


class _Direction:
    """One direction of a pipe: a bounded queue with an end."""

    def __init__(self, capacity: int, *, patient: bool) -> None:
        self._texts: deque[str] = deque()
        self._capacity = capacity
        self._patient = patient
        self._changed = asyncio.Event()
        self._close_code: int | None = None

    def end(self, code: int) -> None:
        if self._close_code is None:
            self._close_code = code
        self._changed.set()

    async def put(self, text: str) -> None:
        if len(self._texts) >= self._capacity:
            room = self._wait_for_room()
            await (room if self._patient else give_up_late(room))
        if self._close_code is not None:
            raise self._closed(self._close_code)
        self._texts.append(text)
        self._changed.set()

    def put_at_once(self, text: str) -> bool:
        if self._close_code is not None or len(self._texts) >= self._capacity:
            return False
        self._texts.append(text)
        self._changed.set()
        return True

    async def get(self) -> str:
        while not self._texts:
            if self._close_code is not None:
                raise self._closed(self._close_code)
            await self._wait()
        self._changed.set()
        return self._texts.popleft()

    async def _wait_for_room(self) -> None:
        while self._close_code is None and len(self._texts) >= self._capacity:
            await self._wait()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    @staticmethod
    def _closed(code: int) -> VoiceClosed:
        return VoiceClosed("the pipe is closed", close_code=code)


class _PipeEnd:
    """One end of a pipe: what was sent before a close is still received after it."""

    frame_writer: FrameWriter | None = None

    def __init__(self, outward: _Direction, inward: _Direction) -> None:
        self._outward = outward
        self._inward = inward

    async def send(self, text: str) -> None:
        await self._outward.put(text)

    def send_at_once(self, text: bytes) -> bool:
        return self._outward.put_at_once(text.decode())

    async def deliver(
        self, on_text: Callable[[str], None], room: Room, passthrough: Passthrough | None = None
    ) -> None:
        while True:
            text = await self._inward.get()
            await room.room()
            on_text(text)

    async def receive(self) -> str:
        return await self._inward.get()

    async def close(self, code: int = 1000) -> None:
        self._outward.end(code)
        self._inward.end(code)


def pipe(capacity: int = PIPE_CAPACITY) -> tuple[ClientTransport, Transport]:
    """Client's and server's end, joined in memory: what one sends is what the other receives.

    Each direction holds `capacity` messages. At a full one the server waits for as long as the
    client likes to pause, the client as long as it would at a socket.
    """
    to_server, to_client = _Direction(capacity, patient=False), _Direction(capacity, patient=True)
    return _PipeEnd(to_server, to_client), _PipeEnd(to_client, to_server)
