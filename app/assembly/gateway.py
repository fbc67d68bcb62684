"""The gateway's settings made into routes and limits."""

from __future__ import annotations

from functools import lru_cache

from app.assembly.prices import CallPrices, PriceBook, load_book
from app.bus import Bus
from app.calls.admission.budget import Budget
from app.calls.recording.recorder import Recorder
from app.credentials.api_keys import ApiKeys
from app.errors import ConfigError
from app.events import Cost, TokenUsage
from app.gateway.access import Ledger
from app.gateway.channels import Channel, EngineChannel, RealtimeService, RemoteChannel
from app.gateway.gateway import Gateway
from app.gateway.meter import Price
from app.gateway.session import Report, Route
from app.gateway.shared_spending import SharedSpending
from app.gateway.usage import UsageBook
from app.settings import ENGINE_CHANNEL, Settings
from app.store.sql.gateway import GatewayStore

__all__ = ["make_gateway"]


def make_gateway(  # noqa: PLR0913 - the parts that its sessions use
    settings: Settings,
    engine: RealtimeService | None,
    *,
    budget: Budget,
    keys: ApiKeys,
    store: GatewayStore | None,
    report: Report,
    book: UsageBook,
    recorder: Recorder | None = None,
    bus: Bus | None = None,
) -> Gateway | None:
    """The gateway; None where neither models are set nor the engine runs.

    `recorder` is used where sessions are to be recorded. `bus`: money is shared over it.

    Raises:
        ConfigError: a model is to be had offline, and the engine does not run.
    """
    wanted = settings.gateway
    if engine is None and not wanted.models:
        return None
    channels: dict[str, Channel] = {
        name: RemoteChannel(name, channel) for name, channel in wanted.channels.items()
    }
    if engine is not None:
        channels[ENGINE_CHANNEL] = EngineChannel(engine)
    prices = load_book().with_given(settings.prices)
    ledger = Ledger(
        budget,
        wanted.keys,
        reserve_usd=wanted.reserve_usd,
        max_sessions=wanted.max_sessions,
        time_zone=settings.budget.time_zone,
    )
    return Gateway(
        {name: _route(settings, name, channels, prices) for name in wanted.models},
        ledger,
        keys=keys,
        store=store,
        anything=channels.get(ENGINE_CHANNEL),
        report=report,
        book=book,
        max_session_s=wanted.max_session_s,
        recorder=recorder if wanted.record_sessions else None,
        spending=None if bus is None else SharedSpending(bus, ledger),
    )


def _route(settings: Settings, name: str, channels: dict[str, Channel], prices: PriceBook) -> Route:
    model = settings.gateway.models[name]
    if ENGINE_CHANNEL in model.channels and ENGINE_CHANNEL not in channels:
        place = settings.origin.place("gateway", "models", name, "channels")
        raise ConfigError(f"{place}: no engine runs: set VOICE_MODEL to offline or pipeline")
    paid = any(channel != ENGINE_CHANNEL for channel in model.channels)
    # An Azure deployment may be called anything: the name that clients ask for comes first.
    upstream = model.upstream_model or name
    priced = name if prices.price(name) is not None else upstream
    return Route(
        model=name,
        upstream_model=upstream,
        channels=tuple(channels[one] for one in model.channels),
        transcription=model.transcription or "",
        price=_price(prices, priced) if paid else None,
    )


def _price(book: PriceBook, model: str) -> Price:
    @lru_cache(maxsize=64)  # clients name the transcription
    def prices(transcription: str) -> CallPrices:
        found = {one: price for one in (model, transcription) if (price := book.price(one))}
        return CallPrices(book=PriceBook(given=found), model=model, transcription=transcription)

    def cost(usage: TokenUsage, transcription: str) -> Cost:
        return prices(transcription)(usage)

    return cost
