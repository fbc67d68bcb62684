"""Runs a server: opens its parts, serves, drains, and closes them in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypedDict, cast

from fastapi import FastAPI

from app.agents.agent import Agent
from app.assembly import assemble
from app.calls.admission.switchboard import Switchboard
from app.calls.observers.live_feed import LiveFeed
from app.calls.outbound.outbound import Outbound
from app.carrier.base import Destination
from app.errors import AppError
from app.network import use_network
from app.parts import Parts
from app.settings import Settings
from app.store.history import CallHistory
from app.threads import in_thread
from app.web.app import make_app
from app.web.metrics import Metrics
from app.web.server.serving import Server, make_server
from app.web.server.socket_passing import SocketPassing
from app.workers.control_socket import obeying
from app.workers.scoreboard import WorkerState
from app.workers.worker_process import WorkerProcess

if TYPE_CHECKING:
    from uvicorn._types import ASGIApplication

    from app.tracing import CallTraces

__all__ = ["Trunkline", "build", "fallback_of", "serve"]

logger = logging.getLogger(__name__)

GC_THRESHOLDS: Final = (20_000, 20, 20)
"""Python's are 700 (2,000 since 3.12), 10, 10: a call that begins is worth several collections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trunkline:
    """A server that is ready to run, and the parts that tests look into."""

    server: Server
    switchboard: Switchboard
    metrics: Metrics
    not_started: list[AppError]
    """Errors that are found only at the start: tools or speech that fail."""
    history: CallHistory | None = None
    feed: LiveFeed
    outbound: Outbound


class _AmongWorkers(TypedDict, total=False):
    listener: socket.socket
    socket_passing: SocketPassing


def serve(
    settings: Settings,
    announce: Callable[[int], None] = lambda port: None,
    agents: Sequence[Agent] = (),
    worker: WorkerProcess | None = None,
) -> int:
    """Run until the last call after a signal is over; exit code 1 if it failed or calls were cut.

    `announce` takes the port as soon as calls are answered on it. `agents` are written in Python.
    `worker` is this process among several, where there are several.

    Raises:
        ConfigError: as `build`, or a server of tools is not there.
        VoiceUnavailable: the engine's speech parts did not come up.
    """

    def started(port: int) -> None:
        _tune_garbage_collector()
        announce(port)

    built = build(settings, started, agents, worker)
    # The reason for a failed start is given below in a sentence, and not as uvicorn's traceback.
    logging.getLogger("uvicorn.error").addFilter(lambda _record: not built.not_started)
    try:
        built.server.run()
    except SystemExit:  # uvicorn's, for a start that failed
        if built.not_started:
            raise built.not_started[0] from None
        raise
    return built.server.exit_code


