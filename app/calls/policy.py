"""The limits of a call, as values. Zero turns a limit off where that is said."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = [
    "AnsweredByRules",
    "CallPolicy",
    "Disclosure",
    "InactivityTexts",
    "ProductivityRules",
    "RecordingRules",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class InactivityTexts:
    """The questions to a silent caller, in their order, and the words that end the call."""

    prompts: tuple[str, ...] = ("Are you still there?", "I cannot hear you. Are you still there?")
    closing_prompt: str = "I cannot hear anybody, so I will hang up now. Goodbye."


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductivityRules:
    """Limits of talk without a caller. 0 turns a rule off."""

    max_turns: int = 6
    max_wordless_ms: int = 180_000
    repeated_from_words: int = 4
    """A turn of so many words that was said before is an announcement, not a caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingRules:
    """A call that has these is recorded, once its caller has heard the `notice`."""

    notice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredByRules:
    """The course of a placed call until it is known who has answered it.

    `opening` is said to those who say nothing for `opening_after_ms` where no disclosure is, and at
    once unless `wait_for_callee`. Without a `message`, mailboxes are hung up on.
    """

    wait_for_callee: bool = True
    opening: str = "Hello?"
    opening_after_ms: int = 4_000
    nobody_after_ms: int = 15_000
    screening_text: str = "I am calling for the person at this number. Please put me through."
    screening_wait_ms: int = 30_000
    message: str = ""
    message_silence_ms: int = 2_500
    message_wait_ms: int = 60_000
    talk_to_menus: bool = False
    hold_wait_ms: int = 120_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Disclosure:
    """Words that a call has to begin with, and that nobody may interrupt; empty: there are none.

    `placed` is said in calls that we place, `taken` in those that we take.
    """

    placed: str = "Hello, this is an AI assistant."
    taken: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPolicy:
    """The limits of one call. Durations are milliseconds."""

    max_duration_ms: int = 3_600_000
    """Longest call; 0: unlimited."""
    max_cost_usd: float = 0.0
    """The most that the call may cost; 0: no limit."""
    duration_warning_ms: int = 60_000
    """Time before the end of the longest call at which `duration_warning` is said; 0: never."""
    silence_ms: int = 60_000
    """Silence of both sides after which the call ends; 0: never."""
    claim_deadline_ms: int = 10_000
    """Time from the webhook's answer within which the media stream must open."""
    stream_probe_ms: int = 10_000
    """Time without any message of the carrier after which it is asked for one."""
    stream_lost_ms: int = 30_000
    """Time without any message after which the stream counts as lost."""
    goodbye_max_ms: int = 15_000
    """Longest wait for a goodbye to be generated and heard."""
    answer_wait_ms: int = 4_000
    """Silence that a caller who waits for words hears before something is done about it."""
    renew_after_ms: int = 3_300_000
    """Age at which the model's session is renewed in a quiet moment: it ends at 60 minutes."""
    renew_margin_ms: int = 300_000
    """The same, counted back from the expiry that the model itself has named."""
    voice_budget_ms: int = 6_000
    """Time that connecting to the model may take, tries and pauses together."""
    uplink_max_ms: int = 2_000
    """Caller audio that may wait for the model; the oldest is dropped beyond it."""
    downlink_max_ms: int = 60_000
    """Agent audio that may wait for the carrier before we stop reading the model."""
    inactivity_after_ms: int = 10_000
    """Silence of the caller before each inactivity prompt; 0: nobody is asked."""
    echo_guard: bool = False
    """A sound whose words the agent has just said is its own, come back through the room."""
    false_interruption_ms: int = 2_000
    """A sound without words, and shorter than this, has not interrupted; 0: every one has."""
    resume_max_ms: int = 60_000
    """Unheard agent audio that is kept to be resumed; of more than this, none is."""
    recording: RecordingRules | None = None
    disclosure: Disclosure = field(default_factory=Disclosure)
    answered_by: AnsweredByRules | None = field(default_factory=AnsweredByRules)
    """For calls that are placed; None: the agent speaks as soon as the line is open."""
    inactivity_texts: InactivityTexts = field(default_factory=InactivityTexts)
    productivity: ProductivityRules = field(default_factory=ProductivityRules)
    duration_warning: str = "Just so you know, our call can only last one more minute."
    closing_prompt: str = "I am sorry, I have to end the call here. Goodbye."
    silence_closing_prompt: str = "I cannot hear anybody, so I will hang up now. Goodbye."
