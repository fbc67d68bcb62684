"""What an agent does with the line itself: transfers the caller, sends tones, writes messages.

Per call, one thing at a time. The caller hears the agent out before they are taken away, and a
caller who speaks before that stays. Every refusal is a `ToolError`, whose words the model is told.
A transfer ends with what the carrier's webhook reports: the call is over when somebody answered,
and goes on with the agent when nobody did. Where the caller is meanwhile is `app.calls.phone_leg`.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from app.calls.phone_leg import PhoneLeg, Whereabouts
from app.carrier.base import (
    CallControl,
    Destination,
    Fallback,
    IncomingCall,
    LegAnswer,
    Screening,
    TransferId,
    TransferOrder,
    TransferOutcome,
    TransferResult,
)
from app.carrier.destinations import Destinations, digits_fault, sms_fault
from app.errors import CarrierError, CarrierRefused, CarrierUnavailable, ToolError, ToolFailed
from app.events import EndReason

__all__ = [
    "MAX_MESSAGES",
    "MAX_SUMMARY_CHARS",
    "MAX_TONES_MS",
    "LineControl",
    "Transfers",
    "transfer_note",
]

MAX_MESSAGES: Final = 3
"""Text messages in one call."""
MAX_SUMMARY_CHARS: Final = 300
"""What is said to a person before they take the call; they listen to it twice."""
MAX_TONES_MS: Final = 30_000
"""So long may tones take: the caller and the agent cannot hear each other meanwhile."""

_HEARD_EVERY_S: Final = 0.05
_PERHAPS_S: Final = 3.0
"""A request whose answer was lost has been carried out by then, if at all."""
_ACCEPT_KEY: Final = "1"

_NOTES: Final = {
    TransferOutcome.BUSY: "The line is busy.",
    TransferOutcome.NO_ANSWER: "Nobody answered.",
    TransferOutcome.DECLINED: "They cannot take the call now.",
    TransferOutcome.VOICEMAIL: "Only an answering machine picked up.",
}


def transfer_note(result: TransferResult) -> str:
    """What an agent is told whose caller is back."""
    why = _NOTES.get(result.outcome, "The call could not be put through.")
    return f"{why} The caller is back with you: tell them, and ask how you can help instead."


@dataclass(frozen=True, slots=True, kw_only=True)
class LineControl:
    """The carrier's hand on one call. `issue_token` makes the token of the call's next stream."""

    carrier: CallControl
    destinations: Destinations
    issue_token: Callable[[], str]
    claim_ms: int
    hear_out_ms: int
    fallback: Fallback | None = None


@dataclass(slots=True)
class _Transfer:
    """A transfer on its way.

    `summary` is said to a person who is asked for a key, `screening` what they did.
    """

    transfer_id: TransferId
    place: Destination
    summary: str
    result: asyncio.Future[TransferResult]
    screening: Screening | None = None
    token: str | None = field(default=None, repr=False)


class Transfers:
    """Transfers, tones and messages of one call."""

    def __init__(
        self,
        incoming: IncomingCall,
        control: LineControl,
        phone: PhoneLeg,
        *,
        heard_out: Callable[[], bool],
        end: Callable[[EndReason, str], None],
    ) -> None:
        self._incoming = incoming
        self._control = control
        self._phone = phone
        self._heard_out = heard_out
        self._end = end
        self._busy = False
        self._interrupted = False
        self._messages = 0
        self._last: _Transfer | None = None

    # What the agent asks for --------------------------------------------------------------------

    async def transfer(self, name: object, summary: str = "") -> TransferResult:
        """Send the caller to a named destination; returns when they are back from it.

        A person who is asked for a key hears the `summary` first.

        Raises:
            ToolError: there is no such destination, or the caller could not be transferred.
        """
        place = self._resolve(name)
        with self._alone():
            await self._hear_out()
            if self._interrupted:
                raise ToolError(
                    "The caller spoke before they were transferred, so they are still here. "
                    "Listen to them first.",
                    code="caller_spoke",
                )
            loop = asyncio.get_running_loop()
            transfer_id = TransferId(secrets.token_urlsafe(16))
            transfer = self._last = _Transfer(
                transfer_id, place, summary[:MAX_SUMMARY_CHARS], loop.create_future()
            )
            order = TransferOrder(
                transfer_id=transfer_id,
                carrier_call_id=self._incoming.carrier_call_id,
                destination=place,
                caller_number=self._incoming.caller_number,
                our_number=self._incoming.called_number,
            )
            self._phone.leave()
            try:
                await self._control.carrier.transfer(order)
            except CarrierError as error:
                await self._not_left(error, "transfer_failed", "The transfer did not work.")
            self._phone.gone()
            return await transfer.result

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
                    self._incoming.carrier_call_id, digits, token, self._control.fallback
                )
            except CarrierError as error:
                await self._not_left(error, "digits_failed", "The tones were not sent.")
            self._phone.come_back(tones_ms + self._control.claim_ms)
            await self._phone.until(Whereabouts.HERE)

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

    def on_caller_speech(self) -> None:
        """The caller has more to say: a transfer that has not begun is given up."""
        self._interrupted = True

    # What the carrier reports -------------------------------------------------------------------

    def knows(self, transfer_id: TransferId) -> bool:
        """Whether a webhook's transfer is the last one of this call."""
        return self._last is not None and self._last.transfer_id == transfer_id

    @property
    def screening(self) -> Screening | None:
        """What the person did who was asked for a key."""
        return None if self._last is None else self._last.screening

    @property
    def prompt(self) -> str | None:
        """What a person hears who is asked for a key; `None` when nobody waits for them."""
        transfer = self._last
        if transfer is None or transfer.result.done():
            return None
        return f"A call for {transfer.place.spoken}. {transfer.summary}".strip()

    @property
    def wait_limit_s(self) -> int:
        """How long the caller may wait in a queue."""
        return 0 if self._last is None else self._last.place.ring_s

    def on_keys(self, digits: str) -> LegAnswer:
        """The key of the person who was asked whether they take the call; empty for none."""
        transfer = self._last
        if transfer is None or transfer.result.done():
            return LegAnswer.TOO_LATE
        if digits == _ACCEPT_KEY:
            transfer.screening = Screening.ACCEPTED
            return LegAnswer.CONNECT
        transfer.screening = Screening.DECLINED if digits else Screening.NO_KEY
        return LegAnswer.DECLINE

    def on_machine(self) -> None:
        """A machine picked up. Where nobody is asked for a key, it is connected all the same."""
        transfer = self._last
        if transfer is not None and transfer.place.screened and transfer.screening is None:
            transfer.screening = Screening.MACHINE

    def on_over(self, transfer_id: TransferId, result: TransferResult) -> str | None:
        """The transfer is over: the token of the caller's next stream, `None` to hang up.

        The same report again gets the same answer.
        """
        transfer = self._last
        if transfer is None or not self.knows(transfer_id):
            return None
        if transfer.result.done():
            return transfer.token
        if result.outcome is TransferOutcome.ANSWERED:
            self._end(EndReason.TRANSFERRED, transfer.place.name)
        elif result.outcome is TransferOutcome.CANCELED:
            self._end(EndReason.CALLER_HUNG_UP, "during_transfer")
        else:
            transfer.token = self._control.issue_token()
            self._phone.come_back(self._control.claim_ms)
            transfer.result.set_result(result)
        return transfer.token

    # How it is done -----------------------------------------------------------------------------

    def _resolve(self, name: object) -> Destination:
        try:
            return self._control.destinations.resolve(name)
        except CarrierRefused as error:
            raise ToolError("There is no such destination.", code=error.code) from error

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if self._busy or self._phone.where is not Whereabouts.HERE:
            raise ToolError("The line is busy with something else.", code="line_busy")
        self._busy, self._interrupted = True, False
        try:
            yield
        finally:
            self._busy = False

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
        if isinstance(error, CarrierUnavailable) and await self._phone.left(_PERHAPS_S):
            return
        self._phone.stay()
        raise ToolFailed(words, code=code) from error
