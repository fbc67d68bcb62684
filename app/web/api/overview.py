"""The server at a glance: what it can take, what is degraded, and notices with what to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter

from app.api_keys import Scope
from app.web.api.guard import needs

__all__ = ["add_overview_route"]


def add_overview_route(router: APIRouter, facts: Callable[[], Awaitable[dict[str, Any]]]) -> None:
    """Add `/status`, which answers with `facts`."""

    @router.get("/status", openapi_extra=needs(Scope.VIEWER))
    async def status() -> dict[str, Any]:
        """Show this process: version, capacity, budget, what is degraded, notices."""
        return await facts()
