"""Makes the agents of one number, or of all others, of what the settings say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from app.agents.agent import Agent
from app.agents.guardrails.rules import Guardrail
from app.agents.instructions import FACTS, CallFacts, check_template
from app.agents.per_call import InstructionsFunction, check_function
from app.agents.roster import Roster
from app.agents.tools.tool import Tool
from app.assembly.agents.python_agents import completed
from app.assembly.agents.python_functions import find_function
from app.assembly.agents.sessions import overridden, session_config
from app.assembly.agents.tools import session_tools
from app.assembly.problems import Problems
from app.calls.keypad.menu import (
    HangUp,
    KeyAction,
    KeypadMap,
    MenuPlan,
    Repeat,
    Say,
    ToAgent,
    Transfer,
)
from app.calls.transfer.phone_tools import CANCEL_TRANSFER, TRANSFER_CALL
from app.events import Party
from app.realtime.events import SessionConfig
from app.settings import AgentSettings, NumberSettings, OpenAIRealtime, Settings, VoiceChoice
from app.settings.sections.agents import KeySettings, MenuSettings

__all__ = ["AgentParts", "make_keypads", "make_roster"]


SEVERAL_LANGUAGES: Final = frozenset(("gpt-transcribe", "gpt-live-transcribe"))
"""Transcription models that take several languages (OpenAI Realtime session schema, 2026-11)."""


@dataclass(frozen=True, slots=True)
class AgentParts:
    """The tools and guardrails that agents may have, by name; `mcp` once servers are connected.

    `written` are agents written in Python.
    """

    tools: Mapping[str, Tool] = field(default_factory=dict)
    guardrails: Mapping[str, Guardrail] = field(default_factory=dict)
    mcp: Mapping[str, tuple[Tool, ...]] = field(default_factory=dict)
    written: tuple[Agent, ...] = ()


def make_roster(
    settings: Settings, parts: AgentParts, problems: Problems, number: str | None = None
) -> Roster | None:
    """The agents as they are on one of our numbers, or any other; `None` when they do not fit.

    The first one answers there.
    """
    own = settings.numbers.get(number or "", NumberSettings())
    place = "agents" if number is None else "numbers"
    described = {**{agent.name: AgentSettings() for agent in parts.written}, **settings.agents}
    written = _answering_first(described, own.agent)
    agents = [
        _agent(settings, name, agent, parts, own if number is not None else None)
        for name, agent in written.items()
    ]
    agents = [
        _instructed(agent, settings, own if number is not None else None, problems)
        for agent in agents
    ]
    in_python = {agent.name: agent for agent in parts.written}
    agents = [
        _in_python(in_python[agent.name], agent, settings, own)
        if agent.name in in_python
        else agent
        for agent in agents
    ]
    if not agents:
        agents = [_only_agent(settings, own if number is not None else None)]
    if own.greeting is not None:
        agents[0] = replace(agents[0], greeting=own.greeting)
    if own.interruptible_greeting is not None:
        agents[0] = replace(agents[0], interruptible_greeting=own.interruptible_greeting)
    known = len(problems)
    if number is not None:
        _check_variables(agents, own, number, problems)
    for agent in agents:
        _check_templates(agent, number, problems, described=bool(settings.agents))
    if len(problems) > known:
        return None
    with problems.at(*((place,) if number is None else (place, number))):
        return Roster(agents)
    return None


def _answering_first(
    agents: Mapping[str, AgentSettings], name: str | None
) -> dict[str, AgentSettings]:
    if name is None or name not in agents:
        return dict(agents)
    return {name: agents[name], **agents}


def _in_python(agent: Agent | None, base: Agent, settings: Settings, own: NumberSettings) -> Agent:
    """An agent written in Python, if one is, as the settings complete it."""
    if agent is None:
        return base
    fixed = set() if own.voice is None else {"voice"}
    if settings.voice_choice is VoiceChoice.OFFLINE:
        fixed |= {"voice", "model"}
    elif settings.voice_choice is VoiceChoice.PIPELINE:
        fixed |= {"model"}
    sentence = _language_sentence(own)
    made = completed(agent, base, fixed=fixed, variables=own.variables, sentence=sentence)
    if agent.instructions_for is None or not sentence:
        return made
    return replace(
        made, instructions_for=partial(_with_languages, agent.instructions_for, sentence)
    )


def _only_agent(settings: Settings, own: NumberSettings | None) -> Agent:
    """The agent where none is described: `openai_realtime`, or the offline engine."""
    model = settings.openai_realtime
    offline = settings.voice_choice is VoiceChoice.OFFLINE
    return Agent(
        name="receptionist" if offline else "agent",
        session=_session(settings, model, own),
        # The receptionist opens the conversation itself: it says that it is a demo.
        greeting=None if offline else model.greeting,
        speaks_first=Party(model.speaks_first),
        interruptible_greeting=model.interruptible_greeting,
        variables={} if own is None else own.variables,
        guesses=offline,
    )


def _agent(
    settings: Settings,
    name: str,
    written: AgentSettings,
    parts: AgentParts,
    own: NumberSettings | None,
) -> Agent:
    model = overridden(settings.openai_realtime, written)
    if written.instructions is not None:
        model = model.model_copy(update={"system_instruction": written.instructions})
    offline = settings.voice_choice is VoiceChoice.OFFLINE
    # A menu says what callers can do: a greeting before it must be the agent's own.
    inherited = None if offline or written.menu is not None else model.greeting
    tools = [parts.tools[tool] for tool in written.tools if tool in parts.tools]
    if TRANSFER_CALL in written.tools and CANCEL_TRANSFER in parts.tools:
        tools.append(parts.tools[CANCEL_TRANSFER])
    for server in written.mcp_servers:
        tools += parts.mcp.get(server, ())
    given = {} if own is None else own.variables
    return Agent(
        name=name,
        description=written.description,
        session=_session(settings, model, own, written.tools),
        greeting=written.greeting if "greeting" in written.model_fields_set else inherited,
        speaks_first=Party(written.speaks_first or model.speaks_first),
        interruptible_greeting=_first_given(
            written.interruptible_greeting, model.interruptible_greeting
        ),
        variables={key: given.get(key, value) for key, value in written.variables.items()},
        tools=tuple(tools),
        handoffs=written.handoffs,
        guardrails=tuple(
            parts.guardrails[rule] for rule in written.guardrails if rule in parts.guardrails
        ),
        guardrail_every_chars=written.guardrail_every_chars,
        time_zone=_time_zone(written, own),
        guesses=offline,
    )


def _time_zone(written: AgentSettings, own: NumberSettings | None) -> str:
    """The zone of an agent's clock: its own, else that of the office it answers for."""
    if written.time_zone is not None:
        return written.time_zone
    return "UTC" if own is None or own.hours is None else own.hours.time_zone