def _tune_garbage_collector() -> None:
    """Keep the garbage collector off the way of the sound, for as long as the process lasts.

    What the start has made stays: a collection that walked it all would hold every call up for as
    long as three frames last. Calls leave little behind that only a collector finds, so that it
    may come seldom.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    gc.enable()  # unless the command has turned it off, it was on all the time


def fallback_of(settings: Settings, number: str) -> Destination | None:
    """The destination for callers of one of our numbers whom no agent can take, if any.

    Raises:
        ConfigError: the settings are wrong.
    """
    own = settings.numbers.get(number)
    if own is None or own.fallback is None:
        return None
    return assemble(settings).destinations.by_name[own.fallback]


def build(
    settings: Settings,
    announce: Callable[[int], None] = lambda port: None,
    agents: Sequence[Agent] = (),
    worker: WorkerProcess | None = None,
) -> Trunkline:
    """Wire a server from settings that were checked; the rest as for `serve`.

    Raises:
        ConfigError: credentials are incomplete, agents do not fit, or the address cannot be bound.
    """
    use_network(settings.network.rule)
    parts = Parts(settings, agents, worker, port=lambda: server.port)
    not_started: list[AppError] = []

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with _open(parts, server, not_started):
            announce(server.port)
            try:
                yield
            except BaseException:
                # Nothing but the end of the switchboard's group comes in here. A server that goes
                # on without it answers "busy" for ever.
                server.fail()
                raise

    app = make_app(parts.routers(), lifespan=lifespan)
    parts.forwarding.answer_with(app)
    server = make_server(
        cast("ASGIApplication", app),
        host=settings.server.host,
        port=settings.server.port,
        drain=lambda: _drain(parts),
        drain_limit_s=settings.limits.drain_timeout_s,
        **_among_workers(settings, worker),
    )
    parts.metrics.watch_sockets(server.counts)
    return Trunkline(
        server=server,
        switchboard=parts.switchboard,
        metrics=parts.metrics,
        not_started=not_started,
        history=parts.history,
        feed=parts.live_feed,
        outbound=parts.outbound,
    )


@contextlib.asynccontextmanager
async def _open(parts: Parts, server: Server, not_started: list[AppError]) -> AsyncIterator[None]:
    """Open the parts; at the end they close in the opposite order."""
    history, deliverer, worker = parts.history, parts.deliverer, parts.worker
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(_failure_logged(server))
        stack.push_async_callback(parts.carrier.aclose)
        await stack.enter_async_context(history.writing() if history else nullcontext())
        try:
            await _open_models(stack, parts)
        except AppError as error:
            not_started.append(error)
            raise
        for part in (
            parts.jobs,
            parts.recorder.open(),
            parts.budget.open(),
            _sent_at_end(parts.traces),
            parts.configuration.reloaded_on_hangup(),
            nullcontext() if parts.gateway is None else parts.gateway.open(),
        ):
            await stack.enter_async_context(part)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        for work in (parts.loop_monitor, *(() if deliverer is None else (deliverer,))):
            stack.callback(tasks.create_task(work.run()).cancel)
        # Closed after the switchboard, whose last calls it writes down.
        await stack.enter_async_context(parts.outbound.open())
        await stack.enter_async_context(parts.switchboard.open())
        await stack.enter_async_context(parts.bus.open())
        if worker is not None:
            stack.enter_context(_at_work(worker, server, tasks))
        yield


async def _open_models(stack: contextlib.AsyncExitStack, parts: Parts) -> None:
    if parts.engine is not None:
        await parts.engine.start()
        stack.push_async_callback(parts.engine.close)
    await stack.enter_async_context(parts.configuration.open())


async def _drain(parts: Parts) -> None:
    parts.metrics.set_draining(True)
    if parts.worker is not None:
        parts.worker.set_state(WorkerState.DRAINING)
    limit_s = parts.settings.limits.drain_timeout_s
    async with asyncio.TaskGroup() as all_parts:
        all_parts.create_task(parts.switchboard.drain(limit_s))
        if parts.gateway is not None:
            all_parts.create_task(parts.gateway.drain(limit_s))
        all_parts.create_task(parts.outbound.stop())
    if parts.worker is not None:
        await parts.worker.all_drained()
    parts.live_feed.close()


@contextlib.contextmanager
def _at_work(worker: WorkerProcess, server: Server, tasks: asyncio.TaskGroup) -> Iterator[None]:
    """Take calls as one of several workers inside the block."""

    def adopt(passed: socket.socket, head: bytes) -> None:
        tasks.create_task(server.adopt(passed, head))

    worker.inboxes.on_socket(adopt)
    with obeying(worker.control_socket, drain=server.begin_drain, force=server.force):
        worker.set_state(WorkerState.READY)
        yield


@contextlib.asynccontextmanager
async def _sent_at_end(traces: CallTraces | None) -> AsyncIterator[None]:
    """Send the traces that wait when the block ends."""
    try:
        yield
    finally:
        if traces is not None:
            await in_thread(traces.close)


@contextlib.contextmanager
def _failure_logged(server: Server) -> Iterator[None]:
    """Log why a server has failed: known once its tasks have ended, which it cancels till then."""
    try:
        yield
    except BaseException:
        if server.failed:
            logger.critical("server failed", exc_info=True)
        raise


def _among_workers(settings: Settings, worker: WorkerProcess | None) -> _AmongWorkers:
    if worker is None:
        return {}
    path = settings.server.websocket_path
    return {
        "listener": worker.listener,
        "socket_passing": SocketPassing(worker.name, path, worker.inboxes.pass_on),
    }
