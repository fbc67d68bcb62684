"""The agents of a server, checked together when it starts, and the session of each in a call.

Handoffs must name known agents with the same audio format, and no two tools of an agent may have
one name. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, Final

from app.agents.agent import RESERVED_TOOL_NAMES, Agent
from app.agents.guardrails.runner import GuardrailRunner
from app.agents.handoffs import HandoffTo, handoff_tool
from app.agents.instructions import FACTS, CallFacts, check_template, check_time_zone, fill
from app.agents.per_call import check_function, instructions_for, is_offered
from app.agents.tools.call_control import PREFIX
from app.agents.tools.invocation import TOOL_OUTPUT_NOTE
from app.agents.tools.tool import Tool
from app.errors import ConfigError
from app.realtime.events import UNSET, ServerVad, SessionConfig

__all__ = ["Roster"]


class Roster:
    """Agents by name. The first one answers unless another is named."""

    def __init__(
        self, agents: Agent | Iterable[Agent], *, voices: Collection[str] | None = None
    ) -> None:
        """Check the agents, or the one; `voices` are those of the model, where they are known.

        Raises:
            ConfigError: a mistake in an agent; the message names both.
        """
        self._agents: dict[str, Agent] = {}
        self._handoffs: dict[str, tuple[Tool, ...]] = {}
        for agent in [agents] if isinstance(agents, Agent) else agents:
            if not agent.name.strip():
                raise ConfigError("an agent has no name")
            if agent.name in self._agents:
                raise ConfigError(f"two agents are named {agent.name!r}")
            self._agents[agent.name] = agent
        if not self._agents:
            raise ConfigError("there is no agent")
        self._add_reached()
        for agent in self:
            self._check(agent)
            if voices is not None and agent.voice and agent.voice not in voices:
                raise ConfigError(
                    f"agent {agent.name!r}: there is no voice {agent.voice!r}; "
                    f"there are {', '.join(sorted(voices))}"
                )

    def __iter__(self) -> Iterator[Agent]:
        return iter(self._agents.values())

    def __len__(self) -> int:
        return len(self._agents)

    def __getitem__(self, name: str) -> Agent:
        return self._agents[name]

    def get(self, name: str) -> Agent | None:
        return self._agents.get(name)

    @property
    def first(self) -> Agent:
        return next(iter(self))

    def notices(self) -> list[tuple[str, str]]:
        """Settings that are allowed but may surprise: the name of the agent, and a notice."""
        pairs = [(agent, self[to.agent_name]) for agent in self for to in agent.handoff_options]
        voices = [
            (
                agent.name,
                f"hands over to {to_agent.name!r}, whose voice {to_agent.voice!r} is heard only "
                f"when nothing was said before: a session keeps its first voice ({agent.voice!r})",
            )
            for agent, to_agent in pairs
            if to_agent.voice and agent.voice and to_agent.voice != agent.voice
        ]
        tracing = [
            (
                agent.name,
                f"hands over to {to_agent.name!r}, whose tracing is another: a session keeps the "
                "tracing that it was opened with",
            )
            for agent, to_agent in pairs
            if (to_agent.session.tracing or UNSET) != (agent.session.tracing or UNSET)
        ]
        return voices + tracing

    def _add_reached(self) -> None:
        """Add the agents that are handed over to and were not given by themselves."""
        found = list(self)
        for agent in found:  # grows
            for option in agent.handoff_options:
                to = option.agent
                if isinstance(to, Agent) and to.name not in self._agents:
                    self._agents[to.name] = to
                    found.append(to)

    # In a call ------------------------------------------------------------------------------------

    def handoff(self, agent: Agent, tool_name: str, facts: CallFacts) -> HandoffTo | None:
        """The handoff of `agent` that a tool stands for; `None` for any other tool."""
        for option in agent.handoff_options:
            if option.name == tool_name:
                offered = is_offered(option.is_enabled, _known(agent, facts), option.name)
                return option if offered else None
        return None

    def tools(self, agent: Agent, facts: CallFacts) -> list[Tool]:
        """The tools of an agent in one call, and those of its handoffs that need preparation."""
        known = _known(agent, facts)
        prepared = {option.name for option in agent.handoff_options if option.prepared}
        handoffs = [tool for tool in self._handoffs[agent.name] if tool.name in prepared]
        return [
            tool
            for tool in (*agent.tools, *handoffs)
            if is_offered(tool.is_enabled, known, tool.name)
        ]

    def session(self, agent: Agent, facts: CallFacts) -> SessionConfig:
        """An agent's session in one call, with its instructions filled in and all of its tools."""
        known = _known(agent, facts)
        tools = self._wire_tools(agent, known)
        session = agent.session
        if agent.instructions or agent.tools or agent.instructions_for is not None:
            session = replace(session, instructions=self._instructions(agent, facts))
        return replace(session, tools=tools) if tools else session

    def greeting(self, agent: Agent, facts: CallFacts) -> str | None:
        """An agent's greeting in one call."""
        if agent.greeting is None:
            return None
        return fill(agent.greeting, facts.values(agent.variables, agent.time_zone))

    def change(
        self, from_agent: Agent, to_agent: Agent, facts: CallFacts, *, spoken: bool
    ) -> SessionConfig:
        """The settings that turn one agent's session into another's.

        They hold instructions and tools, and whatever else differs, with the protocol's default
        where the new agent sets nothing. Audio formats and tracing never change, and the voice only
        before the session's first sound.
        """
        old, new = self.session(from_agent, facts), self.session(to_agent, facts)
        kept = _NEVER_CHANGED | ({"voice"} if spoken else set())
        changed = {
            name: _restored(name, getattr(new, name))
            for name in (field.name for field in fields(SessionConfig))
            if name not in kept and getattr(new, name) != getattr(old, name)
        }
        instructions = "" if new.instructions is UNSET else new.instructions
        tools = () if new.tools is UNSET else new.tools
        return SessionConfig(**{**changed, "instructions": instructions, "tools": tools})

    def _instructions(self, agent: Agent, facts: CallFacts) -> str:
        text = None
        if agent.instructions_for is not None:
            text = instructions_for(agent.instructions_for, _known(agent, facts), agent.name)
        if text is None:
            text = fill(agent.instructions, facts.values(agent.variables, agent.time_zone))
        return f"{text}\n\n{TOOL_OUTPUT_NOTE}".strip() if agent.tools else text

    def tool_names(self, agent: Agent) -> tuple[str, ...]:
        """The names of all tools that an agent's model may call."""
        return tuple(str(tool.get("name", "")) for tool in self._wire_tools(agent))

    def _wire_tools(
        self, agent: Agent, facts: CallFacts | None = None
    ) -> tuple[Mapping[str, Any], ...]:
        """The tools that a session names; without facts, all that it may name."""
        return (
            *agent.session_tools,
            *(
                tool.wire
                for tool in (*agent.tools, *self._handoffs[agent.name])
                if facts is None or is_offered(tool.is_enabled, facts, tool.name)
            ),
        )

    # At the start ---------------------------------------------------------------------------------

    def _check(self, agent: Agent) -> None:
        place = f"agent {agent.name!r}"
        for name in agent.variables:
            if name in FACTS or not name.isidentifier():
                raise ConfigError(f"{place}: a variable cannot be named {name!r}")
        check_time_zone(agent.time_zone, f"{place}: time_zone")
        names = {*FACTS, *agent.variables}
        check_template(agent.instructions, names, f"{place}: instructions")
        check_template(agent.greeting or "", names, f"{place}: greeting")
        if agent.instructions_for is not None:
            check_function(agent.instructions_for, f"{place}: instructions_for")
        self._check_handoffs(agent, place)
        _check_tools(agent, place)
        _check_guardrails(agent, place)

    def _check_handoffs(self, agent: Agent, place: str) -> None:
        tools: dict[str, str] = {}
        for option in agent.handoff_options:
            name = option.agent_name
            to_agent = self.get(name)
            if to_agent is None:
                known = ", ".join(sorted(self._agents.keys() - {agent.name}))
                there = f"there is {known}" if known else "there is no other agent"
                raise ConfigError(f"{place}: hands over to {name!r}, who is not here: {there}")
            if to_agent is agent:
                raise ConfigError(f"{place}: hands over to itself")
            formats = (to_agent.input_format, to_agent.output_format)
            if formats != (agent.input_format, agent.output_format):
                raise ConfigError(
                    f"{place}: hands over to {name!r}, who has another sound format; "
                    "one call keeps its format"
                )
            other = tools.setdefault(option.name, name)
            if other != name or option.name == PREFIX:
                raise ConfigError(
                    f"{place}: the model cannot tell {name!r} from {other!r}: "
                    f"both are called {option.name}"
                )
        if len(tools) != len(agent.handoffs):
            raise ConfigError(f"{place}: hands over to the same agent twice")
        try:
            handoffs = [
                handoff_tool(option, self[option.agent_name].description)
                for option in agent.handoff_options
            ]
        except ConfigError as error:
            raise ConfigError(f"{place}: {error.message}") from error
        self._handoffs[agent.name] = tuple(handoffs)


