"""The settings of webhooks about calls."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from app.settings.values import Name, Secret, Section, Text

__all__ = ["CallWebhookSettings", "WebhookName"]

WebhookName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class CallWebhookSettings(Section):
    """A receiver of messages about calls (Standard Webhooks)."""

    url: Text
    secret: Secret
    events: tuple[Name, ...] = Field(default=("call_finished",), min_length=1)
    timeout_ms: int = Field(default=10_000, ge=100, le=60_000)
    allow_private: bool = False
