"""Handing a caller from one agent to another, as the model sees it: a tool for each of them.

`transfer_to_<name>` is what the model calls; `app.agents.function_calls` does it: settings, the
tool's output, then the other agent's first words, in the same call and history. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from app.agents.by_facts import Offer

__all__ = ["PREFIX", "HandoffTo", "failed", "handoff_name", "refused_output"]

PREFIX: Final = "transfer_to_"
"""Names that begin so belong to handoffs."""

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
