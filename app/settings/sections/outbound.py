"""The settings of calls that the server places."""

from __future__ import annotations

import re
from datetime import time
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from app.settings.sections.answered_by import AnsweredBySettings
from app.settings.sections.numbers import Region
from app.settings.values import Blank, PhoneNumber, Section

__all__ = ["OutboundSettings"]

CostlyKind = Literal[
    "premium", "shared_cost", "satellite", "worldwide", "personal", "pager", "unassigned"
]


def _hours(text: str) -> str:
    found = re.fullmatch(r"(\d{2}):(\d{2})-(\d{2}):(\d{2})", text)
    try:
        if found is None:
            raise ValueError
        first = time(int(found[1]), int(found[2]))
        # 24:00 is the end of the day, which Python's clock has no name for.
        last = time.max if found[3] + found[4] == "2400" else time(int(found[3]), int(found[4]))
    except ValueError:
        raise ValueError(f"{text[:20]!r} are not hours of a day such as 08:00-21:00") from None
    if first >= last:
        raise ValueError("the hours must end after they begin, on the same day")
    return text


class OutboundSettings(Section):
    """Calls that the server places, and which it never does."""

    enabled: bool = False
    from_number: Annotated[PhoneNumber | None, Blank] = None
    allowed_countries: tuple[Region, ...] | Literal["any"] = ()
    allowed_kinds: tuple[CostlyKind, ...] = ()
    hours: Annotated[str, AfterValidator(_hours)] = "08:00-21:00"
    per_number_per_day: int = Field(default=3, ge=0, le=1_000)
    per_day: int = Field(default=500, ge=0, le=1_000_000)
    max_calls: int = Field(default=10, ge=1, le=10_000)
    calls_per_second: Annotated[float, Field(gt=0, le=1_000)] = 1.0
    ring_s: int = Field(default=30, ge=5, le=600)
    machine_detection: Literal["fast", "message_end", "off"] = "fast"
    answered_by: AnsweredBySettings = Field(default_factory=AnsweredBySettings)
