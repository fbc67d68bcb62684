"""The events of an `AgentSession`, as values; `type` names each kind.

    async for event in session:
        match event:
            case HistoryUpdated(item=item): ...
            case ToolStart(tool=name): ...

The words in them are personal; nothing here is logged. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from app.agents.dialogue.item_history import HistoryEntry
from app.events import AnalysisEvent, Party, TokenUsage
from app.realtime.events import ServerEvent

__all__ = [
    "AgentEnd",
    "AgentStart",
    "Audio",
    "AudioEnd",
    "AudioInterrupted",
    "EventsDropped",
    "GuardrailTrip",
    "HandoffMade",
    "HistoryAdded",
    "HistoryItem",
    "HistoryUpdated",
    "InputTimeout",
    "RawModelEvent",
    "SessionError",
    "SessionEvent",
    "ToolApproval",
    "ToolEnd",
    "ToolStart",
    "UsageCounted",
    "Utterance",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryItem:
    """An item of the conversation as it stands: a message, a function call or its output.

    `party` is absent for calls and outputs. `heard_text` is the part of an agent's words that was
    heard; `final`: the text will not change any more.
    """

    item_id: str
    kind: str
    party: Party | None
    text: str = ""
    heard_text: str = ""
    final: bool = False
    cut_off: bool = False
    failed: bool = False
    tool_call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: str | None = None

    @classmethod
    def of(cls, entry: HistoryEntry) -> HistoryItem:
        """A snapshot of an entry."""
        return cls(
            item_id=entry.item_id,
            kind=entry.kind,
            party=entry.party,
            text=entry.text,
            heard_text=entry.heard_text,
            final=entry.text_final or entry.cut_off or entry.kind != "message",
            cut_off=entry.cut_off,
            failed=entry.failed,
            tool_call_id=entry.tool_call_id,
            name=entry.name,
            arguments=entry.arguments,
            output=entry.output,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStart:
    """An agent begins a turn."""

    type: ClassVar[Literal["agent_start"]] = "agent_start"
    agent: str
    response_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentEnd:
    """An agent's turn has been made; its sound may still be playing."""

    type: ClassVar[Literal["agent_end"]] = "agent_end"
    agent: str
    response_id: str
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Audio:
    """A piece of the agent's speech, in the session's output format."""

    type: ClassVar[Literal["audio"]] = "audio"
    item_id: str
    response_id: str
    audio: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioEnd:
    """An item's speech is complete."""

    type: ClassVar[Literal["audio_end"]] = "audio_end"
    item_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioInterrupted:
    """Stop playing, and throw away what was not played: the item was heard so far."""

    type: ClassVar[Literal["audio_interrupted"]] = "audio_interrupted"
    item_id: str
    heard_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolStart:
    """A tool begins its work; `arguments` is JSON as the model wrote it."""

    type: ClassVar[Literal["tool_start"]] = "tool_start"
    agent: str
    tool: str
    tool_call_id: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolEnd:
    """A tool has its answer; `error` is a code, empty when it worked."""

    type: ClassVar[Literal["tool_end"]] = "tool_end"
    agent: str
    tool: str
    tool_call_id: str
    output: str
    error: str
    duration_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolApproval:
    """A tool waits for `approve_tool_call` or `reject_tool_call`."""

    type: ClassVar[Literal["tool_approval_required"]] = "tool_approval_required"
    agent: str
    tool: str
    tool_call_id: str
    arguments: str
    prompt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoffMade:
    """Another agent has taken over. `kept_voice`: as in `app.events.HandedOff`."""

    type: ClassVar[Literal["handoff"]] = "handoff"
    from_agent: str
    to_agent: str
    kept_voice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardrailTrip:
    """A rule objected to what one side said; `stopped`: the agent was cut off for it."""

    type: ClassVar[Literal["guardrail_tripped"]] = "guardrail_tripped"
    guardrail: str
    side: Party
    stopped: bool
    reason: str
    item_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryAdded:
    """An item is new; it stands behind `previous_item_id`, or first."""

    type: ClassVar[Literal["history_added"]] = "history_added"
    item: HistoryItem
    previous_item_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryUpdated:
    """An item has changed, or was `removed`."""

    type: ClassVar[Literal["history_updated"]] = "history_updated"
    item: HistoryItem
    removed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """One side has said or written something, in whole: once for each utterance.

    `agent` names the agent who spoke. Of words that were cut off before they were complete, `text`
    is what was heard.
    """

    type: ClassVar[Literal["said"]] = "said"  # which programs compare with
    party: Party
    text: str
    item_id: str
    agent: str = ""
    cut_off: bool = False


Said = Utterance  # its old name, for one more version


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionError:
    """The model reported an error, in its words (`message`). `fatal`: the session ends with it."""

    type: ClassVar[Literal["error"]] = "error"
    code: str
    message: str = ""
    benign: bool = False
    fatal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageCounted:
    """Usage of the session so far, and its cost where the prices are known."""

    type: ClassVar[Literal["usage"]] = "usage"
    usage: TokenUsage
    cost_usd: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InputTimeout:
    """Nobody spoke for the idle time-out of the turn detection."""

    type: ClassVar[Literal["input_timeout"]] = "input_timeout"
    item_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RawModelEvent:
    """Any event of the model, as it came."""

    type: ClassVar[Literal["raw_model_event"]] = "raw_model_event"
    event: ServerEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsDropped:
    """This subscriber was slower than the session: `count` of its oldest events are lost."""

    type: ClassVar[Literal["events_dropped"]] = "events_dropped"
    count: int


SessionEvent = (
    AgentStart
    | AgentEnd
    | Audio
    | AudioEnd
    | AudioInterrupted
    | ToolStart
    | ToolEnd
    | ToolApproval
    | HandoffMade
    | GuardrailTrip
    | HistoryAdded
    | HistoryUpdated
    | Utterance
    | SessionError
    | UsageCounted
    | InputTimeout
    | RawModelEvent
    | AnalysisEvent
    | EventsDropped
)
