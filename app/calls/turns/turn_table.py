"""The turn table: who has the floor.

`TURNS` is the whole truth; `make docs` draws it into docs/architecture.md. An arc that is not in
the table is the model repeating itself (a second `speech_started`, a late `response.done`): a
counted no-op, since a caller must not pay for it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from app.events import CallCounters

__all__ = ["TURNS", "Turn", "TurnEvent", "Turns"]


class Turn(StrEnum):
    """The side that has the floor."""

    IDLE = "idle"
    CALLER = "caller"
    THINKING = "thinking"
    AGENT = "agent"


class TurnEvent(StrEnum):
    """An event that moves the floor."""

    SPEECH_STARTED = "speech_started"
    SPEECH_STOPPED = "speech_stopped"
    FIRST_AUDIO = "first_audio"
    DRAINED = "drained"
    NO_REPLY = "no_reply"
    ASKED = "asked"


TURNS: Final[dict[tuple[Turn, TurnEvent], Turn]] = {
    (Turn.IDLE, TurnEvent.SPEECH_STARTED): Turn.CALLER,
    (Turn.CALLER, TurnEvent.SPEECH_STOPPED): Turn.THINKING,
    (Turn.CALLER, TurnEvent.NO_REPLY): Turn.IDLE,
    (Turn.THINKING, TurnEvent.FIRST_AUDIO): Turn.AGENT,
    (Turn.THINKING, TurnEvent.NO_REPLY): Turn.IDLE,
    (Turn.AGENT, TurnEvent.DRAINED): Turn.IDLE,
    # The call asks for words without a turn of the caller: greeting, keypad, tool output, goodbye.
    (Turn.IDLE, TurnEvent.ASKED): Turn.THINKING,
    (Turn.IDLE, TurnEvent.FIRST_AUDIO): Turn.AGENT,
    # Barge-in.
    (Turn.AGENT, TurnEvent.SPEECH_STARTED): Turn.CALLER,
    (Turn.THINKING, TurnEvent.SPEECH_STARTED): Turn.CALLER,
    # A manual or late reply that starts while the caller's turn was never closed.
    (Turn.CALLER, TurnEvent.FIRST_AUDIO): Turn.AGENT,
}


class Turns:
    """The turn of one call, and since when it is so."""

    def __init__(self, counters: CallCounters, now_ms: int) -> None:
        self._counters = counters
        self.turn = Turn.IDLE
        self.since_ms = now_ms

    def restart(self, now_ms: int) -> None:
        """Give the turn its time again."""
        self.since_ms = now_ms

    def on_event(self, event: TurnEvent, now_ms: int) -> None:
        """Move by the table, and count an arc that it does not have."""
        following = TURNS.get((self.turn, event))
        if following is None:
            self._counters.protocol_surprises += 1
        else:
            self.turn = following
            self.since_ms = now_ms
