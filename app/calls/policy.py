"""The limits of a call, as values. Zero turns a limit off where that is said."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["CallPolicy", "InactivityTexts", "ProductivityRules"]


# Are you still there ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class InactivityTexts:
    """What is asked, one text after another, and what is said before hanging up."""

    prompts: tuple[str, ...] = ("Are you still there?", "I cannot hear you. Are you still there?")
    goodbye: str = "I cannot hear anybody, so I will hang up now. Goodbye."


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductivityRules:
    """How much talk without a caller is enough. 0 turns a rule off."""

    max_turns: int = 6
    max_wordless_ms: int = 180_000
    repeated_from_words: int = 4
    """A turn of so many words that was said before is an announcement, not a caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPolicy:
    """How long things may take. Durations are milliseconds."""

    max_duration_ms: int = 3_600_000
    """Longest call; 0: no limit of ours."""
    duration_warning_ms: int = 60_000
    """Say `duration_warning` so long before the longest call ends; 0: say nothing."""
    silence_ms: int = 60_000
    """Hang up after so much silence of both sides; 0: never."""
    claim_deadline_ms: int = 10_000
    """The media stream must open so soon after the webhook was answered."""
    stream_probe_ms: int = 10_000
    """After so long without any message of the carrier, ask it for one."""
    stream_lost_ms: int = 30_000
    """After so long the stream counts as lost."""
    goodbye_cap_ms: int = 15_000
    """Longest wait for a goodbye to be generated and heard."""
    reply_deadline_ms: int = 5_000
    """After the caller's turn the model must show a sign of life."""
    stall_deadline_ms: int = 4_000
    """A running response must go on within this."""
    renew_after_ms: int = 3_300_000
    """Renew the model's session in a quiet moment after this: it ends at 60 minutes."""
    renew_margin_ms: int = 300_000
    """The same, counted back from the expiry that the model itself has named."""
    voice_tries: int = 3
    voice_budget_ms: int = 6_000
    uplink_max_ms: int = 2_000
    """Caller audio that may wait for the model; the oldest is dropped beyond it."""
    downlink_max_ms: int = 60_000
    """Agent audio that may wait for the carrier before we stop reading the model."""
    still_there_after_ms: int = 10_000
    """Ask whether the caller is there after so much silence of theirs; 0: never."""
    echo_guard: bool = False
    """A sound whose words the agent has just said is its own, come back through the room."""
    false_interruption_ms: int = 2_000
    """A sound without words, and shorter than this, has not interrupted; 0: every one has."""
    resume_max_ms: int = 60_000
    """Unheard agent audio that is kept to be resumed; of more than this, none is."""
    still_there: InactivityTexts = field(default_factory=InactivityTexts)
    productivity: ProductivityRules = field(default_factory=ProductivityRules)
    duration_warning: str = "Just so you know, our call can only last one more minute."
    farewell: str = "I am sorry, I have to end the call here. Goodbye."
    silence_farewell: str = "I cannot hear anybody, so I will hang up now. Goodbye."
