"""An agent as a value: its voice session, greeting, tools, guardrails and handoffs.

Built from settings by `app.assembly` or in Python; `app.agents.roster` checks agents together.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import NoneType
from typing import Any, Final, TypeVar

from app.agents.guardrails.rules import DEBOUNCE_CHARS, Guardrail
from app.agents.handoffs import HandoffTo
from app.agents.per_call import InstructionsFunction
from app.agents.tools.call_control import CALL_TOOLS, END_CALL, END_CALL_TOOL
from app.agents.tools.tool import Tool, tool
from app.errors import ConfigError
from app.events import Party
from app.realtime.events import SessionConfig, Transcription, Unset
from audio.format import PCM16_24K, AudioFormat

__all__ = ["END_CALL", "END_CALL_TOOL", "RESERVED_TOOL_NAMES", "Agent"]

RESERVED_TOOL_NAMES: Final = frozenset(CALL_TOOLS)
"""Tools that a call runs by name: no other tool may have one of these names, offered or not."""


@dataclass(frozen=True, slots=True, init=False)
class Agent:
    """An agent: its session with the model, its greeting, tools, guardrails and handoffs.

    `session.instructions` and `greeting` are templates (`app.agents.instructions`); `variables`
    declares the names that they may use besides the call's facts, with defaults. A call runs the
    tools of `session.tools` itself; `tools` are run by `app.agents.dialogue.tool_runner`.
    `handoffs` leads to agents of the same roster, whose `description` tells the model what they are
    for. `guardrails` check the agent's transcript every `guardrail_every_chars` characters. A
    caller who speaks over a greeting that is not interruptible is answered after it. `guesses`
    marks an agent that takes callers' words for one of a few sentences; transcripts say so.
    `instructions_for` writes the instructions of each call; where it fails, those of the session
    are used.
    """

    name: str
    session: SessionConfig
    greeting: str | None
    speaks_first: Party
    variables: Mapping[str, str]
    description: str
    tools: tuple[Tool, ...]
    handoffs: tuple[str | HandoffTo | Agent, ...]
    guardrails: tuple[Guardrail, ...]
    guardrail_every_chars: int
    time_zone: str
    interruptible_greeting: bool
    guesses: bool
    instructions_for: InstructionsFunction | None = field(repr=False)

    def __init__(  # noqa: PLR0913 - options of the public API, each with a default
        self,
        name: str,
        *,
        instructions: str | InstructionsFunction | None = None,
        voice: str | None = None,
        session: SessionConfig | None = None,
        greeting: str | None = None,
        speaks_first: Party | str = Party.AGENT,
        variables: Mapping[str, str] | None = None,
        description: str = "",
        tools: Iterable[Tool | Callable[..., Any]] = (),
        handoffs: Iterable[str | HandoffTo | Agent] = (),
        guardrails: Iterable[Guardrail] = (),
        guardrail_every_chars: int = DEBOUNCE_CHARS,
        time_zone: str = "UTC",
        interruptible_greeting: bool = True,
        guesses: bool = False,
        instructions_for: InstructionsFunction | None = None,
    ) -> None:
        """Make an agent; `instructions` and `voice` are those of its `session`.

        `instructions` may be a function of the call's facts, as `instructions_for`. Plain functions
        among `tools` become tools, as by `tool`.

        Raises:
            ConfigError: something is given twice, or cannot be used as it is.
        """
        place = f"agent {name!r}"
        session = session or SessionConfig()
        if callable(instructions):
            if instructions_for is not None:
                raise ConfigError(f"{place}: instructions and instructions_for are both functions")
            instructions, instructions_for = None, instructions
        for key, text in (("instructions", instructions), ("voice", voice)):
            if text is not None and not isinstance(text, str):
                raise ConfigError(f"{place}: {key}: {text!r:.80} is not a text")
        if instructions is not None:
            _check_once(session.instructions, f"{place}: instructions")
            session = replace(session, instructions=instructions)
        if voice is not None:
            _check_once(session.voice, f"{place}: voice")
            session = replace(session, voice=voice)
        values: dict[str, Any] = {
            "name": name,
            "session": session,
            "greeting": greeting,
            "speaks_first": speaks_first,
            "variables": {} if variables is None else variables,
            "description": description,
            "tools": tuple(_tool(one, place) for one in _listed(tools, f"{place}: tools")),
            "handoffs": _listed(handoffs, f"{place}: handoffs"),
            "guardrails": _listed(guardrails, f"{place}: guardrails"),
            "guardrail_every_chars": guardrail_every_chars,
            "time_zone": time_zone,
            "interruptible_greeting": interruptible_greeting,
            "guesses": guesses,
            "instructions_for": instructions_for,
        }
        _check_kinds(values, place)
        values["speaks_first"] = Party(speaks_first)
        for key, value in values.items():
            object.__setattr__(self, key, value)

    @property
    def handoff_options(self) -> tuple[HandoffTo, ...]:
        """The handoffs, each with its options."""
        return tuple(_handoff(to, f"agent {self.name!r}") for to in self.handoffs)

    @property
    def leads_to(self) -> tuple[HandoffTo, ...]:
        """The old name of `handoff_options`, for one more version."""
        renamed = "agent.leads_to is now agent.handoff_options"
        warnings.warn(renamed, DeprecationWarning, stacklevel=2)
        return self.handoff_options

    @property
    def input_format(self) -> AudioFormat:
        """The format of the caller's audio; PCM16 at 24 kHz unless the session says otherwise."""
        chosen = self.session.input_format
        return PCM16_24K if isinstance(chosen, Unset) else chosen

    @property
    def output_format(self) -> AudioFormat:
        """The format of the agent's audio."""
        chosen = self.session.output_format
        return PCM16_24K if isinstance(chosen, Unset) else chosen

    @property
    def instructions(self) -> str:
        """The instructions' template; empty where the session has none."""
        chosen = self.session.instructions
        return "" if isinstance(chosen, Unset) else chosen

    @property
    def session_tools(self) -> tuple[Mapping[str, Any], ...]:
        """The tools that a call runs itself, as the wire has them."""
        chosen = self.session.tools
        return () if isinstance(chosen, Unset) else chosen

    def has_session_tool(self, name: str) -> bool:
        return any(one.get("name") == name for one in self.session_tools)

    @property
    def transcribed(self) -> bool:
        """True where the caller's words are transcribed."""
        return isinstance(self.session.transcription, Transcription)

    @property
    def voice(self) -> str:
        """The voice that the agent asks for; empty where that is the model's choice."""
        chosen = self.session.voice
        return "" if isinstance(chosen, Unset) else chosen


