"""The listener: uvicorn, with the signals in our own hands.

uvicorn closes every websocket within 40 ms of SIGTERM, and runs the shutdown hook of the
application only then. Here the first SIGTERM or SIGINT starts `drain` while the listener stays
open: live calls go on, and the carrier's callbacks for them are still answered. The server stops as
soon as `drain` returns. A second signal ends the waiting. A process that something keeps is ended
by `watchdog`.

Follows uvicorn 0.54. The switchboard decides what is refused while the server drains.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from dataclasses import replace
from types import FrameType
from typing import Any

import uvicorn

from app.settings import open_files
from app.web.realtime import MAX_MESSAGE_BYTES, REALTIME_PATH
from app.web.server.listener import BACKLOG, bind
from app.web.server.socket_passing import SocketPassing, with_socket_passing
from app.web.server.sockets import SocketCounts, SocketLimits, guarded_protocols
from app.web.server.watchdog import Watchdog

__all__ = ["Server", "make_server", "running"]

logger = logging.getLogger(__name__)

SHUTDOWN_HOOKS_S = 5.0
"""Upper bound for closing the last sockets (1 s of it) and running the application's hooks."""

FORCED_SHUTDOWN_S = 1.0

LEAVE_S = 2.0
"""The time for the process to end once nothing is served any more."""

FORCED_LEAVE_S = 5.0
"""The time for a process that was told to end at once: calls hang up, sockets close, logs end."""

DRAIN_MARGIN_S = 30.0
"""Beyond the drain's own limit: goodbyes, last reports, sockets, hooks and jobs have limits too."""

KEEP_SIGNALS_S = 1.0

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

Drain = Callable[[], Awaitable[None]]


class Server(uvicorn.Server):
    """One listener in one process; `port` is known before it starts."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        listener: socket.socket,
        drain: Drain,
        counts: SocketCounts,
        drain_limit_s: float = 0.0,
        own_signals: bool = True,
        signals_force: bool = True,
    ) -> None:
        """`signals_force`: a second signal ends the waiting; else only `force` does."""
        super().__init__(config)
        self._watchdog = Watchdog(lambda: self.exit_code)
        self._drain_limit_s = drain_limit_s
        self._served = False
        self._signaled = False
        self.counts = counts
        self.forced = False
        self.failed = False
        self.port = int(listener.getsockname()[1])
        self.ready = asyncio.Event()
        self._listener = listener
        self._drain = drain
        self._own_signals = own_signals
        self._signals_force = signals_force
        self._stop_wanted = asyncio.Event()
        self._drain_timeout: asyncio.Timeout | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._serving: asyncio.Task[Any] | None = None
        self._holds_signals = False

    @property
    def stopping(self) -> bool:
        """True from the first signal on."""
        return self._stop_wanted.is_set()

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve in a loop of its own (uvloop where there is one) until stopped.

        Afterwards the process has `LEAVE_S` to end: the loop waits for tasks that ignore their
        cancellation, and the interpreter for threads.
        """
        self._watchdog.start()
        make_loop = self.config.get_loop_factory() or asyncio.new_event_loop
        with asyncio.Runner(loop_factory=lambda: _lasting(make_loop(), self._may_end)) as runner:
            try:
                runner.run(self.serve(sockets=sockets or [self._listener]))
            except asyncio.CancelledError:
                # Nothing of ours cancels this task: an operator's function cancels all there are.
                logger.critical("something cancelled all tasks of the process")

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve in the running loop until stopped."""
        self._serving = asyncio.current_task()
        try:
            await super().serve(sockets=sockets or [self._listener])
            self._served = True
        finally:
            self._watchdog.within(LEAVE_S)

    def _may_end(self) -> bool:
        """The loop has nothing to serve: nothing yet, or nothing any more."""
        return not self.ready.is_set() or self._serving is None or self._serving.done()

    @property
    def exit_code(self) -> int:
        """1 if the server failed, calls were cut, or it did not end by itself; else 0."""
        return 0 if self._served and not (self.forced or self.failed) else 1

    def stop(self) -> None:
        """Begin to drain; called again: force. From the loop's own thread."""
        if not self._stop_wanted.is_set():
            logger.info("drain started")
            self._stop_wanted.set()
            return
        if not self.forced:
            logger.warning("drain cut short")
        self.forced = True
        if self._drain_timeout is not None:
            self._drain_timeout.reschedule(asyncio.get_running_loop().time())

    def begin_drain(self) -> None:
        """Drain, unless it is draining already. From the loop's own thread."""
        self._watchdog.within(self._drain_limit_s + DRAIN_MARGIN_S)
        if not self.stopping:
            self.stop()

    def force(self) -> None:
        """End the waiting. From the loop's own thread."""
        self._watchdog.within(FORCED_LEAVE_S)
        self.begin_drain()
        self.stop()

    def fail(self) -> None:
        """Stop at once: the application can serve no longer. From the loop's own thread."""
        self.failed = True
        self.forced = True
        self._stop_wanted.set()
        if self._drain_timeout is not None:
            self._drain_timeout.reschedule(asyncio.get_running_loop().time())

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._loop = asyncio.get_running_loop()
        self.ready.set()

    async def adopt(self, passed: socket.socket, head: bytes) -> None:
        """Serve a connection that another process has accepted, and of which it has read `head`."""

        def make_protocol() -> asyncio.Protocol:
            made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
            )
            return made

        passed.setblocking(False)
        try:
            _, protocol = await asyncio.get_running_loop().connect_accepted_socket(
                make_protocol, passed
            )
        except OSError:  # the peer has gone meanwhile
            passed.close()
            return
        protocol.data_received(head)

    async def main_loop(self) -> None:
        """Wait for the first signal, then for the last call."""
        await self.on_tick(
            0
        )  # Sets uvicorn's default headers: with no date header, once is enough.
        while not self.stopping:
            self._keep_signals()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KEEP_SIGNALS_S):
                    await self._stop_wanted.wait()
        try:
            async with asyncio.timeout(None) as self._drain_timeout:
                if self.forced:
                    return
                await self._drain()
        except TimeoutError:
            if not self.forced:
                raise
        finally:
            self._drain_timeout = None
            self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        limit_s = SHUTDOWN_HOOKS_S
        if self.forced:
            self.config.timeout_graceful_shutdown = 0
            limit_s = FORCED_SHUTDOWN_S
        try:
            async with asyncio.timeout(limit_s):
                await super().shutdown(sockets=sockets)
        except TimeoutError:
            logger.warning("shutdown hooks took too long")

    def leave_signals(self) -> None:
        """Take no signals: the program around the server does. Before it serves."""
        self._own_signals = False

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """As uvicorn's, but a drained process has ended well: no signal is raised again."""
        # Python lets only the main thread have signal handlers.
        if not self._own_signals or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        self._holds_signals = True
        try:
            yield
        finally:
            self._holds_signals = False
            for number, handler in before.items():
                signal.signal(number, handler)

    def _keep_signals(self) -> None:
        """Take the signals back from whatever else has: an operator's function runs a library."""
        for number in _SIGNALS if self._holds_signals else ():
            if signal.getsignal(number) != self.handle_exit:
                logger.warning("signal handler was replaced", extra={"signal": number.name})
                signal.signal(number, self.handle_exit)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Runs between two bytecodes of whatever the loop is doing: only hand over.
        again = (self._signaled and self._signals_force) or self._loop is None
        self._signaled = True
        self._watchdog.within(FORCED_LEAVE_S if again else self._drain_limit_s + DRAIN_MARGIN_S)
        if self._loop is None:
            self.should_exit = True  # Still starting up: there is nothing to drain.
        else:
            self._loop.call_soon_threadsafe(self.stop if self._signals_force else self.begin_drain)


