"""A handoff as a tool: what the model sees, and what is done before the caller changes hands.

The limits, checks and safe answers are those of every tool (`app.agents.toolbox`); the handoff
itself follows in `app.agents.function_calls`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from app.agents.agent import Agent
from app.agents.handoffs import HandoffTo
from app.agents.schema import closed, read_type, takes
from app.agents.tools import MAX_CONCURRENCY, Slots, Tool, ToolContext, ToolFunction, in_thread
from app.errors import ConfigError, ToolArgsInvalid

__all__ = ["handoff_tool"]

NOTHING: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {},
    "additionalProperties": False,
}


def handoff_tool(to: HandoffTo, taker: Agent) -> Tool:
    """The tool that hands a caller to an agent.

    Raises:
        ConfigError: a name that is none, or an input that is no object in JSON schema.
    """
    if to.on_handoff is not None and not callable(to.on_handoff):
        raise ConfigError(f"handoff {to.name}: on_handoff is no function")
    if to.on_handoff is not None and not takes(to.on_handoff, 1 + (to.input_type is not None)):
        given = "the context" if to.input_type is None else "the context and the input"
        raise ConfigError(f"handoff {to.name}: on_handoff is called with {given}")
    parameters, adapter = _input(to)
    about = to.description or taker.description
    return Tool(
        name=to.name,
        description=f"Hand the caller over to the agent {taker.name!r}. {about}".strip(),
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
        found = await in_thread(slots.here, call)
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
