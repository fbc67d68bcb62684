"""Drives a dialogue in tests: short words for what the model does and what the dialogue does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from app.agents.agent import Agent
from app.agents.dialogue.actions import DialogueAction, Record, ToVoice
from app.agents.dialogue.dialogue import Dialogue
from app.agents.roster import Roster
from app.agents.tools.tool import Tool
from app.events import CallCounters, CallId
from app.realtime.events import (
    SAY_METADATA_KEY,
    AudioTranscriptDelta,
    AudioTranscriptDone,
    ErrorDetail,
    ErrorEvent,
    InputAudioCommitted,
    Item,
    ItemAdded,
    ItemCreate,
    OutputItemDone,
    Response,
    ResponseCreate,
    ResponseCreated,
    ResponseDone,
    ResponseStatus,
    ServerEvent,
    SessionConfig,
    SessionUpdate,
    SessionUpdated,
    SpeechStarted,
    TranscriptionCompleted,
)

__all__ = ["GOODBYE", "DialogueHarness", "agent_named", "call_of", "tool_named"]

T = TypeVar("T")

GOODBYE = '{"reason": "caller_said_goodbye"}'
"""Arguments of `end_call`."""


def tool_named(name: str = "look_up", **options: Any) -> Tool:
    async def run(context: object, arguments: Mapping[str, Any]) -> str:
        return "done"

    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    return Tool(name=name, description="Does it.", parameters=schema, run=run, **options)


def agent_named(name: str = "greeter", **fields: Any) -> Agent:
    session = {key: fields.pop(key) for key in ("instructions", "voice") if key in fields}
    return Agent(name=name, session=SessionConfig(**session), **fields)


def call_of(name: str, tool_call_id: str = "c1", arguments: str = "{}") -> Item:
    return Item(
        type="function_call",
        id=f"item_{tool_call_id}",
        status="completed",
        call_id=tool_call_id,
        name=name,
        arguments=arguments,
    )


class DialogueHarness:
    """Drives a `Dialogue` and keeps its actions in order."""

    def __init__(self, *agents: Agent) -> None:
        roster = Roster(agents or [agent_named()])
        self.now_ms = 0
        self.counters = CallCounters()
        self.dialogue = Dialogue(roster.first, CallId("call"), self.counters, roster=roster)
        self.actions: list[DialogueAction] = []

    def do(self, actions: Sequence[DialogueAction]) -> None:
        self.actions += actions

    def take(self, kind: type[T]) -> list[T]:
        """The actions, sent events and records of a kind, removed from the list."""
        found: list[T] = []
        rest: list[DialogueAction] = []
        for action in self.actions:
            inner = action.event if isinstance(action, ToVoice | Record) else action
            if isinstance(inner, kind):
                found.append(inner)
            else:
                rest.append(action)
        self.actions = rest
        return found

    @property
    def order(self) -> list[str]:
        return [
            type(a.event).__name__ if isinstance(a, ToVoice | Record) else type(a).__name__
            for a in self.actions
        ]

    def requested(self) -> list[str]:
        """The sentences that the model was asked to say; empty for replies of its own."""
        return [
            ""
            if create.response is None or not isinstance(create.response.metadata, Mapping)
            else create.response.metadata[SAY_METADATA_KEY]
            for create in self.take(ResponseCreate)
        ]

    def outputs(self) -> list[tuple[str | None, str | None]]:
        items = [create.item for create in self.take(ItemCreate)]
        return [(i.call_id, i.output) for i in items if i.type == "function_call_output"]

    # The model's events ---------------------------------------------------------------------------

    def voice(self, *events: ServerEvent) -> None:
        for event in events:
            self.do(self.dialogue.on_voice(event, self.now_ms))

    def begins(self, response_id: str = "r1", *, says: str = "") -> None:
        metadata = {SAY_METADATA_KEY: says} if says else {}
        status = ResponseStatus.IN_PROGRESS
        self.voice(ResponseCreated(Response(id=response_id, status=status, metadata=metadata)))

    def speaks(self, text: str, response_id: str = "r1", *, final: bool = False) -> None:
        item_id = f"a_{response_id}"
        self.voice(ItemAdded(Item(type="message", id=item_id, role="assistant")))
        self.voice(AudioTranscriptDelta(response_id, item_id, 0, 0, text))
        if final:
            self.voice(AudioTranscriptDone(response_id, item_id, 0, 0, text))

    def calls(self, *items: Item, response_id: str = "r1") -> None:
        for item in items:
            self.voice(OutputItemDone(response_id, 0, item))

    def ends(
        self,
        response_id: str = "r1",
        status: ResponseStatus = ResponseStatus.COMPLETED,
        *output: Item,
    ) -> None:
        message = Item(type="message", id=f"a_{response_id}", role="assistant")
        done = Response(id=response_id, status=status, output=output or (message,))
        self.voice(ResponseDone(done))

    def answers(self, response_id: str = "r1", *, says: str = "") -> None:
        self.begins(response_id, says=says)
        self.speaks(says or "words", response_id, final=True)
        self.ends(response_id)

    def confirms(self) -> None:
        self.voice(SessionUpdated(SessionConfig()))

    def refuses(self, event_id: str, code: str = "invalid_value") -> None:
        self.voice(ErrorEvent(ErrorDetail(code=code, client_event_id=event_id)))

    def last_update(self) -> SessionUpdate:
        (update,) = self.take(SessionUpdate)
        return update

    def caller_starts(self, item_id: str = "u1") -> None:
        self.voice(SpeechStarted(item_id, 0))

    def caller_stops(self, text: str = "hello", item_id: str = "u1") -> None:
        self.voice(InputAudioCommitted(item_id), TranscriptionCompleted(item_id, 0, text))

    def wait(self, ms: int) -> None:
        self.now_ms += ms
        self.do(self.dialogue.on_tick(self.now_ms))
