"""All routes of the API, put together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter

from app.bus import Bus
from app.calls.admission.levels import LiveLevels
from app.calls.observers.live_feed import LiveFeed
from app.calls.outbound.outbound import Outbound
from app.credentials.api_keys import ApiKeys
from app.store.history import CallHistory
from app.store.sql.webhooks import WebhookOutbox
from app.web.api.browser_phone import BrowserPhone, add_phone_routes
from app.web.api.configuration import Configuration, add_configuration_routes
from app.web.api.description import add_description
from app.web.api.feed import add_feed_route
from app.web.api.guard import Guard, guarded_router
from app.web.api.history import add_history_routes
from app.web.api.keys import add_key_routes
from app.web.api.live import Live, add_live_routes
from app.web.api.outbound import add_outbound_routes
from app.web.api.overview import add_overview_routes
from app.web.api.supervision import Supervision, add_supervision_routes
from app.web.api.webhooks import add_webhook_routes

__all__ = ["api_router"]


def api_router(  # noqa: PLR0913 - one parameter for each part of the server
    guard: Guard,
    *,
    keys: ApiKeys,
    live: Live,
    feed: LiveFeed,
    levels: LiveLevels,
    live_clients: int,
    configuration: Configuration,
    history: CallHistory | None,
    bus: Bus,
    outbox: WebhookOutbox | None,
    phone: BrowserPhone,
    doctor: Callable[[], Awaitable[dict[str, Any]]],
    overview: Callable[[], Awaitable[dict[str, Any]]],
    supervision: Supervision,
    outbound: Outbound,
) -> APIRouter:
    """The router of `/api/v1`."""
    router = guarded_router(guard)
    add_description(router)
    add_live_routes(router, live)
    add_phone_routes(router, phone)
    add_supervision_routes(router, supervision)
    add_feed_route(router, feed, levels, clients=live_clients)
    add_history_routes(router, history, live)
    add_webhook_routes(router, outbox)
    add_configuration_routes(router, configuration, bus)
    add_key_routes(router, keys)
    add_overview_routes(router, overview, doctor)
    add_outbound_routes(router, outbound)
    return router
