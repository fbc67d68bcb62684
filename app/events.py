"""The events of a call: one vocabulary for logs, metrics, transcripts and the console.

Values only. Speech and numbers inside them are personal: `app.logs` masks them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from operator import add, attrgetter
from typing import Any, ClassVar, Final, Literal, NewType

__all__ = [
    "SESSION_PREFIX",
    "AgentSaid",
    "Analysis",
    "AnalysisEvent",
    "AnalysisFailed",
    "AnswerJudged",
    "AnsweredBy",
    "BargeIn",
    "CallAdmitted",
    "CallCounters",
    "CallEnded",
    "CallEvent",
    "CallId",
    "CallLost",
    "CallNotAnswered",
    "CallPlaced",
    "CallReviewed",
    "CallRinging",
    "CallSummary",
    "CallTurnedAway",
    "CallerSaid",
    "CarrierReported",
    "CarrierUsage",
    "CarrierVerdict",
    "Cost",
    "DisclosureHeard",
    "EndReason",
    "FirstSound",
    "GuardrailTripped",
    "HandedOff",
    "KeyPressed",
    "MessageTaken",
    "ModelInput",
    "OperatorActed",
    "OptedOut",
    "Party",
    "RecordingStarted",
    "RecordingStopped",
    "SpeechResumed",
    "StagesTimed",
    "StreamOpened",
    "TaskAnswered",
    "TaskRequest",
    "TaskStarted",
    "TokenUsage",
    "ToolApprovalRequired",
    "ToolRan",
    "TransferEnded",
    "TransferStarted",
    "TurnAnalyzed",
    "TurnTimed",
    "VoiceReady",
    "VoiceReconnecting",
    "VoiceTrouble",
]

CallId = NewType("CallId", str)
SESSION_PREFIX: Final = "gws_"
"""Begins the id of a session of the gateway, which the history keeps as a call."""


class Party(StrEnum):
    """The two sides of a call."""

    CALLER = "caller"
    AGENT = "agent"


class EndReason(StrEnum):
    """The reasons for the end of a call: the closed set of logs, metrics and reports."""

    CALLER_HUNG_UP = "caller_hung_up"
    AGENT_HUNG_UP = "agent_hung_up"
    TRANSFERRED = "transferred"
    OPERATOR_HUNG_UP = "operator_hung_up"
    SILENCE = "silence"
    MAX_DURATION = "max_duration"
    MAX_COST = "max_cost"
    CARRIER_LOST = "carrier_lost"
    VOICE_LOST = "voice_lost"
    DRAINED = "drained"
    INTERNAL_ERROR = "internal_error"


class AnsweredBy(StrEnum):
    """Those that answer a call which was placed."""

    UNKNOWN = "unknown"
    HUMAN = "human"
    SCREENING = "screening"
    VOICEMAIL = "voicemail"
    IVR = "ivr"
    FAX = "fax"
    HOLD = "hold"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUsage:
    """Tokens by billing class. Cached tokens are part of the input tokens, as on the wire.

    `cached_unsplit` counts cached tokens that the model did not split into text and audio; they are
    in neither of the two. `transcription_tokens` is all that a transcription is billed by: the
    other three say what is known of its parts. `voice_seconds` is how long the model was connected,
    `speech_seconds` how much sound it made.
    `estimated_responses` and `unsplit_responses` count those whose usage is not as it was billed.
    """

    input_text: int = 0
    input_audio: int = 0
    cached_text: int = 0
    cached_audio: int = 0
    cached_unsplit: int = 0
    output_text: int = 0
    output_audio: int = 0
    transcription_seconds: float = 0.0
    transcription_tokens: int = 0
    transcription_text: int = 0
    transcription_audio: int = 0
    transcription_output: int = 0
    voice_seconds: float = 0.0
    speech_seconds: float = 0.0
    estimated_responses: int = 0
    unsplit_responses: int = 0

    def __add__(self, other: TokenUsage) -> TokenUsage:
        sums = map(add, _amounts(self), _amounts(other))
        return TokenUsage(**dict(zip(_USAGE, sums, strict=True)))


_USAGE = tuple(one.name for one in fields(TokenUsage))
_amounts = attrgetter(*_USAGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class CarrierUsage:
    """Usage that a carrier bills for one call: its legs, each by its seconds, and text messages.

    `legs` are those of people whom callers were transferred to. A message counts once for each
    segment. `estimated`: a length is by our own clock, since the carrier has not reported it.
    """

    direction: Literal["inbound", "outbound"] = "inbound"
    seconds: float = 0.0
    legs: tuple[float, ...] = ()
    sms_segments: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of a call in US dollars, by class; what was not used is in no class.

    `unknown` names the prices that are missing, so that their part is in no class either. Without a
    price of the voice model itself there is no `total_usd`. `estimated`: a part of it is not as it
    was billed.
    """

    classes: Mapping[str, float] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    estimated: bool = False
    model_known: bool = True

    @property
    def total_usd(self) -> float | None:
        return round(sum(self.classes.values()), 9) if self.model_known else None


