"""What a phone call remembers of its voice connection: until when, and what it owes. Pure."""

from __future__ import annotations

from typing import Final

from app.calls.policy import CallPolicy

__all__ = ["ModelWatch"]


SHORTEST_MS: Final = 10_000
"""No session is renewed sooner, however soon its model says that it ends."""


class ModelWatch:
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
        # An expiry that is past is one of the two clocks' mistake.
        if expires_in_ms is not None and expires_in_ms > 0:
            # Of a session that is shorter than the margin, half: else it were renewed for ever.
            margin_ms = min(policy.renew_margin_ms, expires_in_ms // 2)
            lasts_ms = min(lasts_ms, max(expires_in_ms - margin_ms, SHORTEST_MS))
        self.renew_at_ms = now_ms + lasts_ms
        return first

    def renewal_due(self, now_ms: int) -> bool:
        return self.renew_at_ms is not None and now_ms >= self.renew_at_ms
