"""The server at a glance: what it can take, what is degraded, and what doctor's checks say."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

from fastapi import APIRouter

from app.credentials.api_keys import Scope
from app.web.api.guard import needs

__all__ = ["add_overview_routes"]

EXAMINED_EVERY_S: Final = 20.0
"""Checks reach for the carrier and the model: asked sooner, the last results are given again."""

Facts = Callable[[], Awaitable[dict[str, Any]]]


def add_overview_routes(router: APIRouter, facts: Facts, run_checks: Facts) -> None:
    """Add `/status`, which answers with `facts`, and `/doctor`, with `run_checks`."""
    running = asyncio.Lock()
    found: dict[str, Any] = {}
    fresh_until_s = 0.0

    @router.get("/status", openapi_extra=needs(Scope.VIEWER))
    async def status() -> dict[str, Any]:
        """Show this process: version, capacity, budget, what is degraded, notices; and all."""
        return await facts()

    @router.post("/doctor", openapi_extra=needs(Scope.OPERATOR))
    async def doctor() -> dict[str, Any]:
        """Check everything that a real call needs, as `trunkline doctor` does; takes a while."""
        nonlocal found, fresh_until_s
        clock_s = asyncio.get_running_loop().time
        async with running:
            if clock_s() >= fresh_until_s:
                results = await run_checks()
                at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
                found, fresh_until_s = {"at": at, **results}, clock_s() + EXAMINED_EVERY_S
            return found