@dataclass(slots=True)
class CallCounters:
    """The counters of one call; mutable while it lives, copied into its summary."""

    caller_frames: int = 0
    agent_frames: int = 0
    caller_audio_ms: int = 0
    agent_audio_ms: int = 0
    gap_filled_ms: int = 0
    stall_filled_ms: int = 0
    uplink_dropped_ms: int = 0
    stale_audio_dropped_ms: int = 0
    appends_sent: int = 0
    barge_ins: int = 0
    false_interruptions: int = 0
    turns: int = 0
    responses: int = 0
    responses_failed: int = 0
    tool_calls: int = 0
    benign_errors: int = 0
    voice_errors: int = 0
    protocol_surprises: int = 0
    voice_reconnects: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSummary:
    """The one wide line of a call that has ended. Durations are milliseconds.

    `cost_usd`, `costs`, `cost_unknown` and `cost_estimated` are those of a `Cost`.
    `recording_file` and `recording_end` are empty for a call that was not recorded. `session_id` is
    the voice model's own id of the call's last session.
    """

    call_id: CallId
    carrier_call_id: str
    agent: str
    model: str
    reason: EndReason
    duration_ms: int
    answer_to_first_audio_ms: int | None = None
    turn_latency_p50_ms: int | None = None
    turn_latency_p95_ms: int | None = None
    barge_in_reaction_max_ms: int | None = None
    counters: CallCounters = field(default_factory=CallCounters)
    usage: TokenUsage = field(default_factory=TokenUsage)
    carrier: CarrierUsage = field(default_factory=CarrierUsage)
    cost_usd: float | None = None
    costs: Mapping[str, float] = field(default_factory=dict)
    cost_unknown: tuple[str, ...] = ()
    cost_estimated: bool = False
    recording_file: str = ""
    recording_end: str = ""
    session_id: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallAdmitted:
    """The webhook was answered and a voice connection is being opened.

    `tools` is everything that the agent is given to call, `configuration` the version in force.
    """

    call_id: CallId
    carrier_call_id: str
    caller_number: str
    called_number: str
    agent: str
    tools: tuple[str, ...] = ()
    configuration: str = ""
    direction: Literal["inbound", "outbound"] = "inbound"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPlaced:
    """The carrier is about to be asked to call somebody.

    As in `CallAdmitted`, the caller is the person who talks with the agent, here the one who is
    called, and the called number is ours. `CallAdmitted` follows when they answer, and
    `CallNotAnswered` if not. `taken_over`: it is told once more, by the process that follows the
    call since the one that placed it died.
    """

    call_id: CallId
    caller_number: str
    called_number: str
    agent: str
    purpose: str = "service"
    campaign: str = ""
    taken_over: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRinging:
    """The phone of somebody who is called rings, `after_ms` since the call was placed."""

    call_id: CallId
    carrier_call_id: str
    after_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CallNotAnswered:
    """A call that was to be placed came to nothing, and no other event of it follows.

    `code` is the carrier's or our own, `reason` the same in plain words. It is the only event of a
    call that was given up before the carrier was asked (`not_dialed`), so it repeats the numbers
    and the agent of `CallPlaced`.
    """

    call_id: CallId
    carrier_call_id: str
    outcome: Literal["busy", "no_answer", "canceled", "failed", "unknown", "not_dialed"]
    code: str
    reason: str
    after_ms: int
    caller_number: str = ""
    called_number: str = ""
    agent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CarrierVerdict:
    """The carrier's detector says what has answered, `after_ms` since it picked up.

    `answered_by` is `human`, `machine_start`, `machine_end_beep`, `machine_end_silence`,
    `machine_end_other`, `fax` or `unknown`.
    """

    call_id: CallId
    at_ms: int
    answered_by: str
    after_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTurnedAway:
    """No agent answered the call, and no other event of it follows.

    `reason` is a code: at_capacity, overloaded, over_budget, draining, closed, not_in_percent,
    caller_limit or number_limit.
    `put_through_to` names the
    destination that the caller was sent to, and is empty where they were only told something.
    """

    call_id: CallId
    carrier_call_id: str
    caller_number: str
    called_number: str
    reason: str
    put_through_to: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOpened:
    """The caller's sound has started to flow."""

    call_id: CallId
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CarrierReported:
    """The carrier has reported the progress of a live call: `status` is one of its states."""

    call_id: CallId
    at_ms: int
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceReady:
    """The model is connected and has confirmed its session; `waited_ms` since admission.

    `differing` names settings that it took another value for; the rest is what it was told.
    `session_id` is the model's own, by which its maker finds the session.
    """

    call_id: CallId
    at_ms: int
    waited_ms: int
    session_id: str = ""
    reconnected: bool = False
    differing: tuple[str, ...] = ()
    model: str = ""
    agent: str = ""
    voice: str = ""
    tools: tuple[str, ...] = ()
    instructions_chars: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstSound:
    """The agent's first sound is sent to the caller, `after_ms` since the stream opened."""

    call_id: CallId
    at_ms: int
    after_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerJudged:
    """A placed call: who, or what, has answered it, `after_ms` since it was answered.

    `evidence` says in words what speaks for `verdict` and against it, the strongest first. A later
    one replaces an earlier one.
    """

    call_id: CallId
    at_ms: int
    verdict: AnsweredBy
    before: AnsweredBy
    after_ms: int
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DisclosureHeard:
    """The other party has heard the disclosure that the call had to begin with.

    `text` is what had to be said, and `spoken` what the voice model says that it has spoken.
    `by_mark`: the carrier's own mark behind it came back; else it is known by the clock. `tries`
    counts how often it was begun.
    """

    call_id: CallId
    at_ms: int
    text: str
    spoken: str
    by_mark: bool
    tries: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class OptedOut:
    """A callee has asked never to be called again, in the turn `item_id`; `words` said so.

    `number` is theirs. Without `item_id` it is the model that has understood them so.
    """

    call_id: CallId
    at_ms: int
    item_id: str
    number: str
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerSaid:
    """A caller turn's transcript: advisory, from the transcription model. `item_id` orders it.

    `unverified`: made by the offline engine, which fits every sound into a few sentences.
    """

    call_id: CallId
    at_ms: int
    item_id: str
    text: str
    failed: bool = False
    unverified: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSaid:
    """An agent turn, once its playing is over or was cut off.

    `text` is what the model generated; `heard_text` the part that the caller has heard.
    """

    call_id: CallId
    at_ms: int
    item_id: str
    text: str
    heard_text: str
    cut_off: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnTimed:
    """The course of a caller's turn, from their last sound to the first one that they heard.

    Milliseconds since admission; `None`: it did not come to that. `at_ms` is when that was known.
    `turn_found_ms` is the model's word that the turn is over, `response_ms` that it answers,
    `model_sound_ms` its first sound, `sent_ms` that sound on its way, `heard_ms` by the carrier's
    mark. `caller_stopped_ms` is the model's word less the pause that proved it.
    """

    call_id: CallId
    at_ms: int
    item_id: str
    caller_stopped_ms: int
    turn_found_ms: int
    transcript_ms: int | None = None
    response_ms: int | None = None
    model_sound_ms: int | None = None
    sent_ms: int | None = None
    heard_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StagesTimed:
    """The times of the stages behind a reply of the chained pipeline, each to its first answer.

    `stt` from the end of the turn to its text, `llm` to the first word, `tts` from the first
    sentence to its first sound, in milliseconds; one that had no part in it is missing. `began_ms`
    is when the first of them began, as if each had waited for the one before.
    """

    call_id: CallId
    at_ms: int
    response_id: str
    stages_ms: dict[str, int]
    began_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInput:
    """Something that the model was given and that neither party said.

    `what`: note, truncated (the caller has heard `heard_ms` of the item), settings (`text` names
    them) or asked (for a response with instructions of its own). `text` may be personal.
    """

    call_id: CallId
    at_ms: int
    what: str
    item_id: str = ""
    heard_ms: int | None = None
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BargeIn:
    """The caller spoke over the agent, who had been heard for `heard_ms` of `sent_ms`."""

    call_id: CallId
    at_ms: int
    item_id: str
    heard_ms: int
    sent_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechResumed:
    """The last barge-in was a false interruption: the agent goes on at `heard_ms` of the item."""

    call_id: CallId
    at_ms: int
    item_id: str
    heard_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPressed:
    """The caller pressed a key; `digit` is a dot where digits are not to be read."""

    call_id: CallId
    at_ms: int
    digit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageTaken:
    """The caller has left a message: what they said from the turn `item_id` on. It is personal."""

    call_id: CallId
    at_ms: int
    item_id: str
    recipient: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRan:
    """A tool finished; `error` is the error code, empty when it worked.

    A tool that was cancelled has `interrupted` (the caller went on) or `call_over` there.
    """

    call_id: CallId
    at_ms: int
    name: str
    duration_ms: int
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolApprovalRequired:
    """A tool waits for consent: `by` an operator or the caller's keypad.

    `arguments` is JSON, and personal.
    """

    call_id: CallId
    at_ms: int
    tool_call_id: str
    name: str
    arguments: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOff:
    """Another agent has taken over, in the same call and history.

    `kept_voice`: the voice that goes on speaking, where the new agent's own came too late: a
    session keeps the voice of its first sound.
    """

    call_id: CallId
    at_ms: int
    from_agent: str
    to_agent: str
    kept_voice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferStarted:
    """A destination is being called for the caller; `warm`: they stay with the agent meanwhile."""

    call_id: CallId
    at_ms: int
    destination: str
    warm: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferEnded:
    """The outcome: answered, busy, no_answer, declined, voicemail, failed, canceled, unknown.

    An unknown one goes on without us: we drain, or the call has reached its longest duration.
    `evidence` is the carrier's report that it was read from.
    """

    call_id: CallId
    at_ms: int
    destination: str
    outcome: str
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorActed:
    """An operator has steered the call: say, interrupt, hang_up, transfer, approve or refuse.

    `by` names the key that asked for it; `text` is what is to be said, the destination or the tool
    call.
    """

    call_id: CallId
    at_ms: int
    action: str
    by: str
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingStarted:
    """The call is recorded, into `file`."""

    call_id: CallId
    at_ms: int
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingStopped:
    """The recording has ended; what was recorded is in `file`.

    `reason`: call_over, disk_full, failed, or notice_not_heard: the caller has not heard that the
    call is recorded, so nothing of them was. `lost_ms` is sound that the disk was too slow for.
    """

    call_id: CallId
    at_ms: int
    file: str
    reason: str
    duration_ms: int
    lost_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardrailTripped:
    """A rule objected to what one side said. `stopped`: the agent's speech was cut off for it."""

    call_id: CallId
    at_ms: int
    guardrail: str
    side: Party
    stopped: bool
    reason: str
    item_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceReconnecting:
    """The connection to the voice model was lost, and another one is being opened; `code` says why.

    `session_id` is the lost one, as the model calls it.
    """

    call_id: CallId
    at_ms: int
    code: str
    session_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceTrouble:
    """The voice model reported an error or failed a response; `code` is the model's own.

    `where` is the setting that the error points at, with the name of the tool that it is.
    `message` is ours, where we have words for it. `session_id` is the model's own.
    """

    call_id: CallId
    at_ms: int
    code: str
    benign: bool
    session_id: str = ""
    where: str = ""
    message: str = ""


