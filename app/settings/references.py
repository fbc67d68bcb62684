"""Names in settings that lead to other settings: each must be there.

Looks at the values as they were read, before they are checked, so that a name which leads nowhere
is reported together with every other mistake.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from app.settings.reader.names import no_such
from app.settings.sections.agents import BUILT_IN_TOOLS

__all__ = ["broken_references"]

CANCEL_TRANSFER: Final = "cancel_transfer"
"""Comes with transfer_call and is named by nobody."""

Place = tuple[str | int, ...]
Broken = Iterator[tuple[Place, str]]


def broken_references(values: Mapping[str, Any]) -> Broken:
    """Each name that leads nowhere: where it stands, and a sentence about it."""
    agents = _table(values, "agents")
    destinations = _table(values, "destinations")
    tools = {**_table(values, "tools"), **dict.fromkeys(BUILT_IN_TOOLS)}
    for name in _table(values, "tools"):
        if name in BUILT_IN_TOOLS or name == CANCEL_TRANSFER:
            yield ("tools", name), f"{name} is built in: take another name"
    for name, agent in agents.items():
        place = ("agents", name)
        if not isinstance(agent, Mapping):
            continue
        yield from _each(agent, "tools", (*place, "tools"), "tool", tools)
        named = agent.get("tools")
        if isinstance(named, list) and "transfer_call" in named and not destinations:
            text = "transfer_call needs destinations: describe at least one"
            yield (*place, "tools", named.index("transfer_call")), text
        servers = _table(values, "mcp_servers")
        yield from _each(agent, "mcp_servers", (*place, "mcp_servers"), "MCP server", servers)
        rules = _table(values, "guardrails")
        yield from _each(agent, "guardrails", (*place, "guardrails"), "guardrail", rules)
        others = [one for one in agents if one != name]
        yield from _each(agent, "handoffs", (*place, "handoffs"), "other agent", others)
        for key, action in _table(agent, "keypad").items():
            yield from _one(
                action, "transfer", (*place, "keypad", key), "destination", destinations
            )
            yield from _one(action, "agent", (*place, "keypad", key), "agent", agents)
        last = _table(_table(agent, "menu"), "otherwise")
        there = (*place, "menu", "otherwise")
        yield from _one(last, "transfer", there, "destination", destinations)
        yield from _one(last, "agent", there, "agent", agents)
    for number, section in _table(values, "numbers").items():
        place = ("numbers", number)
        yield from _one(section, "agent", place, "agent", agents)
        yield from _one(section, "fallback", place, "destination", destinations)
        closed = section.get("closed") if isinstance(section, Mapping) else None
        yield from _one(closed, "agent", (*place, "closed"), "agent", agents)
        yield from _one(closed, "transfer", (*place, "closed"), "destination", destinations)
    if not _table(values, "mcp_servers"):  # the tools of servers are known once they are connected
        described = _table(values, "tools")
        yield from _one(values.get("analysis"), "task_tool", ("analysis",), "tool", described)


def _table(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


def _each(
    section: Mapping[str, Any], key: str, place: Place, kind: str, known: Collection[str]
) -> Broken:
    """The names of a list; one that is given twice is a mistake too."""
    names = section.get(key)
    seen: set[str] = set()
    for index, name in enumerate(names if isinstance(names, list) else ()):
        if not isinstance(name, str):
            continue
        if name not in known:
            yield (*place, index), no_such(kind, name, known)
        elif name in seen:
            yield (*place, index), f"{name!r} is given twice"
        seen.add(name)


def _one(section: Any, key: str, place: Place, kind: str, known: Collection[str]) -> Broken:
    name = section.get(key) if isinstance(section, Mapping) else None
    if isinstance(name, str) and name and name not in known:
        yield (*place, key), no_such(kind, name, known)