def _instructed(
    agent: Agent, settings: Settings, own: NumberSettings | None, problems: Problems
) -> Agent:
    """The agent with the function that writes its instructions, where the settings name one."""
    written = settings.agents.get(agent.name)
    path = None if written is None else written.instructions_python
    if path is None:
        return agent
    key = "instructions_python"
    with problems.at("agents", agent.name, key, prefix=f"{key}: "):
        function = find_function(path, settings.origin.folder)
        check_function(function, f"{key}: the function")
        sentence = "" if own is None else _language_sentence(own)
        made = function if not sentence else partial(_with_languages, function, sentence)
        return replace(agent, instructions_for=made)
    return agent


def _with_languages(function: InstructionsFunction, sentence: str, facts: CallFacts) -> str:
    text = function(facts)
    return f"{text}\n\n{sentence}" if isinstance(text, str) else text


def _first_given(own: bool | None, inherited: bool) -> bool:
    return inherited if own is None else own


def _session(
    settings: Settings,
    model: OpenAIRealtime,
    own: NumberSettings | None,
    named: tuple[str, ...] = (),
) -> SessionConfig:
    if own is not None:
        model = _in_languages(overridden(model, own), own)
        if own.model is not None:
            model = model.model_copy(update={"model": own.model})
    session = session_config(model)
    if settings.voice_choice is VoiceChoice.OFFLINE:
        session = replace(session, voice=settings.offline.voice, model=None)
    elif settings.voice_choice is VoiceChoice.PIPELINE:
        session = replace(session, model=None)
    return replace(session, tools=session_tools(named, outbound=settings.outbound.enabled))


