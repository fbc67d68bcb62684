"""The consult leg of a warm transfer: performs the intents of `app.calls.transfer.warm` in order.

The caller stays on their stream until the person has accepted; `app.calls.caller_leg` knows where
they are. Webhooks are taken at once and never wait for a REST request.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from app.calls.caller_leg import CallerLeg, CallerState
from app.calls.transfer.warm import (
    BringBack,
    CancelLeg,
    Finished,
    Intent,
    MoveCaller,
    PlaceLeg,
    WarmTransfer,
)
from app.carrier.base import (
    CallControl,
    CarrierCallId,
    Fallback,
    LegAnswer,
    LegOrder,
    LegStatus,
    TransferOutcome,
    TransferResult,
)
from app.carrier.destinations import Destinations
from app.errors import CarrierError, CarrierRefused, CarrierUnavailable
from app.events import CallEvent, EndReason

__all__ = ["LOST_ANSWER_S", "ConsultLeg", "TransferControl"]


LOST_ANSWER_S: Final = 3.0
"""A request whose answer was lost has been carried out after this time, if at all."""
_TICK_S: Final = 1.0
_REQUEST_MS: Final = 15_000
"""The carrier's own limit for a request, with its tries, and some more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferControl:
    """The means of one call's transfers; `issue_token` makes the token of its next stream."""

    carrier: CallControl
    destinations: Destinations
    issue_token: Callable[[], str]
    take_sms: Callable[[], bool]
    claim_ms: int
    hear_out_ms: int
    now_ms: Callable[[], int]
    end: Callable[[EndReason, str], None]
    record: Callable[[CallEvent], None]
    on_sms: Callable[[str], None] = lambda body: None
    fallback: Fallback | None = None


