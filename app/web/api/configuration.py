"""The configuration over the API: agents, numbers, destinations, settings, reload."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, Final, Protocol

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from app.bus import Bus, Message
from app.credentials.api_keys import Scope
from app.errors import ConfigError
from app.web.api.guard import client_of, needs
from app.web.api.problem import Problem

__all__ = ["Configuration", "add_configuration_routes"]

logger = logging.getLogger(__name__)

MAX_VARIABLES: Final = 50

Fact = Annotated[str, Field(max_length=255)]


class Configuration(Protocol):
    """The configuration in force; `reload` raises ConfigError and changes nothing."""

    def agents(self) -> list[dict[str, Any]]: ...
    def tools(self, agent: str) -> list[dict[str, Any]]: ...
    async def try_tool(
        self, agent: str, tool: str, arguments: Mapping[str, Any], **facts: Any
    ) -> dict[str, Any]: ...
    def numbers(self) -> list[dict[str, Any]]: ...
    def destinations(self) -> list[dict[str, Any]]: ...
    def shown(self) -> dict[str, Any]: ...
    async def changes(self) -> dict[str, Any]: ...
    async def reload(self) -> str: ...


class ToolTrial(BaseModel):
    """A tool's arguments, and the facts of a call that it gets.

    `caller_verified`, which a network vouches for in a call, takes the scope admin here.
    """

    model_config = ConfigDict(extra="forbid", strict=True)
    arguments: dict[str, Any] = {}
    caller_number: Fact | None = None
    called_number: Fact | None = None
    caller_verified: bool = False
    variables: Annotated[dict[Fact, Fact], Field(max_length=MAX_VARIABLES)] = {}


_RELOAD: Final = "configuration_reload"
RELOAD_S: Final = 30.0


async def reload_all(configuration: Configuration, bus: Bus) -> str:
    """Reload in this process, and then in all others; returns the version.

    Raises:
        ConfigError: the file is wrong, and nothing was changed; or another process did not follow.
    """
    version = await configuration.reload()
    for answer in await bus.gather(_RELOAD, {}, deadline_s=RELOAD_S):
        if answer.get("version") != version:
            reason = answer.get("message", "no reason given")
            text = f"a process of the server did not follow: {reason}"
            raise ConfigError(text, code="reload_incomplete")
    return version


async def _answer_reload(configuration: Configuration) -> Message:
    try:
        return {"version": await configuration.reload()}
    except ConfigError as error:
        return {"message": error.message}


def add_configuration_routes(router: APIRouter, configuration: Configuration, bus: Bus) -> None:
    """Add the routes."""
    bus.respond(_RELOAD, lambda _: _answer_reload(configuration))
    viewer, operator, admin = (needs(each) for each in (Scope.VIEWER, Scope.OPERATOR, Scope.ADMIN))

    @router.get("/agents", openapi_extra=viewer)
    async def agents() -> dict[str, Any]:
        """List the agents with their tools and handoffs."""
        return {"agents": configuration.agents()}

    @router.get("/agents/{agent}/tools", openapi_extra=viewer)
    async def tools(agent: str) -> dict[str, Any]:
        """List the tools of an agent that this server runs, with the schemas of their arguments."""
        try:
            return {"tools": configuration.tools(agent)}
        except KeyError as error:
            raise Problem(HTTPStatus.NOT_FOUND, "agent_unknown", "No such agent") from error

    @router.post("/agents/{agent}/tools/{tool}/try", openapi_extra=operator)
    async def try_tool(request: Request, agent: str, tool: str, body: ToolTrial) -> dict[str, Any]:
        """Run a tool once, outside of any call. What it does is done; nobody else approves it."""
        client = client_of(request)
        if body.caller_verified and not client.scope.covers(Scope.ADMIN):
            text = "caller_verified takes the scope admin"
            raise Problem(HTTPStatus.FORBIDDEN, "scope_too_small", text)
        logger.info("tool tried", extra={"tool": tool[:64], "agent": agent[:64], "by": client.name})
        try:
            return await configuration.try_tool(agent, tool, **dict(body))
        except KeyError as error:
            text = "No such agent, or none of its tools that this server runs"
            raise Problem(HTTPStatus.NOT_FOUND, "tool_unknown", text) from error

    @router.get("/numbers", openapi_extra=viewer)
    async def numbers() -> dict[str, Any]:
        """List our numbers with the agent and the model that answer there."""
        return {"numbers": configuration.numbers()}

    @router.get("/destinations", openapi_extra=viewer)
    async def destinations() -> dict[str, Any]:
        """List the places that callers can be transferred to, by name."""
        return {"destinations": configuration.destinations()}

    @router.get("/settings", openapi_extra=admin)
    async def settings() -> dict[str, Any]:
        """Show the settings in force as YAML, with secrets masked."""
        return configuration.shown()

    @router.get("/settings/changes", openapi_extra=admin)
    async def changes() -> dict[str, Any]:
        """Show the difference that a reload would make, with secrets masked."""
        return await configuration.changes()

    @router.post("/reload", openapi_extra=admin)
    async def reload() -> dict[str, str]:
        """Put `config.yaml` as it is now in force for the next calls, or leave all as it was."""
        try:
            return {"version": await reload_all(configuration, bus)}
        except ConfigError as error:
            raise Problem(HTTPStatus.CONFLICT, error.code, error.message) from error