# Analysis of a call -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """The analysis after a turn. `task` is a task for another system, in plain words."""

    intent: str = ""
    entities: Mapping[str, str] = field(default_factory=dict)
    summary: str = ""
    task: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRequest:
    """A task for an outside agent. `key` is the same for every attempt, and for no other task."""

    key: str
    call_id: CallId
    text: str
    intent: str
    entities: Mapping[str, str]
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnAnalyzed:
    """A turn of the caller was understood. `item_id` names the turn."""

    type: ClassVar[Literal["turn_analyzed"]] = "turn_analyzed"
    call_id: CallId
    at_ms: int = 0
    item_id: str
    analysis: Analysis
    duration_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisFailed:
    """A turn, or the whole call (`item_id` empty), could not be analyzed; `code` says why."""

    type: ClassVar[Literal["analysis_failed"]] = "analysis_failed"
    call_id: CallId
    at_ms: int = 0
    item_id: str
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStarted:
    """A task was handed to an outside agent."""

    type: ClassVar[Literal["task_started"]] = "task_started"
    call_id: CallId
    at_ms: int = 0
    task: TaskRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAnswered:
    """The outside agent answered; `error` is a code, or empty."""

    type: ClassVar[Literal["task_answered"]] = "task_answered"
    call_id: CallId
    at_ms: int = 0
    key: str
    answer: str
    duration_ms: int
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallReviewed:
    """The review of a call that is over: an object of the operator's schema."""

    call_id: CallId
    review: Mapping[str, Any]