class ConsultLeg:
    """The person who is called while the caller waits, and the caller's way to them and back."""

    def __init__(
        self,
        order: LegOrder,
        carrier_call_id: CarrierCallId,
        control: TransferControl,
        caller_leg: CallerLeg,
    ) -> None:
        self.token: str | None = None
        """Of the stream on which the caller comes back, once they do."""
        self._machine = WarmTransfer(ring_s=order.destination.ring_s)
        self._order = order
        self._carrier_call_id = carrier_call_id
        self._control = control
        self._caller_leg = caller_leg
        self._intents: asyncio.Queue[Intent] = asyncio.Queue()

    @property
    def rings(self) -> bool:
        """The caller waits for somebody who has not answered yet, or not accepted."""
        return self._machine.asking

    @property
    def joined(self) -> bool:
        return self._machine.joined

    @property
    def over(self) -> bool:
        """The transfer has ended and nobody accepted."""
        return self._machine.over and not self._machine.joined

    async def run(self, on_result: Callable[[TransferResult], None]) -> TransferResult:
        """Call the person; `on_result` takes the result, once.

        Returns when nobody accepted. Two who talk with each other end with the call.
        """
        self._queue(self._machine.start(self._now_ms))
        while True:
            intent = await self._next()
            if not isinstance(intent, Finished):
                self._queue(await self._perform(intent))
                continue
            on_result(intent.result)
            if intent.result.outcome is not TransferOutcome.ANSWERED:
                await self._end_legs()
                return intent.result

    async def close(self) -> None:
        """The caller is gone: end the person's leg too."""
        self._queue(self._machine.on_caller_gone(self._now_ms))
        await self._end_legs()

    # Events ---------------------------------------------------------------------------------------

    def on_leg(self, status: LegStatus) -> None:
        self._queue(self._machine.on_leg(status, self._now_ms))

    def on_machine(self, leg_id: CarrierCallId) -> None:
        self._queue(self._machine.on_machine(leg_id, self._now_ms))

    def on_keys(self, leg_id: CarrierCallId, digits: str) -> LegAnswer:
        answer, intents = self._machine.on_keys(leg_id, digits, self._now_ms)
        self._queue(intents)
        return answer

    def on_caller_joined(self) -> None:
        self._queue(self._machine.on_caller_joined(self._now_ms))

    def on_not_joined(self, result: TransferResult) -> None:
        self._queue(self._machine.on_not_joined(result.evidence, self._now_ms))

    def on_caller_taken_back(self, token: str) -> None:
        """The caller is on the way to a new stream, which brings `token`."""
        self.token = self.token or token
        joined = self.joined
        self._queue(self._machine.on_caller_gone(self._now_ms))
        if joined:  # the result is known, and the agent who transferred them has a caller again
            self._queue([Finished(TransferResult(TransferOutcome.UNKNOWN, "webhook=again"))])

    def cancel(self) -> None:
        """The caller has changed their mind."""
        self._queue(self._machine.cancel(self._now_ms))

    def return_token(self) -> str:
        """The token of the caller's next stream, for a document that brings them back."""
        if self.token is None:
            self.token = self._control.issue_token()
        self._caller_leg.come_back(self._control.claim_ms)
        return self.token

    # Steps ----------------------------------------------------------------------------------------

    @property
    def _now_ms(self) -> int:
        return self._control.now_ms()

    def _queue(self, intents: Sequence[Intent]) -> None:
        for intent in intents:
            self._intents.put_nowait(intent)

    async def _next(self) -> Intent:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_S):
                    return await self._intents.get()
            self._queue(self._machine.on_tick(self._now_ms))

    async def _perform(self, intent: Intent) -> list[Intent]:
        match intent:
            case PlaceLeg():
                return await self._place()
            case MoveCaller():
                return await self._move()
            case BringBack():
                await self._bring_back()
            case CancelLeg(leg_id):
                await self._cancel(leg_id)
            case Finished():
                pass
            case _:
                assert_never(intent)
        return []

    async def _place(self) -> list[Intent]:
        try:
            return self._machine.on_leg_placed(await self._control.carrier.place_leg(self._order))
        except CarrierError as error:
            answered = isinstance(error, CarrierRefused)
            return self._machine.on_leg_refused(error.code, self._now_ms, answered=answered)

    async def _move(self) -> list[Intent]:
        self._caller_leg.leave()
        try:
            await self._control.carrier.join(self._carrier_call_id, self._order.transfer_id)
        except CarrierUnavailable as error:
            if not await self._caller_leg.left(LOST_ANSWER_S):
                # It may come all the same, and late: a new stream takes them away from there.
                return self._machine.on_caller_not_moved(error.code, self._now_ms, answered=False)
        except CarrierError as error:
            self._caller_leg.stay()
            return self._machine.on_caller_not_moved(error.code, self._now_ms, answered=True)
        self._caller_leg.gone()
        return self._machine.on_caller_moved(self._now_ms)

    async def _bring_back(self) -> None:
        """Put the caller on a new stream, wherever they are."""
        if self.token is not None:
            return  # a webhook was faster
        self.token = self._control.issue_token()
        away = self._caller_leg.state is CallerState.AWAY
        if away:  # the stream may come before the answer to the request
            self._caller_leg.come_back(_REQUEST_MS + self._control.claim_ms)
        try:
            await self._control.carrier.redirect(
                self._carrier_call_id, self.token, self._control.fallback
            )
        except CarrierError as error:
            if isinstance(error, CarrierRefused) and away:
                await self._lost()
                return
            if not away and not await self._caller_leg.left(LOST_ANSWER_S):
                self._caller_leg.stay()
                return
        self._caller_leg.come_back(self._control.claim_ms)

    async def _lost(self) -> None:
        """The caller waits where nobody will come, or is gone: end the call."""
        with contextlib.suppress(CarrierError):
            await self._control.carrier.hang_up(self._carrier_call_id)
        self._control.end(EndReason.CARRIER_LOST, "not_brought_back")

    async def _cancel(self, leg_id: CarrierCallId) -> None:
        with contextlib.suppress(CarrierError):  # tried three times; it rings out by itself
            await self._control.carrier.cancel_leg(leg_id)

    async def _end_legs(self) -> None:
        """End the legs that are still to be ended; drop every other intent."""
        while not self._intents.empty():
            intent = self._intents.get_nowait()
            if isinstance(intent, CancelLeg):
                await self._cancel(intent.leg_id)
