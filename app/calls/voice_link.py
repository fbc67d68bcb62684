"""What a phone call remembers of its voice connection: until when, and what it owes. Pure."""

from __future__ import annotations

from app.calls.policy import CallPolicy

__all__ = ["VoiceLink"]


class VoiceLink:
    """The state of the connection to the model, as the caller notices it."""

    def __init__(self, now_ms: int) -> None:
        self.ready = False
        self.last_event_ms = now_ms
        self.renew_at_ms: int | None = None
        self.owes_reply = False
        self.reply_asked = False

    def on_ready(self, now_ms: int, expires_in_ms: int | None, policy: CallPolicy) -> bool:
        """True for the first connection of the call."""
        first = not self.ready
        self.ready = True
        self.last_event_ms = now_ms
        lasts_ms = policy.renew_after_ms
        if expires_in_ms is not None:
            lasts_ms = min(lasts_ms, expires_in_ms - policy.renew_margin_ms)
        self.renew_at_ms = now_ms + max(lasts_ms, 0)
        return first

    def renewal_due(self, now_ms: int) -> bool:
        return self.renew_at_ms is not None and now_ms >= self.renew_at_ms
