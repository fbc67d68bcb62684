"""The course of a warm transfer: a person is called, asked, and brought together with the caller.

Pure. The caller stays on the stream, with the agent or with music, until the person has accepted;
so a transfer that fails takes nobody away from the conversation. Events come from webhooks and from
answers to REST requests, in any order; a shell performs the intents one after the other.

`_ARCS` is the whole machine. An event that its state does not know is ignored: webhooks repeat
themselves and come late.

    dialing -> offered -> moving -> moved -> joined -> over
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from app.carrier.base import (
    CallProgress,
    CarrierCallId,
    LegAnswer,
    LegStatus,
    TransferOutcome,
    TransferResult,
)

__all__ = [
    "ACCEPT_KEY",
    "BringBack",
    "CancelLeg",
    "Finished",
    "Intent",
    "MoveCaller",
    "PlaceLeg",
    "WarmState",
    "WarmTransfer",
]


ACCEPT_KEY: Final = "1"

_RING_GRACE_MS: Final = 10_000
"""Twilio rings up to 5 s longer than asked, and its report takes time to arrive."""

_ASKING_MS: Final = 90_000
"""Two long prompts and the time to find the key."""

_MOVING_MS: Final = 15_000


@dataclass(frozen=True, slots=True)
class PlaceLeg:
    """Call the person, then call `on_leg_placed` or `on_leg_refused`."""


@dataclass(frozen=True, slots=True)
class MoveCaller:
    """Move the caller into the conference, then call `on_caller_moved` or `_not_moved`."""


@dataclass(frozen=True, slots=True)
class BringBack:
    """Put the caller on a new stream: they may be alone in the conference, or not yet there."""


@dataclass(frozen=True, slots=True)
class CancelLeg:
    """End the person's leg, ringing or answered."""

    leg_id: CarrierCallId


@dataclass(frozen=True, slots=True)
class Finished:
    """The outcome, once. The transfer still has to hear when the caller hangs up."""

    result: TransferResult


Intent = PlaceLeg | MoveCaller | BringBack | CancelLeg | Finished


class WarmState(StrEnum):
    """The stages of a warm transfer."""

    NEW = "new"
    DIALING = "dialing"
    OFFERED = "offered"
    MOVING = "moving"
    ABANDONED = "abandoned"
    MOVED = "moved"
    JOINED = "joined"
    OVER = "over"


class _Event(StrEnum):
    REFUSED = "refused"  # the leg could not be placed
    PICKED_UP = "picked_up"
    LEG_ENDED = "leg_ended"
    MACHINE = "machine"
    ACCEPTED = "accepted"
    DECLINED = "declined"
    NO_KEY = "no_key"
    MOVED = "moved"
    NOT_MOVED = "not_moved"  # the carrier said no: the caller is where they were
    PERHAPS_MOVED = "perhaps_moved"  # the carrier did not answer
    CALLER_JOINED = "caller_joined"
    NOT_JOINED = "not_joined"  # they cannot be brought in, and are on their way back
    CALLER_GONE = "caller_gone"
    DEADLINE = "deadline"


class _Arc(NamedTuple):
    """The effect of an event. Without an `outcome` the event brings its own result, or none."""

    state: WarmState
    outcome: TransferOutcome | None = None
    cancel: bool = False
    bring_back: bool = False
    move: bool = False


_S, _E, _O = WarmState, _Event, TransferOutcome
_OVER_BY_ITSELF: Final = _Arc(_S.OVER)
_GONE: Final = _Arc(_S.OVER, _O.CANCELED, cancel=True)

