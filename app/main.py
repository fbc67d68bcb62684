"""The composition root: the one place that names concrete adapters.

Settings go in, a server with everything wired comes out. What things do is written elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, cast

from fastapi import APIRouter, FastAPI
from pydantic import SecretStr

from app.agents.agent import Agent
from app.agents.brain import Reviewer
from app.agents.errands import Errands
from app.agents.instructions import CallFacts
from app.agents.reviews import CallReviews
from app.agents.session import AgentSession
from app.calls.journal import log_event, log_review
from app.calls.messages import MessageFiles
from app.calls.switchboard import Diverted, Line, Switchboard
from app.carrier.base import IncomingCall
from app.carrier.twilio.control import TwilioControl
from app.carrier.twilio.front import TwilioFront
from app.carrier.twilio.rest import TwilioRest
from app.carrier.twilio.transfer import Site
from app.errors import AppError, ConfigError
from app.events import CallEvent, CallId, Party, TokenUsage
from app.realtime.connecting import GuardedModel
from app.realtime.dialect import BETA, GA
from app.realtime.websocket import WebSocketModel
from app.settings import CarrierCredentials, Mode, Settings, VoiceChoice, carrier_credentials
from app.settings.model import Price
from app.staff import Elsewhere, Seat, Staff, call_policy, hire, session_config
from app.web.app import make_app
from app.web.approvals import approvals_router
from app.web.health import LoopMonitor, health_router
from app.web.metrics import Metrics
from app.web.phone import phone_router
from app.web.realtime import REALTIME_PATH, realtime_router
from app.web.serving import Server, make_server
from app.web.sockets import SocketLimits

if TYPE_CHECKING:
    from uvicorn._types import ASGIApplication

    from app.engine import Engine

__all__ = [
    "Trunkline",
    "build",
    "check_staff",
    "serve",
    "session_config",
    "voice_model",
    "written_session",
]

logger = logging.getLogger(__name__)


REALTIME_MESSAGE_BYTES: Final = 2**20
"""One message of a Realtime client: OpenAI allows 15 MiB, live sound needs a few KiB."""
_KEY_HEADERS: Final = frozenset(("authorization", "api-key"))
"""Who sends one of these has a key for this server; OpenAI's is none of its business."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trunkline:
    """A server that is ready to run, and the parts that tests look into."""

    server: Server
    switchboard: Switchboard
    metrics: Metrics
    not_started: list[AppError]
    """Why it could not start, where that is found out only then: tools or speech that fail."""


def serve(settings: Settings, announce: Callable[[int], None] = lambda port: None) -> int:
    """Run until the last call after a signal is over; the exit code, 1 if calls were cut.

    `announce` is told the port as soon as it is ours.

    Raises:
        ConfigError: as `build`, or a server of tools is not there.
        VoiceUnavailable: the engine's speech parts did not come up.
    """
    built = build(settings)
    # What kept it from starting is told below, in a sentence and not as uvicorn's traceback.
    logging.getLogger("uvicorn.error").addFilter(lambda _record: not built.not_started)
    announce(built.server.port)
    try:
        built.server.run()
    except SystemExit:  # uvicorn's, for a start that failed
        if built.not_started:
            raise built.not_started[0] from None
        raise
    return 1 if built.server.forced else 0


def check_staff(settings: Settings) -> tuple[list[str], list[str]]:
    """What may surprise in the agents and tools that the settings describe, and what is wrong."""
    wrong = _receptionist_problems(settings)
    try:
        return hire(settings).notices(), wrong
    except ConfigError as error:
        return [], [*wrong, *error.message.splitlines()]


def _receptionist_problems(settings: Settings) -> list[str]:
    """What is wrong with a dialogue of the operator's own."""
    path = settings.offline.receptionist
    if path is None or settings.voice_choice is not VoiceChoice.OFFLINE:
        return []
    if not os.path.exists(path):  # Path.exists raises where a folder may not be entered
        return [f"{settings.origin.place('offline', 'receptionist')}: there is no file {path}"]
    from app.engine.book_file import load_book

    try:
        load_book(path)
    except ConfigError as error:
        return error.message.splitlines()
    return []


