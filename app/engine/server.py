"""The offline engine: serves Realtime sessions, in this process or to any Realtime client.

It holds the shared speech parts and counts its sessions; one session is `app.engine.host`, the
rules are `app.engine.engine_session`. A client over the limit gets an error event and is closed
with 1013 (try again later), so that the speech of the others does not stutter.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol, runtime_checkable

from app.engine.engine_session import EngineSession, SessionLimits
from app.engine.host import EngineParts, SessionHost, Startable
from app.engine.session_settings import ENGINE_MODEL, PIPELINE_MODEL
from app.errors import VoiceClosed, VoiceUnavailable
from app.realtime.connection import (
    ClientTransport,
    Transport,
    VoiceConnection,
    open_connection,
    pipe,
)
from app.realtime.dialect import GA, Dialect
from app.realtime.events import ErrorDetail, ErrorEvent, SessionConfig
from app.realtime.protocol import RealtimeProtocol, Side

__all__ = ["Engine", "EngineModel"]

logger = logging.getLogger(__name__)

AT_CAPACITY: Final = "engine_at_capacity"
DETECTOR_THREADS: Final = 2
STOP_S: Final = 2.0

# Websocket close codes (IANA registry): going away, internal error, try again later.
_GOING_AWAY: Final = 1001
_INTERNAL_ERROR: Final = 1011
_TRY_AGAIN_LATER: Final = 1013


@runtime_checkable
class _Monitored(Protocol):
    """A part that reports its readiness."""

    @property
    def ready(self) -> bool: ...


class Engine:
    """Serves sessions between `start` and `close`."""

    def __init__(
        self,
        parts: EngineParts,
        *,
        max_sessions: int = 8,
        voice: str = "default",
        limits: SessionLimits | None = None,
    ) -> None:
        self.max_sessions = max_sessions
        self._parts = parts
        self._voice = voice
        self._limits = limits or SessionLimits()
        self._hosts: set[SessionHost] = set()
        self._promised = 0
        self._idle = asyncio.Event()
        self._threads: ThreadPoolExecutor | None = None
        self._stopping = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def sessions(self) -> int:
        """Sessions that are being served, or are about to be."""
        return len(self._hosts) + self._promised

    @property
    def has_chain(self) -> bool:
        """A text model writes its replies."""
        return self._parts.chain is not None

    @property
    def running(self) -> bool:
        return self._group is not None and not self._stopping.is_set()

    def degraded(self) -> list[str]:
        """Name the parts without a working process: callers are not understood or hear nothing."""
        parts = {
            "offline_recognizer_down": self._parts.recognizer,
            "offline_synthesizer_down": self._parts.synthesizer,
        }
        down = [
            code for code, part in parts.items() if isinstance(part, _Monitored) and not part.ready
        ]
        owned = (part for part in self._parts.owned if isinstance(part, _Monitored))
        return [*down, *("pipeline_speech_down" for part in owned if not part.ready)]

    async def start(self, *, speech: bool = True) -> None:
        """Start the parts; sessions are served from now on.

        Without `speech`, for sessions in writing, no process starts that hears or speaks.

        Raises:
            ConfigError: a part is not installed or refuses its settings.
            VoiceUnavailable: a part is not ready in time.
        """
        started: list[Startable] = []
        try:
            for part in self._startable(speech):
                started.append(part)
                await part.start()
        except BaseException:
            for part in reversed(started):
                await part.close()
            raise
        self._stopping.clear()
        self._threads = ThreadPoolExecutor(DETECTOR_THREADS, thread_name_prefix="engine-vad")
        ready = asyncio.Event()
        self._keeper = asyncio.create_task(self._keep(ready), name="offline engine")
        await ready.wait()

    async def close(self) -> None:
        """End every session, task, thread and process."""
        self._stopping.set()
        for host in tuple(self._hosts):
            host.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                while self._hosts:
                    self._idle.clear()
                    await self._idle.wait()
        if self._keeper is not None:
            await self._keeper
            self._keeper = None
        for part in reversed(self._startable()):
            await part.close()
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)  # at most one 100 ms slice each
            self._threads = None

    def model(self, hours: str = "") -> EngineModel:
        """The engine as a voice model of this process; `hours` are told to callers who ask."""
        return EngineModel(self, hours)

    async def serve(self, transport: Transport, dialect: Dialect = GA, model: str = "") -> None:
        """Serve one client until it leaves, then close the transport.

        `dialect` is the one that the client announced; its first update has the last word. `model`
        is the one that it asks for.

        A failure inside the engine ends this session only: the client gets an error, the log the
        reason.
        """
        if not self.running or self.sessions >= self.max_sessions:
            await self._refuse(transport)
            return
        await self._host(transport, dialect, model=model)

    async def serve_in_process(self, hours: str = "") -> ClientTransport:
        """Serve a session in the engine's own task group; the client's end of the pipe.

        Raises:
            VoiceUnavailable: the engine is full (`engine_at_capacity`) or not running.
        """
        if self._group is None or not self.running:
            raise VoiceUnavailable("the offline engine is not running", code="engine_stopped")
        if self.sessions >= self.max_sessions:
            raise VoiceUnavailable("the offline engine is full", code=AT_CAPACITY)
        theirs, ours = pipe()  # the client has the first end
        self._promised += 1
        self._group.create_task(self._host_promised(ours, hours), name="offline engine session")
        return theirs

    async def _keep(self, ready: asyncio.Event) -> None:
        """Own the task group of this process's sessions, whichever task starts and closes it."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            ready.set()
            await self._stopping.wait()
        self._group = None

    async def _host_promised(self, transport: Transport, hours: str) -> None:
        self._promised -= 1
        if self._stopping.is_set():
            await transport.close(_GOING_AWAY)
            return
        await self._host(transport, hours=hours)

    async def _host(
        self, transport: Transport, dialect: Dialect = GA, *, hours: str = "", model: str = ""
    ) -> None:
        assert self._threads is not None
        session = EngineSession(
            self._parts.make_responder(hours), _ids(), voice=self._voice, limits=self._limits
        )
        host = SessionHost(session, self._parts, transport, self._threads, dialect, model)
        self._hosts.add(host)
        code = 1000
        try:
            await host.run()
            if self._stopping.is_set():
                code = _GOING_AWAY
        except Exception:  # one session's failure must not end the others
            code = _INTERNAL_ERROR
            logger.exception("engine session failed", extra={"session_id": session.config.id})
            await _send_error(
                transport, "internal_error", "The engine failed; please connect again."
            )
        finally:
            self._hosts.discard(host)
            self._idle.set()
            await transport.close(code)

    async def _refuse(self, transport: Transport) -> None:
        logger.warning("engine session refused", extra={"sessions": self.sessions})
        await _send_error(transport, AT_CAPACITY, "All lines of the offline engine are busy.")
        await transport.close(_TRY_AGAIN_LATER)

    def _startable(self, speech: bool = True) -> list[Startable]:
        voices = (self._parts.recognizer, self._parts.synthesizer) if speech else ()
        return [part for part in (*self._parts.owned, *voices) if isinstance(part, Startable)]


class EngineModel:
    """The engine as a `VoiceModel`."""

    def __init__(self, engine: Engine, hours: str = "") -> None:
        self._engine = engine
        self._hours = hours

    @property
    def name(self) -> str:
        return PIPELINE_MODEL if self._engine.has_chain else ENGINE_MODEL

    async def connect(self, config: SessionConfig) -> VoiceConnection:
        """Open a session that has confirmed `config`.

        Raises:
            VoiceRefused: the engine does not have such settings.
            VoiceUnavailable: it is full (`engine_at_capacity`) or not running.
        """
        return await open_connection(await self._engine.serve_in_process(self._hours), config)


async def _send_error(transport: Transport, code: str, message: str) -> None:
    error = ErrorDetail(type="server_error", code=code, message=message)
    with contextlib.suppress(VoiceClosed):
        await transport.send(
            RealtimeProtocol(Side.SERVER).send(ErrorEvent(error, event_id="event_last"))
        )


def _ids() -> Callable[[str], str]:
    """Make ids that are unique among all sessions: `msg_5f0c2a9be1d4_3`."""
    key, numbers = secrets.token_hex(6), itertools.count(1)
    return lambda kind: f"{kind}_{key}_{next(numbers)}"