AnalysisEvent = TurnAnalyzed | AnalysisFailed | TaskStarted | TaskAnswered
"""Events of a live call; `at_ms` counts from its admission, and is 0 where there is no phone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnded:
    """The last event of every call that was admitted, also of one that was never connected."""

    call_id: CallId
    at_ms: int
    summary: CallSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLost:
    """The process that held the call is gone, and its end was not recorded.

    Only the history of calls has it: nobody was there to tell an observer.
    """

    call_id: CallId


CallEvent = (
    CallAdmitted
    | CallPlaced
    | CallRinging
    | CallNotAnswered
    | CarrierVerdict
    | CallTurnedAway
    | StreamOpened
    | CarrierReported
    | VoiceReady
    | FirstSound
    | AnswerJudged
    | DisclosureHeard
    | OptedOut
    | CallerSaid
    | AgentSaid
    | TurnTimed
    | StagesTimed
    | ModelInput
    | BargeIn
    | SpeechResumed
    | KeyPressed
    | MessageTaken
    | ToolRan
    | ToolApprovalRequired
    | HandedOff
    | TransferStarted
    | TransferEnded
    | OperatorActed
    | RecordingStarted
    | RecordingStopped
    | GuardrailTripped
    | VoiceReconnecting
    | VoiceTrouble
    | AnalysisEvent
    | CallEnded
)
