"""Who answers: an agent's voice settings, manners, tools and colleagues, as values.

Built from settings by `app.main` or in Python; `app.agents.roster` checks agents together. Nothing
here knows a phone, a socket or a store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from app.agents.guardrails.rules import (
    DEBOUNCE_CHARS,
    Guardrail,
)
from app.agents.handoffs import HandoffTo
from app.agents.per_call import InstructionsFunction
from app.agents.tools.call_control import (
    CALL_TOOLS,
    END_CALL,
    END_CALL_TOOL,
)
from app.agents.tools.tool import Tool
from app.events import Party
from app.realtime.events import (
    SessionConfig,
    Transcription,
    Unset,
)
from audio.format import PCM16_24K, AudioFormat

__all__ = ["END_CALL", "END_CALL_TOOL", "RESERVED_TOOL_NAMES", "Agent"]

RESERVED_TOOL_NAMES: Final = frozenset(CALL_TOOLS)
"""Tools that the phone side runs by name: no other tool may be called so, offered or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """An agent: its session with the model, its first words, what it can do, and who helps it.

    `session.instructions` and `greeting` are templates (`app.agents.instructions`); `variables`
    declares the names that they may use besides the call's facts, with defaults. `session.tools`
    are tools that the phone side runs; `tools` are run by `app.agents.dialogue.tool_runner`.
    `handoffs` names agents of the same roster, each of which says in its `description` what it is
    there for. `guardrails` look at the agent's transcript each `guardrail_every_chars` characters.
    Callers who speak over a greeting that is not interruptible are answered after it. `guesses`:
    what it makes of callers' words is a guess among a few sentences, and transcripts say so.
    `instructions_for` writes the instructions of each call; where it fails, those of the session
    hold.
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
    def leads_to(self) -> tuple[HandoffTo, ...]:
        """The handoffs, all of them with what is to be said of them."""
        return tuple(HandoffTo(agent=way) if isinstance(way, str) else way for way in self.handoffs)

    @property
    def input_format(self) -> AudioFormat:
        """What the model is sent; PCM16 at 24 kHz unless the session says otherwise."""
        chosen = self.session.input_format
        return PCM16_24K if isinstance(chosen, Unset) else chosen

    @property
    def output_format(self) -> AudioFormat:
        """What the model sends."""
        chosen = self.session.output_format
        return PCM16_24K if isinstance(chosen, Unset) else chosen

    @property
    def instructions(self) -> str:
        """The instructions' template; empty where the session has none."""
        chosen = self.session.instructions
        return "" if isinstance(chosen, Unset) else chosen

    @property
    def session_tools(self) -> tuple[Mapping[str, Any], ...]:
        """The tools that the phone side runs, as the wire has them."""
        chosen = self.session.tools
        return () if isinstance(chosen, Unset) else chosen

    def has_session_tool(self, name: str) -> bool:
        return any(tool.get("name") == name for tool in self.session_tools)

    @property
    def transcribed(self) -> bool:
        """Whether we are told what the caller says."""
        return isinstance(self.session.transcription, Transcription)

    @property
    def voice(self) -> str:
        """The voice that the agent asks for; empty where that is the model's choice."""
        chosen = self.session.voice
        return "" if isinstance(chosen, Unset) else chosen
