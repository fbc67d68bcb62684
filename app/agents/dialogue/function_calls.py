"""The model's function calls: from the item that makes one to the one reply after all of them.

A shell runs them (`app.agents.dialogue.tool_runner`), but for handoffs: those are answered here,
once the model has taken the other agent's settings. A handoff that needs preparation (its input
checked, an `on_handoff` called) is run by the shell first. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from app.agents.agent import Agent
from app.agents.dialogue.actions import DialogueAction, GiveUp, Record, RunTool, ToVoice
from app.agents.dialogue.active_agent import ActiveAgent, Handoff
from app.agents.dialogue.failures import TOOL_LOOP, ResponseFailures
from app.agents.dialogue.item_history import History
from app.agents.dialogue.messages import (
    PLEASE_WAIT,
    SAY_NOT_DONE,
    ModelMessages,
    SayMode,
    spoken,
)
from app.agents.dialogue.response_kinds import Kind
from app.agents.dialogue.response_queue import ResponseQueue
from app.agents.handoffs import HandoffTo
from app.agents.tools.call_control import END_CALL
from app.agents.tools.schema import parse_arguments
from app.events import CallCounters
from app.realtime.events import Item, ItemCreate
from app.realtime.protocol import ResponseGate

__all__ = ["FunctionCalls"]


MAX_REPLIES: Final = 20
"""In a row, without a word of the caller: a model that goes on so would go on for ever."""

_INTERRUPTED: Final = json.dumps(
    {"error": "You were interrupted before this, so it was not done.", "code": "interrupted"}
)
_BUSY: Final = json.dumps({"error": "The caller is being handed over already."})


@dataclass(slots=True)
class _Call:
    """One function call, made in a response on the connection that `epoch` counts.

    `reply`: the model is asked to speak once it is done. `settled`: that was seen to.
    """

    item: Item
    response_id: str
    agent: Agent
    epoch: int
    done: bool = False
    reply: bool = True
    settled: bool = False

    @property
    def tool_call_id(self) -> str:
        return self.item.call_id or ""


@dataclass(slots=True)
class _Preparation:
    """A handoff that is being prepared; `ready` once it is, until there is a connection for it."""

    call: _Call
    handoff: HandoffTo
    ready: bool = False


class FunctionCalls:
    """The function calls and handoffs of one conversation."""

    def __init__(
        self,
        active: ActiveAgent,
        *,
        messages: ModelMessages,
        gate: ResponseGate,
        responses: ResponseQueue,
        failures: ResponseFailures,
        history: History,
        counters: CallCounters,
    ) -> None:
        self._active = active
        self._messages = messages
        self._gate = gate
        self._responses = responses
        self._failures = failures
        self._history = history
        self._counters = counters
        self._calls: dict[str, _Call] = {}
        self._filled: set[str] = set()  # responses whose tools have had their filler
        self._replies = 0
        self._preparation: _Preparation | None = None

    @property
    def running(self) -> bool:
        """True while a call waits for its output."""
        return self.runs_beside(())

    def runs_beside(self, tool_call_ids: Collection[str]) -> bool:
        """True while a call other than these waits for its output."""
        return any(
            not call.done and name not in tool_call_ids for name, call in self._calls.items()
        )

    def on_caller_words(self) -> None:
        """The caller has said or written something: what follows is for them."""
        self._replies = 0

    def on_item(
        self, item: Item, response_id: str, agent: Agent, now_ms: int
    ) -> list[DialogueAction]:
        """An item is complete: begin what it calls, once. `agent` is the one who spoke."""
        call = self._new_call(item, response_id, agent)
        if call is None:
            return []
        self._counters.tool_calls += 1
        name = item.name or ""
        run = RunTool(
            tool_call_id=call.tool_call_id,
            name=name,
            arguments=item.arguments or "{}",
            agent=agent.name,
        )
        handoff = self._active.roster.handoff(agent, name, self._active.facts)
        return [run] if handoff is None else self._on_handoff(call, run, handoff, now_ms)

    def on_dropped(
        self, item: Item, response_id: str, agent: Agent, now_ms: int
    ) -> list[DialogueAction]:
        """An item of a response that was interrupted: answer what it calls, and do nothing.

        It stands in the model's conversation all the same; unanswered, it would pass for done.
        """
        call = self._new_call(item, response_id, agent)
        if call is None:
            return []
        return self.on_tool_done(call.tool_call_id, _INTERRUPTED, now_ms, reply=False)

    def _new_call(self, item: Item, response_id: str, agent: Agent) -> _Call | None:
        if item.type != "function_call" or item.call_id is None or item.status == "incomplete":
            return None
        if item.call_id in self._calls:
            return None
        call = _Call(item, response_id, agent, self._messages.epoch)
        self._calls[item.call_id] = call
        return call

    def _open_call(self, tool_call_id: str) -> _Call | None:
        call = self._calls.get(tool_call_id)
        return None if call is None or call.done else call

    # Answers ------------------------------------------------------------------------------------

    def on_tool_done(
        self, tool_call_id: str, output: str, now_ms: int, *, reply: bool = True
    ) -> list[DialogueAction]:
        """Give the model a tool's output; when it was the last of its response, have it speak."""
        call = self._open_call(tool_call_id)
        if call is None:
            return []
        preparation = self._preparation
        if preparation is not None and preparation.call is call and not preparation.ready:
            preparation.ready = "error" not in json.loads(output)
            if preparation.ready:
                return self._hand_over(now_ms) if self._messages.connected else []
            self._preparation = None
        call.done = True
        call.reply = reply
        tell, new_id = self._messages.tell, self._messages.new_id
        actions: list[DialogueAction] = []
        if call.epoch != self._messages.epoch:  # this connection has not seen the call
            arguments = call.item.arguments or "{}"
            again = replace(call.item, id=new_id("fc"), status=None, arguments=arguments)
            actions += tell(ItemCreate(again))
        out = new_id("fco")
        item = Item(type="function_call_output", id=out, call_id=tool_call_id, output=output)
        self._history.add(item, None, now_ms)
        return [*actions, *tell(ItemCreate(item)), *self.ask_when_done(now_ms)]

    def on_told_again(self, tool_call_id: str, now_ms: int) -> Sequence[ToVoice | Record | GiveUp]:
        """The model refused a tool's output, which is sent again: it has yet to reply to it."""
        call = self._calls.get(tool_call_id)
        if call is not None:
            call.settled = False
        return self.ask_when_done(now_ms)

    def on_tool_slow(self, tool_call_id: str, filler: str, now_ms: int) -> list[ToVoice]:
        """Say that a tool takes its time, where nobody speaks; once for the tools of a response."""
        call = self._open_call(tool_call_id)
        if call is None or call.response_id in self._filled:
            return []
        said = self._responses.ask(now_ms, spoken(filler, SayMode.VERBATIM, Kind.FILLER))
        if said:
            self._filled.add(call.response_id)
        return said

    @property
    def filled(self) -> bool:
        """True while a tool runs whose response has had a filler."""
        return any(not c.done and c.response_id in self._filled for c in self._calls.values())

    def please_wait(self, now_ms: int) -> list[ToVoice]:
        """Ask a caller for patience who waits for the tools that run."""
        said = self._responses.ask(now_ms, PLEASE_WAIT)
        if said:
            self._filled.update(c.response_id for c in self._calls.values() if not c.done)
        return said

    def ask_when_done(self, now_ms: int) -> Sequence[ToVoice | Record | GiveUp]:
        """One reply for all the tools of a response, when it and they are done."""
        if not self._take_due():
            return []
        self._replies += 1
        if self._replies <= MAX_REPLIES:
            return self._responses.ask_after_tools(now_ms)
        said = self._responses.ask(now_ms, SAY_NOT_DONE)
        if self._replies == MAX_REPLIES + 1:
            return [*self._failures.on_tool_loop(now_ms), *said]
        return [*said, GiveUp(code=TOOL_LOOP, retryable=True)]  # it was to use none

    def _take_due(self) -> bool:
        """True where a reply is due: a response is over, and all of its tools are done.

        Each response's tools are due once; those that want no reply count, but ask for none.
        """
        unsettled: dict[str, list[_Call]] = {}
        for call in self._calls.values():
            if not call.settled:
                unsettled.setdefault(call.response_id, []).append(call)
        due = False
        for response_id, calls in unsettled.items():
            over = response_id != self._gate.active_response_id
            if over and all(call.done for call in calls):
                due = due or (any(call.reply for call in calls) and not any(map(_ends, calls)))
                for call in calls:
                    call.settled = True
        return due

    # Handoffs -----------------------------------------------------------------------------------

    def _on_handoff(
        self, call: _Call, run: RunTool, handoff: HandoffTo, now_ms: int
    ) -> list[DialogueAction]:
        under_way = self._active.handoff is not None or self._preparation is not None
        if under_way or self._active.agent is not call.agent:
            return self.on_tool_done(call.tool_call_id, _BUSY, now_ms, reply=False)
        if not handoff.prepared:
            to_agent = self._active.roster[handoff.agent_name]
            return [self._active.hand_over(call.tool_call_id, to_agent, now_ms)]
        self._preparation = _Preparation(call, handoff)
        return [run]

    def _hand_over(self, now_ms: int) -> list[DialogueAction]:
        """Go on with a handoff whose preparation is done; the arguments have been checked."""
        assert self._preparation is not None
        call, handoff = self._preparation.call, self._preparation.handoff
        self._preparation = None
        to_agent = self._active.roster.get(handoff.agent_name)
        busy = self._active.handoff is not None
        if to_agent is None or self._active.agent is not call.agent or busy:
            return self.on_tool_done(call.tool_call_id, _BUSY, now_ms, reply=not busy)
        given = None if handoff.input_type is None else parse_arguments(call.item.arguments or "{}")
        return [self._active.hand_over(call.tool_call_id, to_agent, now_ms, given)]

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

    def on_reconnected(self, now_ms: int) -> list[DialogueAction]:
        """A fresh connection: the handoff that was under way is done, or goes on."""
        actions = self.on_handed_over(self._active.on_reconnected(), now_ms)
        if self._preparation is not None and self._preparation.ready:
            actions += self._hand_over(now_ms)
        # Results found while a response ran that is lost with its connection.
        return [*actions, *self.ask_when_done(now_ms)]


def _ends(call: _Call) -> bool:
    """The call hung up, and its goodbye has been said."""
    return call.item.name == END_CALL and not call.reply
