"""The composition root: makes a server of settings.

Names the carriers; `app.assembly.voice_models` names the voice models.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, TypedDict, cast

from fastapi import APIRouter, FastAPI
from pydantic import SecretStr

from app.agents.agent import Agent
from app.agents.analysis.review import CallReviews, Reviewer
from app.api_keys import ApiKeys
from app.assembly import Assembly, assemble
from app.assembly.configuration import Configuration, Loaded
from app.assembly.destinations import make_allowances
from app.assembly.gateway import make_gateway
from app.assembly.outbound import from_number_of, make_outbound_policy
from app.assembly.voice_models import VoiceModels, offline_engine
from app.background import BackgroundJobs
from app.bus import Bus
from app.calls.budget import Budget
from app.calls.live_calls import LiveCalls
from app.calls.observers.journal import log_event, log_review
from app.calls.observers.live_feed import CALL_EVENTS, LiveFeed, plain
from app.calls.observers.message_files import MessageFiles
from app.calls.observers.shared_use import share_budget, share_use
from app.calls.outbound.campaigns import Campaigns, next_for_contact
from app.calls.outbound.dialer import Dialer, DialerOptions
from app.calls.outbound.outbound import Outbound
from app.calls.recording.writer import Recorder
from app.calls.seen_calls import SeenCalls
from app.calls.switchboard import Switchboard
from app.calls.transfer.tools import Lookup
from app.carrier.base import Destination
from app.carrier.browser import WithBrowserCalls
from app.carrier.twilio.control import TwilioControl
from app.carrier.twilio.front import TwilioFront
from app.carrier.twilio.rest import TwilioRest
from app.carrier.twilio.transfer import Site
from app.console_logins import Logins
from app.errors import AppError, ConfigError
from app.events import AnalysisFailed, CallEvent, CallReviewed
from app.gateway.gateway import Gateway
from app.gateway.reports import Reports
from app.gateway.usage import UsageBook
from app.network import use_network
from app.settings import (
    CarrierCredentials,
    Mode,
    Settings,
    carrier_credentials,
    load,
    notices,
)
from app.store.files import CallFiles
from app.store.history import CallHistory
from app.store.retention import Retention
from app.store.sql.gateway import GatewayStore
from app.store.sql.outbound import SqlOutbound
from app.store.sql.store import SqlStore
from app.store.sql.webhooks import WebhookOutbox
from app.store.writer import instance_name
from app.web.access import Door
from app.web.api import api_router
from app.web.api.guard import Guard, guarded_router
from app.web.api.history import add_history_routes
from app.web.api.phone import BrowserPhone
from app.web.api.supervision import Supervision
from app.web.app import make_app
from app.web.approvals import approvals_router
from app.web.console_routes import console_router
from app.web.forwarding import Forwarding
from app.web.handover import Handover, stream_path_of
from app.web.health import LoopMonitor, health_router
from app.web.metrics import Metrics
from app.web.phone import phone_router
from app.web.realtime import realtime_router
from app.web.serving import Server, make_server
from app.web.tickets import SocketTickets
from app.webhooks import WebhookDeliverer
from app.workers.board import WorkerState
from app.workers.lifeline import hold
from app.workers.workplace import Workplace

if TYPE_CHECKING:
    from uvicorn._types import ASGIApplication

    from app.engine import Engine
    from app.tracing import CallTraces

__all__ = ["Trunkline", "build", "call_store", "fallback_of", "serve", "stored_calls"]

logger = logging.getLogger(__name__)

CONFIGURATION: Final = "configuration"
"""The topic of the bus under which a process tells the version that it routes calls by."""

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
    handover: Handover


def serve(
    settings: Settings,
    announce: Callable[[int], None] = lambda port: None,
    agents: Sequence[Agent] = (),
    workplace: Workplace | None = None,
) -> int:
    """Run until the last call after a signal is over; exit code 1 if it failed or calls were cut.

    `announce` takes the port as soon as calls are answered on it. `agents` are written in Python.
    `workplace` is the place of one of several workers.

    Raises:
        ConfigError: as `build`, or a server of tools is not there.
        VoiceUnavailable: the engine's speech parts did not come up.
    """

    def started(port: int) -> None:
        _spare_the_sound()
        announce(port)

    built = build(settings, started, agents, workplace)
    # The reason for a failed start is given below in a sentence, and not as uvicorn's traceback.
    logging.getLogger("uvicorn.error").addFilter(lambda _record: not built.not_started)
    try:
        built.server.run()
    except SystemExit:  # uvicorn's, for a start that failed
        if built.not_started:
            raise built.not_started[0] from None
        raise
    return built.server.exit_code


def _spare_the_sound() -> None:
    """Keep the garbage collector off the way of the sound, for as long as the process lasts.

    What the start has made stays: a collection that walked it all would hold every call up for as
    long as three frames last. Calls leave little behind that only a collector finds, so that it
    may come seldom.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def fallback_of(settings: Settings, number: str) -> Destination | None:
    """The destination for callers of one of our numbers whom no agent can take, if any.

    Raises:
        ConfigError: the settings are wrong.
    """
    own = settings.numbers.get(number)
    if own is None or own.fallback is None:
        return None
    return assemble(settings).destinations.by_name[own.fallback]


