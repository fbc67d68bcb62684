"""`ScriptedVoiceServer`: a Realtime server on a real socket, for tests of everything above it.

    async with ScriptedVoiceServer(replies=[Reply(text="Hi.", audio_ms=900)]) as server:
        model = WebSocketModel(server.url, headers={"Authorization": "Bearer sk-test"})
        ...
        await server.until(lambda: server.created == 2)
        assert server.truncated == [("item_3", 640)]

By itself it runs free (`tests.fakes.voice_session`): it hears speech in what is appended and
answers with tones. With a `script` it does what the steps say, on the first connection, and only
then runs free; leaving the block fails if a step was not met. `Trouble` makes it misbehave.
Everything received is kept. It speaks through `app.realtime.protocol`, server side.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from app.errors import RemoteProtocolError
from app.realtime import events as ev
from app.realtime.dialect import GA, Dialect
from app.realtime.events import ClientEvent, ServerEvent
from app.realtime.protocol import RealtimeProtocol, Side
from tests.fakes.voice_session import FreeSession, Reply, Speech, tone
from tests.fakes.waiting import time_limit

__all__ = [
    "Close",
    "Emit",
    "EmitText",
    "Expect",
    "Reply",
    "ScriptedVoiceServer",
    "Served",
    "Step",
    "Trouble",
    "tone",
]


# Script -------------------------------------------------------------------------------------------


class Step:
    """One step of a script."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Expect(Step):
    """The next event that is not appended sound must be of this kind, and satisfy `where`."""

    kind: type[Any]
    where: Callable[[Any], bool] = lambda _: True


@dataclass(frozen=True, slots=True)
class Emit(Step):
    """Send an event; a function makes it from what was received so far."""

    event: ServerEvent | Callable[[Served], ServerEvent]


@dataclass(frozen=True, slots=True)
class EmitText(Step):
    """Send a text as it is, right or wrong."""

    text: str


@dataclass(frozen=True, slots=True)
class Close(Step):
    """Close the websocket."""

    code: int = 1000
    reason: str = ""


