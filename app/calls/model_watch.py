"""The voice model as a waiting caller notices it: late, stalled, near its session's end. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from app.agents.dialogue.actions import GiveUp, Record
from app.agents.dialogue.dialogue import Dialogue
from app.calls.actions import Intent, RenewVoice
from app.calls.policy import CallPolicy
from app.calls.turns.turn_table import Turn, Turns
from app.events import CallId, VoiceTrouble

__all__ = ["ModelWatch"]


SHORTEST_MS: Final = 10_000
"""No session is renewed sooner, however soon its model says that it ends."""
RENEW_AGAIN_MS: Final = 30_000
"""Time until the next try, should a renewal fail."""


class ModelWatch:
    """Asks a silent model once more, gives its connection up, and renews it in time."""

    def __init__(
        self, call_id: CallId, dialogue: Dialogue, turns: Turns, policy: CallPolicy, now_ms: int
    ) -> None:
        self._call_id = call_id
        self._dialogue = dialogue
        self._turns = turns
        self._policy = policy
        self._last_event_ms = now_ms
        self._renew_at_ms: int | None = None
        self._asked_again = False
        self.ready = False
        self.reply_due = False
        """A caller who waited when the connection was lost has not been answered yet."""

    @property
    def reply_pending(self) -> bool:
        """A response runs or was asked for, or a tool works on one."""
        return self._dialogue.gate.busy or self._dialogue.function_calls.running

    # Events ---------------------------------------------------------------------------------------

    def on_ready(self, now_ms: int, expires_in_ms: int | None) -> bool:
        """The model has confirmed its session; True for the first one of the call."""
        first = not self.ready
        self.ready = True
        self._last_event_ms = now_ms
        lasts_ms = self._policy.renew_after_ms
        # An expiry that is past is one of the two clocks' mistake.
        if expires_in_ms is not None and expires_in_ms > 0:
            # Of a session that is shorter than the margin, half: else it were renewed for ever.
            margin_ms = min(self._policy.renew_margin_ms, expires_in_ms // 2)
            lasts_ms = min(lasts_ms, max(expires_in_ms - margin_ms, SHORTEST_MS))
        self._renew_at_ms = now_ms + lasts_ms
        return first

    def on_lost(self) -> None:
        """The connection is gone."""
        self.reply_due = self._dialogue.owes_words

    def on_event(self, now_ms: int) -> None:
        """The model has sent something, whatever it was."""
        self._last_event_ms = now_ms

    def on_progress(self) -> None:
        """The caller speaks or the model has answered: it has its time for a reply again."""
        self._asked_again = False

    # Decisions ------------------------------------------------------------------------------------

    def on_tick(self, now_ms: int) -> Sequence[Intent]:
        """Ask a silent model once more for a caller who waits, then give its connection up."""
        if self._dialogue.gate.active_response_id is not None:
            # A model that has sent all of a long answer is silent too, but it has said done.
            if now_ms - self._last_event_ms >= self._policy.stall_deadline_ms:
                self._last_event_ms = now_ms
                return self._give_up("response_stalled", now_ms)
        elif self._turns.turn is Turn.THINKING and not self.reply_pending:
            if now_ms - self._turns.since_ms < self._policy.reply_deadline_ms:
                return []
            if self._asked_again:
                return self._give_up("no_reply", now_ms)
            self._asked_again = True
            self._turns.restart(now_ms)
            return self._dialogue.responses.ask(now_ms)
        if self.renewal_due(now_ms) and self._turns.turn is Turn.IDLE and not self.reply_pending:
            self._renew_at_ms = now_ms + RENEW_AGAIN_MS
            return [RenewVoice()]
        return []

    def renewal_due(self, now_ms: int) -> bool:
        """The session ends soon."""
        return self._renew_at_ms is not None and now_ms >= self._renew_at_ms

    def _give_up(self, code: str, now_ms: int) -> Sequence[Intent]:
        # A model that is silent reports no error that would say why.
        trouble = VoiceTrouble(call_id=self._call_id, at_ms=now_ms, code=code, benign=False)
        return [Record(trouble), GiveUp(code=code, retryable=True)]