def build(  # noqa: PLR0915 - the parts of a server, one after another
    settings: Settings,
    announce: Callable[[int], None] = lambda port: None,
    agents: Sequence[Agent] = (),
    workplace: Workplace | None = None,
) -> Trunkline:
    """Wire a server from settings that were checked; the rest as for `serve`.

    Raises:
        ConfigError: credentials are incomplete, agents do not fit, or the address cannot be bound.
    """
    use_network(settings.network.rule)
    credentials = carrier_credentials(settings)
    engine = offline_engine(settings, 1 if workplace is None else workplace.count)
    metrics = Metrics()
    bus = _bus(settings, workplace, metrics)
    configuration = _configuration(
        settings, engine, metrics, bus, lambda call_id: switchboard.transfers_of(call_id), agents
    )

    stream_path = _stream_path(settings, bus)

    def site() -> Site:
        return _site(settings, server.port, stream_path)

    carrier = _carrier(settings, credentials, site)
    history, deliverer = _keeping(settings, configuration, metrics)
    jobs = BackgroundJobs()
    live_feed = _live_feed(bus)
    not_started: list[AppError] = []
    traces = _traces(settings)
    recorder = Recorder(_files(settings))
    budget = share_budget(bus, _budget(settings, metrics))
    switchboard = Switchboard(
        route=configuration.route,
        carrier=WithBrowserCalls(carrier),
        capacity=settings.limits.max_calls if engine is None else engine.max_sessions,
        token_life_s=settings.limits.token_ttl_s,
        drain_warning_s=settings.limits.duration_warning_s,
        allowances=share_use(
            bus, make_allowances(settings), lambda call_id: switchboard.call(call_id) is not None
        ),
        observers=(
            log_event,
            metrics.observe,
            configuration.observe,
            lambda event: bus.publish(CALL_EVENTS, plain(event)),
            lambda event: outbound.dialer.observe(event),
            MessageFiles(settings.offline.messages_dir, jobs).observe,
            *((history.observe,) if history else ()),
            *((traces.observe,) if traces else ()),
            *_reviews(configuration.current.assembly, jobs, history),
        ),
        recorder=recorder,
        budget=budget,
        neighbors=workplace,
        seen=SeenCalls(settings.state_dir / "recent_calls"),
    )

    gateway = _gateway(settings, engine, budget, history, metrics)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(_failure_logged(server))
            stack.push_async_callback(carrier.aclose)
            await stack.enter_async_context(history.writing() if history else nullcontext())
            try:
                await _open_models(stack, engine, configuration)
            except AppError as error:
                not_started.append(error)
                raise
            served = gateway.open() if gateway is not None else nullcontext()
            for part in (
                jobs,
                recorder.open(),
                budget.open(),
                _sent_at_end(traces),
                configuration.reloaded_on_hangup(),
                served,
            ):
                await stack.enter_async_context(part)
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            for work in (LoopMonitor(metrics), *(() if deliverer is None else (deliverer,))):
                stack.callback(tasks.create_task(work.run()).cancel)
            # Closed after the switchboard, whose last calls it writes down.
            await stack.enter_async_context(outbound.open())
            await stack.enter_async_context(switchboard.open())
            await stack.enter_async_context(bus.open())
            if workplace is not None:
                stack.enter_context(_at_work(workplace, server, tasks))
            announce(server.port)
            try:
                yield
            except BaseException:
                # Nothing but the end of the switchboard's group comes in here. A server that goes
                # on without it answers "busy" for ever.
                server.fail()
                raise

    live = LiveCalls(switchboard, bus)
    tickets = SocketTickets()
    supervision = Supervision(switchboard.call, tickets, bus, stream_path=stream_path)
    phone = BrowserPhone(
        switchboard.admit,
        tickets,
        account_id=credentials.account_sid,
        stream_path=stream_path,
        numbers=lambda: [own["number"] for own in configuration.numbers()],
    )
    workers = 1 if workplace is None else workplace.count
    outbound = _outbound(settings, carrier, history, switchboard, configuration, workers)
    front = TwilioFront(
        auth_tokens=credentials.auth_tokens,
        shared_keys=credentials.shared_keys,
        account_id=credentials.account_sid,
        site=site,
        validate=settings.twilio.validate_signatures,
        start_deadline_s=settings.limits.stream_start_s,
    )
    forwarding = Forwarding(
        bus,
        call_of=front.call_of,
        knows=switchboard.knows,
        new_call_path=settings.server.webhook_path,
        knows_placed=outbound.dialer.knows,
        placement=(lambda: bus.name) if workplace is None else workplace.placement,
    )
    routers: list[APIRouter] = [
        phone_router(
            front,
            switchboard,
            metrics,
            webhook_path=settings.server.webhook_path,
            status_path=settings.server.status_path,
            stream_path=stream_path,
            tickets=tickets,
            others_stream_path=f"{settings.server.websocket_path}/{{other}}"
            if bus.shared
            else None,
            forward=forwarding.forward if bus.shared else None,
            dialer=lambda: outbound.dialer,
            # It carries speech: never without a signature to ask for.
            transcript_feed=settings.transcript_feed_on and settings.twilio.validate_signatures,
        ),
        health_router(
            metrics,
            _door(settings, settings.server.metrics_token),
            reasons_not_ready=switchboard.reasons_not_ready,
            degraded=lambda: _degraded(configuration, history, bus),
            bus=bus,
        ),
        approvals_router(live, metrics, _door(settings, settings.server.operator_token)),
        *_api(
            settings,
            live,
            metrics,
            live_feed,
            configuration,
            history,
            bus,
            deliverer,
            phone,
            outbound,
            partial(_overview, configuration, switchboard, budget, history, bus),
            supervision,
        ),
        *_realtime(settings, gateway, metrics),
    ]
    app = make_app(routers, lifespan=lifespan)
    forwarding.answer_with(app)
    server = make_server(
        cast("ASGIApplication", app),
        host=settings.server.host,
        port=settings.server.port,
        drain=lambda: _drain(
            settings, switchboard, gateway, metrics, live_feed, workplace, outbound
        ),
        drain_limit_s=settings.limits.drain_timeout_s,
        **_among_workers(settings, workplace),
    )
    metrics.watch_sockets(server.counts)
    return Trunkline(
        server=server,
        switchboard=switchboard,
        metrics=metrics,
        not_started=not_started,
        history=history,
        feed=live_feed,
        outbound=outbound,
    )