_T = TypeVar("_T")
_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "name": (str,),
    "session": (SessionConfig,),
    "greeting": (str, NoneType),
    "variables": (Mapping,),
    "description": (str,),
    "guardrail_every_chars": (int,),
    "time_zone": (str,),
}


def _check_kinds(values: Mapping[str, Any], place: str) -> None:
    for key, kinds in _KINDS.items():
        if not isinstance(values[key], kinds):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise ConfigError(f"{place}: {key}: {values[key]!r:.80} is not of the type {wanted}")
    if values["speaks_first"] not in [*Party]:
        given = values["speaks_first"]
        raise ConfigError(f"{place}: speaks_first: {given!r:.80} is not agent or caller")
    for one in values["handoffs"]:
        _handoff(one, place)
    for rule in values["guardrails"]:
        if not isinstance(rule, Guardrail):
            raise ConfigError(
                f"{place}: guardrails: {rule!r:.80} is not a guardrail: make one "
                "with regex_guardrail, function_guardrail or model_guardrail"
            )


def _listed(given: Iterable[_T], place: str) -> tuple[_T, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ConfigError(f"{place}: {given!r:.80} is not a list")
    return tuple(given)


def _check_once(chosen: object, place: str) -> None:
    if not isinstance(chosen, Unset):
        raise ConfigError(f"{place}: given twice, here and in the session")


def _tool(given: Tool | Callable[..., Any], place: str) -> Tool:
    if isinstance(given, Tool):
        return given
    if not callable(given):
        raise ConfigError(f"{place}: tools: {given!r:.80} is neither a tool nor a function")
    return tool(given)


def _handoff(to: str | HandoffTo | Agent, place: str) -> HandoffTo:
    option = to if isinstance(to, HandoffTo) else HandoffTo(agent=to)
    if not isinstance(option.agent, str | Agent):
        raise ConfigError(f"{place}: handoffs: {option.agent!r:.80} is not an agent or its name")
    return option
