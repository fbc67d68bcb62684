"""The settings of the history of calls."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from app.settings.values import OptionalSecret, Section

__all__ = ["Retention", "StoreSettings"]

Days = Annotated[int, Field(ge=0, le=36_500)]


class Retention(Section):
    """Days after which a kind of data is removed; 0 keeps it."""

    calls_days: Days = 365
    transcripts_days: Days = 90
    recordings_days: Days = 30
    messages_days: Days = 0


class StoreSettings(Section):
    """The place of the history of calls, and how long it is kept."""

    enabled: bool = True
    url: OptionalSecret = None
    spool_mb: int = Field(default=256, ge=1, le=100_000)
    retention: Retention = Field(default_factory=Retention)
