"""The staff of a server: agents, tools, guardrails, destinations and numbers, from settings.

`assemble` checks everything that can be checked without talking to anybody; `Assembly.open`
connects to what needs a connection, which is MCP servers. Says what a call gets, and wires nothing:
models, carriers and switchboards are `app.main`'s.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

from app.agents.analysis.live import AnalysisPlan
from app.agents.roster import Roster
from app.agents.tools.mcp import McpTools
from app.agents.tools.mcp_server import McpServerSpec
from app.agents.tools.read_back import READ_BACK, read_back_tool
from app.agents.tools.tool import Tool
from app.assembly.agents import AgentParts
from app.assembly.destinations import DestinationBook, check_task_tool, make_brain, make_places
from app.assembly.guardrails import make_guardrails
from app.assembly.problems import Problems
from app.assembly.routing import Diversion, Route, RoutingTable, make_plan
from app.assembly.sessions import call_policy
from app.assembly.tools import make_mcp_specs, make_tools
from app.calls.transfer.tools import Lookup, phone_tools
from app.carrier.base import IncomingCall
from app.errors import ConfigError
from app.events import CallId
from app.http.client import SafeHttp
from app.settings import Settings, VoiceChoice
from app.settings.reader.names import no_such

__all__ = ["Assembly", "assemble"]


logger = logging.getLogger(__name__)


class Assembly:
    """Everybody and everything that a call may meet. Made by `assemble`."""

    def __init__(
        self,
        settings: Settings,
        *,
        http: SafeHttp,
        talents: AgentParts,
        servers: tuple[McpServerSpec, ...],
        places: DestinationBook,
        plan: RoutingTable,
        brain: AnalysisPlan | None,
    ) -> None:
        self.places = places
        self.brain = brain
        self.http = http
        self._settings = settings
        self._talents = talents
        self._servers = servers
        self._plan = plan

    @property
    def book(self) -> Roster:
        """The agents as they are on a number without settings of its own."""
        return self._plan.default.book

    @property
    def seats(self) -> tuple[Route, ...]:
        """The seat of each number, and first that of all others."""
        return (self._plan.default, *(number.seat for number in self._plan.numbers.values()))

    def seat(self, incoming: IncomingCall, now: datetime | None = None) -> Route | Diversion:
        """Who answers a call, by the number that was called and by the time."""
        return self._plan.seat(incoming, now or datetime.now(UTC))

    def seat_of(self, number: str | None = None, agent: str | None = None) -> Route:
        """Who answers at a number of ours in its hours, or at any other; or another agent there.

        Raises:
            ConfigError: there is no such number or agent.
        """
        numbers = self._plan.numbers
        if number is not None and number not in numbers:
            raise ConfigError(no_such("number", number, numbers))
        seat = self._plan.default if number is None else numbers[number].seat
        if agent is None:
            return seat
        found = seat.book.get(agent)
        if found is None:
            raise ConfigError(no_such("agent", agent, [one.name for one in seat.book]))
        return replace(seat, agent=found)

    def notices(self) -> list[str]:
        """What is allowed and may surprise."""
        return [*self.book.notices(), *self._brain_notices(), *self._silence_notices()]

    def _silence_notices(self) -> list[str]:
        """Where the time for the question whether the caller is still there never comes."""
        found = []
        for number, seat in ((None, self._plan.default), *self._seats_of_numbers()):
            policy = seat.policy or call_policy(self._settings.limits)
            after_ms = policy.still_there_after_ms
            if policy.still_there.prompts and 0 < policy.silence_ms <= after_ms:
                key = self._silence_key(number, seat.agent.name)
                found.append(
                    f"{key}: calls end after {policy.silence_ms // 1000} s of silence: nobody is "
                    f"asked whether they are there (inactivity.after_s: {after_ms // 1000})"
                )
        return list(dict.fromkeys(found))

    def _seats_of_numbers(self) -> list[tuple[str, Route]]:
        return [(number, one.seat) for number, one in self._plan.numbers.items()]

    def _silence_key(self, number: str | None, agent_name: str) -> str:
        """Where the settings say how long a silence may last."""
        own, agent = self._settings.numbers.get(number or ""), self._settings.agents.get(agent_name)
        if own is not None and own.limits.silence_s is not None:
            return f"numbers.{number}.limits.silence_s"
        if agent is not None and agent.limits.silence_s is not None:
            return f"agents.{agent_name}.limits.silence_s"
        return "limits.silence_s"

    def _brain_notices(self) -> list[str]:
        if self.brain is None:
            return []
        found = []
        if self.brain.ask is None and self._settings.voice_choice is VoiceChoice.OFFLINE:
            found.append("analysis: the offline engine cannot do it: describe an endpoint")
        deaf = [agent.name for agent in self.book if not agent.transcribed]
        if deaf:
            found.append(f"analysis: hears nothing of the callers of {deaf[0]}: no transcription")
        return found

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Assembly]:
        """Connect to the MCP servers for as long as the context lasts.

        Raises:
            ConfigError: a server is not there, or its tools do not fit.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.http.aclose)
            await self._connect(stack)
            yield self

    async def _connect(self, stack: AsyncExitStack) -> None:
        if not self._servers:
            return
        try:
            tools = McpTools(self._servers, taken=self._talents.tools)
            self._take(await stack.enter_async_context(tools))
        except ConfigError as error:
            raise ConfigError(self._located(error.message)) from error

    def _located(self, message: str) -> str:
        """A message about an MCP server, with file and line before it."""
        for spec in self._servers:
            prefix = f"mcp server {spec.name}: "
            if message.startswith(prefix):
                place = self._settings.origin.place("mcp_servers", spec.name)
                return f"{place}: {message.removeprefix(prefix)}"
        return message

    def _take(self, mcp: McpTools) -> None:
        """Give the agents the tools of the servers, which are known only now."""
        by_server = {spec.name: mcp.of(spec.name) for spec in self._servers}
        talents = AgentParts(self._talents.tools, self._talents.guardrails, by_server)
        problems = Problems(self._settings.origin)
        self._take_task_tool(mcp.tools, problems)
        plan = make_plan(self._settings, talents, self.places, problems)
        problems.raise_any()
        if plan is None:
            raise ConfigError("the tools of the MCP servers do not fit the agents")
        self._plan = plan
        logger.info("mcp servers connected", extra={"tools": len(mcp.tools)})

    def _take_task_tool(self, tools: Sequence[Tool], problems: Problems) -> None:
        """A tool of a server may be the one that does the brain's tasks."""
        written, brain = self._settings.analysis, self.brain
        if written is None or brain is None or not written.task_tool or brain.task_tool is not None:
            return
        by_name = {tool.name: tool for tool in tools}
        tool = by_name.get(written.task_tool)
        if tool is None:
            known = [*self._settings.tools, *by_name]
            problems.add(("analysis", "task_tool"), no_such("tool", written.task_tool, known))
            return
        with problems.at("analysis", "task_argument"):
            check_task_tool(tool, written.task_argument)
        self.brain = replace(brain, task_tool=tool)


def _no_line(_call_id: CallId) -> None:
    return None


def assemble(settings: Settings, lookup: Lookup = _no_line) -> Assembly:
    """Make the staff that settings describe.

    Imports the Python functions that they name. `lookup` finds the line of a live call, for the
    tools that do something with it.

    Raises:
        ConfigError: a line for everything that is wrong, with file and line.
    """
    problems = Problems(settings.origin)
    http = SafeHttp()
    places = make_places(settings, problems)
    tools = {
        **phone_tools(places.destinations, lookup, places.descriptions),
        READ_BACK: read_back_tool(),
        **make_tools(settings, http, problems),
    }
    talents = AgentParts(tools, make_guardrails(settings, problems))
    servers = make_mcp_specs(settings, problems)
    brain = make_brain(settings, http, tools, problems)
    plan = make_plan(settings, talents, places, problems)
    problems.raise_any()
    if plan is None:
        raise ConfigError("the agents do not fit together")
    return Assembly(
        settings,
        http=http,
        talents=talents,
        servers=servers,
        places=places,
        plan=plan,
        brain=brain,
    )