@contextlib.contextmanager
def _failure_logged(server: Server) -> Iterator[None]:
    """Log why a server has failed: known once its tasks have ended, which it cancels till then."""
    try:
        yield
    except BaseException:
        if server.failed:
            logger.critical("server failed", exc_info=True)
        raise


def _configuration(
    settings: Settings,
    engine: Engine | None,
    metrics: Metrics,
    bus: Bus,
    lookup: Lookup,
    agents: Sequence[Agent],
) -> Configuration:
    """The configuration that calls are routed by; it can be read from its file again."""

    def assembled(found: Settings) -> Loaded:
        models = VoiceModels(found, engine)
        return Loaded(found, assemble(found, models, lookup, agents), models)

    first = assembled(settings)
    for notice in first.assembly.notices():
        logger.warning("configuration notice", extra={"notice": notice})
    again = partial(_load_again, settings)

    def on_version(version: str) -> None:
        metrics.set_configuration(version)
        bus.publish(CONFIGURATION, {"version": version})

    configuration = Configuration(first, lambda: assembled(again()), on_version)
    bus.subscribe(CONFIGURATION, lambda told: configuration.follow(told["version"]))
    return configuration


def _load_again(settings: Settings) -> Settings:
    """The settings as their file has them now, at the address that is in use.

    Raises:
        ConfigError: the file is wrong, or the settings come from none.
    """
    origin = settings.origin
    if origin.folder is None:
        raise ConfigError("the settings come from no file")
    found = load(origin.folder / origin.name, os.environ)
    address = {"host": settings.server.host, "port": settings.server.port}
    return found.model_copy(update={"server": found.server.model_copy(update=address)})


