"""The parts of a server, wired to one another; `app.main` runs them.

Names the carriers; `app.assembly.voice_models` names the voice models.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, cast

from fastapi import APIRouter, FastAPI
from pydantic import SecretStr

from app.agents.agent import Agent
from app.agents.analysis.review import CallReviews, Reviewer
from app.assembly import assemble, session_config
from app.assembly.configuration import Configuration, Loaded
from app.assembly.destinations import make_allowances
from app.assembly.gateway import make_gateway
from app.assembly.outbound import from_number_of, make_outbound_policy
from app.assembly.voice_models import VoiceModels, offline_engine, voices_of_numbers
from app.background import BackgroundJobs
from app.bus import Bus, Message
from app.calls.admission.budget import Budget
from app.calls.admission.levels import LiveLevels
from app.calls.admission.live_calls import LiveCalls
from app.calls.admission.seen_calls import SeenCalls
from app.calls.admission.switchboard import Switchboard
from app.calls.observers.journal import log_event, log_review
from app.calls.observers.live_feed import CALL_EVENTS, LiveFeed, plain
from app.calls.observers.message_files import MessageFiles
from app.calls.observers.shared_use import share_budget, share_use
from app.calls.outbound.campaigns import Campaigns, next_for_contact
from app.calls.outbound.dialer import Dialer, DialerOptions
from app.calls.outbound.outbound import Outbound
from app.calls.recording.recorder import Recorder
from app.carrier.base import CarrierCallId
from app.carrier.browser import WithBrowserCalls
from app.carrier.twilio.control import TwilioControl
from app.carrier.twilio.phone_webhooks import TwilioWebhooks
from app.carrier.twilio.rest import TwilioRest
from app.carrier.twilio.transfer import Site
from app.credentials.api_keys import ApiKeys
from app.credentials.console_logins import Logins
from app.credentials.passwords import Passwords
from app.doctor.store import check_store
from app.doctor.system_checks import CheckResult, failed, run_checks
from app.errors import ConfigError
from app.events import AnalysisFailed, CallEvent, CallReviewed
from app.gateway.gateway import Gateway
from app.gateway.reports import Reports
from app.gateway.usage import UsageBook
from app.realtime.connection import VoiceModel
from app.settings import Mode, Settings, VoiceChoice, carrier_credentials, load, notices
from app.settings.reader.secrets import hide_secrets
from app.store.codec import of_fields
from app.store.files import CallFiles
from app.store.history import CallHistory
from app.store.retention import Retention
from app.store.sql.database import Database
from app.store.sql.gateway import GatewayStore
from app.store.sql.outbound import SqlOutbound
from app.store.sql.store import SqlStore
from app.store.sql.webhooks import WebhookOutbox
from app.store.writer import instance_name
from app.web.api import api_router
from app.web.api.browser_phone import BrowserPhone
from app.web.api.guard import Guard, guarded_router
from app.web.api.history import add_history_routes
from app.web.api.supervision import Supervision
from app.web.app import make_app
from app.web.approvals import approvals_router
from app.web.clients import AccessRule
from app.web.console_routes import console_router
from app.web.forwarding import Forwarding
from app.web.health import LoopMonitor, health_router
from app.web.metrics import Metrics
from app.web.phone import phone_router
from app.web.realtime import realtime_router
from app.web.server.socket_passing import stream_path_of
from app.web.tickets import SocketTickets
from app.webhooks import WebhookDeliverer
from app.workers.worker_process import WorkerProcess

if TYPE_CHECKING:
    from app.engine.server import Engine
    from app.tracing import CallTraces

__all__ = ["Parts", "call_history", "call_store", "run_all_checks", "stored_calls"]

logger = logging.getLogger(__name__)

_PROCESS: Final = "process_status"
CONFIGURATION: Final = "configuration"
"""The topic of the bus under which a process tells the version that it routes calls by."""


class Parts:
    """The parts of a server. Each is made of the settings and of other parts, when first asked for.

    Making one opens nothing: `app.main` opens and closes them in their order.

    Raises (from any part):
        ConfigError: the settings name what is not there, or credentials are incomplete.
    """

    def __init__(
        self,
        settings: Settings,
        agents: Sequence[Agent] = (),
        worker: WorkerProcess | None = None,
        *,
        port: Callable[[], int],
    ) -> None:
        """`port` tells the port that the server listens on, once it does."""
        self.settings = settings
        self.agents = agents
        self.worker = worker
        self.port = port
        self.credentials = carrier_credentials(settings)
        self.metrics = Metrics()
        self.jobs = BackgroundJobs()
        self.tickets = SocketTickets()
        self.recorder = Recorder(_files(settings))

    # Models, agents and routes ------------------------------------------------------------------

    @property
    def workers(self) -> int:
        """The number of processes that share the work of this server."""
        return 1 if self.worker is None else self.worker.count

    @cached_property
    def engine(self) -> Engine | None:
        """The offline engine, where calls or other clients are to reach it."""
        return offline_engine(self.settings, self.workers)

    @cached_property
    def configuration(self) -> Configuration:
        """The configuration that calls are routed by; it can be read from its file again."""

        def assembled(found: Settings) -> Loaded:
            models = VoiceModels(found, self.engine)
            assembly = assemble(
                found, models, lambda call_id: self.switchboard.transfers_of(call_id), self.agents
            )
            return Loaded(found, assembly, models)

        def on_version(version: str) -> None:
            self.metrics.set_configuration(version)
            self.bus.publish(CONFIGURATION, {"version": version})

        first = assembled(self.settings)
        for notice in first.assembly.notices():
            logger.warning("configuration notice", extra={"notice": notice})
        again = partial(_load_again, self.settings)
        configuration = Configuration(first, lambda: assembled(again()), on_version)
        self.bus.subscribe(CONFIGURATION, lambda told: configuration.follow(told["version"]))
        return configuration

    # The phone ----------------------------------------------------------------------------------

    @cached_property
    def bus(self) -> Bus:
        """The bus: of this process, of the workers of this server, or of several servers.

        Raises:
            ConfigError: both at once, or what reaches Redis is not installed.
        """
        settings, worker = self.settings, self.worker
        url = _revealed(settings.bus.url)
        if worker is not None:
            if url:
                place = settings.origin.place("bus", "url")
                raise ConfigError(
                    f"{place}: bus.url is for servers of one process each: "
                    "set server.workers to 1, and run one server for each core"
                )
            return Bus(worker.inboxes, worker.name)
        if not url:
            return Bus()
        from app.redis_link import RedisLink  # its package is an extra that others need not have

        bus = Bus(RedisLink(url), settings.bus.server or _machine_name())
        self.metrics.watch_bus(bus)
        return bus

    @cached_property
    def stream_path(self) -> str:
        """The path of the streams of calls that this process lets in: it names the process."""
        path = self.settings.server.websocket_path
        return stream_path_of(path, self.bus.name) if self.bus.shared else path

    def site(self) -> Site:
        """The address of this server, and what the carrier says in its name."""
        settings = self.settings
        return Site(
            base_url=settings.server.public_url or _local_url(settings.server.host, self.port()),
            stream_path=self.stream_path,
            lost_message=settings.twilio.lost_message,
            busy_message=settings.twilio.busy_message,
            keys_hint=settings.twilio.keys_hint,
            voice=settings.twilio.say_voice,
            language=settings.twilio.say_language,
            own_number=next(iter(settings.all_numbers), ""),
        )

    @cached_property
    def carrier(self) -> TwilioControl:
        """Twilio by REST; without an account, in development, a call ends with its socket."""
        credentials = self.credentials
        if credentials.development:
            return TwilioControl(None, self.site)
        rest = TwilioRest(
            credentials.account_sid,
            credentials.auth_tokens[0],
            base_url=self.settings.twilio.rest_url,
        )
        return TwilioControl(rest, self.site)

    @cached_property
    def budget(self) -> Budget:
        """The money that may be spent in a day, shared with the other processes."""
        wanted = self.settings.budget
        budget = Budget(
            wanted.per_day_usd,
            self.settings.state_dir / "budget.json",
            warn_at=wanted.warn_at,
            time_zone=wanted.time_zone,
        )
        self.metrics.watch_budget(lambda: (budget.spent_usd, budget.per_day_usd))
        return share_budget(self.bus, budget)

    @cached_property
    def switchboard(self) -> Switchboard:
        """The calls in progress."""
        settings = self.settings
        return Switchboard(
            route=self.configuration.route,
            carrier=WithBrowserCalls(self.carrier),
            capacity=settings.limits.max_calls if self.engine is None else self.engine.max_sessions,
            token_life_s=settings.limits.token_ttl_s,
            drain_warning_s=settings.limits.duration_warning_s,
            allowances=share_use(
                self.bus,
                make_allowances(settings),
                lambda call_id: self.switchboard.call(call_id) is not None,
            ),
            observers=tuple(self._observers()),
            recorder=self.recorder,
            budget=self.budget,
            peers=self.worker,
            seen=SeenCalls(settings.state_dir / "recent_calls"),
            overloaded=self.loop_monitor.overloaded,
        )

    @cached_property
    def loop_monitor(self) -> LoopMonitor:
        """The measurement of how late this process is."""
        return LoopMonitor(self.metrics, self.settings.limits.max_lag_ms)

    def _observers(self) -> list[Callable[[CallEvent], None]]:
        """All who are told what happens in calls."""
        messages = MessageFiles(self.settings.offline.messages_dir, self.jobs)
        observers: list[Callable[[CallEvent], None]] = [
            log_event,
            self.metrics.observe,
            self.configuration.observe,
            self._tell_feed,
            lambda event: self.outbound.dialer.observe(event),
            messages.observe,
        ]
        if self.history is not None:
            observers.append(self.history.observe)
        if self.traces is not None:
            observers.append(self.traces.observe)
        plan = self.configuration.current.assembly.analysis
        if plan is not None and plan.review is not None and plan.ask is not None:
            reviewer = Reviewer(
                plan.review, plan.ask, self.jobs, self._tell_review, webhook=plan.webhook
            )
            observers.append(CallReviews(reviewer).observe)
        return observers

    def _tell_feed(self, event: CallEvent) -> None:
        self.bus.publish(CALL_EVENTS, plain(event))

    def _tell_review(self, event: CallReviewed | AnalysisFailed) -> None:
        log_review(event)
        if self.history is not None:
            self.history.observe(event)

    @cached_property
    def outbound(self) -> Outbound:
        """Calls that are placed; all refused until they are enabled."""
        wanted, history = self.settings.outbound, self.history
        database = _database(history)
        dialer = Dialer(
            policy=make_outbound_policy(self.settings),
            options=DialerOptions(
                from_number=from_number_of(self.settings),
                ring_s=wanted.ring_s,
                machine_detection=wanted.machine_detection,
                max_calls=wanted.max_calls,
                per_s=wanted.calls_per_second / self.workers,
            ),
            carrier=self.carrier,
            store=None if database is None else SqlOutbound(database),
            switchboard=self.switchboard,
            route=lambda agent, variables: replace(
                self.configuration.current.assembly.route_of(agent=agent), variables=variables
            ),
            owner=instance_name(),
            resume=lambda *call: None if history is None else history.resume(*call),
            lose=lambda call_id: None if history is None else history.lose(call_id),
            next_for_contact=next_for_contact,
        )
        return Outbound(dialer, Campaigns(dialer))

    # History and reports ------------------------------------------------------------------------

    @cached_property
    def history(self) -> CallHistory | None:
        """The history of calls, unless it is turned off."""
        history = call_history(self.settings)
        if history is not None:
            self.metrics.watch_store(history.counts)
        return history

    @cached_property
    def deliverer(self) -> WebhookDeliverer | None:
        """The delivery of webhooks about calls, where there are any."""
        history, receivers = self.history, self.configuration.current.assembly.receivers
        database = _database(history)
        if history is None or database is None or not receivers:
            return None
        return WebhookDeliverer(
            history.store,
            WebhookOutbox(database),
            receivers,
            on_outcome=self.metrics.webhook_settled,
        )

    @cached_property
    def live_feed(self) -> LiveFeed:
        """The events of calls of all processes."""
        feed = LiveFeed()
        self.bus.subscribe(CALL_EVENTS, feed.put)
        return feed

    @cached_property
    def traces(self) -> CallTraces | None:
        """Traces of calls, where a collector takes them.

        Raises:
            ConfigError: the extra is not installed.
        """
        otel = self.settings.otel
        if otel.endpoint is None:
            return None
        from app.tracing import CallTraces, otlp_exporter  # which an extra brings

        authorization = _revealed(otel.authorization)
        headers = {"authorization": authorization} if authorization else {}
        return CallTraces(otlp_exporter(otel.endpoint, headers), service=otel.service_name)

    @cached_property
    def gateway(self) -> Gateway | None:
        """The gateway behind `/v1/realtime`, where there is something to reach."""
        history, database = self.history, _database(self.history)
        store = None if database is None else GatewayStore(database)
        book = UsageBook(store, self.metrics)
        observers: list[Callable[[CallEvent], None]] = [log_event, self._tell_feed]
        if history is not None:
            observers.append(history.observe)
        return make_gateway(
            self.settings,
            self.engine,
            budget=self.budget,
            keys=ApiKeys(self.settings.state_dir),
            store=store,
            report=Reports(observers, self.metrics, book),
            book=book,
            recorder=self.recorder,
            bus=self.bus,
        )

    # The web ------------------------------------------------------------------------------------

    def routers(self) -> list[APIRouter]:
        """All routes; the first that matches a request answers it."""
        return [
            self._phone_router(),
            self._health_router(),
            approvals_router(
                self.live, self.metrics, self._access(self.settings.server.operator_token)
            ),
            *self._api_routers(),
            *self._realtime_routers(),
        ]

    @cached_property
    def live(self) -> LiveCalls:
        """The calls of all processes, as the API acts on them."""
        return LiveCalls(self.switchboard, self.bus)

    @cached_property
    def phone_webhooks(self) -> TwilioWebhooks:
        """The carrier's webhooks and streams: checked, and answered."""
        return TwilioWebhooks(
            auth_tokens=self.credentials.auth_tokens,
            shared_keys=self.credentials.shared_keys,
            account_id=self.credentials.account_sid,
            site=self.site,
            validate=self.settings.twilio.validate_signatures,
            start_deadline_s=self.settings.limits.stream_start_s,
        )

    @cached_property
    def forwarding(self) -> Forwarding:
        """The way of a webhook to the process that has its call."""
        bus, worker = self.bus, self.worker
        return Forwarding(
            bus,
            call_of=self.phone_webhooks.call_of,
            knows=self.switchboard.knows,
            new_call_path=self.settings.server.webhook_path,
            knows_placed=self.outbound.dialer.knows,
            placement=(lambda: bus.name) if worker is None else worker.placement,
            has_room=lambda: not self.switchboard.reasons_not_ready(),
            active=lambda: self.switchboard.active,
        )

    def _phone_router(self) -> APIRouter:
        server, shared = self.settings.server, self.bus.shared
        return phone_router(
            self.phone_webhooks,
            self.switchboard,
            self.metrics,
            webhook_path=server.webhook_path,
            status_path=server.status_path,
            stream_path=self.stream_path,
            tickets=self.tickets,
            others_stream_path=f"{server.websocket_path}/{{other}}" if shared else None,
            forward=self.forwarding.forward if shared else None,
            dialer=lambda: self.outbound.dialer,
            follow=self._follow if self._transcripts else None,
        )

    @property
    def _transcripts(self) -> bool:
        """Transcripts are served: they carry speech, so never without a signature to ask for."""
        return self.settings.transcript_feed_on and self.settings.twilio.validate_signatures

    def _follow(self, carrier_call_id: CarrierCallId) -> AsyncIterator[CallEvent]:
        """The events of a call of this process, or else of another.

        Raises:
            KeyError: neither is known.
        """
        try:
            return self.switchboard.follow(carrier_call_id)
        except KeyError:
            return _events(self.live_feed.follow(carrier_call_id))

    def _health_router(self) -> APIRouter:
        return health_router(
            self.metrics,
            self._access(self.settings.server.metrics_token),
            reasons_not_ready=self.switchboard.reasons_not_ready,
            degraded=self.degraded,
            bus=self.bus,
        )

    def _realtime_routers(self) -> list[APIRouter]:
        if self.gateway is None:
            return []
        access = self._access(self.settings.offline.realtime_token)
        query = self.settings.gateway.token_in_query
        return [realtime_router(self.gateway, self.metrics, access, token_in_query=query)]

    def _api_routers(self) -> list[APIRouter]:
        """The routes of `/api/v1`, and of the console unless it is turned off."""
        guard, configuration = self._guard(), self.configuration
        self.bus.respond(_PROCESS, self._process)
        phone = BrowserPhone(
            self.switchboard.admit,
            self.tickets,
            account_id=self.credentials.account_sid,
            stream_path=self.stream_path,
            numbers=lambda: [own["number"] for own in configuration.numbers()],
        )
        routers = [
            api_router(
                guard,
                keys=guard.keys,
                live=self.live,
                feed=self.live_feed,
                levels=LiveLevels(self.switchboard, self.bus),
                live_clients=self.settings.api.live_clients,
                configuration=configuration,
                history=self.history,
                bus=self.bus,
                outbox=None if self.deliverer is None else self.deliverer.outbox,
                phone=phone,
                outbound=self.outbound,
                overview=self._overview,
                doctor=self._doctor_results,
                supervision=Supervision(
                    self.switchboard.call, self.tickets, self.bus, stream_path=self.stream_path
                ),
            )
        ]
        if guard.logins is not None:
            local = self._api_open_to_local
            routers.append(console_router(guard, guard.logins, self.metrics, self.bus, local=local))
        return routers

    def _guard(self) -> Guard:
        """The entrance to the API, for keys and for logins to the console."""
        settings, console = self.settings, self.settings.console
        life_s = console.login_hours * 3_600.0
        return Guard(
            ApiKeys(settings.state_dir),
            self.metrics,
            access=AccessRule(open_to_local=self._api_open_to_local),
            operator_token=_revealed(settings.server.operator_token),
            requests_per_s=settings.api.requests_per_s,
            bus=self.bus,
            logins=Logins(settings.state_dir, life_s=life_s) if console.enabled else None,
            passwords=Passwords(settings.state_dir),
        )

    @property
    def _api_open_to_local(self) -> bool:
        """As for other routes: once a token is set, or the internet comes in, it takes a key."""
        token = _revealed(self.settings.server.operator_token)
        return self.settings.mode is Mode.DEVELOPMENT and not token

    def _access(self, token: SecretStr | None) -> AccessRule:
        # With credentials a proxy or tunnel brings the internet in, from this machine's address.
        return AccessRule(_revealed(token), open_to_local=self.settings.mode is Mode.DEVELOPMENT)

    def degraded(self) -> list[str]:
        """The parts of this process that callers or operators would miss now."""
        return [
            *self.configuration.degraded(),
            *(self.history.degraded() if self.history else ()),
            *(["bus"] if self.bus.degraded else ()),
        ]

    def _notices(self) -> list[str]:
        current = self.configuration.current
        today = datetime.now(UTC).date()
        return [*notices(current.settings, today), *current.assembly.notices()]

    async def _doctor_results(self) -> dict[str, Any]:
        """Check the server that runs, as `trunkline doctor` does."""
        settings = self.configuration.current.settings
        results = [
            result
            async for result in run_all_checks(settings, problems=(), surprises=self._notices())
        ]
        return {
            "verdict": "wrong" if failed(results) else "good",
            "results": [
                {
                    name: hide_secrets(str(value), settings.secrets())
                    for name, value in asdict(result).items()
                }
                for result in results
            ],
        }

    async def _process(self, _: Message) -> Message:
        """This process among those of the server, for `/status`."""
        return {
            "name": self.bus.name,
            "configuration": self.configuration.current.version,
            "capacity": self.switchboard.capacity,
            "live": self.switchboard.active,
            "not_ready": self.switchboard.reasons_not_ready(),
            "degraded": self.degraded(),
        }

    async def _overview(self) -> dict[str, Any]:
        """This process at a glance, and in short all processes of the server."""
        current, budget, history = self.configuration.current, self.budget, self.history
        settings = current.settings
        processes = await self.bus.gather(_PROCESS, {})
        return {
            "version": version("trunkline"),
            "mode": settings.mode.value,
            "voice": settings.voice_choice.value,
            "model": settings.voice_name,
            "configuration": current.version,
            "capacity": self.switchboard.capacity,
            "live": self.switchboard.active,
            "budget": {"spent_usd": budget.spent_usd, "per_day_usd": budget.per_day_usd},
            "not_ready": self.switchboard.reasons_not_ready(),
            "degraded": self.degraded(),
            "notices": self._notices(),
            "processes": sorted(processes, key=lambda one: str(one["name"])),
            "history": None if history is None else {"events": dict(history.counts())},
        }


