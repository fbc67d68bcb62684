"""The agents and their guardrails, as they are written in `config.yaml`.

`app.settings.references` checks that the names in them lead somewhere; `app.assembly` makes agents
of them.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from app.settings.sections.limits import CallLimits, RecordingOverrides
from app.settings.sections.realtime import SessionOverrides
from app.settings.values import Blank, FunctionPath, Name, Section, Spoken, Text, TimeZone

__all__ = [
    "BUILT_IN_TOOLS",
    "AgentName",
    "AgentSettings",
    "GuardrailName",
    "GuardrailSettings",
    "KeySettings",
    "MenuSettings",
    "Variables",
    "check_variables",
    "only_one_of",
]

BUILT_IN_TOOLS: Final = (
    "end_call",
    "transfer_call",
    "collect_digits",
    "take_message",
    "pause_recording",
    "hold",
    "send_dtmf",
    "send_sms",
    "read_back",
)
"""Tools that an agent may name without their being described; `app.assembly` makes them."""

_FACTS: Final = ("caller", "number", "time")


def _agent_name(name: str) -> str:
    # With transfer_to_ before it, it is the name of a function, which has up to 64 characters.
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,52}", name):
        raise ValueError(f"{name[:80]!r}: an agent's name is letters, digits, _ and -, up to 52")
    return name


def check_variables(variables: dict[str, str]) -> dict[str, str]:
    """Raises ValueError for a name that no template can hold."""
    for name in variables:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name in _FACTS:
            raise ValueError(f"a variable cannot be named {name!r}")
    return variables


def _key(key: str) -> str:
    if not re.fullmatch(r"[0-9*#]", key):
        raise ValueError(f"{key[:20]!r}: a keypad has the keys 0 to 9, * and #")
    return key


def only_one_of(section: Section, *names: str) -> None:
    """Raises ValueError unless exactly one of the keys is given."""
    given = [name for name in names if getattr(section, name) is not None]
    if len(given) != 1:
        choice = f"{', '.join(names[:-1])} and {names[-1]}"
        raise ValueError(
            f"exactly one of {choice} is needed; found {' and '.join(given) or 'none'}"
        )


AgentName = Annotated[str, AfterValidator(_agent_name)]
GuardrailName = Annotated[str, AfterValidator(_agent_name)]
Variables = Annotated[dict[str, str], AfterValidator(check_variables)]


class KeySettings(Section):
    """The action of a key of the caller's telephone."""

    say: Spoken | None = None
    transfer: Name | None = None
    agent: Name | None = None
    hang_up: Spoken | None = None

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        only_one_of(self, "say", "transfer", "agent", "hang_up")
        if not (self.say or self.transfer or self.agent or self.hang_up or "").strip():
            raise ValueError("say and hang_up need words")
        return self


Key = Annotated[str, AfterValidator(_key)]


class MenuSettings(Section):
    """A spoken menu: the keys are those of `keypad`."""

    prompt: Spoken
    otherwise: Literal["hang_up"] | KeySettings
    invalid: Spoken = "That key does nothing here."
    timeout_s: int = Field(default=6, ge=1, le=60)
    tries: int = Field(default=3, ge=1, le=10)


class AgentSettings(SessionOverrides):
    """An agent. Settings that are absent are as in `openai_realtime`."""

    description: str = Field(default="", max_length=1_000)
    instructions: Text | None = None
    instructions_python: FunctionPath | None = None
    greeting: Annotated[Spoken | None, Blank] = None
    speaks_first: Literal["agent", "caller"] | None = None
    interruptible_greeting: bool | None = None
    variables: Variables = Field(default_factory=dict)
    time_zone: TimeZone | None = None
    tools: tuple[Name, ...] = ()
    mcp_servers: tuple[Name, ...] = ()
    handoffs: tuple[Name, ...] = ()
    guardrails: tuple[Name, ...] = ()
    guardrail_every_chars: int = Field(default=100, ge=0, le=10_000)
    keypad: dict[Key, Literal["hang_up", "repeat"] | KeySettings] = Field(default_factory=dict)
    menu: MenuSettings | None = None
    limits: CallLimits = Field(default_factory=CallLimits)
    recording: RecordingOverrides = Field(default_factory=RecordingOverrides)

    @model_validator(mode="after")
    def _menu_has_keys(self) -> Self:
        if self.menu is not None and not self.keypad:
            raise ValueError("menu offers keys, and there are none: add them under keypad")
        return self


class GuardrailSettings(Section):
    """A rule about what one side says."""

    side: Literal["agent", "caller"] = "agent"
    pattern: Text | None = None
    python: FunctionPath | None = None
    question: Text | None = None
    action: Literal["stop", "warn"] = "stop"
    say: Annotated[Spoken | None, Blank] = None
    reason: Annotated[str | None, Blank] = Field(default=None, max_length=300)
    fail: Literal["open", "closed"] = "open"
    timeout_ms: int | None = Field(default=None, ge=10, le=30_000)

    @model_validator(mode="after")
    def _one_kind_of_check(self) -> Self:
        only_one_of(self, "pattern", "python", "question")
        if self.action == "warn" and self.say is not None:
            raise ValueError("say does nothing with action warn: remove it")
        if self.reason is not None and self.pattern is None:
            raise ValueError("reason is for a pattern: functions and models give their own")
        return self
