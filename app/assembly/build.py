"""The assembly of a server: agents, tools, guardrails, destinations and routes, from settings.

`assemble` checks everything that can be checked without talking to anybody; `Assembly.open`
connects to MCP servers. Carriers and the switchboard are in `app.parts`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from app.agents.agent import Agent
from app.agents.analysis.live_analysis import AnalysisPlan
from app.agents.roster import Roster
from app.agents.tools.mcp import McpTools
from app.agents.tools.mcp_server import McpServerSpec
from app.agents.tools.read_back import READ_BACK, read_back_tool
from app.agents.tools.tool import Tool
from app.assembly.agents.agents import AgentParts
from app.assembly.agents.analysis import check_task_tool, make_analysis
from app.assembly.agents.guardrails import make_guardrails
from app.assembly.agents.receptionist import receptionist_notices
from app.assembly.agents.tools import approval_notices, make_mcp_specs, make_tools
from app.assembly.destinations import make_destinations
from app.assembly.problems import Problems, agent_place
from app.assembly.routing import Number, RoutingTable, make_routing_table
from app.assembly.voice_models import VoiceModels
from app.assembly.webhooks import make_receivers
from app.calls.route import Diversion, Route
from app.calls.transfer.phone_tools import Lookup, phone_tools
from app.carrier.base import IncomingCall
from app.carrier.destinations import Destinations
from app.errors import ConfigError
from app.events import CallId
from app.http.client import SafeHttp
from app.settings import Mode, Settings, VoiceChoice
from app.settings.reader.names import no_such

if TYPE_CHECKING:
    from app.webhooks.deliverer import Receiver

__all__ = ["Assembly", "assemble"]


logger = logging.getLogger(__name__)


class Assembly:
    """The agents of a server with all that belongs to them. Made by `assemble`."""

    def __init__(  # noqa: PLR0913 - the parts that `assemble` has made
        self,
        settings: Settings,
        *,
        http: SafeHttp,
        parts: AgentParts,
        servers: tuple[McpServerSpec, ...],
        destinations: Destinations,
        models: VoiceModels,
        table: RoutingTable,
        analysis: AnalysisPlan | None,
        receivers: Mapping[str, Receiver],
    ) -> None:
        self.analysis = analysis
        self.receivers = receivers
        self.destinations = destinations
        self.http = http
        self._settings = settings
        self._parts = parts
        self._servers = servers
        self._models = models
        self._table = table

    @property
    def roster(self) -> Roster:
        """The agents as they are on a number without settings of its own."""
        return self._table.default.roster

    def route(self, incoming: IncomingCall, now: datetime | None = None) -> Route | Diversion:
        """The route of a call, by the number that was called and by the time."""
        return self._table.route(incoming, now or datetime.now(UTC))

    def number(self, number: str) -> Number | None:
        """One of our numbers with its hours, if it has settings of its own."""
        return self._table.numbers.get(number)

    def route_of(self, number: str | None = None, agent: str | None = None) -> Route:
        """The route of one of our numbers in its hours, or any other; `agent`: to another agent.

        Raises:
            ConfigError: the number or the agent is not known.
        """
        numbers = self._table.numbers
        if number is not None and number not in numbers:
            raise ConfigError(no_such("number", number, numbers))
        route = self._table.default if number is None else numbers[number].route
        if agent is None:
            return route
        found = route.roster.get(agent)
        if found is None:
            raise ConfigError(no_such("agent", agent, [one.name for one in route.roster]))
        return replace(route, agent=found)

    def notices(self) -> list[str]:
        """Settings that are allowed and may surprise."""
        return [
            *(
                f"{agent_place(self._settings, name)}: {notice}"
                for name, notice in self.roster.notices()
            ),
            *approval_notices(self._settings, self.roster),
            *self._analysis_notices(),
            *self._silence_notices(),
            *self._price_notices(),
            *receptionist_notices(self._settings, self.roster),
        ]

    def _silence_notices(self) -> list[str]:
        """Routes on which a silence ends the call before the first inactivity prompt."""
        found = []
        routes = {number: one.route for number, one in self._table.numbers.items()}
        for number, route in ((None, self._table.default), *routes.items()):
            policy = route.policy
            after_ms = policy.inactivity_after_ms
            if policy.inactivity_texts.prompts and 0 < policy.silence_ms <= after_ms:
                key = self._silence_key(number, route.agent.name)
                found.append(
                    f"{key}: calls end after {policy.silence_ms // 1000} s of silence: nobody is "
                    f"asked whether they are there (inactivity.after_s: {after_ms // 1000})"
                )
        return list(dict.fromkeys(found))

    def _price_notices(self) -> list[str]:
        today = datetime.now(UTC).date()
        place = self._settings.origin.place("prices")
        found = [notice for prices in self._table.prices() for notice in prices.notices(today)]
        notices = [f"{place}: {notice}" for notice in dict.fromkeys(found)]
        settings, prices = self._settings, self._settings.twilio.prices
        paid = {
            "inbound_per_minute": prices.inbound_per_minute,
            "outbound_per_minute": prices.outbound_per_minute if settings.outbound.enabled else 0.0,
        }
        if settings.mode is Mode.LIVE and (
            missing := [name for name, price in paid.items() if price is None]
        ):
            phone = settings.origin.place("twilio", "prices")
            notices.append(
                f"{phone}: no {' or '.join(missing)}: what the phone itself costs is in no call's "
                "cost. Twilio's price list for your country has it"
            )
        return notices

    def _silence_key(self, number: str | None, agent_name: str) -> str:
        """The setting that says how long a silence may last, with its place."""
        place = self._settings.origin.place
        own, agent = self._settings.numbers.get(number or ""), self._settings.agents.get(agent_name)
        if own is not None and own.limits.silence_s is not None:
            return place("numbers", str(number), "limits", "silence_s")
        if agent is not None and agent.limits.silence_s is not None:
            return place("agents", agent_name, "limits", "silence_s")
        return place("limits", "silence_s")

    def _analysis_notices(self) -> list[str]:
        if self.analysis is None:
            return []
        found = []
        place = self._settings.origin.place("analysis")
        if self.analysis.ask is None and self._settings.voice_choice is VoiceChoice.OFFLINE:
            found.append(f"{place}: the offline engine cannot do it: describe an endpoint")
        unheard = [agent.name for agent in self.roster if not agent.transcribed]
        if unheard:
            found.append(f"{place}: hears nothing of the callers of {unheard[0]}: no transcription")
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
            tools = McpTools(self._servers, taken=self._parts.tools)
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
        problems = Problems(self._settings.origin)
        self._take_task_tool(mcp.tools, problems)
        table = make_routing_table(
            self._settings,
            replace(self._parts, mcp=by_server),
            self.destinations,
            self._models,
            self.analysis,
            problems,
        )
        problems.raise_any()
        if table is None:
            raise ConfigError("the tools of the MCP servers do not fit the agents")
        self._table = table
        logger.info("mcp servers connected", extra={"tools": len(mcp.tools)})

    def _take_task_tool(self, tools: Sequence[Tool], problems: Problems) -> None:
        """A tool of a server may be the one that does the tasks of the analysis."""
        written, plan = self._settings.analysis, self.analysis
        if written is None or plan is None or not written.task_tool or plan.task_tool is not None:
            return
        by_name = {tool.name: tool for tool in tools}
        tool = by_name.get(written.task_tool)
        if tool is None:
            known = [*self._settings.tools, *by_name]
            problems.add(("analysis", "task_tool"), no_such("tool", written.task_tool, known))
            return
        with problems.at("analysis", "task_argument"):
            check_task_tool(tool, written.task_argument)
        self.analysis = replace(plan, task_tool=tool)


def _no_call(_call_id: CallId) -> None:
    return None


def assemble(
    settings: Settings,
    models: VoiceModels | None = None,
    lookup: Lookup = _no_call,
    agents: Sequence[Agent] = (),
) -> Assembly:
    """Make the agents that settings describe, and their routes; `agents` are written in Python.

    Imports the Python functions that they name. `models` answer the calls. `lookup` finds the
    transfers of a live call, for the tools that use them.

    Raises:
        ConfigError: a line for everything that is wrong, with file and line.
    """
    problems = Problems(settings.origin)
    http = SafeHttp()
    models = models or VoiceModels(settings)
    destinations = make_destinations(settings, problems)
    tools = {
        **phone_tools(destinations, lookup),
        READ_BACK: read_back_tool(),
        **make_tools(settings, http, problems),
    }
    parts = AgentParts(tools, make_guardrails(settings, problems), written=tuple(agents))
    servers = make_mcp_specs(settings, problems)
    receivers = make_receivers(settings, http, problems)
    analysis = make_analysis(settings, http, tools, problems)
    table = make_routing_table(settings, parts, destinations, models, analysis, problems)
    problems.raise_any()
    if table is None:
        raise ConfigError("the agents do not fit together")
    return Assembly(
        settings,
        http=http,
        parts=parts,
        servers=servers,
        destinations=destinations,
        models=models,
        table=table,
        analysis=analysis,
        receivers=receivers,
    )