def _known(agent: Agent, facts: CallFacts) -> CallFacts:
    """The call's facts as an agent's functions see them: variables with their defaults."""
    return replace(facts, variables=facts.declared(agent.variables))


def _check_tools(agent: Agent, place: str) -> None:
    taken = {str(tool.get("name", "")) for tool in agent.session_tools}
    for option in agent.handoff_options:
        if option.name in RESERVED_TOOL_NAMES or option.name in taken:
            raise ConfigError(f"{place}: a handoff has the name of the tool {option.name!r}")
        taken.add(option.name)
    for tool in agent.tools:
        if tool.name in RESERVED_TOOL_NAMES or tool.name in taken:
            raise ConfigError(f"{place}: two tools are named {tool.name!r}, or one is built in")
        if tool.name.lower().startswith(PREFIX):
            raise ConfigError(f"{place}: tool {tool.name!r}: {PREFIX}... names belong to handoffs")
        taken.add(tool.name)


def _check_guardrails(agent: Agent, place: str) -> None:
    if agent.guardrail_every_chars < 0:
        raise ConfigError(f"{place}: guardrail_every_chars is 0 (whole turns only) or more")
    try:
        GuardrailRunner(agent.guardrails)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error.message}") from error


def _restored(name: str, value: Any) -> Any:
    return _PROTOCOL.get(name, UNSET) if value is UNSET else value


_NEVER_CHANGED: Final = frozenset(
    ("id", "expires_at", "model", "type", "input_format", "output_format", "tracing")
)
_PROTOCOL: Final[Mapping[str, Any]] = {
    "speed": 1.0,
    "noise_reduction": None,
    "transcription": None,
    "turn_detection": ServerVad(),
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "max_output_tokens": "inf",
    "truncation": "auto",
}
"""Defaults of the protocol. `reasoning_effort` has none: each model has its own, so an agent who
sets none goes on with that of the agent before."""
