"""The settings of the first seconds of a placed call: who has answered, and what they hear."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from app.settings.values import Section, Spoken

__all__ = ["AnsweredBySettings"]

Seconds = Annotated[float, Field(ge=0, le=600)]


class AnsweredBySettings(Section):
    """The course of a call with each of those that may answer it."""

    enabled: bool = True
    wait_for_callee: bool = True
    opening: Spoken = "Hello?"
    opening_after_s: Annotated[float, Field(ge=1, le=60)] = 4
    nobody_after_s: Annotated[float, Field(ge=5, le=120)] = 15
    screening: Spoken = "I am calling for the person at this number. Please put me through."
    screening_wait_s: Seconds = 30
    message: Annotated[str, Field(max_length=500)] = ""
    message_silence_s: Annotated[float, Field(ge=1, le=10)] = 2.5
    message_wait_s: Seconds = 60
    menus: Literal["hang_up", "talk"] = "hang_up"
    hold_s: Seconds = 120