def _budget(settings: Settings, metrics: Metrics) -> Budget:
    wanted = settings.budget
    budget = Budget(
        wanted.per_day_usd,
        settings.state_dir / "budget.json",
        warn_at=wanted.warn_at,
        time_zone=wanted.time_zone,
    )
    metrics.watch_budget(lambda: (budget.spent_usd, budget.per_day_usd))
    return budget


def call_store(settings: Settings) -> SqlStore:
    """The store of the history of calls that these settings name.

    Raises:
        ConfigError: its URL is wrong, or its driver is not installed.
    """
    return SqlStore(_revealed(settings.store.url) or settings.state_dir / "calls.db")


def _files(settings: Settings) -> CallFiles:
    return CallFiles(settings.state_dir / "recordings", settings.offline.messages_dir)


def _history(settings: Settings, metrics: Metrics) -> CallHistory | None:
    """The history of calls, unless it is turned off."""
    if not settings.store.enabled:
        return None
    history = CallHistory(
        call_store(settings),
        state_dir=settings.state_dir,
        files=_files(settings),
        retention=Retention(**settings.store.retention.model_dump()),
        spool_mb=settings.store.spool_mb,
    )
    metrics.watch_store(history.counts)
    return history


async def _open_models(
    stack: contextlib.AsyncExitStack, engine: Engine | None, configuration: Configuration
) -> None:
    if engine is not None:
        await engine.start()
        stack.push_async_callback(engine.close)
    await stack.enter_async_context(configuration.open())


def _among_workers(settings: Settings, workplace: Workplace | None) -> _AmongWorkers:
    if workplace is None:
        return {}
    path = settings.server.websocket_path
    return {
        "listener": workplace.listener,
        "handover": Handover(workplace.name, path, workplace.inboxes.pass_on),
    }


