"""What the model has us do: its function calls, from the item to the one reply after them.

A handoff is a call that we answer ourselves, once the model has taken the other agent's settings
and, where it has to be prepared, a shell has done so; every other one is run by a shell. The half
of `app.agents.dialogue.dialogue` that is about deeds and not about words. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from app.agents.agent import Agent
from app.agents.dialogue.actions import DialogueAction, Record, RunTool, ToVoice
from app.agents.dialogue.active_agent import ActiveAgent, Handoff
from app.agents.dialogue.failures import ResponseFailures
from app.agents.dialogue.history import History
from app.agents.dialogue.messages import ModelMessages, SayMode, spoken
from app.agents.dialogue.response_kinds import Kind
from app.agents.dialogue.response_queue import ResponseQueue
from app.agents.handoffs import HandoffTo, failed, refused_output
from app.agents.tools.schema import parse_arguments
from app.events import CallCounters
from app.realtime.events import Item, ItemCreate
from app.realtime.protocol import ResponseGate

__all__ = ["FunctionCalls", "ToolCall", "ToolCalls"]


MAX_TOOL_REPLIES: Final = 20
"""In a row, without a word of the caller: a model that goes on so would go on for ever."""

_INTERRUPTED: Final = json.dumps(
    {"error": "You were interrupted before this, so it was not done.", "code": "interrupted"}
)


@dataclass(slots=True)
class _Prepared:
    """A handoff that something is done for first; `ready`: it is done, and nobody was connected."""

    call: ToolCall
    way: HandoffTo
    ready: bool = False


class FunctionCalls:
    """The function calls and handoffs of one conversation."""

    def __init__(
        self,
        active: ActiveAgent,
        *,
        telling: ModelMessages,
        gate: ResponseGate,
        requests: ResponseQueue,
        setbacks: ResponseFailures,
        history: History,
        counters: CallCounters,
    ) -> None:
        self._active = active
        self._messages = telling
        self._gate = gate
        self._responses = requests
        self._failures = setbacks
        self._history = history
        self._counters = counters
        self._calls = ToolCalls()
        self._replies = 0
        self._prepared: _Prepared | None = None

    @property
    def running(self) -> bool:
        return self._calls.running

    def on_caller_words(self) -> None:
        """The caller has said or written something: what follows is for them."""
        self._replies = 0

    def on_item(
        self, item: Item, response_id: str, agent: Agent, now_ms: int
    ) -> list[DialogueAction]:
        """An item is complete: begin what it calls, once. `agent` is the one who spoke."""
        tool_call_id, name = item.call_id, item.name or ""
        if tool_call_id is None or not self._is_new(item):
            return []
        self._calls.add(ToolCall(item, response_id, agent, self._messages.epoch))
        self._counters.tool_calls += 1
        run = RunTool(
            tool_call_id=tool_call_id,
            name=name,
            arguments=item.arguments or "{}",
            agent=agent.name,
        )
        way = self._active.roster.handoff(agent, name, self._active.facts)
        return [run] if way is None else self._on_handoff(run, way, agent, now_ms)

    def on_dropped(
        self, item: Item, response_id: str, agent: Agent, now_ms: int
    ) -> list[DialogueAction]:
        """An item of a response that was interrupted: what it calls is not done, and not heard of.

        It stands in the model's conversation all the same; unanswered, it would pass for done.
        """
        if item.call_id is None or not self._is_new(item):
            return []
        self._calls.add(ToolCall(item, response_id, agent, self._messages.epoch))
        return self.on_tool_done(item.call_id, _INTERRUPTED, now_ms, reply=False)

    def _is_new(self, item: Item) -> bool:
        return (
            item.type == "function_call"
            and item.call_id not in self._calls
            and item.status != "incomplete"
        )

    def on_tool_done(
        self, tool_call_id: str, output: str, now_ms: int, *, reply: bool = True
    ) -> list[DialogueAction]:
        """Give the model a tool's output; when it was the last of its response, have it speak."""
        call = self._calls.open_call(tool_call_id)
        if call is None:
            return []
        prepared = self._prepared
        if prepared is not None and prepared.call is call and not prepared.ready:
            prepared.ready = not failed(output)
            if prepared.ready:
                return self._hand_over(now_ms) if self._messages.connected else []
            self._prepared = None
        call.done = True
        call.reply = reply
        tell, new_id = self._messages.tell, self._messages.new_id
        actions: list[DialogueAction] = []
        if call.epoch != self._messages.epoch:  # asked on a connection that is gone
            actions += tell(ItemCreate(call.again(new_id("call"))))
        out = new_id("out")
        item = Item(type="function_call_output", id=out, call_id=tool_call_id, output=output)
        self._history.add(item, None, now_ms)
        return [*actions, *tell(ItemCreate(item)), *self.ask_when_done(now_ms)]

    def on_tool_slow(self, tool_call_id: str, filler: str, now_ms: int) -> list[ToVoice]:
        """Say that a tool takes its time, where nobody speaks; once for the tools of a response."""
        if self._gate.busy or not self._calls.may_fill(tool_call_id):
            return []
        return self._responses.ask(now_ms, spoken(filler, SayMode.VERBATIM, Kind.FILLER))

    def ask_when_done(self, now_ms: int) -> Sequence[ToVoice | Record]:
        """One reply for all the tools of a response, when it and they are done."""
        if not self._calls.take_due(self._gate.active_response_id):
            return []
        if self._replies >= MAX_TOOL_REPLIES:
            return self._failures.on_tool_loop(now_ms)
        self._replies += 1
        return self._responses.ask_after_tools(now_ms)

    # Handoffs -----------------------------------------------------------------------------------

    def _on_handoff(
        self, run: RunTool, way: HandoffTo, from_agent: Agent, now_ms: int
    ) -> list[DialogueAction]:
        if (
            self._active.agent is not from_agent
            or self._active.handoff is not None
            or self._prepared
        ):
            return self.on_tool_done(run.tool_call_id, refused_output(), now_ms, reply=False)
        if not way.prepared:
            to_agent = self._active.roster[way.agent]
            return [self._active.hand_over(run.tool_call_id, to_agent, now_ms)]
        call = self._calls.open_call(run.tool_call_id)
        assert call is not None
        self._prepared = _Prepared(call, way)
        return [run]

    def _hand_over(self, now_ms: int) -> list[DialogueAction]:
        """What is done before a handoff is done, and the model's arguments were checked."""
        assert self._prepared is not None
        call, way = self._prepared.call, self._prepared.way
        self._prepared = None
        tool_call_id = call.item.call_id or ""
        to_agent = self._active.roster.get(way.agent)
        busy = self._active.handoff is not None
        if to_agent is None or self._active.agent is not call.agent or busy:
            return self.on_tool_done(tool_call_id, refused_output(), now_ms, reply=not busy)
        given = None if way.input_type is None else parse_arguments(call.item.arguments or "{}")
        return [self._active.hand_over(tool_call_id, to_agent, now_ms, given)]

    def on_reconnected(self, now_ms: int) -> list[DialogueAction]:
        """A fresh connection: the handoff that was under way is done, or goes on."""
        actions = self.on_handed_over(self._active.on_reconnected(), now_ms)
        if self._prepared is not None and self._prepared.ready:
            actions += self._hand_over(now_ms)
        # What was found while a response ran that is lost with its connection.
        return [*actions, *self.ask_when_done(now_ms)]

    def on_handed_over(self, handoff: Handoff | None, now_ms: int) -> list[DialogueAction]:
        """The model has the new agent's settings: it gets the tool's output, and the floor."""
        if handoff is None:
            return []
        event = self._active.handed_over(
            handoff.from_agent, handoff.to_agent, now_ms, handoff.kept_voice
        )
        return [
            Record(event),
            *self.on_tool_done(handoff.tool_call_id, handoff.output(), now_ms),
        ]

    def on_handoff_refused(
        self, handoff: Handoff | None, code: str, now_ms: int
    ) -> list[DialogueAction]:
        """The model kept its settings: it is told that the first agent goes on."""
        if handoff is None:
            return []
        return self.on_tool_done(handoff.tool_call_id, handoff.failed_output(code), now_ms)


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
