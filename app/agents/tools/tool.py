"""Tools of agents, and the decorator that makes one of a Python function.

`@tool` reads a function's signature and docstring; a synchronous function runs in a thread of its
own, so that the sound goes on, or in a process. `app.agents.tools.http_tool` and
`app.agents.tools.mcp` make tools of other things; `app.agents.tools.invocation` decides whether a
function call runs at all. The facts of the call that a tool gets never come from the model.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Any, Final, Literal, overload

from app.agents.per_call import IsEnabled, accepts, check_function
from app.agents.tools.function_signature import Signature, read_signature
from app.agents.tools.process import Workers
from app.agents.tools.schema import ArgumentCheck, flattened
from app.errors import ConfigError
from app.events import CallId
from app.threads import Slots, run_function

__all__ = [
    "Approval",
    "InputGuardrail",
    "Tool",
    "ToolContext",
    "ToolFunction",
    "ToolResult",
    "run_in_process",
    "tool",
]


_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Names of functions that the Realtime API accepts."""

MAX_CONCURRENCY: Final = 64
"""Calls of one tool at a time in this process: enough for each of 50 phone calls to wait in one."""


class Approval(StrEnum):
    """The approval that a tool needs before it runs."""

    NONE = "none"
    OPERATOR = "operator"
    KEYPAD = "keypad"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """The facts of the call that a tool works for; none of them comes from the model.

    `caller_number` is a claim unless `caller_verified`: the network vouches for it.
    """

    call_id: CallId
    tool_call_id: str
    agent: str = ""
    caller_number: str | None = None
    called_number: str | None = None
    caller_verified: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt at this call of the tool, and for no other.

        A digest: the id comes from the model's side and may hold what no header can.
        """
        text = json.dumps([self.call_id, self.tool_call_id])
        return hashlib.sha256(text.encode()).hexdigest()[:32]


RunIn = Literal["thread", "process"]
ToolFunction = Callable[[ToolContext, Mapping[str, Any]], Awaitable[Any]]
InputGuardrail = Callable[[ToolContext, Mapping[str, Any]], str | Awaitable[str | None] | None]
"""`None` lets a tool run; a text goes to the model in place of a result."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tool:
    """Something that an agent can do.

    `run` gets arguments that `parameters` allows and returns a JSON value; it raises `ToolFailed`
    with a message for the model when it cannot. The agent says `filler` when there is no result
    after `filler_after_ms`. `reply=False` is for results that need no words. `interruptible` tools
    are given up when the caller speaks. `verified_caller` refuses callers whose number the network
    does not vouch for. `input_guardrails` see the arguments before anybody is asked to approve.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    run: ToolFunction = field(repr=False)
    timeout_ms: int = 10_000
    filler: str | None = None
    filler_after_ms: int = 2_000
    approval: Approval = Approval.NONE
    verified_caller: bool = False
    reply: bool = True
    interruptible: bool = False
    max_output_chars: int = 8_000
    max_concurrency: int = MAX_CONCURRENCY
    input_guardrails: tuple[InputGuardrail, ...] = ()
    is_enabled: IsEnabled = True
    check: ArgumentCheck = field(init=False, repr=False)
    slots: Slots = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"tool {self.name[:80]!r}: a name is up to 64 letters, digits, _ and -"
            )
        if not self.description:
            raise ConfigError(
                f"tool {self.name}: has no description; the model chooses by it (for a function, "
                "write a docstring)"
            )
        for limit in ("timeout_ms", "filler_after_ms", "max_output_chars", "max_concurrency"):
            if getattr(self, limit) <= 0:
                raise ConfigError(f"tool {self.name}: {limit} must be above zero")
        check_function(self.is_enabled, f"tool {self.name}: is_enabled")
        object.__setattr__(self, "input_guardrails", tuple(self.input_guardrails))
        if not all(callable(rule) and accepts(rule, 2) for rule in self.input_guardrails):
            raise ConfigError(
                f"tool {self.name}: an input guardrail is a function of context and arguments"
            )
        object.__setattr__(self, "approval", Approval(self.approval))
        object.__setattr__(self, "check", ArgumentCheck(self.parameters, f"tool {self.name}"))
        object.__setattr__(self, "slots", Slots(self.max_concurrency))

    @property
    def wire(self) -> dict[str, Any]:
        """The tool as a Realtime session names it."""
        return {
            "type": "function",
            "name": self.name,
            "description": self.description,
            "parameters": flattened(self.parameters),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """The output for the model: always JSON, also for a failure; `error` is a code or empty."""

    output: str = field(repr=False)
    error: str = ""
    duration_ms: int = 0
    reply: bool = True


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    run_in: RunIn = "thread",
    **options: Any,
) -> Callable[[Callable[..., Any]], Tool]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    run_in: RunIn = "thread",
    **options: Any,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a tool of a Python function: `@tool`, or `@tool(timeout_ms=3_000, reply=False)`.

    Name, description and parameters are read from the function; a first parameter of type
    `ToolContext` gets the facts of the call and is not shown to the model. `options` are the
    fields of `Tool`. `run_in="process"` is for work that computes: see `run_in_process`.

    Raises:
        ConfigError: a parameter that JSON schema cannot express, or an option that is wrong.
    """
    make = partial(_make, name=name, description=description, run_in=run_in, options=options)
    return make if function is None else make(function)


def _make(
    function: Callable[..., Any],
    *,
    name: str | None,
    description: str | None,
    run_in: RunIn,
    options: Mapping[str, Any],
) -> Tool:
    known = name or str(getattr(function, "__name__", "tool"))
    wrong = options.keys() - set(Tool.__dataclass_fields__) | options.keys() & _OURS
    if wrong:
        raise ConfigError(f"tool {known}: there is no option {sorted(wrong)[0]!r}")
    signature = read_signature(function, ToolContext)
    limit = options.get("max_concurrency", MAX_CONCURRENCY)
    slots = Slots(max(1, limit))

    async def run(context: ToolContext, arguments: Mapping[str, Any]) -> Any:
        keywords = _call_with(signature, context, arguments)
        return await run_function(function, slots, **keywords)

    run.__wrapped__ = function  # type: ignore[attr-defined]
    made = Tool(
        name=known,
        description=description or signature.description,
        parameters=signature.parameters,
        run=run,
        **options,
    )
    return run_in_process(made) if run_in == "process" else made


def run_in_process(made: Tool) -> Tool:
    """The same tool, whose function runs in a process of its own, which is killed when it is late.

    As many run at a time as there are processors, unless its `max_concurrency` says less. Arguments
    and results are pickled.

    Raises:
        ConfigError: it is not made of a function that stands in a module.
    """
    function = inspect.unwrap(made.run)
    if function is made.run:
        raise ConfigError(f"tool {made.name}: run_in process is for Python functions")
    given = made.max_concurrency
    most = given if given < MAX_CONCURRENCY else os.cpu_count() or 1
    try:
        workers = Workers(function, most)
    except ConfigError as error:
        raise ConfigError(f"tool {made.name}: run_in process: {error.message}") from error
    signature = read_signature(function, ToolContext)

    async def run(context: ToolContext, arguments: Mapping[str, Any]) -> Any:
        return await workers.run(_call_with(signature, context, arguments))

    run.__wrapped__ = function  # type: ignore[attr-defined]
    return replace(made, run=run)


_OURS: Final = frozenset(("parameters", "run", "check", "slots"))


def _call_with(
    signature: Signature, context: ToolContext, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    keywords = signature.convert(arguments)
    if signature.context_parameter is not None:
        keywords[signature.context_parameter] = context
    return keywords
