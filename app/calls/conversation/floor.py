"""The floor: whose turn it is, who waits for whom, and whether anything is due before long. Pure.

The turn table says whose turn it is. What a silence means in it follows from all the parts of a
conversation together: a caller may think, wait for us, or be on hold.
"""

from __future__ import annotations

from typing import Final

from app.agents.dialogue.dialogue import Dialogue
from app.calls.conversation.goodbye import Goodbye
from app.calls.conversation.model_watch import ModelWatch
from app.calls.conversation.supervision import Supervision
from app.calls.keypad.keypad import Keypad
from app.calls.media.downlink import Downlink
from app.calls.media.false_interruption import FalseInterruption
from app.calls.media.uplink import Uplink
from app.calls.outbound.answering import Answering
from app.calls.turns.timers import CallTimers
from app.calls.turns.turn_table import Turn, TurnEvent, Turns

__all__ = ["LONGEST_REST_MS", "REST_MS", "Floor"]


LONGEST_REST_MS: Final = 2_000
"""A rest that goes on with each piece of the agent's sound: a model that sends it is well."""
REST_MS: Final = 700
"""Time for which nothing is due in a call that goes well, and no tick looks: less than the shortest
limit that can begin meanwhile, that of caller audio that stalls (`media/uplink.py`). Limits of many
seconds are noticed so much later."""


class Floor:
    """The turn of one call, with everything that makes one of its parties wait."""

    def __init__(  # noqa: PLR0913 - the parts of a conversation, by their names
        self,
        turns: Turns,
        *,
        dialogue: Dialogue,
        timers: CallTimers,
        downlink: Downlink,
        false_interruption: FalseInterruption,
        model: ModelWatch,
        keypad: Keypad,
        goodbye: Goodbye,
        supervision: Supervision,
        answering: Answering | None,
    ) -> None:
        self._turns = turns
        self._dialogue = dialogue
        self._timers = timers
        self._downlink = downlink
        self._false_interruption = false_interruption
        self._model = model
        self._keypad = keypad
        self._goodbye = goodbye
        self._supervision = supervision
        self._answering = answering
        self.ringing = False
        """Somebody is being called for the caller, who waits here."""
        self._rests_until_ms = self._looked_ms = 0

    # The turn -----------------------------------------------------------------------------------

    def move(self, event: TurnEvent, now_ms: int) -> None:
        """Move the turn, and tell the timers."""
        self.end_rest()
        self._turns.on_event(event, now_ms)
        self.update_timers(now_ms)

    def on_no_reply(self, now_ms: int) -> None:
        """Nothing was asked for in the end: there will be no reply."""
        if self._turns.turn is Turn.THINKING and not self._model.reply_pending:
            self.move(TurnEvent.NO_REPLY, now_ms)

    def update_timers(self, now_ms: int) -> bool:
        """Tell the timers how it stands; True while the caller waits for us."""
        drained = self._downlink.drained(now_ms)
        busy = self._keeps_caller_waiting
        self._timers.on_state(self._turns.turn, now_ms, drained=drained, busy=busy)
        return busy

    def heard_out(self, now_ms: int) -> bool:
        """Nothing of the agent is playing or on its way."""
        return self._downlink.drained(now_ms) and self._dialogue.gate.active_response_id is None

    @property
    def undecided(self) -> bool:
        """A sound has cut the agent off, and it is not known yet whether it was the caller."""
        return self._false_interruption.undecided

    def quiet(self) -> bool:
        """Nobody speaks and nothing is on its way: a moment to change connections."""
        idle = self._turns.turn is Turn.IDLE
        return not self._dialogue.gate.busy and not self.undecided and idle

    # Who waits ----------------------------------------------------------------------------------

    @property
    def held(self) -> bool:
        """It is not known who has answered our call: the model speaks when it is told to."""
        return self._answering is not None and self._answering.holds

    @property
    def _keeps_caller_waiting(self) -> bool:
        """A caller who is silent now waits for us."""
        return (
            self._model.reply_pending
            or self._keypad.waiting
            or self.undecided
            or self.ringing
            or not self._model.ready
            or self._supervision.taken_over
            or self.held
        )

    def caller_waits(self, uplink: Uplink) -> bool:
        """A caller who is on the stream waits for words of the agent."""
        taken_over = self._supervision.taken_over
        if self.held or not self._timers.present or self.ringing or taken_over:
            return False
        idle = self._model.connected and not self._dialogue.reply_due
        calls, asking = self._dialogue.function_calls, self._keypad.asking
        if idle and asking and not calls.runs_beside(asking):
            return False  # they have been asked for keys
        match self._turns.turn:
            case Turn.THINKING | Turn.AGENT:
                return True
            case Turn.CALLER:
                return uplink.hushed  # whatever the model takes for speech
            case _:
                replies = self._dialogue.reply_due or self._dialogue.function_calls.running
                return replies or not self._model.connected

    # Rests --------------------------------------------------------------------------------------

    def rest(self, now_ms: int) -> None:
        """Nothing is due for as long as a rest lasts, unless something happens."""
        self._rests_until_ms = now_ms + REST_MS
        self._looked_ms = now_ms

    def rests(self, now_ms: int) -> bool:
        """Nothing is due: there is no need for a tick."""
        return now_ms < self._rests_until_ms

    def end_rest(self) -> None:
        """Something has happened: the next tick looks."""
        self._rests_until_ms = 0

    def go_on_resting(self, now_ms: int) -> None:
        """The agent's sound goes on, and so does a rest."""
        if now_ms < self._rests_until_ms:
            self._rests_until_ms = min(now_ms + REST_MS, self._looked_ms + LONGEST_REST_MS)

    def may_rest(self, now_ms: int, uplink: Uplink) -> bool:
        """Whatever time alone can bring is further away, or a rest more or less is all the same."""
        if self._turns.turn is Turn.AGENT:
            generated = self._dialogue.gate.active_response_id is None
            quick = generated and not self._downlink.plays_on(now_ms, REST_MS)
            quick = quick or self._model.silent_ms(now_ms) >= REST_MS
        else:
            quick = self.caller_waits(uplink)
        return (
            not quick
            and uplink.flows(now_ms)
            and self._model.connected
            and self._answering is None
            and not self._goodbye.begun
            and not self.ringing
            and not self._keypad.waiting
            and not self.undecided
        )