# Trouble ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """The server's faults on the first `connections` connections; then it is well.

    `http_status`: refuse the handshake, with `http_code` in a body like OpenAI's. `silent`:
    accept and say nothing. `ignores_update`: never answer `session.update`. `update_error`:
    answer it with this error code. `confirm`: settings to confirm in place of those asked for.
    `texts`: sent as they are after `session.updated`. `close_first`: close before a word, with
    `close_reason`. `deaf`: stop reading after `session.updated`, so that our close frame meets no
    reply either. `rewrite`: makes another event of each one sent, or none.
    """

    connections: int = 1_000_000
    http_status: int | None = None
    http_code: str = ""
    http_headers: Mapping[str, str] = field(default_factory=dict)
    silent: bool = False
    ignores_update: bool = False
    update_error: str | None = None
    confirm: Mapping[str, Any] = field(default_factory=dict)
    texts: Sequence[str] = ()
    close_first: int | None = None
    close_reason: str = ""
    deaf: bool = False
    rewrite: Callable[[dict[str, Any]], dict[str, Any] | None] | None = None


# One connection -----------------------------------------------------------------------------------


class Served:
    """One connection and everything that was received on it."""

    def __init__(self, server: ScriptedVoiceServer, socket: ServerConnection) -> None:
        request = socket.request
        assert request is not None
        self.path = request.path
        self.headers = request.headers
        self.events: list[ClientEvent] = []  # all but appends
        self.audio = bytearray()
        self.appends: list[int] = []  # bytes of each
        self.malformed: list[str] = []
        self.free: FreeSession | None = None
        self.closed = False
        self._server = server
        self._socket = socket
        self._protocol = RealtimeProtocol(Side.SERVER, server.dialect)
        self._outbox: asyncio.Queue[str | bytes | Close] = asyncio.Queue()
        self._rewrite: Callable[[dict[str, Any]], dict[str, Any] | None] | None = None

    def of(self, kind: type[Any]) -> list[Any]:
        """The events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    def emit(self, event: ServerEvent) -> None:
        if not self._server.dialect.can_spell(type(event)):
            return  # the beta interface lacks some
        text = self._protocol.send(event)
        if self._rewrite is not None:
            rewritten = self._rewrite(json.loads(text))
            if rewritten is None:
                return
            text = json.dumps(rewritten)
        self._outbox.put_nowait(text)

    def emit_text(self, text: str | bytes) -> None:
        self._outbox.put_nowait(text)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close after what was emitted before."""
        self._outbox.put_nowait(Close(code, reason))

    async def ping(self) -> Awaitable[float]:
        """Send a ping; awaiting what is returned waits for the answer."""
        return await self._socket.ping()

    def drop(self) -> None:
        """Cut the connection without a close frame."""
        self._socket.transport.abort()

    async def run(self, trouble: Trouble, script: _Script) -> None:
        if trouble.silent:
            await self._socket.wait_closed()
            return
        if trouble.close_first is not None:
            await self._socket.close(trouble.close_first, trouble.close_reason)
            return
        self._rewrite = trouble.rewrite
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._write())
                self.free = FreeSession(
                    self._server.replies,
                    self.emit,
                    self.close,
                    group.create_task,
                    confirm=trouble.confirm,
                    heard=self._server.heard,
                    speech=self._server.speech,
                    # No two sessions give the same id to different things.
                    first_id=1_000 * len(self._server.connections) - 999,
                )
                asides = self._server.asides
                self.free.asides = itertools.chain(asides, itertools.repeat(asides[-1]))
                self.free.open()
                await self._read(trouble, script)
                writer.cancel()
                raise _Over
        except* _Over:
            pass

    async def _write(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                match await self._outbox.get():
                    case Close(code, reason):
                        await self._socket.close(code, reason)
                    case text:
                        await self._socket.send(text)

    async def _read(self, trouble: Trouble, script: _Script) -> None:
        with suppress(ConnectionClosed):
            while True:
                text = await self._socket.recv(decode=True)
                try:
                    event = self._protocol.receive(text)
                except RemoteProtocolError as error:
                    self.malformed.append(error.message)
                    self._server.failures.append(f"malformed from the client: {error.message}")
                    continue
                self._record(event)
                if isinstance(event, ev.SessionUpdate) and len(self.of(ev.SessionUpdate)) == 1:
                    self._configure(event, trouble, script)
                elif script.unmet:
                    complaint = script.take(event, self)
                    if complaint is not None:
                        self._server.failures.append(complaint)
                elif self.free is not None:
                    self.free.take(event)
                self._server.note_change()

    def _record(self, event: ClientEvent) -> None:
        if isinstance(event, ev.InputAudioAppend):
            self.audio += event.audio
            self.appends.append(len(event.audio))
        else:
            self.events.append(event)

    def _configure(self, event: ev.SessionUpdate, trouble: Trouble, script: _Script) -> None:
        assert self.free is not None
        if trouble.ignores_update:
            return
        if trouble.update_error is not None:
            error = ev.ErrorDetail(
                type="invalid_request_error",
                code=trouble.update_error,
                message="refused",
                client_event_id=event.event_id,
            )
            self.emit(ev.ErrorEvent(error))
            return
        self.free.take(event)
        for text in trouble.texts:
            self.emit_text(text)
        script.advance(self)
        if trouble.deaf:
            self._socket.transport.pause_reading()


class _Over(Exception):
    """The client is gone: ends the connection's tasks."""


