"""The voice model as a waiting caller notices it: silent, lost, near its session's end. Pure.

One rule covers every wait for words, be it for the greeting, an answer, a reply after a tool or a
new connection. It counts from what the caller has heard last. Events of the model do not count:
a model may send any number of them, and empty or silent sound besides, and say nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from app.agents.dialogue.actions import GiveUp, Record
from app.agents.dialogue.dialogue import Dialogue
from app.calls.actions import End, Intent, RenewVoice
from app.calls.policy import CallPolicy
from app.calls.turns.turn_table import Turn, Turns
from app.events import CallId, EndReason, VoiceTrouble

__all__ = ["ModelWatch"]


SHORTEST_MS: Final = 10_000
"""No session is renewed sooner, however soon its model says that it ends."""
RENEW_AGAIN_MS: Final = 30_000
"""Time until the next try, should a renewal fail."""
RING_AFTER_MS: Final = 1_300
"""Silence without a connection after which the next tick rings, within 1.5 s: decision 0012."""
FALLBACK_TAKES_MS: Final = 500
"""Time that the carrier has to begin with the spoken ending."""
SPEECH_MS: Final = 2_000
"""A caller who makes a sound for so long speaks, with or without words."""
PAUSE_MS: Final = 1_000
"""Pauses between the words of one sentence are shorter."""


class ModelWatch:
    """Acts when a caller who waits hears nothing, and renews a session in time.

    In a wait of `answer_wait_ms`: a free model is asked again, or has a filler said while tools
    run, and another one whenever half of that time more has passed without a word; one that is at
    work on a response is given up. After half of that time more it is given up too, and after twice
    the time the call ends, with the words that the carrier speaks.

    The caller's own speech begins the wait anew, noises do not: a line on which they come and go
    would otherwise keep a caller in silence. Speech is a sound of two seconds, or one with words.
    Words count once per response, so that whoever asks a dead model again and again is seen to.
    """

    def __init__(
        self, call_id: CallId, dialogue: Dialogue, turns: Turns, policy: CallPolicy
    ) -> None:
        self._call_id = call_id
        self._dialogue = dialogue
        self._turns = turns
        self._policy = policy
        self._renew_at_ms: int | None = None
        self._silent_since_ms: int | None = None
        self._model_since_ms = 0
        self._sound_since_ms: int | None = None
        self._loud_ms: int | None = None
        self._stopped_ms: int | None = None
        self._responded = False
        self._asked = self._given_up = False
        self._filled = False
        self.ready = False
        """A session was confirmed at least once."""
        self.connected = False
        self.reply_due = False
        """A caller who waited when the connection was lost has not been answered yet."""
        self.answer_due = False
        """The caller has said something, and has heard nothing since."""

    @property
    def reply_pending(self) -> bool:
        """A response runs or was asked for, or a tool works on one."""
        return self._dialogue.gate.busy or self._dialogue.function_calls.running

    # Events ---------------------------------------------------------------------------------------

    def on_ready(self, now_ms: int, expires_in_ms: int | None) -> bool:
        """The model has confirmed its session; True for the first one of the call."""
        first = not self.ready
        self.ready = self.connected = True
        lasts_ms = self._policy.renew_after_ms
        # An expiry that is past is one of the two clocks' mistake.
        if expires_in_ms is not None and expires_in_ms > 0:
            # Of a session that is shorter than the margin, half: else it were renewed for ever.
            margin_ms = min(self._policy.renew_margin_ms, expires_in_ms // 2)
            lasts_ms = min(lasts_ms, max(expires_in_ms - margin_ms, SHORTEST_MS))
        self._renew_at_ms = now_ms + lasts_ms
        self._leave_half(now_ms)
        return first

    def on_lost(self) -> None:
        """The connection is gone."""
        self.connected = False
        self.reply_due = self._dialogue.reply_due

    def on_stream(self, now_ms: int) -> None:
        """The caller was away, or came just now: the wait begins anew."""
        self._begin(now_ms)

    def on_response_created(self) -> None:
        """The model is at work on an answer, which nobody has heard yet."""
        self._responded = True
        self.reply_due = False

    def on_asked_again(self, now_ms: int) -> None:
        """A request that the model never began was sent once more: it has half of its time."""
        self._asked = True
        self._leave_half(now_ms)

    def on_caller_words(self, *, in_doubt: bool = False) -> None:
        """The caller has said something: time for an answer begins with it.

        `in_doubt`: nobody knows of words; it may have been a noise.
        """
        self.answer_due = self.answer_due or not in_doubt
        if self._responded:
            self._silent_since_ms = None

    def on_caller_stopped(self, now_ms: int, pause_ms: int) -> None:
        """The caller's turn is over, and was before the pause that has proved it."""
        self._stopped_ms = now_ms - min(pause_ms, PAUSE_MS)

    # Decisions ------------------------------------------------------------------------------------

    def on_tick(
        self, now_ms: int, *, waits: bool, loud: bool, audible_ms: int | None
    ) -> Sequence[Intent]:
        """See to a caller who waits for words; `audible_ms`: when they last heard something.

        `loud`: the caller can be heard at this moment.
        """
        if self._caller_speaks(now_ms, loud):
            return []
        if not waits:
            self._silent_since_ms = None
            self._filled = self.answer_due = False
        elif self._silent_since_ms is None:
            spoke_ms = self._stopped_ms if self._loud_ms is None else self._loud_ms
            self._begin(max(now_ms if spoke_ms is None else spoke_ms, audible_ms or 0))
        elif audible_ms is not None and audible_ms > self._silent_since_ms:
            self._begin(audible_ms)
            self._filled = self.answer_due = False
        self._stopped_ms = None
        if waits:
            return self._on_silence(now_ms)
        if self.renewal_due(now_ms) and self._turns.turn is Turn.IDLE and not self.reply_pending:
            self._renew_at_ms = now_ms + RENEW_AGAIN_MS
            return [RenewVoice()]
        return []

    def _caller_speaks(self, now_ms: int, loud: bool) -> bool:
        """In their turn, up to the end of it or a pause that is longer than one between words."""
        if self._turns.turn is not Turn.CALLER:
            self._loud_ms = None
        elif loud:
            self._loud_ms = now_ms
        if self._loud_ms is not None and now_ms - self._loud_ms < PAUSE_MS:
            if self._sound_since_ms is None:
                self._sound_since_ms = now_ms
            if now_ms - self._sound_since_ms >= SPEECH_MS:
                self._silent_since_ms = None
            return True
        if self._sound_since_ms is not None:
            self._sound_since_ms = None
            self._leave_half(now_ms)
        return False

    def _leave_half(self, now_ms: int) -> None:
        """The model has at least half of its time from now on."""
        half_ms = self._policy.answer_wait_ms // 2
        self._model_since_ms = max(self._model_since_ms, now_ms - half_ms)

    def _begin(self, now_ms: int) -> None:
        self._silent_since_ms = self._model_since_ms = now_ms
        self._responded = False
        self._asked = self._given_up = False

    def silent_ms(self, now_ms: int) -> int:
        """The silence that a waiting caller has heard, up to the last tick that looked."""
        return 0 if self._silent_since_ms is None else now_ms - self._silent_since_ms

    def _on_silence(self, now_ms: int) -> Sequence[Intent]:
        wait_ms, silent_ms = self._policy.answer_wait_ms, self.silent_ms(now_ms)
        free = not self._dialogue.gate.busy
        if self.connected and free and self._dialogue.function_calls.running:
            seen_to = self._on_tools(now_ms)
            if seen_to is not None:
                return seen_to
        if silent_ms >= 2 * wait_ms - FALLBACK_TAKES_MS:
            why = self._dialogue.failures.code or "no_answer"
            return [self._trouble("no_answer", now_ms), End(EndReason.VOICE_LOST, why)]
        if not self.connected or self._given_up or now_ms - self._model_since_ms < wait_ms:
            return []
        if free and not self._asked:
            self._asked = True
            self._model_since_ms = now_ms - wait_ms // 2
            return self._dialogue.responses.ask(now_ms)
        self._given_up = True
        code = "response_stalled" if self._dialogue.gate.active_response_id else "no_reply"
        # A model that is silent reports no error that would say why.
        return [self._trouble(code, now_ms), GiveUp(code=code, retryable=True)]

    def _on_tools(self, now_ms: int) -> Sequence[Intent] | None:
        """The model is not to blame: half of its time at least begins when the tools are done.

        None where it was to say that they take a moment, and that was not heard.
        """
        self._leave_half(now_ms)
        if self._filled:
            return None
        tools, due_ms = self._dialogue.function_calls, self._policy.answer_wait_ms
        if tools.filled:  # a caller who knows is told less often, and still within twice the time
            due_ms += due_ms // 2
        if self.silent_ms(now_ms) < due_ms:
            return []
        filler = tools.please_wait(now_ms)
        self._filled = bool(filler)
        return filler or None

    def rings(self, now_ms: int) -> bool:
        """A caller who waits for a connection hears ringing: nothing else can be said without."""
        return not self.connected and self.silent_ms(now_ms) >= RING_AFTER_MS

    def renewal_due(self, now_ms: int) -> bool:
        """The session ends soon."""
        return self._renew_at_ms is not None and now_ms >= self._renew_at_ms

    def _trouble(self, code: str, now_ms: int) -> Record:
        return Record(VoiceTrouble(call_id=self._call_id, at_ms=now_ms, code=code, benign=False))
