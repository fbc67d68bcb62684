"""The configuration in force: what it describes, and how a changed file takes its place.

A reload is all or nothing: the new file is read, checked and assembled beside the old one, and its
MCP servers are connected, before the next call is routed by it. Calls that are live keep what they
began with; what belongs to it is closed with the last of them. Sections that are used at the start
only must be as they were.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import signal
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from difflib import unified_diff
from typing import Any, Final

from app.agents.agent import Agent
from app.agents.tools.invocation import ApprovalRequest, ToolInvoker
from app.agents.tools.tool import ToolContext
from app.assembly.build import Assembly
from app.assembly.routing import Number
from app.assembly.voice_models import VoiceModels
from app.calls.route import Diversion, Route
from app.carrier.base import IncomingCall
from app.errors import AppError, ConfigError
from app.events import CallAdmitted, CallEnded, CallEvent, CallId
from app.settings import Settings, fingerprint, masked
from app.threads import in_thread

__all__ = ["Configuration", "Loaded"]

logger = logging.getLogger(__name__)

AT_START: Final = (
    "voice_model",
    "state_dir",
    "offline",
    "twilio",
    "server",
    "api",
    "console",
    "logging",
    "analysis",
    "budget",
    "otel",
    "webhooks",
    "store",
    "outbound",
)
"""Sections that reach parts of the server which are made once."""
LIMITS_AT_START: Final = (
    "max_calls",
    "max_lag_ms",
    "token_ttl_s",
    "duration_warning_s",
    "drain_timeout_s",
    "stream_start_s",
)


@dataclass(slots=True, eq=False)
class Loaded:
    """Settings with what was made of them."""

    settings: Settings
    assembly: Assembly
    models: VoiceModels
    version: str = ""
    calls: int = 0
    retired: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.version = fingerprint(self.settings)


class Configuration:
    """Routes calls by the configuration in force, and replaces it."""

    def __init__(
        self,
        first: Loaded,
        load: Callable[[], Loaded],
        on_version: Callable[[str], None] = lambda version: None,
    ) -> None:
        """`load` reads the file again and assembles it; it may block. Raises ConfigError."""
        self._current = first
        self._load = load
        self._on_version = on_version
        self._calls: dict[CallId, Loaded] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._reloading = asyncio.Lock()
        on_version(first.version)

    @property
    def current(self) -> Loaded:
        """The configuration for the next call."""
        return self._current

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Configuration]:
        """Keep the MCP servers of all configurations in use connected inside this block.

        Raises:
            ConfigError: a server is not there, or its tools do not fit.
        """
        async with self._current.assembly.open(), asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                yield self
            finally:
                self._tasks = None
                for loaded in {self._current, *self._calls.values()}:
                    loaded.retired.set()

    def route(self, incoming: IncomingCall) -> Route | Diversion:
        """The route of a call that comes in now."""
        found = self._current.assembly.route(incoming)
        if isinstance(found, Route):
            return replace(found, configuration=self._current.version)
        return found

    def degraded(self) -> list[str]:
        """The parts that callers would miss now."""
        return self._current.models.degraded()

    def observe(self, event: CallEvent) -> None:
        """Count the calls of each configuration."""
        match event:
            case CallAdmitted():
                self._calls[event.call_id] = self._current
                self._current.calls += 1
            case CallEnded() if (loaded := self._calls.pop(event.call_id, None)) is not None:
                loaded.calls -= 1
                self._retire(loaded)
            case _:
                pass

    def _retire(self, loaded: Loaded) -> None:
        if loaded is not self._current and not loaded.calls:
            loaded.retired.set()

    # Reload -------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def reloaded_on_hangup(self) -> AsyncIterator[None]:
        """Reload on SIGHUP inside the block, where the process has such a signal."""
        number = getattr(signal, "SIGHUP", None)
        if number is None or threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            loop.add_signal_handler(number, lambda: tasks.create_task(self._follow()))
            try:
                yield
            finally:
                loop.remove_signal_handler(number)

    async def reload(self) -> str:
        """Put the file as it is now in force for the next calls; returns its version.

        Raises:
            ConfigError: it is wrong, or changes what needs a restart; the old one stays in force.
        """
        async with self._reloading:
            fresh = await in_thread(self._load)
            if changed := _changed_at_start(self._current.settings, fresh.settings):
                place = fresh.settings.origin.place
                lines = [f"{place(*path)}: this needs a restart" for path in changed]
                raise ConfigError("\n".join(lines), code="restart_needed")
            if fresh.version == self._current.version:
                return fresh.version
            await self._hold(fresh)
            old, self._current = self._current, fresh
            self._retire(old)
            self._on_version(fresh.version)
            logger.info("configuration reloaded", extra={"version": fresh.version})
            for notice in fresh.assembly.notices():
                logger.warning("configuration notice", extra={"notice": notice})
            return fresh.version

    def follow(self, version: str) -> None:
        """Reload beside everything else: another process has found this version in the file."""
        if version != self._current.version and self._tasks is not None:
            self._tasks.create_task(self._follow(), name=f"follow {version}")

    async def _follow(self) -> None:
        try:
            await self.reload()
        except AppError as error:
            logger.error("configuration was not reloaded", extra={"reason": error.message})
        except Exception as error:  # of a file that nobody thought of: calls go on
            reason = type(error).__name__
            logger.exception("configuration was not reloaded", extra={"reason": reason})

    async def _hold(self, fresh: Loaded) -> None:
        """Open an assembly in a task of its own, which closes it when it is retired."""
        if self._tasks is None:
            raise ConfigError("the server is not running", code="not_running")
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def hold() -> None:
            try:
                async with fresh.assembly.open():
                    opened.set_result(None)
                    await fresh.retired.wait()
            except Exception as error:  # whoever has asked for it is told
                if opened.done():
                    raise
                opened.set_exception(error)

        self._tasks.create_task(hold(), name=f"configuration {fresh.version}")
        await opened

    # Descriptions -------------------------------------------------------------------------------

    def agents(self) -> list[dict[str, Any]]:
        """The agents, without what they are told."""
        roster = self._current.assembly.roster
        return [
            {
                "name": agent.name,
                "description": agent.description,
                "voice": agent.voice or "",
                "tools": list(roster.tool_names(agent)),
                "handoffs": [to.agent_name for to in agent.handoff_options],
                "guardrails": [guardrail.name for guardrail in agent.guardrails],
                "variables": list(agent.variables),
            }
            for agent in roster
        ]

    def tools(self, agent: str) -> list[dict[str, Any]]:
        """The tools of an agent that run here, as its model sees them.

        Raises:
            KeyError: there is no such agent.
        """
        return [
            {**tool.wire, "approval": tool.approval.value, "timeout_ms": tool.timeout_ms}
            for tool in self._agent(agent).tools
        ]

    async def try_tool(
        self, agent: str, tool: str, arguments: Mapping[str, Any], **facts: Any
    ) -> dict[str, Any]:
        """Run a tool once, checked as in a call, and approved by whoever tries it.

        `facts` are those of `ToolContext` that a call would give. The output is the text that a
        model would get.

        Raises:
            KeyError: there is no such agent, or it has no such tool.
        """
        invoker = ToolInvoker(self._agent(agent).tools, approver=_approved)
        if invoker.get(tool) is None:
            raise KeyError(tool)
        name = f"try-{secrets.token_hex(8)}"
        context = ToolContext(call_id=CallId(name), tool_call_id=name, agent=agent, **facts)
        result = await invoker.invoke(tool, json.dumps(arguments), context)
        return {"output": result.output, "error": result.error, "duration_ms": result.duration_ms}

    def _agent(self, name: str) -> Agent:
        return self._current.assembly.roster[name]

    def numbers(self) -> list[dict[str, Any]]:
        """Our numbers, each with the agent and the model that answer there."""
        assembly, settings = self._current.assembly, self._current.settings
        found = []
        for number in settings.all_numbers:
            own = assembly.number(number)
            route = assembly.route_of(number if own is not None else None)
            found.append(
                {
                    "number": number,
                    "agent": route.agent.name,
                    "model": route.model.name,
                    "greeting": route.agent.greeting or "",
                    "recorded": route.policy.recording is not None,
                    "fallback": "" if route.fallback is None else route.fallback.name,
                    "percent": 100 if own is None else own.percent,
                    **_hours_of(own),
                }
            )
        return found

    def destinations(self) -> list[dict[str, Any]]:
        """The places that callers can be transferred to, by name; their addresses stay here."""
        return [
            {"name": one.name, "spoken": one.spoken, "warm": one.warm}
            for one in self._current.assembly.destinations.by_name.values()
        ]

    async def changes(self) -> dict[str, Any]:
        """The difference that a reload would make, as lines of a diff; secrets are masked.

        `problem` says why the file cannot be put in force, and is empty when it can.
        """
        current = self._current
        try:
            fresh = (await in_thread(self._load)).settings
        except ConfigError as error:
            return {"version": current.version, "diff": [], "problem": error.message}
        old, new = (masked(one).splitlines() for one in (current.settings, fresh))
        restart = _changed_at_start(current.settings, fresh)
        paths = ", ".join(".".join(path) for path in restart)
        return {
            "version": current.version,
            "diff": [*unified_diff(old, new, "in force", "on disk", lineterm="", n=2)],
            "problem": f"a restart is needed for: {paths}" if restart else "",
        }

    def shown(self) -> dict[str, Any]:
        """The settings in force as `trunkline config show` prints them: secrets are masked."""
        return {"version": self._current.version, "yaml": masked(self._current.settings)}


def _changed_at_start(old: Settings, new: Settings) -> list[tuple[str, ...]]:
    changed: list[tuple[str, ...]] = [
        (name,) for name in AT_START if getattr(old, name) != getattr(new, name)
    ]
    for name in LIMITS_AT_START:
        if getattr(old.limits, name) != getattr(new.limits, name):
            changed.append(("limits", name))
    return changed


async def _approved(_: ApprovalRequest) -> bool:
    return True


def _hours_of(number: Number | None) -> dict[str, Any]:
    """The opening hours of a number in words, and what it does outside of them."""
    if number is None or number.hours is None:
        return {"hours": "", "open_now": True, "when_closed": ""}
    closed = [f"“{number.closed_say}”"] if number.closed_say else []
    if number.closed_route is not None:
        closed.append(f"agent {number.closed_route.agent.name}")
    elif number.closed_to is not None:
        closed.append(f"put through to {number.closed_to.name}")
    return {
        "hours": number.hours.weekly_words(),
        "open_now": number.hours.is_open(datetime.now(UTC)),
        "when_closed": ", then ".join(closed),
    }