_ASKING: Final = {
    _E.REFUSED: _Arc(_S.OVER, _O.FAILED),
    _E.LEG_ENDED: _OVER_BY_ITSELF,
    _E.MACHINE: _Arc(_S.OVER, _O.VOICEMAIL, cancel=True),
    _E.ACCEPTED: _Arc(_S.MOVING, move=True),
    _E.DECLINED: _Arc(_S.OVER, _O.DECLINED, cancel=True),
    _E.NO_KEY: _Arc(_S.OVER, _O.VOICEMAIL, cancel=True),
    _E.CALLER_GONE: _GONE,
}
_ARCS: Final = {
    # A key can overtake the report that the leg was picked up.
    _S.DIALING: {
        **_ASKING,
        _E.PICKED_UP: _Arc(_S.OFFERED),
        _E.DEADLINE: _Arc(_S.OVER, _O.NO_ANSWER, cancel=True),
    },
    _S.OFFERED: {
        **_ASKING,
        _E.DEADLINE: _Arc(_S.OVER, _O.VOICEMAIL, cancel=True),
    },
    _S.MOVING: {
        _E.MOVED: _Arc(_S.MOVED),
        _E.CALLER_JOINED: _Arc(_S.JOINED, _O.ANSWERED),
        _E.NOT_MOVED: _Arc(_S.OVER, _O.FAILED, cancel=True),
        _E.PERHAPS_MOVED: _Arc(_S.OVER, _O.FAILED, cancel=True, bring_back=True),
        _E.NOT_JOINED: _Arc(_S.OVER, _O.FAILED, cancel=True),
        # The request is on its way: what it does has to be waited for, and undone.
        _E.LEG_ENDED: _Arc(_S.ABANDONED),
        _E.CALLER_GONE: _GONE,
    },
    _S.ABANDONED: {
        _E.MOVED: _Arc(_S.OVER, _O.DECLINED, bring_back=True),
        _E.NOT_MOVED: _Arc(_S.OVER, _O.DECLINED),
        _E.PERHAPS_MOVED: _Arc(_S.OVER, _O.DECLINED, bring_back=True),
        _E.CALLER_GONE: _Arc(_S.OVER, _O.CANCELED),
    },
    _S.MOVED: {
        _E.CALLER_JOINED: _Arc(_S.JOINED, _O.ANSWERED),
        _E.LEG_ENDED: _Arc(_S.OVER, _O.DECLINED, bring_back=True),
        _E.NOT_JOINED: _Arc(_S.OVER, _O.FAILED, cancel=True),
        _E.CALLER_GONE: _GONE,
        # The carrier took the request, and only its report is missing.
        _E.DEADLINE: _Arc(_S.JOINED, _O.ANSWERED),
    },
    # The carrier ends the conference when one of the two leaves; this is for when it does not.
    _S.JOINED: {
        _E.LEG_ENDED: _OVER_BY_ITSELF,
        _E.CALLER_GONE: _Arc(_S.OVER, cancel=True),
    },
}