async def _drain(
    settings: Settings,
    switchboard: Switchboard,
    gateway: Gateway | None,
    metrics: Metrics,
    live_feed: LiveFeed,
    workplace: Workplace | None,
    outbound: Outbound,
) -> None:
    metrics.set_draining(True)
    if workplace is not None:
        workplace.set_state(WorkerState.DRAINING)
    limit_s = settings.limits.drain_timeout_s
    async with asyncio.TaskGroup() as both:
        both.create_task(switchboard.drain(limit_s))
        if gateway is not None:
            both.create_task(gateway.drain(limit_s))
        both.create_task(outbound.stop())
    if workplace is not None:
        await workplace.all_drained()
    live_feed.close()


@contextlib.contextmanager
def _at_work(workplace: Workplace, server: Server, tasks: asyncio.TaskGroup) -> Iterator[None]:
    """Take calls as one of several workers inside the block."""

    def adopt(passed: socket.socket, head: bytes) -> None:
        tasks.create_task(server.adopt(passed, head))

    workplace.inboxes.on_socket(adopt)
    with hold(workplace.lifeline, drain=server.begin_drain, force=server.force):
        workplace.set_state(WorkerState.READY)
        yield


def _site(settings: Settings, port: int, stream_path: str) -> Site:
    return Site(
        base_url=settings.server.public_url or _local_url(settings.server.host, port),
        stream_path=stream_path,
        lost_message=settings.twilio.lost_message,
        busy_message=settings.twilio.busy_message,
        keys_hint=settings.twilio.keys_hint,
        voice=settings.twilio.say_voice,
        language=settings.twilio.say_language,
        own_number=next(iter(settings.all_numbers), ""),
    )


def _bus(settings: Settings, workplace: Workplace | None, metrics: Metrics) -> Bus:
    """The bus: of this process, of the workers of this server, or of several servers.

    Raises:
        ConfigError: both at once, or what reaches Redis is not installed.
    """
    url = _revealed(settings.bus.url)
    if workplace is not None:
        if url:
            place = settings.origin.place("bus", "url")
            raise ConfigError(
                f"{place}: bus.url is for servers of one process each: set server.workers to 1, "
                "and run one server for each core"
            )
        return Bus(workplace.inboxes, workplace.name)
    if not url:
        return Bus()
    from app.redis_link import RedisLink  # its package is an extra that others need not have

    bus = Bus(RedisLink(url), settings.bus.server or _machine_name())
    metrics.watch_bus(bus)
    return bus


def _machine_name() -> str:
    name = re.sub(r"[^A-Za-z0-9]+", "-", socket.gethostname()).strip("-")
    return name[:63] or "server"


def _stream_path(settings: Settings, bus: Bus) -> str:
    """The path of the streams of calls that this process lets in: it names the process."""
    path = settings.server.websocket_path
    return stream_path_of(path, bus.name) if bus.shared else path


def _door(settings: Settings, token: SecretStr | None) -> Door:
    # With credentials a proxy or tunnel brings the internet in, from this machine's address.
    return Door(_revealed(token), open_to_local=settings.mode is Mode.DEVELOPMENT)


def _traces(settings: Settings) -> CallTraces | None:
    """Traces of calls, where a collector takes them.

    Raises:
        ConfigError: the extra is not installed.
    """
    otel = settings.otel
    if otel.endpoint is None:
        return None
    from app.tracing import CallTraces, otlp_exporter  # which an extra brings

    authorization = _revealed(otel.authorization)
    headers = {"authorization": authorization} if authorization else {}
    return CallTraces(otlp_exporter(otel.endpoint, headers), service=otel.service_name)


@contextlib.asynccontextmanager
async def _sent_at_end(traces: CallTraces | None) -> AsyncIterator[None]:
    """Send the traces that wait when the block ends."""
    try:
        yield
    finally:
        if traces is not None:
            await asyncio.to_thread(traces.close)


def _realtime(settings: Settings, gateway: Gateway | None, metrics: Metrics) -> list[APIRouter]:
    if gateway is None:
        return []
    door = _door(settings, settings.offline.realtime_token)
    query = settings.gateway.token_in_query
    return [realtime_router(gateway, metrics, door, token_in_query=query)]


