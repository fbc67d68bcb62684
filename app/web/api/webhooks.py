"""Deliveries of webhooks over the API: which there are, and sending one again."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query

from app.credentials.api_keys import Scope
from app.store.sql.webhooks import Delivery, WebhookOutbox
from app.web.api.guard import needs
from app.web.api.problem import Problem, store_problems

__all__ = ["add_webhook_routes"]


def add_webhook_routes(router: APIRouter, outbox: WebhookOutbox | None) -> None:
    """Add the routes; without an `outbox`, they say that there are no webhooks."""

    def known() -> WebhookOutbox:
        if outbox is None:
            text = "No webhooks are configured, or store is off"
            raise Problem(HTTPStatus.NOT_FOUND, "webhooks_off", text)
        return outbox

    @router.get("/webhooks/deliveries", openapi_extra=needs(Scope.VIEWER))
    async def deliveries(
        state: Literal["waiting", "delivered", "failed"] | None = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> dict[str, Any]:
        """List deliveries, the newest first. They are kept for 30 days."""
        async with store_problems():
            found = await known().listed(state, limit)
        return {"deliveries": [_shown(one) for one in found]}

    @router.post(
        "/webhooks/deliveries/{delivery_id}/replay",
        openapi_extra=needs(Scope.OPERATOR),
        status_code=HTTPStatus.ACCEPTED,
    )
    async def replay(delivery_id: Annotated[int, Path(ge=1, le=2**62)]) -> dict[str, Any]:
        """Send a message once more, under the same id."""
        async with store_problems():
            found = await known().replay(delivery_id, datetime.now(UTC))
        if not found:
            text = "There is no such delivery"
            raise Problem(HTTPStatus.NOT_FOUND, "delivery_not_found", text)
        return {"delivery_id": delivery_id, "state": "waiting"}


def _shown(delivery: Delivery) -> dict[str, Any]:
    return {
        name: value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if isinstance(value, datetime)
        else value
        for name, value in asdict(delivery).items()
    }