def build(settings: Settings) -> Trunkline:
    """Wire a server from settings that were checked.

    Raises:
        ConfigError: credentials are incomplete, agents do not fit, or the address cannot be bound.
    """
    credentials = carrier_credentials(settings)
    engine = _engine(settings)
    staff = hire(settings, lambda call_id: switchboard.line(call_id))
    for notice in staff.notices():
        logger.warning("configuration notice", extra={"notice": notice})
    lines = _Lines(settings, staff, engine)
    carrier = _carrier(settings, credentials, lambda: front.site)
    metrics = Metrics()
    errands = Errands()
    not_started: list[AppError] = []
    switchboard = Switchboard(
        choose=lines.choose,
        carrier=carrier,
        policy=call_policy(settings.limits),
        capacity=settings.limits.max_calls if engine is None else engine.max_sessions,
        token_life_s=settings.limits.token_ttl_s,
        observers=(
            log_event,
            metrics.observe,
            MessageFiles(settings.offline.messages_dir, errands).observe,
            *_reviews(staff, errands),
        ),
        destinations=staff.places.destinations,
    )

    async def drain() -> None:
        metrics.set_draining(True)
        await switchboard.drain(settings.limits.drain_timeout_s)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(carrier.aclose)
            try:
                if engine is not None:
                    await engine.start()
                    stack.push_async_callback(engine.close)
                await stack.enter_async_context(staff.open())
            except AppError as error:
                not_started.append(error)
                raise
            await stack.enter_async_context(errands)
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            monitor = tasks.create_task(LoopMonitor(metrics).run())
            stack.callback(monitor.cancel)
            await stack.enter_async_context(switchboard.open())
            yield

    host, port = settings.server.host, settings.server.port
    front = TwilioFront(
        auth_tokens=credentials.auth_tokens,
        account_id=credentials.account_sid,
        public_url=lambda: settings.server.public_url or _local_url(host, server.port),
        stream_path=settings.server.websocket_path,
        lost_message=settings.twilio.lost_message,
        busy_message=settings.twilio.busy_message,
        validate=settings.twilio.validate_signatures,
        start_deadline_s=settings.limits.stream_start_s,
    )
    routers: list[APIRouter] = [
        phone_router(
            front,
            switchboard,
            metrics,
            webhook_path=settings.server.webhook_path,
            status_path=settings.server.status_path,
            stream_path=settings.server.websocket_path,
            # It carries speech: never without a signature to ask for.
            transcript_feed=settings.transcript_feed_on and settings.twilio.validate_signatures,
        ),
        health_router(
            metrics,
            reasons_not_ready=switchboard.reasons_not_ready,
            degraded=lines.degraded,
            metrics_token=_revealed(settings.server.metrics_token),
        ),
    ]
    operator_token = _revealed(settings.server.operator_token)
    routers.append(approvals_router(switchboard, token=operator_token))
    if engine is not None:
        routers.append(
            realtime_router(
                engine,
                metrics,
                token=_revealed(settings.offline.realtime_token),
                open_to_local=settings.mode is Mode.DEVELOPMENT,
            )
        )
    server = make_server(
        cast("ASGIApplication", make_app(routers, lifespan=lifespan)),
        host=host,
        port=port,
        drain=drain,
        limits=SocketLimits(message_bytes_by_path={REALTIME_PATH: REALTIME_MESSAGE_BYTES}),
    )
    metrics.watch_sockets(server.counts)
    return Trunkline(
        server=server, switchboard=switchboard, metrics=metrics, not_started=not_started
    )


def _reviews(staff: Staff, errands: Errands) -> list[Callable[[CallEvent], None]]:
    """Who follows calls to have them reviewed, where they are to be."""
    plan = staff.brain
    if plan is None or plan.review is None or plan.ask is None:
        return []
    reviewer = Reviewer(plan.review, plan.ask, errands, log_review, webhook=plan.webhook)
    return [CallReviews(reviewer).observe]


def price_of(
    price: Price | None, transcription: Price | None
) -> Callable[[TokenUsage], float | None]:
    """What a call's tokens cost in US dollars; `None` where the model has no price."""

    def cost(usage: TokenUsage) -> float | None:
        if price is None:
            return None
        # Cached tokens are part of the input tokens, and cheaper.
        per_million = (
            (usage.input_text - usage.cached_text) * price.text_in
            + usage.cached_text * price.text_cached
            + usage.output_text * price.text_out
            + (usage.input_audio - usage.cached_audio) * price.audio_in
            + usage.cached_audio * price.audio_cached
            + usage.output_audio * price.audio_out
        )
        per_minute = 0.0 if transcription is None else transcription.per_minute
        return round(per_million / 1_000_000 + usage.transcription_seconds / 60 * per_minute, 6)

    return cost


def voice_model(settings: Settings, name: str | None = None) -> WebSocketModel:
    """The model behind a websocket that the settings name; `name`: another one of its."""
    model = settings.openai_realtime
    headers = {name: value.get_secret_value() for name, value in model.headers.items()}
    if model.api_key is not None and not _KEY_HEADERS & {name.lower() for name in headers}:
        headers = {"Authorization": f"Bearer {model.api_key.get_secret_value()}", **headers}
    return WebSocketModel(
        model.url,
        model=name or model.model,
        headers=headers,
        dialect=BETA if model.dialect == "beta" else GA,
    )