def _gateway(
    settings: Settings,
    engine: Engine | None,
    budget: Budget,
    history: CallHistory | None,
    metrics: Metrics,
) -> Gateway | None:
    """The gateway behind `/v1/realtime`, where there is something to reach."""
    store = None
    if history is not None and isinstance(history.store, SqlStore):
        store = GatewayStore(history.store.database)
    book = UsageBook(store)
    observers = (log_event, *((history.observe,) if history else ()))
    return make_gateway(
        settings,
        engine,
        budget=budget,
        keys=ApiKeys(settings.state_dir),
        store=store,
        report=Reports(observers, metrics, book),
        book=book,
    )


def _keeping(
    settings: Settings, configuration: Configuration, metrics: Metrics
) -> tuple[CallHistory | None, WebhookDeliverer | None]:
    """The history of calls, and the webhooks that are served from it."""
    history = _history(settings, metrics)
    return history, _deliverer(history, configuration.current.assembly, metrics)


def _deliverer(
    history: CallHistory | None, assembly: Assembly, metrics: Metrics
) -> WebhookDeliverer | None:
    """The delivery of webhooks about calls, where there are any."""
    if history is None or not assembly.receivers or not isinstance(history.store, SqlStore):
        return None
    outbox = WebhookOutbox(history.store.database)
    return WebhookDeliverer(
        history.store, outbox, assembly.receivers, on_outcome=metrics.webhook_settled
    )


@contextlib.asynccontextmanager
async def stored_calls(settings: Settings) -> AsyncIterator[FastAPI]:
    """The API's routes of calls that were kept, over the database alone, for one program.

    Raises:
        ConfigError: no history is kept, or its URL is wrong.
    """
    metrics = Metrics()
    history = _history(settings, metrics)
    if history is None:
        raise ConfigError("no history of calls is kept: store is off")
    guard = Guard(
        ApiKeys(settings.state_dir),
        metrics,
        door=Door(open_to_local=True),
        operator_token="",
        requests_per_s=1_000,
        bus=Bus(),
    )
    router = guarded_router(guard)
    add_history_routes(router, history)
    try:
        yield make_app([router])
    finally:
        await history.store.close()


def _reviews(
    assembly: Assembly, jobs: BackgroundJobs, history: CallHistory | None
) -> list[Callable[[CallEvent], None]]:
    """The observer that has calls reviewed when they end, where they are to be."""
    plan = assembly.analysis
    if plan is None or plan.review is None or plan.ask is None:
        return []

    def tell(event: CallReviewed | AnalysisFailed) -> None:
        log_review(event)
        if history is not None:
            history.observe(event)

    reviewer = Reviewer(plan.review, plan.ask, jobs, tell, webhook=plan.webhook)
    return [CallReviews(reviewer).observe]


def _degraded(configuration: Configuration, history: CallHistory | None, bus: Bus) -> list[str]:
    """The parts of this process that callers or operators would miss now."""
    return [
        *configuration.degraded(),
        *(history.degraded() if history else ()),
        *(["bus"] if bus.degraded else ()),
    ]


async def _overview(
    configuration: Configuration,
    switchboard: Switchboard,
    budget: Budget,
    history: CallHistory | None,
    bus: Bus,
) -> dict[str, Any]:
    """This process at a glance."""
    current = configuration.current
    settings = current.settings
    found = [*notices(settings, datetime.now(UTC).date()), *current.assembly.notices()]
    return {
        "version": version("trunkline"),
        "mode": settings.mode.value,
        "voice": settings.voice_choice.value,
        "model": settings.openai_realtime.model,
        "configuration": current.version,
        "capacity": switchboard.capacity,
        "live": switchboard.active,
        "budget": {"spent_usd": budget.spent_usd, "per_day_usd": budget.per_day_usd},
        "not_ready": switchboard.reasons_not_ready(),
        "degraded": _degraded(configuration, history, bus),
        "notices": found,
        "history": None if history is None else {"events": dict(history.counts())},
    }


