"""The limits of one process and of its calls."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from app.settings.values import Section, Spoken, TimeZone

__all__ = [
    "Budget",
    "CallLimits",
    "CallerAllowance",
    "Inactivity",
    "Limits",
    "NumberAllowance",
    "Recording",
    "RecordingOverrides",
]

Duration = Annotated[int, Field(ge=10, le=86_400)]
Silence = Annotated[int, Field(ge=5, le=3_600)]
Dollars = Annotated[float, Field(ge=0, le=1_000_000)]
WarningTime = Annotated[int, Field(ge=0, le=600)]
Turns = Annotated[int, Field(ge=0, le=100)]
FalseInterruption = Annotated[int, Field(ge=0, le=10_000)]


class Inactivity(Section):
    """Prompts for a caller who is silent, and the goodbye when nobody answers."""

    after_s: int = Field(default=10, ge=0, le=300)
    prompts: tuple[Spoken, ...] = (
        "Are you still there?",
        "I cannot hear you. Are you still there?",
    )
    goodbye: Spoken = "I cannot hear anybody, so I will hang up now. Goodbye."


Count = Annotated[int, Field(ge=0, le=1_000_000)]


class NumberAllowance(Section):
    """The most that one of our numbers may be used; 0 means no limit."""

    calls_per_minute: Count = 0
    calls_per_day: Count = 0
    seconds_per_day: Count = 0
    sms_per_day: Count = 0


class CallerAllowance(NumberAllowance):
    """The most that one caller may use; 0 means no limit."""

    calls_per_minute: Count = 10
    calls_per_day: Count = 200
    seconds_per_day: Count = 14_400
    sms_per_day: Count = 20


class Recording(Section):
    """Recording of calls."""

    enabled: bool = False
    notice: Annotated[str, Field(max_length=250)] = "This call is being recorded."


class RecordingOverrides(Section):
    """Recording of an agent's or a number's calls; absent keys are as in `recording`."""

    enabled: bool | None = None
    notice: Annotated[str, Field(max_length=250)] | None = None


class Budget(Section):
    """The money that the calls of a day may cost."""

    per_day_usd: Dollars = 0.0
    warn_at: float = Field(default=0.8, ge=0, le=1)
    time_zone: TimeZone = "UTC"


class Limits(Section):
    """The limits of one process, and of its calls."""

    max_calls: int = Field(default=50, ge=1, le=10_000)
    max_lag_ms: int = Field(default=0, ge=0, le=10_000)
    max_duration_s: Duration = 3_600
    max_cost_usd: Dollars = 0.0
    duration_warning_s: WarningTime = 60
    duration_warning: Spoken = "Just so you know, our call can only last one more minute."
    silence_s: Silence = 60
    inactivity: Inactivity = Field(default_factory=Inactivity)
    unproductive_turns: Turns = 6
    false_interruption_ms: FalseInterruption = 2_000
    answer_wait_s: int = Field(default=4, ge=2, le=60)
    drain_timeout_s: int = Field(default=300, ge=0, le=86_400)
    claim_s: int = Field(default=10, ge=1, le=120)
    stream_start_s: int = Field(default=5, ge=1, le=60)
    token_ttl_s: int = Field(default=60, ge=10, le=3_600)
    per_caller: CallerAllowance = Field(default_factory=CallerAllowance)
    per_number: NumberAllowance = Field(default_factory=NumberAllowance)


class CallLimits(Section):
    """Limits of an agent's or a number's calls; absent ones are as in `limits`."""

    max_duration_s: Duration | None = None
    max_cost_usd: Dollars | None = None
    duration_warning_s: WarningTime | None = None
    duration_warning: Spoken | None = None
    silence_s: Silence | None = None
    inactivity: Inactivity | None = None
    unproductive_turns: Turns | None = None
    false_interruption_ms: FalseInterruption | None = None