@contextlib.asynccontextmanager
async def written_session(
    settings: Settings, *, greets: bool, number: str | None = None, agent: str | None = None
) -> AsyncIterator[AgentSession]:
    """The agents that answer the phone, in writing and without sound; not entered yet.

    `greets`: they speak first, where they do so on the phone. `number`: as callers of this number
    of ours meet them in its hours; `agent`: the one who answers.

    Raises:
        ConfigError: there is no such number or agent, the agents do not fit, or the engine's speech
            parts are not installed.
    """
    engine = _engine(settings)
    staff = hire(settings)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(staff.open())
        seat = staff.seat_of(number, agent)
        line = _Lines(settings, staff, engine).at(seat)
        others = [one for one in seat.book if one.name != seat.agent.name]
        session = AgentSession(
            [_in_writing(one) for one in (seat.agent, *others)],
            line.model,
            facts=CallFacts(
                call_id=CallId(f"chat_{secrets.token_hex(8)}"),
                called_number=number,
                started_at=time.time(),
            ),
            greet=greets and line.agent.speaks_first is Party.AGENT,
            plays_audio=False,
            price=line.price if engine is None else lambda _usage: 0.0,
            brain=staff.brain,
        )
        if engine is not None:
            await engine.start()
            stack.push_async_callback(engine.close)
        yield session


def _in_writing(agent: Agent) -> Agent:
    """An agent that reads and writes: no sound is made, and none is listened to."""
    session = replace(
        agent.session, output_modalities=("text",), turn_detection=None, transcription=None
    )
    return replace(agent, session=session)


def _engine(settings: Settings) -> Engine | None:
    """The offline engine, where callers talk with it."""
    if settings.voice_choice is not VoiceChoice.OFFLINE:
        return None
    if problems := _receptionist_problems(settings):
        raise ConfigError("\n".join(problems))
    from app.engine import make_engine  # its speech parts are an extra that others need not have

    offline = settings.offline
    return make_engine(
        receptionist=offline.receptionist,
        messages_dir=offline.messages_dir,
        max_sessions=min(offline.max_sessions, settings.limits.max_calls),
        workers=None if offline.workers == "auto" else offline.workers,
    )


class _Lines:
    """What answers each call: its seat of the staff, with the model and its price."""

    def __init__(self, settings: Settings, staff: Staff, engine: Engine | None) -> None:
        self._settings = settings
        self._staff = staff
        self._engine = engine
        # One guard for all calls to a model: it knows when the model is down.
        self._models = {name: self._guarded(name) for name in {s.model for s in staff.seats}}

    def choose(self, incoming: IncomingCall) -> Line:
        """Raises Diverted for a call that no agent answers."""
        seat = self._staff.seat(incoming)
        if isinstance(seat, Elsewhere):
            raise Diverted(seat.code, say=seat.say, to=seat.to)
        return self.at(seat)

    def at(self, seat: Seat) -> Line:
        """What answers at a seat."""
        return Line(
            agent=seat.agent,
            model=self._models[seat.model],
            price=self._price(seat.model),
            book=seat.book,
            policy=seat.policy,
            keypads=seat.keypads,
            fallback=seat.fallback,
            brain=self._staff.brain,
        )

    def degraded(self) -> list[str]:
        """What callers would miss now: a model that refuses us is not even tried for each call."""
        refused = any(model.breaker.reason for model in self._models.values())
        return ["voice_model_refuses"] if refused else []

    def _guarded(self, name: str | None) -> GuardedModel:
        engine = self._engine
        return GuardedModel(voice_model(self._settings, name) if engine is None else engine.model())

    def _price(self, name: str | None) -> Callable[[TokenUsage], float | None]:
        realtime = self._settings.openai_realtime
        prices = self._settings.prices if self._engine is None else {}
        writer = realtime.transcription.model if realtime.transcription else ""
        return price_of(prices.get(name or realtime.model), prices.get(writer))


def _carrier(
    settings: Settings, credentials: CarrierCredentials, site: Callable[[], Site]
) -> TwilioControl:
    """Twilio by REST; in development there is no account, and nothing to hang up but the socket."""
    if credentials.development:
        return TwilioControl(None, site)
    rest = TwilioRest(
        credentials.account_sid, credentials.auth_tokens[0], base_url=settings.twilio.rest_url
    )
    return TwilioControl(rest, site)


def _revealed(secret: SecretStr | None) -> str:
    return "" if secret is None else secret.get_secret_value()


def _local_url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
