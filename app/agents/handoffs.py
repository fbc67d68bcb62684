"""Handing a caller from one agent to another, as the model sees it: a tool for each of them.

`transfer_to_<name>` is what the model calls; `app.agents.dialogue.function_calls` does it:
settings, the tool's output, then the other agent's first words, in the same call and history. Pure.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from app.agents.per_call import Offer, takes
from app.agents.tools.call_control import PREFIX
from app.agents.tools.schema import closed
from app.agents.tools.signature import read_type
from app.agents.tools.tool import MAX_CONCURRENCY, Tool, ToolContext, ToolFunction
from app.errors import ConfigError, ToolArgsInvalid
from app.threads import Slots, in_thread

__all__ = ["HandoffTo", "failed", "handoff_name", "handoff_tool", "refused_output"]


_MAX_NAME_CHARS: Final = 64
_NOT_IN_A_NAME: Final = re.compile(r"[^a-z0-9_]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoffTo:
    """A handoff of which more is to be said than the name of the agent who takes over.

    `input_type` is what the model has to say with it: a dataclass, TypedDict or pydantic model, or
    a JSON schema; the agent who takes over is given it as data. `on_handoff` is told of the handoff
    before it happens: it takes a `ToolContext`, and the input where there is one; what it raises
    keeps the caller where they are. `description` stands in place of the agent's own, `tool_name`
    in place of `transfer_to_<name>`. One that is not enabled is not offered.
    """

    agent: str
    description: str = ""
    tool_name: str = ""
    input_type: type | Mapping[str, Any] | None = None
    on_handoff: Callable[..., Any] | None = field(default=None, repr=False)
    is_enabled: Offer = True

    @property
    def name(self) -> str:
        """What the model calls."""
        return self.tool_name or handoff_name(self.agent)

    @property
    def prepared(self) -> bool:
        """Something is to be done before the caller is handed over."""
        return self.input_type is not None or self.on_handoff is not None


def handoff_name(agent_name: str) -> str:
    """The tool's name for an agent: `Billing Support` is `transfer_to_billing_support`."""
    name = PREFIX + _NOT_IN_A_NAME.sub("_", agent_name.lower()).strip("_")
    return name[:_MAX_NAME_CHARS]


def refused_output() -> str:
    """What the model is told that asks for two handoffs at a time."""
    return json.dumps({"error": "The caller is being handed over already."})


def failed(output: str) -> bool:
    """Whether the preparation of a handoff went wrong, by what the model would be told of it."""
    return "error" in json.loads(output)


NOTHING: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {},
    "additionalProperties": False,
}


def handoff_tool(to: HandoffTo, about: str = "") -> Tool:
    """The tool that hands a caller to an agent; `about` is the description of that agent.

    Raises:
        ConfigError: a name that is none, or an input that is no object in JSON schema.
    """
    if to.on_handoff is not None and not callable(to.on_handoff):
        raise ConfigError(f"handoff {to.name}: on_handoff is no function")
    if to.on_handoff is not None and not takes(to.on_handoff, 1 + (to.input_type is not None)):
        given = "the context" if to.input_type is None else "the context and the input"
        raise ConfigError(f"handoff {to.name}: on_handoff is called with {given}")
    parameters, adapter = _input(to)
    about = to.description or about
    return Tool(
        name=to.name,
        description=f"Hand the caller over to the agent {to.agent!r}. {about}".strip(),
        parameters=parameters,
        run=_preparation(to, adapter),
        is_enabled=to.is_enabled,
    )


def _input(to: HandoffTo) -> tuple[Mapping[str, Any], TypeAdapter[Any] | None]:
    match to.input_type:
        case None:
            return NOTHING, None
        case Mapping() as schema:
            return closed(schema), None
        case annotation:
            adapter, schema = read_type(annotation, f"handoff {to.name}, input_type")
            return schema, adapter


def _preparation(to: HandoffTo, adapter: TypeAdapter[Any] | None) -> ToolFunction:
    slots = Slots(MAX_CONCURRENCY)
    told = to.on_handoff

    async def run(context: ToolContext, arguments: Mapping[str, Any]) -> None:
        value = _converted(adapter, arguments)
        if told is None:
            return
        call: Callable[[], Any] = (
            partial(told, context) if to.input_type is None else partial(told, context, value)
        )
        if inspect.iscoroutinefunction(told):
            await call()
            return
        found = await in_thread(call, slots.here)
        if inspect.isawaitable(found):
            await found

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