async def run_all_checks(
    settings: Settings, *, problems: Sequence[str], surprises: Sequence[str]
) -> AsyncIterator[CheckResult]:
    """Every result of `trunkline doctor`, as soon as it is there; the rest as for `run_checks`."""
    voices: Sequence[VoiceModel] = ()
    session = None
    if settings.voice_choice is VoiceChoice.OPENAI:
        voices, session = voices_of_numbers(settings), session_config(settings.openai_realtime)
    results = run_checks(
        settings, problems=problems, surprises=surprises, voices=voices, session=session
    )
    async for result in results:
        yield result
    for result in await check_store(
        settings, call_store(settings) if settings.store.enabled else None
    ):
        yield result


def call_store(settings: Settings) -> SqlStore:
    """The store of the history of calls that these settings name.

    Raises:
        ConfigError: its URL is wrong, or its driver is not installed.
    """
    return SqlStore(_revealed(settings.store.url) or settings.state_dir / "calls.db")


@contextlib.asynccontextmanager
async def stored_calls(settings: Settings) -> AsyncIterator[FastAPI]:
    """The API's routes of calls that were kept, over the database alone, for one program.

    Raises:
        ConfigError: no history is kept, or its URL is wrong.
    """
    metrics = Metrics()
    history = call_history(settings)
    if history is None:
        raise ConfigError("no history of calls is kept: store is off")
    guard = Guard(
        ApiKeys(settings.state_dir),
        metrics,
        access=AccessRule(open_to_local=True),
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


def _files(settings: Settings) -> CallFiles:
    return CallFiles(settings.state_dir / "recordings", settings.offline.messages_dir)


def call_history(settings: Settings) -> CallHistory | None:
    """The history of calls that these settings name, unless it is turned off; opens nothing.

    Raises:
        ConfigError: its URL is wrong, or its driver is not installed.
    """
    if not settings.store.enabled:
        return None
    return CallHistory(
        call_store(settings),
        state_dir=settings.state_dir,
        files=_files(settings),
        retention=Retention(**settings.store.retention.model_dump()),
        spool_mb=settings.store.spool_mb,
    )


def _database(history: CallHistory | None) -> Database | None:
    """The database that calls are kept in, for what else is kept in it."""
    if history is None or not isinstance(history.store, SqlStore):
        return None
    return history.store.database


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


def _machine_name() -> str:
    name = re.sub(r"[^A-Za-z0-9]+", "-", socket.gethostname()).strip("-")
    return name[:63] or "server"


def _revealed(secret: SecretStr | None) -> str:
    return "" if secret is None else secret.get_secret_value()


def _local_url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _events(told: AsyncIterator[Mapping[str, Any]]) -> AsyncIterator[CallEvent]:
    """The events that another process has told; those of other versions are left out."""
    async for plain_event in told:
        event = of_fields(plain_event["type"], plain_event)
        if event is not None:
            yield cast(CallEvent, event)
