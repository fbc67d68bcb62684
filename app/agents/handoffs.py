"""Handing a caller from one agent to another, as the model sees it: a tool for each of them.

`transfer_to_<name>` is what the model calls; `app.agents.dialogue` does it: settings, the tool's
output, then the other agent's first words, in the same call and history. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.agents.agent import Agent

__all__ = ["PREFIX", "Handoff", "handoff_name", "handoff_tool", "refused_output"]

PREFIX: Final = "transfer_to_"
"""Names that begin so belong to handoffs."""

_MAX_NAME_CHARS: Final = 64
_NOT_IN_A_NAME: Final = re.compile(r"[^a-z0-9_]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Handoff:
    """A handoff that the model asked for and has not confirmed yet.

    `update_id` is the event id of our `session.update`; an error that names it undoes the handoff.
    `kept_voice` is the voice that goes on speaking, where the new agent's own comes too late.
    """

    tool_call_id: str
    giver: Agent
    taker: Agent
    update_id: str
    since_ms: int
    kept_voice: str = ""

    def output(self) -> str:
        """What the model is told once its settings have changed."""
        note = "You speak with the caller from here on. Go on without greeting again."
        return json.dumps({"agent": self.taker.name, "note": note})

    def failed_output(self, code: str) -> str:
        """What the model is told when it kept its settings."""
        return json.dumps({"error": "The handoff failed; go on yourself.", "code": code})


def handoff_name(agent_name: str) -> str:
    """The tool's name for an agent: `Billing Support` is `transfer_to_billing_support`."""
    name = PREFIX + _NOT_IN_A_NAME.sub("_", agent_name.lower()).strip("_")
    return name[:_MAX_NAME_CHARS]


def handoff_tool(agent: Agent) -> Mapping[str, Any]:
    """The tool that hands a caller to an agent, as a Realtime session names it."""
    about = f" {agent.description}" if agent.description else ""
    return {
        "type": "function",
        "name": handoff_name(agent.name),
        "description": f"Hand the caller over to the agent {agent.name!r}.{about}",
        "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
    }


def refused_output() -> str:
    """What the model is told that asks for two handoffs at a time."""
    return json.dumps({"error": "The caller is being handed over already."})