def _guard(settings: Settings, metrics: Metrics, bus: Bus) -> Guard:
    """The entrance to the API, for keys and for logins to the console."""
    console = settings.console
    life_s = console.login_hours * 3_600.0
    return Guard(
        ApiKeys(settings.state_dir),
        metrics,
        door=Door(open_to_local=_api_open_to_local(settings)),
        operator_token=_revealed(settings.server.operator_token),
        requests_per_s=settings.api.requests_per_s,
        bus=bus,
        logins=Logins(settings.state_dir, life_s=life_s) if console.enabled else None,
    )


def _api_open_to_local(settings: Settings) -> bool:
    """As for the other doors: once a token is set, or the internet comes in, it takes a key."""
    return settings.mode is Mode.DEVELOPMENT and not _revealed(settings.server.operator_token)


def _api(  # noqa: PLR0913 - the parts of the server that the API shows
    settings: Settings,
    live: LiveCalls,
    metrics: Metrics,
    feed: LiveFeed,
    configuration: Configuration,
    history: CallHistory | None,
    bus: Bus,
    deliverer: WebhookDeliverer | None,
    phone: BrowserPhone,
    outbound: Outbound,
    overview: Callable[[], Awaitable[dict[str, Any]]],
    supervision: Supervision,
) -> list[APIRouter]:
    """The routes of `/api/v1`, and of the console unless it is turned off."""
    guard = _guard(settings, metrics, bus)
    routers = [
        api_router(
            guard,
            keys=guard.keys,
            live=live,
            feed=feed,
            live_clients=settings.api.live_clients,
            configuration=configuration,
            history=history,
            bus=bus,
            outbox=None if deliverer is None else deliverer.outbox,
            phone=phone,
            outbound=outbound,
            overview=overview,
            supervision=supervision,
        )
    ]
    if guard.logins is not None:
        local = _api_open_to_local(settings)
        routers.append(console_router(guard, guard.logins, metrics, local=local))
    return routers


def _outbound(
    settings: Settings,
    carrier: TwilioControl,
    history: CallHistory | None,
    switchboard: Switchboard,
    configuration: Configuration,
    workers: int,
) -> Outbound:
    """Calls that are placed; all refused until they are enabled."""
    wanted = settings.outbound
    store = None
    if history is not None and isinstance(history.store, SqlStore):
        store = SqlOutbound(history.store.database)
    dialer = Dialer(
        policy=make_outbound_policy(settings),
        options=DialerOptions(
            from_number=from_number_of(settings),
            ring_s=wanted.ring_s,
            machine_detection=wanted.machine_detection,
            max_calls=wanted.max_calls,
            per_s=wanted.calls_per_second / workers,
        ),
        carrier=carrier,
        store=store,
        switchboard=switchboard,
        route=lambda agent, variables: replace(
            configuration.current.assembly.route_of(agent=agent), variables=variables
        ),
        owner=instance_name(),
        resume=lambda call_id: None if history is None else history.resume(call_id),
        next_for_contact=next_for_contact,
    )
    return Outbound(dialer, Campaigns(dialer))


def _carrier(
    settings: Settings, credentials: CarrierCredentials, site: Callable[[], Site]
) -> TwilioControl:
    """Twilio by REST; without an account, in development, a call ends with its socket."""
    if credentials.development:
        return TwilioControl(None, site)
    rest = TwilioRest(
        credentials.account_sid, credentials.auth_tokens[0], base_url=settings.twilio.rest_url
    )
    return TwilioControl(rest, site)


def _live_feed(bus: Bus) -> LiveFeed:
    feed = LiveFeed()
    bus.subscribe(CALL_EVENTS, feed.put)
    return feed


def _revealed(secret: SecretStr | None) -> str:
    return "" if secret is None else secret.get_secret_value()


def _local_url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