def _lasting(
    loop: asyncio.AbstractEventLoop, may_end: Callable[[], bool]
) -> asyncio.AbstractEventLoop:
    """The loop, which goes on where a callback or a task ends it by SystemExit, or by `stop`.

    Operators' functions run in tasks of their own that contain this, but they can start tasks and
    callbacks past them.
    """
    run_forever = loop.run_forever

    def run() -> None:
        while True:
            try:
                run_forever()
            except (SystemExit, KeyboardInterrupt):
                if may_end():
                    raise
                logger.exception("something tried to end the process")
            else:
                if may_end():
                    return
                logger.error("something tried to stop the event loop")

    loop.run_forever = run  # type: ignore[method-assign]
    return loop


def _limits(descriptors: int | None) -> SocketLimits:
    """Idle sockets leave most descriptors to calls, however few the system allows."""
    limits = SocketLimits(message_bytes_by_path={REALTIME_PATH: MAX_MESSAGE_BYTES})
    if descriptors is None:
        return limits
    return replace(
        limits,
        waiting_sockets=min(limits.waiting_sockets, max(1, descriptors // 4)),
        known_sockets=min(limits.known_sockets, max(1, descriptors // 8)),
    )


def make_server(  # noqa: PLR0913 - the means of one server, by their names
    app: Callable[..., Any],
    *,
    host: str,
    port: int,
    drain: Drain,
    drain_limit_s: float = 0.0,
    limits: SocketLimits | None = None,
    own_signals: bool = True,
    listener: socket.socket | None = None,
    socket_passing: SocketPassing | None = None,
) -> Server:
    """Bind the port and prepare the server; port 0 takes a free one.

    `drain_limit_s`: how long `drain` may take by its own account. One of several workers is given
    the `listener` that they share, and the way to the others.

    Raises:
        ConfigError: the address cannot be bound.
    """
    limits = limits or _limits(open_files())
    counts = SocketCounts()
    http, websocket = guarded_protocols(limits, counts)
    if socket_passing is not None:
        http = with_socket_passing(http, socket_passing)
    config = uvicorn.Config(
        app,
        http=http,
        ws=websocket,
        loop="auto",
        lifespan="on",
        interface="asgi3",
        # Twilio's messages are under 1 KiB; the guard raises the limit for other paths.
        ws_max_size=limits.message_bytes,
        ws_per_message_deflate=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        access_log=False,
        log_config=None,
        log_level="warning",
        timeout_keep_alive=limits.idle_s,
        timeout_graceful_shutdown=1,
        backlog=BACKLOG,
    )
    return Server(
        config,
        listener=bind(host, port) if listener is None else listener,
        drain=drain,
        counts=counts,
        drain_limit_s=drain_limit_s,
        own_signals=own_signals,
        # A worker's supervisor tells it more than a signal can.
        signals_force=socket_passing is None,
    )


@contextlib.asynccontextmanager
async def running(server: Server, *, own_signals: bool = True) -> AsyncIterator[Server]:
    """Serve in the running loop for as long as the block lasts, then drain.

    Without `own_signals` a signal ends the block, as in any program, and not the server alone.
    """
    if not own_signals:
        server.leave_signals()
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server.serve())
        started = group.create_task(server.ready.wait())
        await asyncio.wait({serving, started}, return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        try:
            yield server
        finally:
            if not server.stopping:
                server.stop()
            # Before an exception of the block reaches the group, which would cancel the server.
            await asyncio.wait({serving})