class _Script:
    """The steps of one connection, as far as they have been met."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.unmet = deque(steps)

    def advance(self, served: Served) -> None:
        """Do what comes next, up to the next expectation."""
        while self.unmet and not isinstance(self.unmet[0], Expect):
            match self.unmet.popleft():
                case Emit(event):
                    served.emit(event(served) if callable(event) else event)
                case EmitText(text):
                    served.emit_text(text)
                case Close(code, reason):
                    served.close(code, reason)

    def take(self, event: ClientEvent, served: Served) -> str | None:
        """Meet the next expectation. Returns a complaint, or `None`.

        Sound that is not expected is let pass: a caller never stops sending it.
        """
        awaited = self.unmet[0]
        assert isinstance(awaited, Expect)
        if isinstance(event, awaited.kind) and awaited.where(event):
            self.unmet.popleft()
            self.advance(served)
        elif not isinstance(event, ev.InputAudioAppend):
            return f"expected {awaited.kind.__name__}, got {event!r}"
        return None


# The server ---------------------------------------------------------------------------------------


class ScriptedVoiceServer:
    """A Realtime server at `url`, once entered.

    `connections` holds every connection there was; the properties without an index are about the
    latest one. `attempts` counts handshakes, refused ones included; `open_connections` those that
    are open now. `replies` and `trouble` may be set anew, for the connections that follow. With
    `speech` it speaks the words of its replies instead of tones.
    """

    def __init__(
        self,
        *,
        script: Sequence[Step] = (),
        replies: Sequence[Reply] = (Reply(),),
        heard: Sequence[str | None] = ("Hello there.",),
        asides: Sequence[str] = ("ALLOW",),
        trouble: Trouble | None = None,
        dialect: Dialect = GA,
        speech: Speech | None = None,
    ) -> None:
        self.speech = speech
        self.replies = replies
        self.heard = heard
        self.asides = asides
        self.dialect = dialect
        self.attempts = 0
        self.open_connections = 0
        self.connections: list[Served] = []
        self.failures: list[str] = []
        self.trouble = trouble or Trouble()
        self._script = _Script(script)
        self._changed = asyncio.Event()
        self._server: Server | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return f"ws://127.0.0.1:{port}/v1/realtime"

    @property
    def latest(self) -> Served:
        return self.connections[-1]

    @property
    def audio(self) -> bytes:
        """All sound that was appended."""
        return bytes(self.latest.audio)

    @property
    def created(self) -> int:
        """The number of responses that were asked for."""
        return len(self.latest.of(ev.ResponseCreate))

    @property
    def cancelled(self) -> int:
        return len(self.latest.of(ev.ResponseCancel))

    @property
    def truncated(self) -> list[tuple[str, int]]:
        """Item and milliseconds heard, of each truncation."""
        return [(t.item_id, t.audio_end_ms) for t in self.latest.of(ev.ItemTruncate)]

    @property
    def items(self) -> list[ev.Item]:
        """Items that the client created."""
        return [create.item for create in self.latest.of(ev.ItemCreate)]

    async def __aenter__(self) -> ScriptedVoiceServer:
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            0,
            process_request=self._process_request,
            compression=None,
            close_timeout=0.5,
            ping_interval=None,
            max_size=32 * 2**20,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        for served in self.connections:
            if not served.closed and self.trouble.deaf:
                served.drop()
        self._server.close()
        await self._server.wait_closed()
        if error is None:
            assert not self.failures, self.failures
            assert not self._script.unmet, f"not met: {list(self._script.unmet)}"

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds that changes with what is received."""
        async with time_limit():
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    def note_change(self) -> None:
        self._changed.set()

    def _process_request(self, socket: ServerConnection, request: Request) -> Response | None:
        self.attempts += 1
        trouble = self.trouble
        if trouble.http_status is None or self.attempts > trouble.connections:
            return None
        error = {"type": "error", "code": trouble.http_code, "message": "refused"}
        response = socket.respond(trouble.http_status, json.dumps({"error": error}))
        for name, value in trouble.http_headers.items():
            response.headers[name] = value
        return response

    async def _serve(self, socket: ServerConnection) -> None:
        served = Served(self, socket)
        self.connections.append(served)
        self.open_connections += 1
        well = self.attempts > self.trouble.connections
        try:
            await served.run(
                Trouble() if well else self.trouble,
                self._script if len(self.connections) == 1 else _Script(()),
            )
        except Exception as error:
            self.failures.append(f"the fake itself failed: {error!r}")
            raise
        finally:
            served.closed = True
            self.open_connections -= 1
            self.note_change()