class WarmTransfer:
    """One warm transfer. Every method returns what is to be done now, often nothing."""

    def __init__(self, *, ring_s: int) -> None:
        self.state = WarmState.NEW
        self.result: TransferResult | None = None
        self.leg_id: CarrierCallId | None = None
        self._ring_ms = ring_s * 1000
        self._deadline_ms: int | None = None
        self._cancel_when_placed = False

    @property
    def over(self) -> bool:
        """Nothing is left to wait for, except for a leg whose request is still under way."""
        return self.state is WarmState.OVER

    @property
    def asking(self) -> bool:
        """The phone rings, or the person is being asked."""
        return self.state in (WarmState.DIALING, WarmState.OFFERED)

    @property
    def joined(self) -> bool:
        """The two are connected, or were."""
        return self.result is not None and self.result.outcome is TransferOutcome.ANSWERED

    def start(self, now_ms: int) -> list[Intent]:
        """Begin: the person's phone is to ring."""
        if self.state is not WarmState.NEW:
            return []
        self.state = WarmState.DIALING
        self._deadline_ms = now_ms + self._ring_ms + _RING_GRACE_MS
        return [PlaceLeg()]

    def on_leg_placed(self, leg_id: CarrierCallId) -> list[Intent]:
        """The carrier took the leg, perhaps after the transfer was given up."""
        self.leg_id = leg_id
        if not self._cancel_when_placed:
            return []
        self._cancel_when_placed = False
        return [CancelLeg(leg_id)]

    def on_leg_refused(self, code: str, now_ms: int, *, answered: bool) -> list[Intent]:
        """The request for the leg failed with `code`; `answered`: the carrier said no to it."""
        if not answered and self.leg_id is not None:
            return []  # it rings: only the answer was lost
        self._cancel_when_placed = False
        return self._take(_E.REFUSED, now_ms, f"place={code}")

    def on_leg(self, status: LegStatus, now_ms: int) -> list[Intent]:
        """Progress of the leg."""
        if not self._is_ours(status.leg_id):
            return []
        if status.progress is CallProgress.IN_PROGRESS:
            return self._take(_E.PICKED_UP, now_ms, "leg=in-progress")
        if status.result is None:
            return []
        return self._take(_E.LEG_ENDED, now_ms, status.result.evidence, status.result.outcome)

    def on_machine(self, leg_id: CarrierCallId, now_ms: int) -> list[Intent]:
        """The detector is sure of a machine; once the person has accepted, it is mistaken."""
        if not self._is_ours(leg_id):
            return []
        return self._take(_E.MACHINE, now_ms, "detector=machine")

    def on_keys(
        self, leg_id: CarrierCallId, digits: str, now_ms: int
    ) -> tuple[LegAnswer, list[Intent]]:
        """The person's answer, and ours to their phone; the same key twice is answered the same."""
        if not self._is_ours(leg_id):
            return LegAnswer.TOO_LATE, []
        if digits != ACCEPT_KEY:
            event = _E.DECLINED if digits else _E.NO_KEY
            return LegAnswer.DECLINE, self._take(
                event, now_ms, f"keys={'other' if digits else 'none'}"
            )
        intents = self._take(_E.ACCEPTED, now_ms, "keys=1")
        welcome = self.state in (WarmState.MOVING, WarmState.MOVED, WarmState.JOINED)
        return LegAnswer.JOIN if welcome else LegAnswer.TOO_LATE, intents

    def on_caller_moved(self, now_ms: int) -> list[Intent]:
        """The carrier took the request to move the caller."""
        return self._take(_E.MOVED, now_ms, "move=accepted")

    def on_caller_not_moved(self, code: str, now_ms: int, *, answered: bool) -> list[Intent]:
        """The request to move the caller failed; `answered`: the carrier said no to it."""
        event = _E.NOT_MOVED if answered else _E.PERHAPS_MOVED
        return self._take(event, now_ms, f"move={code}")

    def on_caller_joined(self, now_ms: int) -> list[Intent]:
        """The caller has come to where the person waits."""
        return self._take(_E.CALLER_JOINED, now_ms, "conference=caller-joined")

    def on_not_joined(self, evidence: str, now_ms: int) -> list[Intent]:
        """The caller did not get to the person, and the reporter brings them back."""
        return self._take(_E.NOT_JOINED, now_ms, evidence)

    def cancel(self, now_ms: int) -> list[Intent]:
        """Give the transfer up; too late once the person has accepted."""
        return self._take(_E.CALLER_GONE, now_ms, "canceled") if self.asking else []

    def on_caller_gone(self, now_ms: int) -> list[Intent]:
        """The caller hung up, or is somewhere else: end the person's leg too."""
        return self._take(_E.CALLER_GONE, now_ms, "caller=gone")

    def on_tick(self, now_ms: int) -> list[Intent]:
        """Time passes; for a report that never comes."""
        if self._deadline_ms is None or now_ms < self._deadline_ms:
            return []
        return self._take(_E.DEADLINE, now_ms, f"deadline={self.state.value}")

    def _is_ours(self, leg_id: CarrierCallId) -> bool:
        """A webhook may come before the answer to the request that placed the leg."""
        if self.leg_id is None and self.state is not WarmState.NEW:
            self.leg_id = leg_id
        return self.leg_id == leg_id

    def _take(
        self, event: _Event, now_ms: int, evidence: str, outcome: TransferOutcome | None = None
    ) -> list[Intent]:
        arc = _ARCS.get(self.state, {}).get(event)
        if arc is None:
            return []
        self.state = arc.state
        self._deadline_ms = self._deadline_of(arc.state, now_ms)
        intents: list[Intent] = []
        if arc.move:
            intents.append(MoveCaller())
        if arc.cancel:
            intents += self._cancel()
        if arc.bring_back:
            intents.append(BringBack())
        outcome = arc.outcome or outcome
        if self.result is None and outcome is not None and arc.state in _SETTLED:
            self.result = TransferResult(outcome, evidence)
            intents.append(Finished(self.result))
        return intents

    def _cancel(self) -> list[Intent]:
        if self.leg_id is None:
            self._cancel_when_placed = True
            return []
        return [CancelLeg(self.leg_id)]

    def _deadline_of(self, state: WarmState, now_ms: int) -> int | None:
        if state is WarmState.OFFERED:
            return now_ms + _ASKING_MS
        if state is WarmState.MOVED:
            return now_ms + _MOVING_MS
        return None


_SETTLED: Final = frozenset({WarmState.JOINED, WarmState.OVER})
