"""What an agent does with the line itself: transfers the caller, sends tones, writes messages.

Per call, one thing at a time. Every refusal is a `ToolError`, whose words the model is told. Cold,
the caller hears the agent out before they are taken away, and a caller who speaks before that
stays; warm, they stay with the agent until the person has accepted
(`app.calls.transfer.consult_leg`). The call is over when somebody answered, and goes on with the
agent when nobody did. Where the caller is meanwhile is `app.calls.caller_leg`.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from app.calls.caller_leg import CallerLeg, CallerState
from app.calls.transfer.consult_leg import PERHAPS_S, ConsultLeg, TransferControl
from app.carrier.base import (
    CarrierCallId,
    Destination,
    IncomingCall,
    LegAnswer,
    LegNews,
    LegOrder,
    Screening,
    TransferId,
    TransferOrder,
    TransferOutcome,
    TransferResult,
)
from app.carrier.destinations import digits_fault, sms_fault
from app.errors import CarrierError, CarrierRefused, CarrierUnavailable, ToolError, ToolFailed
from app.events import CallId, EndReason, TransferEnded, TransferStarted

__all__ = [
    "MAX_MESSAGES",
    "MAX_SUMMARY_CHARS",
    "MAX_TONES_MS",
    "MAX_TRANSFERS",
    "Transfers",
    "transfer_note",
]


MAX_MESSAGES: Final = 3
"""Text messages in one call."""
MAX_TRANSFERS: Final = 5
"""Attempts in one call: a model that was talked into a loop rings nobody for ever."""
MAX_SUMMARY_CHARS: Final = 300
"""What is said to a person before they take the call; they listen to it twice."""
MAX_TONES_MS: Final = 30_000
"""So long may tones take: the caller and the agent cannot hear each other meanwhile."""

_HEARD_EVERY_S: Final = 0.05
_REPORT_S: Final = 1.0
"""So much later than the end of the call the report of its transfer may come."""
_CLOSE_S: Final = 10.0
_ACCEPT_KEY: Final = "1"

_NOTES: Final = {
    TransferOutcome.BUSY: "The line is busy.",
    TransferOutcome.NO_ANSWER: "Nobody answered.",
    TransferOutcome.DECLINED: "They cannot take the call now.",
    TransferOutcome.VOICEMAIL: "Only an answering machine picked up.",
    TransferOutcome.CANCELED: "You have stopped the transfer.",
}


def transfer_note(result: TransferResult) -> str:
    """What an agent is told whose caller is with them."""
    why = _NOTES.get(result.outcome, "The call could not be put through.")
    return f"{why} The caller is with you: tell them, and ask how you can help instead."


@dataclass(slots=True)
class _Transfer:
    """A transfer on its way; `second` is the leg of a warm one.

    `summary` is said to a person who is asked for a key, `screening` what they did.
    """

    transfer_id: TransferId
    place: Destination
    summary: str
    result: asyncio.Future[TransferResult]
    second: ConsultLeg | None = None
    screening: Screening | None = None
    told: bool = False
    token: str | None = field(default=None, repr=False)

    @property
    def prompt(self) -> str:
        announcement = self.place.announcement or f"A call for {self.place.spoken}."
        return f"{announcement} {self.summary}".strip()


class Transfers:
    """Transfers, tones and messages of one call."""

    def __init__(
        self,
        call_id: CallId,
        incoming: IncomingCall,
        control: TransferControl,
        phone: CallerLeg,
        *,
        heard_out: Callable[[], bool],
        interjections: Callable[[], int],
    ) -> None:
        """`interjections`: how often the caller has taken the floor so far."""
        self._call_id = call_id
        self._incoming = incoming
        self._control = control
        self._phone = phone
        self._heard_out = heard_out
        self._interjections = interjections
        self._busy = False
        self._said_before = 0
        self._messages = 0
        self._attempts = 0
        self._last: _Transfer | None = None
        self._late: asyncio.TimerHandle | None = None

    # What the agent asks for --------------------------------------------------------------------

    async def transfer(self, name: object, summary: str = "") -> TransferResult:
        """Connect the caller with a named destination; returns when that has come to nothing.

        A person who is asked for a key hears the `summary` first.

        Raises:
            ToolError: there is no such destination, or the caller could not be transferred.
        """
        place = self._resolve(name)
        if self._attempts >= MAX_TRANSFERS:
            raise ToolError("No more transfers in this call.", code="transfer_limit")
        with self._alone():
            if not place.warm:
                await self._hear_out()
                if self._interrupted:
                    raise ToolError(
                        "The caller spoke before they were transferred, so they are still here. "
                        "Listen to them first.",
                        code="caller_spoke",
                    )
            self._attempts += 1
            loop = asyncio.get_running_loop()
            transfer = self._last = _Transfer(
                TransferId(secrets.token_urlsafe(16)),
                place,
                summary[:MAX_SUMMARY_CHARS],
                loop.create_future(),
            )
            self._control.record(
                TransferStarted(
                    call_id=self._call_id,
                    at_ms=self._control.now_ms(),
                    destination=place.name,
                    warm=place.warm,
                )
            )
            return await (self._warm(transfer) if place.warm else self._cold(transfer))

    async def _cold(self, transfer: _Transfer) -> TransferResult:
        order = TransferOrder(
            transfer_id=transfer.transfer_id,
            carrier_call_id=self.carrier_call_id,
            destination=transfer.place,
            caller_number=self._incoming.caller_number,
            our_number=self._incoming.called_number,
        )
        self._phone.leave()
        try:
            await self._control.carrier.transfer(order)
        except CarrierError as error:
            try:
                await self._not_left(error, "transfer_failed", "The transfer did not work.")
            except ToolFailed:
                self._tell(transfer, TransferResult(TransferOutcome.FAILED, error.code))
                raise
        self._phone.gone()
        result = await transfer.result
        self._tell(transfer, result)
        await self._phone.parted()
        return result

    async def _warm(self, transfer: _Transfer) -> TransferResult:
        order = LegOrder(
            transfer_id=transfer.transfer_id,
            destination=transfer.place,
            our_number=self._incoming.called_number,
            prompt=transfer.prompt,
        )
        second = transfer.second = ConsultLeg(
            order, self.carrier_call_id, self._control, self._phone
        )
        result = await second.run(lambda result: self._tell(transfer, result))
        transfer.token = second.token
        transfer.result.set_result(result)
        await self._phone.parted()
        return result

    def cancel(self) -> None:
        """Stop a transfer whose person has not accepted yet: the caller has changed their mind.

        Raises:
            ToolError: there is none, or it is too late.
        """
        second = self._second
        if second is None or not second.rings:
            raise ToolError("There is no transfer that could be stopped.", code="not_possible")
        second.cancel()

    async def send_digits(self, digits: str) -> None:
        """Send tones into the call; returns when caller and agent hear each other again.

        Raises:
            ToolError: no tones, or they could not be sent.
        """
        fault = digits_fault(digits)
        tones_ms = sum(1_000 if key == "W" else 500 for key in digits)
        if fault is None and tones_ms > MAX_TONES_MS:
            fault = "these tones and pauses take too long; send fewer at a time"
        if fault is not None:
            raise ToolError(f"Not sent: {fault}.", code="digits_not_possible")
        with self._alone():
            await self._hear_out()
            token = self._control.issue_token()
            self._phone.leave()
            try:
                await self._control.carrier.send_digits(
                    self.carrier_call_id, digits, token, self._control.fallback
                )
            except CarrierError as error:
                await self._not_left(error, "digits_failed", "The tones were not sent.")
            self._phone.come_back(tones_ms + self._control.claim_ms)
            await self._phone.until(CallerState.ATTACHED)

    async def send_sms(self, name: object, body: str) -> None:
        """Send a text message to the caller or to a named destination.

        Raises:
            ToolError: nobody who takes messages, or it could not be sent.
        """
        if fault := sms_fault(body):
            raise ToolError(f"Not sent: {fault}.", code="sms_not_possible")
        try:
            number = self._control.destinations.sms_number(name, self._incoming.caller_number)
        except CarrierRefused as error:
            raise ToolError(f"Not sent: {error.message}.", code=error.code) from error
        if self._messages >= MAX_MESSAGES:
            raise ToolError("Not sent: no more messages in this call.", code="sms_limit")
        self._messages += 1  # before it is sent: a message whose answer is lost counts as well
        try:
            await self._control.carrier.send_sms(
                to_number=number, our_number=self._incoming.called_number, body=body
            )
        except CarrierUnavailable as error:
            raise ToolFailed("It is not known whether the message was sent.") from error
        except CarrierRefused as error:
            raise ToolFailed("The message could not be sent.") from error

    @property
    def rings(self) -> bool:
        """The caller is here and waits for somebody who is being called."""
        here = self._phone.state is CallerState.ATTACHED
        return here and self._second is not None and self._second.rings

    async def close(self, reason: EndReason) -> None:
        """The call is over: nobody is called for a caller who is gone."""
        if self._late is not None:
            self._late.cancel()
        if self._last is not None:
            self._tell(self._last, self._unreported(reason))
        if self._second is not None and reason is not EndReason.TRANSFERRED:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await self._second.close()

    def _unreported(self, reason: EndReason) -> TransferResult:
        """How a transfer ended that the carrier has not reported by the end of the call."""
        if reason is not EndReason.TRANSFERRED:
            return TransferResult(TransferOutcome.CANCELED, reason.value)
        known = self.connected_to is not None
        outcome = TransferOutcome.ANSWERED if known else TransferOutcome.UNKNOWN
        return TransferResult(outcome, "accepted" if known else "let_go")

    # What the carrier reports -------------------------------------------------------------------

    def on_caller_gone(self, detail: str) -> None:
        """The carrier says that the call is over, which ends it here.

        Whether the caller had talked with somebody is told by the report of a cold transfer alone,
        and the two come in any order.
        """
        transfer = self._last
        cold = transfer is not None and transfer.second is None and not transfer.result.done()
        if self._phone.away and cold:
            loop = asyncio.get_running_loop()
            self._late = loop.call_later(
                _REPORT_S, self._control.end, EndReason.CALLER_HUNG_UP, detail
            )
        else:
            self._control.end(EndReason.CALLER_HUNG_UP, detail)

    @property
    def carrier_call_id(self) -> CarrierCallId:
        return self._incoming.carrier_call_id

    def knows(self, transfer_id: TransferId) -> bool:
        """True when a webhook's transfer is the last one of this call."""
        return self._last is not None and self._last.transfer_id == transfer_id

    @property
    def connected_to(self) -> str | None:
        """The destination that has accepted the caller, as far as anybody has told us."""
        transfer = self._last
        if transfer is None or transfer.result.done():
            return None
        accepted = transfer.screening is Screening.ACCEPTED
        joined = transfer.second is not None and transfer.second.joined
        return transfer.place.name if accepted or joined else None

    @property
    def screening(self) -> Screening | None:
        """What the person did who was asked for a key."""
        return None if self._last is None else self._last.screening

    @property
    def prompt(self) -> str | None:
        """What a person hears who is asked for a key; `None` when nobody waits for them."""
        transfer = self._last
        return None if transfer is None or transfer.result.done() else transfer.prompt

    @property
    def wait_limit_s(self) -> int:
        """How long the caller may wait in a queue."""
        return 0 if self._last is None else self._last.place.ring_s

    def on_keys(self, leg_id: CarrierCallId, digits: str) -> LegAnswer:
        """The key of the person who was asked whether they take the call; empty for none."""
        transfer = self._last
        if transfer is None or transfer.result.done():
            return LegAnswer.TOO_LATE
        if transfer.second is not None:
            return transfer.second.on_keys(leg_id, digits)
        if transfer.screening is Screening.MACHINE:
            return LegAnswer.TOO_LATE
        if digits == _ACCEPT_KEY:
            transfer.screening = Screening.ACCEPTED
            return LegAnswer.CONNECT
        transfer.screening = Screening.DECLINED if digits else Screening.NO_KEY
        return LegAnswer.DECLINE

    def on_machine(self, leg_id: CarrierCallId) -> bool:
        """A machine picked up; True when its leg is to be ended by whoever asks.

        The caller may have heard its first words: the detector needs some seconds.
        """
        transfer = self._last
        if transfer is None or transfer.result.done():
            return False
        if transfer.second is not None:
            transfer.second.on_machine(leg_id)
            return False
        if transfer.screening is not None:
            return False  # a person has pressed a key
        transfer.screening = Screening.MACHINE
        return True

    def on_leg(self, news: LegNews) -> bool:
        """Progress of a leg of ours; False when nobody waits for it any more."""
        second = self._second
        if second is None or second.over:
            return False
        second.on_leg(news)
        return True

    def on_caller_joined(self) -> None:
        """The caller has come to the person who accepted."""
        if self._second is not None:
            self._second.on_caller_joined()

    def on_over(self, transfer_id: TransferId, result: TransferResult) -> str | None:
        """The transfer is over: the token of the caller's next stream, `None` to hang up.

        The same report again gets the same answer.
        """
        transfer = self._last
        if transfer is None or not self.knows(transfer_id):
            return None
        if transfer.result.done():
            return transfer.token
        second = transfer.second
        if second is not None and second.over:
            return second.way_back()
        joined = second is not None and second.joined
        if result.outcome is TransferOutcome.ANSWERED or (
            joined and result.outcome is not TransferOutcome.CANCELED
        ):
            self._tell(transfer, result)
            self._control.end(EndReason.TRANSFERRED, transfer.place.name)
        elif result.outcome is TransferOutcome.CANCELED:
            self._tell(transfer, result)
            self._control.end(EndReason.CALLER_HUNG_UP, "during_transfer")
        elif second is not None:
            second.on_not_joined(result)
            return second.way_back()
        else:
            transfer.token = self._control.issue_token()
            self._phone.come_back(self._control.claim_ms)
            transfer.result.set_result(result)
        return transfer.token

    # How it is done -----------------------------------------------------------------------------

    def _tell(self, transfer: _Transfer, result: TransferResult) -> None:
        """Record how a transfer ended, once."""
        if transfer.told:
            return
        transfer.told = True
        self._control.record(
            TransferEnded(
                call_id=self._call_id,
                at_ms=self._control.now_ms(),
                destination=transfer.place.name,
                outcome=result.outcome.value,
                evidence=result.evidence,
            )
        )

    @property
    def _second(self) -> ConsultLeg | None:
        return None if self._last is None else self._last.second

    def _resolve(self, name: object) -> Destination:
        try:
            return self._control.destinations.resolve(name)
        except CarrierRefused as error:
            raise ToolError("There is no such destination.", code=error.code) from error

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if self._busy or self._phone.state is not CallerState.ATTACHED:
            raise ToolError("The line is busy with something else.", code="line_busy")
        self._busy, self._said_before = True, self._interjections()
        try:
            yield
        finally:
            self._busy = False

    @property
    def _interrupted(self) -> bool:
        """The caller has more to say: a transfer that has not begun is given up."""
        return self._interjections() != self._said_before

    async def _hear_out(self) -> None:
        """Let the caller hear what the agent has said, up to a cap; speaking ends the wait."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._control.hear_out_ms / 1000):
                # What was heard is also a matter of time, so there is no event to wait for.
                while not (self._heard_out() or self._interrupted):  # noqa: ASYNC110
                    await asyncio.sleep(_HEARD_EVERY_S)

    async def _not_left(self, error: CarrierError, code: str, words: str) -> None:
        """The carrier did not say yes. Returns when it has acted all the same.

        Raises:
            ToolFailed: the caller is still here.
        """
        if isinstance(error, CarrierUnavailable) and await self._phone.left(PERHAPS_S):
            return
        self._phone.stay()
        raise ToolFailed(words, code=code) from error