def _language_sentence(own: NumberSettings) -> str:
    """The sentence for an agent about a number's languages; empty where it has none."""
    if not own.languages:
        return ""
    first, *others = own.languages
    if not others:
        return (
            f"Speak {first} (a language code) on this line, whatever language these "
            "instructions are in."
        )
    return (
        f"Callers on this line speak {' or '.join(own.languages)} (language codes). Begin in "
        f"{first}; after that, answer in the language that the caller speaks."
    )


def _in_languages(model: OpenAIRealtime, own: NumberSettings) -> OpenAIRealtime:
    """Apply a number's languages: a sentence for the agent, a hint for the transcription."""
    if not own.languages:
        return model
    first, *others = own.languages
    sentence = _language_sentence(own)
    change: dict[str, Any] = {
        "system_instruction": f"{model.system_instruction.rstrip()}\n\n{sentence}".lstrip()
    }
    own_hints = own.transcription is not None and (
        own.transcription.language or own.transcription.languages
    )
    if model.transcription is not None and not own_hints:
        update: dict[str, Any] = {"language": None, "languages": ()}
        if not others:
            update["language"] = first
        elif model.transcription.model in SEVERAL_LANGUAGES:
            update["languages"] = own.languages
        change["transcription"] = model.transcription.model_copy(update=update)
    return model.model_copy(update=change)


# Checks -------------------------------------------------------------------------------------------


def _check_templates(
    agent: Agent, number: str | None, problems: Problems, *, described: bool
) -> None:
    names = {*FACTS, *agent.variables}
    destinations = {"instructions": agent.instructions, "greeting": agent.greeting or ""}
    for key, text in destinations.items():
        with problems.at(*_place_of(agent, key, number, described), prefix=f"{key}: "):
            check_template(text, names, key)


def _place_of(agent: Agent, key: str, number: str | None, described: bool) -> tuple[str, ...]:
    if number is not None:
        return ("numbers", number, key)
    if described:
        return ("agents", agent.name, key)
    return ("openai_realtime", "system_instruction" if key == "instructions" else key)


def _check_variables(
    agents: list[Agent], own: NumberSettings, number: str, problems: Problems
) -> None:
    declared = {name for agent in agents for name in agent.variables}
    for name in own.variables:
        if name not in declared:
            problems.add(
                ("numbers", number, "variables", name), "no agent declares a variable of this name"
            )


# Keypads ------------------------------------------------------------------------------------------


def make_keypads(settings: Settings) -> dict[str, KeypadMap]:
    """The keypad of each agent; agents without keys are left out."""
    return {
        name: KeypadMap(
            {key: _action(written) for key, written in agent.keypad.items()},
            None if agent.menu is None else _menu(agent.menu),
        )
        for name, agent in settings.agents.items()
        if agent.keypad
    }


def _menu(written: MenuSettings) -> MenuPlan:
    return MenuPlan(
        prompt=written.prompt,
        otherwise=_action(written.otherwise),
        invalid=written.invalid,
        timeout_ms=1000 * written.timeout_s,
        tries=written.tries,
    )


def _action(written: str | KeySettings) -> KeyAction:
    if isinstance(written, str):
        return Repeat() if written == "repeat" else HangUp()
    if written.say is not None:
        return Say(written.say)
    if written.transfer is not None:
        return Transfer(written.transfer)
    return HangUp(written.hang_up) if written.agent is None else ToAgent(written.agent)
