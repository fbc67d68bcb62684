"""An agent as a value: its voice session, greeting, tools, guardrails and handoffs.

Built from settings by `app.assembly` or in Python; `app.agents.roster` checks agents together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from app.agents.guardrails.rules import DEBOUNCE_CHARS, Guardrail
from app.agents.handoffs import HandoffTo
from app.agents.per_call import InstructionsFunction
from app.agents.tools.call_control import CALL_TOOLS, END_CALL, END_CALL_TOOL
from app.agents.tools.tool import Tool
from app.events import Party
from app.realtime.events import SessionConfig, Transcription, Unset
from audio.format import PCM16_24K, AudioFormat

__all__ = ["END_CALL", "END_CALL_TOOL", "RESERVED_TOOL_NAMES", "Agent"]

RESERVED_TOOL_NAMES: Final = frozenset(CALL_TOOLS)
"""Tools that a call runs by name: no other tool may have one of these names, offered or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """An agent: its session with the model, its greeting, tools, guardrails and handoffs.

    `session.instructions` and `greeting` are templates (`app.agents.instructions`); `variables`
    declares the names that they may use besides the call's facts, with defaults. A call runs the
    tools of `session.tools` itself; `tools` are run by `app.agents.dialogue.tool_runner`.
    `handoffs` names agents of the same roster, whose `description` tells the model what they are
    for. `guardrails` check the agent's transcript every `guardrail_every_chars` characters. A
    caller who speaks over a greeting that is not interruptible is answered after it. `guesses`
    marks an agent that takes callers' words for one of a few sentences; transcripts say so.
    `instructions_for` writes the instructions of each call; where it fails, those of the session
    are used.
    """

    name: str
    session: SessionConfig
    greeting: str | None = None
    speaks_first: Party = Party.AGENT
    variables: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    tools: tuple[Tool, ...] = ()
    handoffs: tuple[str | HandoffTo, ...] = ()
    guardrails: tuple[Guardrail, ...] = ()
    guardrail_every_chars: int = DEBOUNCE_CHARS
    time_zone: str = "UTC"
    interruptible_greeting: bool = True
    guesses: bool = False
    instructions_for: InstructionsFunction | None = field(default=None, repr=False)

    @property
    def handoff_options(self) -> tuple[HandoffTo, ...]:
        """The handoffs, each with its options."""
        return tuple(HandoffTo(agent=to) if isinstance(to, str) else to for to in self.handoffs)

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
        return any(tool.get("name") == name for tool in self.session_tools)

    @property
    def transcribed(self) -> bool:
        """True where the caller's words are transcribed."""
        return isinstance(self.session.transcription, Transcription)

    @property
    def voice(self) -> str:
        """The voice that the agent asks for; empty where that is the model's choice."""
        chosen = self.session.voice
        return "" if isinstance(chosen, Unset) else chosen
