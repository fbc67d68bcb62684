"""The settings of calls that the server places."""

from __future__ import annotations

from pydantic import Field

from app.settings.answered_by import AnsweredBySettings
from app.settings.values import Section

__all__ = ["OutboundSettings"]


class OutboundSettings(Section):
    """Calls that the server places."""

    answered_by: AnsweredBySettings = Field(default_factory=AnsweredBySettings)
