"""The function calls of a conversation on their way to an answer: one reply after all of them.

A response may call several tools; each is answered as soon as it is done, and the model is asked
to speak once all of that response are. Whether a call may run, and running it, is
`app.agents.toolbox` and `app.agents.tool_runner`. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from app.agents.agent import Agent
from app.realtime.events import Item

__all__ = ["ToolCall", "ToolCalls"]


@dataclass(slots=True)
class ToolCall:
    """One function call. `epoch` counts connections: one that is gone has to be told again."""

    item: Item
    response_id: str
    agent: Agent
    epoch: int
    done: bool = False
    reply: bool = True
    answered: bool = False

    def again(self, item_id: str) -> Item:
        """The call as an item for a session that has never seen it."""
        return replace(self.item, id=item_id, status=None, arguments=self.item.arguments or "{}")


class ToolCalls:
    """The function calls of one conversation, by their ids."""

    def __init__(self) -> None:
        self._calls: dict[str, ToolCall] = {}
        self._filled: set[str] = set()

    def __contains__(self, tool_call_id: object) -> bool:
        return tool_call_id in self._calls

    def add(self, call: ToolCall) -> None:
        self._calls[call.item.call_id or ""] = call

    def open_call(self, tool_call_id: str) -> ToolCall | None:
        """A call that waits for its answer."""
        call = self._calls.get(tool_call_id)
        return None if call is None or call.done else call

    @property
    def running(self) -> bool:
        return any(not call.done for call in self._calls.values())

    def take_due(self, active_response_id: str | None) -> bool:
        """Whether a reply is due: all tools of a response are done, and so is the response.

        Each response's tools are due once; those that want no reply count, but do not ask for one.
        """
        groups: dict[str, list[ToolCall]] = {}
        for call in self._calls.values():
            if not call.answered:
                groups.setdefault(call.response_id, []).append(call)
        due = False
        for response_id, calls in groups.items():
            if response_id == active_response_id or not all(call.done for call in calls):
                continue
            for call in calls:
                call.answered = True
            due = due or any(call.reply for call in calls)
        return due

    def may_fill(self, tool_call_id: str) -> bool:
        """Whether a filler may be said for a call: it runs, and none was for its response."""
        call = self.open_call(tool_call_id)
        if call is None or call.response_id in self._filled:
            return False
        self._filled.add(call.response_id)
        return True
