"""Agents written in Python that answer the phone, such as `my_agents:roster`.

The settings hold for them as for agents of `config.yaml`: what an agent leaves open is taken from
`openai_realtime`, and from the section of its name in `agents`, where there is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from app.agents.agent import Agent
from app.agents.guardrails.rules import DEBOUNCE_CHARS
from app.agents.roster import Roster
from app.assembly.agents.python_functions import find_module
from app.errors import ConfigError
from app.events import Party
from app.realtime.events import UNSET, SessionConfig
from app.settings.reader.names import no_such

__all__ = ["WrittenAgents", "completed", "find_agents"]

WrittenAgents = tuple[Agent, ...]


def find_agents(path: str, folder: Path) -> WrittenAgents:
    """Import the agents at `package.module:name`: an `Agent`, a `Roster`, or a list of agents.

    Raises:
        ConfigError: there are none, importing failed, or they do not fit together.
    """
    module_name, _, name = path.partition(":")
    module = find_module(module_name, folder, f"in {folder}")
    known = {key: value for key, value in vars(module).items() if _agents_of(value)}
    if not name:
        there = f"; there are: {', '.join(known)}" if known else ", but it holds no agents"
        raise ConfigError(f"{path}: name the agents in it, as {module_name}:NAME{there}")
    if not hasattr(module, name):
        raise ConfigError(f"in {module_name}, {no_such('agent or roster', name, known)}")
    found = _agents_of(getattr(module, name))
    if not found:
        kind = type(getattr(module, name)).__name__
        raise ConfigError(
            f"{path} is of the type {kind}: name an Agent, a Roster or a list of agents"
        )
    try:
        return tuple(Roster(found))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}") from error


def _agents_of(value: object) -> tuple[Agent, ...]:
    """The agents that a value is or holds; none for any other value."""
    if isinstance(value, Agent):
        return (value,)
    if isinstance(value, Roster):
        return tuple(value)
    if isinstance(value, list | tuple) and all(isinstance(one, Agent) for one in value):
        return tuple(value)
    return ()


def completed(
    own: Agent,
    base: Agent,
    *,
    fixed: Iterable[str] = (),
    variables: Mapping[str, str],
    sentence: str = "",
) -> Agent:
    """An agent written in Python, with all that it leaves open as the settings have it.

    `base` is made of the settings alone. `fixed` are settings of the session that stay as they are
    there, `variables` a number's, `sentence` what its callers' languages add to the instructions.
    """
    session = _merged(base.session, own.session, {*fixed})
    if sentence and own.instructions:
        session = replace(session, instructions=f"{own.instructions}\n\n{sentence}")
    declared = {**base.variables, **own.variables}
    given = {name: value for name, value in variables.items() if name in declared}
    to_agents = {option.agent_name for option in own.handoff_options}
    others = (option for option in base.handoff_options if option.agent_name not in to_agents)
    every = own.guardrail_every_chars
    return replace(
        own,
        session=session,
        greeting=base.greeting if own.greeting is None else own.greeting,
        speaks_first=base.speaks_first if own.speaks_first is Party.AGENT else own.speaks_first,
        variables={**declared, **given},
        description=own.description or base.description,
        tools=(*own.tools, *base.tools),
        handoffs=(*own.handoffs, *others),
        guardrails=(*own.guardrails, *base.guardrails),
        guardrail_every_chars=base.guardrail_every_chars if every == DEBOUNCE_CHARS else every,
        time_zone=base.time_zone if own.time_zone == "UTC" else own.time_zone,
        interruptible_greeting=own.interruptible_greeting and base.interruptible_greeting,
        guesses=base.guesses,
        instructions_for=own.instructions_for or base.instructions_for,
    )


def _merged(base: SessionConfig, own: SessionConfig, fixed: set[str]) -> SessionConfig:
    """`base` with the settings that `own` names."""
    named: dict[str, Any] = {}
    for field in fields(SessionConfig):
        value = getattr(own, field.name)
        if field.name not in fixed and value is not UNSET and value != field.default:
            named[field.name] = value
    return replace(base, **named)
