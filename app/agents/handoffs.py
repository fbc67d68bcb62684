"""Handoffs from one agent to another: their options, and the tool that the model calls for each.

`app.agents.dialogue.function_calls` carries out a call of `transfer_to_<name>`: new settings, the
tool's output, then the other agent's words, in the same call and history.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from pydantic import TypeAdapter, ValidationError

from app.agents.per_call import IsEnabled, accepts
from app.agents.tools.call_control import PREFIX
from app.agents.tools.function_signature import read_type
from app.agents.tools.schema import closed
from app.agents.tools.tool import MAX_CONCURRENCY, Tool, ToolContext, ToolFunction
from app.errors import ConfigError, ToolArgsInvalid
from app.threads import Slots, run_function

__all__ = ["HandoffTo", "handoff_name", "handoff_tool"]

_MAX_NAME_CHARS: Final = 64
_NOT_IN_A_NAME: Final = re.compile(r"[^a-z0-9_]+")


class NamedAgent(Protocol):
    """An `app.agents.agent.Agent`, which is made of handoffs."""

    @property
    def name(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoffTo:
    """A handoff with options.

    `agent` is an agent, or the name of one of the same roster. `input_type` describes the input
    that the model has to give: a dataclass, TypedDict or pydantic model, or a JSON schema; the
    agent who takes over gets it as data. `on_handoff` is called before the handoff, with a
    `ToolContext` and the input, if there is one; an exception that it raises prevents the handoff.
    `description` replaces the agent's own, `tool_name` replaces `transfer_to_<name>`. A handoff
    that is not enabled is not offered.
    """

    agent: str | NamedAgent
    description: str = ""
    tool_name: str = ""
    input_type: type | Mapping[str, Any] | None = None
    on_handoff: Callable[..., Any] | None = field(default=None, repr=False)
    is_enabled: IsEnabled = True

    @property
    def agent_name(self) -> str:
        return self.agent if isinstance(self.agent, str) else self.agent.name

    @property
    def name(self) -> str:
        """The name of the tool that the model calls."""
        return self.tool_name or handoff_name(self.agent_name)

    @property
    def prepared(self) -> bool:
        """True where an input is checked or `on_handoff` called before the handoff."""
        return self.input_type is not None or self.on_handoff is not None


def handoff_name(agent_name: str) -> str:
    """The tool's name for an agent: `Billing Support` is `transfer_to_billing_support`."""
    name = PREFIX + _NOT_IN_A_NAME.sub("_", agent_name.lower()).strip("_")
    return name[:_MAX_NAME_CHARS]


_NO_INPUT: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {},
    "additionalProperties": False,
}


def handoff_tool(to: HandoffTo, about: str = "") -> Tool:
    """The tool that hands a caller to an agent; `about` is the description of that agent.

    Raises:
        ConfigError: a wrong name, or an input that is not an object in JSON schema.
    """
    if to.on_handoff is not None and not callable(to.on_handoff):
        raise ConfigError(f"handoff {to.name}: on_handoff is not a function")
    if to.on_handoff is not None and not accepts(to.on_handoff, 1 + (to.input_type is not None)):
        given = "the context" if to.input_type is None else "the context and the input"
        raise ConfigError(f"handoff {to.name}: on_handoff is called with {given}")
    parameters, adapter = _input(to)
    about = to.description or about
    return Tool(
        name=to.name,
        description=f"Hand the caller over to the agent {to.agent_name!r}. {about}".strip(),
        parameters=parameters,
        run=_preparation(to, adapter),
        is_enabled=to.is_enabled,
    )


def _input(to: HandoffTo) -> tuple[Mapping[str, Any], TypeAdapter[Any] | None]:
    match to.input_type:
        case None:
            return _NO_INPUT, None
        case Mapping() as schema:
            return closed(schema), None
        case annotation:
            adapter, schema = read_type(annotation, f"handoff {to.name}, input_type")
            return schema, adapter


def _preparation(to: HandoffTo, adapter: TypeAdapter[Any] | None) -> ToolFunction:
    slots = Slots(MAX_CONCURRENCY)

    async def run(context: ToolContext, arguments: Mapping[str, Any]) -> None:
        value = _converted(adapter, arguments)
        if to.on_handoff is not None:
            given = () if to.input_type is None else (value,)
            await run_function(to.on_handoff, slots, context, *given)

    return run


def _converted(adapter: TypeAdapter[Any] | None, arguments: Mapping[str, Any]) -> Any:
    if adapter is None:
        return dict(arguments)
    try:
        return adapter.validate_python(arguments)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ToolArgsInvalid(f"{place}: {first['msg']}"[:240]) from error
