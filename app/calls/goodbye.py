"""A goodbye on its way: nothing hangs up before the caller has heard it. Pure."""

from __future__ import annotations

from typing import Final

from app.events import EndReason

__all__ = ["CARRIER_HANGS_UP", "NOT_OURS_TO_END", "Ending"]


CARRIER_HANGS_UP: Final = frozenset(
    {
        EndReason.AGENT_HUNG_UP,
        EndReason.OPERATOR_HUNG_UP,
        EndReason.SILENCE,
        EndReason.MAX_DURATION,
        EndReason.DRAINED,
    }
)
"""Ends of our own making: the carrier is told by REST. For the others the markup behind the stream
speaks to the caller (we are lost), or there is nobody left to speak to."""

NOT_OURS_TO_END: Final = frozenset({EndReason.DRAINED, EndReason.MAX_DURATION})
"""Ends of ours that do not part a caller from the person they were transferred to."""


class Ending:
    """Why a call is about to end, and how far its goodbye is."""

    def __init__(self) -> None:
        self.reason: EndReason | None = None
        self.detail = ""
        self.text = ""
        self.since_ms = 0
        self.asked = False
        self.said = False
        self._given_up: tuple[EndReason, bool, bool] | None = None

    def begin(self, reason: EndReason, detail: str, now_ms: int) -> None:
        self.reason = reason
        self.detail = detail
        self.text = ""
        self.since_ms = now_ms

    def on_caller_acted(self) -> None:
        """The caller pressed a key, or was taken elsewhere: the goodbye is off, for good."""
        self.on_caller_speech()
        self._given_up = None

    def on_caller_speech(self) -> None:
        """The caller has more to say: the agent does not hang up on them."""
        self._given_up = None
        # Whoever was silent is there after all; hold music (its detail says so) always speaks.
        silent = self.reason is EndReason.SILENCE and not self.detail
        if self.reason is not None and (self.reason is EndReason.AGENT_HUNG_UP or silent):
            self._given_up = (self.reason, self.asked, self.said)
            self.reason = None
            self.asked = self.said = False

    def on_false_alarm(self, now_ms: int) -> None:
        """It was no speech: the goodbye goes on, and has its time again."""
        if self._given_up is not None and self.reason is None:
            self.reason, self.asked, self.said = self._given_up
            self.since_ms = now_ms
        self._given_up = None

    def overdue(self, now_ms: int, cap_ms: int) -> bool:
        return self.reason is not None and now_ms - self.since_ms >= cap_ms
