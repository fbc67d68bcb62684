"""Drives a conversation: short words for what the phone and the model do, at a given time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from app.agents.agent import Agent
from app.agents.dialogue.actions import GiveUp, Record, RunTool, ToVoice
from app.agents.roster import Roster
from app.agents.tools.call_control import CALL_TOOLS
from app.calls.actions import Action, AppendAudio, CheckMessages, Clear, End, PlayAudio, RenewVoice
from app.calls.conversation.conversation import PROBE_MARK, Conversation
from app.calls.keypad.menu import KeypadMap
from app.calls.policy import CallPolicy
from app.calls.recording.notice import RecordingNotice
from app.calls.recording.tape import Tape
from app.carrier.base import (
    CallerAudio,
    CarrierCallId,
    Dtmf,
    MarkReached,
    StreamEvent,
    StreamId,
    StreamStarted,
)
from app.events import CallEvent, CallId, Party
from app.realtime.events import (
    SAY_METADATA_KEY,
    AudioDelta,
    AudioDone,
    AudioTranscriptDelta,
    AudioTranscriptDone,
    ClientEvent,
    ErrorDetail,
    InputAudioCommitted,
    Item,
    ItemAdded,
    ItemCreate,
    OutputItemDone,
    Response,
    ResponseConfig,
    ResponseCreate,
    ResponseCreated,
    ResponseDone,
    ResponseStatus,
    ServerEvent,
    ServerVad,
    SessionConfig,
    SpeechStarted,
    SpeechStopped,
    Transcription,
    TranscriptionCompleted,
)
from audio.format import PCMU_8K

T = TypeVar("T")


class CallHarness:
    """Drives a `Conversation` and keeps what it wanted done."""

    def __init__(  # noqa: PLR0913 - many switches, and tests turn one or two
        self,
        *,
        greeting: str | None = "Hello!",
        speaks_first: Party = Party.AGENT,
        policy: CallPolicy | None = None,
        vad: ServerVad | None = None,
        live: bool = True,
        transcribed: bool = False,
        tools: tuple[Mapping[str, Any], ...] = (),
        keypads: Mapping[str, KeypadMap] | None = None,
        other_agents: tuple[Agent, ...] = (),
        interruptible_greeting: bool = True,
        returns_probes: bool = True,
        tape: Tape | None = None,
        notice: RecordingNotice | None = None,
        placed: bool = False,
    ) -> None:
        agent = Agent(
            name="test",
            session=SessionConfig(
                input_format=PCMU_8K,
                output_format=PCMU_8K,
                turn_detection=vad or ServerVad(),
                transcription=Transcription(model="writer") if transcribed else None,
                tools=tools,
            ),
            greeting=greeting,
            speaks_first=speaks_first,
            interruptible_greeting=interruptible_greeting,
        )
        self.now_ms = 0
        self.conversation = Conversation(
            CallId("call"),
            agent,
            policy or CallPolicy(),
            0,
            roster=Roster([agent, *other_agents]),
            keypads=keypads,
            tape=tape,
            notice=notice,
            placed=placed,
        )
        self.actions: list[Action] = []
        self.later: dict[int, str] = {}
        """Tools that a feed of a test lets end, by the time at which they do."""
        self._returns_probes = returns_probes
        if live:
            self.ready()
            self.stream()

    # Wanted ---------------------------------------------------------------------------------------

    def take(self, kind: type[T]) -> list[T]:
        """The actions of a kind since the last `take` of it, removed from the list."""
        found: list[T] = [action for action in self.actions if isinstance(action, kind)]
        self.actions = [action for action in self.actions if not isinstance(action, kind)]
        return found

    def sent(self, kind: type[T]) -> list[T]:
        """Events of a kind that were sent to the model."""
        found = [a for a in self.actions if isinstance(a, ToVoice) and isinstance(a.event, kind)]
        self.actions = [action for action in self.actions if action not in found]
        return [action.event for action in found if isinstance(action.event, kind)]

    def recorded(self, kind: type[T]) -> list[T]:
        found = [a for a in self.actions if isinstance(a, Record) and isinstance(a.event, kind)]
        self.actions = [action for action in self.actions if action not in found]
        return [action.event for action in found if isinstance(action.event, kind)]

    @property
    def order(self) -> list[str]:
        """The actions' names in order; events to the model by their own name."""
        return [
            type(a.event).__name__ if isinstance(a, ToVoice | Record) else type(a).__name__
            for a in self.actions
        ]

    # Events ---------------------------------------------------------------------------------------

    def ready(self, expires_in_ms: int | None = None) -> None:
        self.actions += self.conversation.on_voice_ready(self.now_ms, expires_in_ms)

    def stream(self) -> None:
        self.phone(
            StreamStarted(
                stream_id=StreamId("MZ1"), carrier_call_id=CarrierCallId("CA1"), account_id="AC1"
            )
        )

    def phone(self, event: StreamEvent) -> None:
        self.actions += self.conversation.on_stream(event, self.now_ms)

    def voice(self, *events: ServerEvent) -> None:
        for event in events:
            self.actions += self.conversation.on_voice(event, self.now_ms)

    def wait(self, ms: int) -> None:
        """Let time pass, in ticks of 100 ms."""
        for _ in range(ms // 100):
            self.now_ms += 100
            ticked = self.conversation.on_tick(self.now_ms)
            self.actions += ticked
            if self._returns_probes and PlayAudio(b"", PROBE_MARK) in ticked:
                self.phone(MarkReached(PROBE_MARK))
        self.now_ms += ms % 100

    def frame(self, timestamp_ms: int) -> None:
        self.phone(CallerAudio(b"\x10" * 160, timestamp_ms))

    def key(self, digit: str) -> None:
        self.phone(Dtmf(digit))

    def marks(self) -> None:
        """The carrier plays everything so far: all marks of this generation come back."""
        self.now_ms = max(self.now_ms, self.conversation._downlink._playout._ends_ms)
        for play in self.take(PlayAudio):
            if play.mark is not None:
                self.phone(MarkReached(play.mark))

    def caller_starts(self, item_id: str = "u1") -> None:
        self.voice(SpeechStarted(item_id, 0))

    def caller_stops(self, item_id: str = "u1", text: str | None = "hello") -> None:
        self.voice(SpeechStopped(item_id, 0), InputAudioCommitted(item_id))
        if text is not None:
            self.voice(TranscriptionCompleted(item_id, 0, text))

    def caller_turn(self, item_id: str = "u1", text: str = "hello") -> None:
        self.caller_starts(item_id)
        self.caller_stops(item_id, text)

    def response_begins(self, response_id: str = "r1", item_id: str | None = "a1") -> None:
        self.voice(
            ResponseCreated(Response(id=response_id, status=ResponseStatus.IN_PROGRESS)),
        )
        if item_id is not None:
            self.voice(ItemAdded(Item(type="message", id=item_id, role="assistant")))

    def speaks(self, ms: int, text: str = "", response_id: str = "r1", item_id: str = "a1") -> None:
        self.voice(AudioDelta(response_id, item_id, 0, 0, b"\x20" * (8 * ms)))
        if text:
            self.voice(AudioTranscriptDelta(response_id, item_id, 0, 0, text))

    def response_ends(
        self,
        response_id: str = "r1",
        item_id: str | None = "a1",
        status: ResponseStatus = ResponseStatus.COMPLETED,
        *,
        text: str = "",
        calls: tuple[Item, ...] = (),
        error: ErrorDetail | None = None,
    ) -> None:
        output = calls
        if item_id is not None:
            if status is ResponseStatus.COMPLETED:
                self.voice(AudioTranscriptDone(response_id, item_id, 0, 0, text))
            self.voice(AudioDone(response_id, item_id, 0, 0))
            output = (Item(type="message", id=item_id, role="assistant"), *calls)
        for call in calls:
            self.voice(OutputItemDone(response_id, 1, call))
        self.voice(
            ResponseDone(Response(id=response_id, status=status, output=output, error=error))
        )

    def answer(self, ms: int = 1_000, text: str = "one two three four", name: str = "1") -> None:
        """A whole answer, generated at once."""
        self.response_begins(f"r{name}", f"a{name}")
        self.speaks(ms, text, f"r{name}", f"a{name}")
        self.response_ends(f"r{name}", f"a{name}", text=text)

    def words(self) -> list[str]:
        """The sentences that the model was asked to say."""
        configs = [create.response for create in self.sent(ResponseCreate)]
        return [
            str(config.metadata[SAY_METADATA_KEY])
            for config in configs
            if config is not None and isinstance(config.metadata, Mapping)
        ]

    def greeted(self) -> None:
        """Past the greeting: it was generated and heard."""
        self.answer(500, "Hello!", "greeting")
        self.marks()
        self.actions.clear()


GOODBYE = '{"reason": "caller_said_goodbye"}'
"""The arguments that `end_call` needs."""


def call_item(name: str, tool_call_id: str = "c1", arguments: str = "{}") -> Item:
    """A function call as a response gives it when it is done."""
    return Item(
        type="function_call",
        id=f"item_{tool_call_id}",
        status="completed",
        call_id=tool_call_id,
        name=name,
        arguments=arguments,
    )


def calls_tool(
    name: str,
    arguments: dict[str, Any],
    *,
    speech: str = "",
    can_keep: bool = True,
    **options: Any,
) -> CallHarness:
    """A harness in which the model calls a tool of the call, maybe with words before."""
    harness = CallHarness(tools=tuple(CALL_TOOLS.values()), **options)
    harness.greeted()
    harness.caller_turn("u0", "hello")
    harness.response_begins("r1", "a1" if speech else None)
    if speech:
        harness.speaks(1_000, speech)
    call = call_item(name, arguments=json.dumps(arguments))
    harness.response_ends("r1", "a1" if speech else None, text=speech, calls=(call,))
    for check in harness.take(CheckMessages):
        checked = harness.conversation.on_messages_checked
        harness.actions += checked(check.run, harness.now_ms, can_keep=can_keep)
    return harness


def tool_output(harness: CallHarness) -> dict[str, Any]:
    """The answer that the model got."""
    [answer] = [c.item.output for c in harness.sent(ItemCreate) if c.item.output is not None]
    found: dict[str, Any] = json.loads(answer)
    return found


def with_tool_running() -> CallHarness:
    """A harness in which the caller waits for a tool."""
    harness = CallHarness()
    harness.greeted()
    harness.caller_turn()
    harness.response_begins("r1", None)
    harness.response_ends("r1", None, calls=(call_item("look_up"),))
    harness.actions.clear()
    return harness


def spoken(config: ResponseConfig | None) -> str:
    """The sentence that a `response.create` asks to be said word for word."""
    assert config is not None
    assert isinstance(config.metadata, dict)
    return str(config.metadata[SAY_METADATA_KEY])


__all__ = [
    "GOODBYE",
    "AppendAudio",
    "CallEvent",
    "CallHarness",
    "Clear",
    "ClientEvent",
    "End",
    "GiveUp",
    "PlayAudio",
    "RenewVoice",
    "ResponseCreate",
    "RunTool",
    "call_item",
    "calls_tool",
    "spoken",
    "tool_output",
    "with_tool_running",
]
