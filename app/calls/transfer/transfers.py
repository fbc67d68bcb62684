"""Transfers, tones and text messages of one call, as its agent asks for them.

One at a time. Every refusal is a `ToolError`, whose words go to the model. In a cold transfer the
caller hears the agent to the end before they leave, and a caller who speaks before that stays. In
a warm one they stay with the agent until the person has accepted
(`app.calls.transfer.consult_leg`). The call is over when somebody answered, and goes on with the
agent when nobody did. `app.calls.caller_leg` knows where the caller is meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from app.calls.caller_leg import CallerLeg, CallerState
from app.calls.transfer.consult_leg import LOST_ANSWER_S, ConsultLeg, TransferControl
from app.calls.transfer.warm import ACCEPT_KEY
from app.carrier.base import (
    CarrierCallId,
    Destination,
    IncomingCall,
    LegAnswer,
    LegOrder,
    LegStatus,
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
"""Attempts in one call, so that a model that was talked into a loop stops ringing people."""
MAX_SUMMARY_CHARS: Final = 300
"""A person hears the summary twice before they take the call."""
MAX_TONES_MS: Final = 30_000
"""The longest tones: the caller and the agent cannot hear each other meanwhile."""

_HEARD_EVERY_S: Final = 0.05
_REPORT_S: Final = 1.0
"""The report of a transfer may come this long after the end of the call."""
_CLOSE_S: Final = 10.0

_NOTES: Final = {
    TransferOutcome.BUSY: "The line is busy.",
    TransferOutcome.NO_ANSWER: "Nobody answered.",
    TransferOutcome.DECLINED: "They cannot take the call now.",
    TransferOutcome.VOICEMAIL: "Only an answering machine picked up.",
    TransferOutcome.CANCELED: "You have stopped the transfer.",
}


def transfer_note(result: TransferResult) -> str:
    """The note for an agent whose caller is back, or has not left."""
    why = _NOTES.get(result.outcome, "The call could not be put through.")
    return f"{why} The caller is with you: tell them, and ask how you can help instead."


@dataclass(slots=True)
class TransferAttempt:
    """One transfer, cold or warm; only a warm one has a consult leg.

    `summary` is said to a person who is asked for a key, and `screening` is their answer.
    """

    transfer_id: TransferId
    destination: Destination
    summary: str
    result: asyncio.Future[TransferResult]
    consult_leg: ConsultLeg | None = None
    screening: Screening | None = None
    recorded: bool = False
    token: str | None = field(default=None, repr=False)

    @property
    def prompt(self) -> str:
        announcement = self.destination.announcement or f"A call for {self.destination.spoken}."
        return f"{announcement} {self.summary}".strip()


class Transfers:
    """Transfers, tones and messages of one call."""

    def __init__(
        self,
        call_id: CallId,
        incoming: IncomingCall,
        control: TransferControl,
        caller_leg: CallerLeg,
        *,
        heard_out: Callable[[], bool],
        caller_speech_count: Callable[[], int],
    ) -> None:
        """`caller_speech_count`: how often the caller has spoken so far."""
        self._call_id = call_id
        self._incoming = incoming
        self._control = control
        self._caller_leg = caller_leg
        self._heard_out = heard_out
        self._caller_speech_count = caller_speech_count
        self._busy = False
        self._speech_count_before = 0
        self._message_count = 0
        self._attempt_count = 0
        self._attempt: TransferAttempt | None = None
        self._late_hang_up: asyncio.TimerHandle | None = None

    # Requests of the agent ------------------------------------------------------------------------

    def check(self, name: object) -> None:
        """Tell whether a transfer could begin now.

        Raises:
            ToolError: the destination is unknown, or the line is busy with something else.
        """
        self._resolve(name)
        if self._attempt_count >= MAX_TRANSFERS:
            raise ToolError("No more transfers in this call.", code="transfer_limit")
        with self._exclusively():
            pass

    async def transfer(self, name: object, summary: str = "") -> TransferResult:
        """Connect the caller with a named destination; returns when that has come to nothing.

        A person who is asked for a key hears the `summary` first.

        Raises:
            ToolError: the destination is unknown, or the caller could not be transferred.
        """
        destination = self._resolve(name)
        if self._attempt_count >= MAX_TRANSFERS:
            raise ToolError("No more transfers in this call.", code="transfer_limit")
        with self._exclusively():
            if not destination.warm:
                await self._until_heard()
                if self._interrupted:
                    raise ToolError(
                        "The caller spoke before they were transferred, so they are still here. "
                        "Listen to them first.",
                        code="caller_spoke",
                    )
            self._attempt_count += 1
            loop = asyncio.get_running_loop()
            attempt = self._attempt = TransferAttempt(
                TransferId(secrets.token_urlsafe(16)),
                destination,
                summary[:MAX_SUMMARY_CHARS],
                loop.create_future(),
            )
            self._control.record(
                TransferStarted(
                    call_id=self._call_id,
                    at_ms=self._control.now_ms(),
                    destination=destination.name,
                    warm=destination.warm,
                )
            )
            return await (self._warm(attempt) if destination.warm else self._cold(attempt))

    async def _cold(self, attempt: TransferAttempt) -> TransferResult:
        order = TransferOrder(
            transfer_id=attempt.transfer_id,
            carrier_call_id=self.carrier_call_id,
            destination=attempt.destination,
            caller_number=self._incoming.caller_number,
            our_number=self._incoming.called_number,
        )
        self._caller_leg.leave()
        try:
            await self._control.carrier.transfer(order)
        except CarrierError as error:
            try:
                await self._check_left(error, "transfer_failed", "The transfer did not work.")
            except ToolFailed:
                self._record_end(attempt, TransferResult(TransferOutcome.FAILED, error.code))
                raise
        self._caller_leg.gone()
        result = await attempt.result
        self._record_end(attempt, result)
        await self._caller_leg.until_stream_gone()
        return result

    async def _warm(self, attempt: TransferAttempt) -> TransferResult:
        order = LegOrder(
            transfer_id=attempt.transfer_id,
            destination=attempt.destination,
            our_number=self._incoming.called_number,
            prompt=attempt.prompt,
        )
        consult_leg = attempt.consult_leg = ConsultLeg(
            order, self.carrier_call_id, self._control, self._caller_leg
        )
        result = await consult_leg.run(lambda result: self._record_end(attempt, result))
        attempt.token = consult_leg.token
        attempt.result.set_result(result)
        await self._caller_leg.until_stream_gone()
        return result

    def cancel(self) -> None:
        """Stop a transfer whose person has not accepted yet: the caller has changed their mind.

        Raises:
            ToolError: no transfer is under way, or the person has accepted.
        """
        consult_leg = self._consult_leg
        if consult_leg is None or not consult_leg.rings:
            raise ToolError("There is no transfer that could be stopped.", code="not_possible")
        consult_leg.cancel()

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
        with self._exclusively():
            await self._until_heard()
            token = self._control.issue_token()
            self._caller_leg.leave()
            try:
                await self._control.carrier.send_digits(
                    self.carrier_call_id, digits, token, self._control.fallback
                )
            except CarrierError as error:
                await self._check_left(error, "digits_failed", "The tones were not sent.")
            self._caller_leg.come_back(tones_ms + self._control.claim_ms)
            await self._caller_leg.until(CallerState.ATTACHED)

    async def send_sms(self, name: object, body: str) -> None:
        """Send a text message to the caller or to a named destination.

        Raises:
            ToolError: the recipient takes no messages, or it could not be sent.
        """
        if fault := sms_fault(body):
            raise ToolError(f"Not sent: {fault}.", code="sms_not_possible")
        try:
            number = self._control.destinations.sms_number(
                name, self._incoming.caller_number, self._incoming.called_number
            )
        except CarrierRefused as error:
            raise ToolError(f"Not sent: {error.message}.", code=error.code) from error
        if self._message_count >= MAX_MESSAGES:
            raise ToolError("Not sent: no more messages in this call.", code="sms_limit")
        if not self._control.take_sms():
            raise ToolError("Not sent: no more messages today.", code="sms_limit")
        self._message_count += 1  # before it is sent: a message whose answer is lost counts as well
        try:
            await self._control.carrier.send_sms(
                to_number=number, our_number=self._incoming.called_number, body=body
            )
        except CarrierUnavailable as error:
            self._control.on_sms(body)
            raise ToolFailed("It is not known whether the message was sent.") from error
        except CarrierRefused as error:
            raise ToolFailed("The message could not be sent.") from error
        self._control.on_sms(body)

    @property
    def rings(self) -> bool:
        """The caller is here and waits for somebody who is being called."""
        if self._attempt is None:  # asked of each call, some times a second
            return False
        here = self._caller_leg.state is CallerState.ATTACHED
        return here and self._consult_leg is not None and self._consult_leg.rings

    async def close(self, reason: EndReason) -> None:
        """The call is over: stop calling people for a caller who is gone."""
        if self._late_hang_up is not None:
            self._late_hang_up.cancel()
        if self._attempt is not None:
            self._record_end(self._attempt, self._unreported(reason))
        if self._consult_leg is not None and reason is not EndReason.TRANSFERRED:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await self._consult_leg.close()

    def _unreported(self, reason: EndReason) -> TransferResult:
        """The result of a transfer that the carrier has not reported by the end of the call."""
        if reason is not EndReason.TRANSFERRED:
            return TransferResult(TransferOutcome.CANCELED, reason.value)
        known = self.connected_to is not None
        outcome = TransferOutcome.ANSWERED if known else TransferOutcome.UNKNOWN
        return TransferResult(outcome, "accepted" if known else "let_go")

    # Reports of the carrier -----------------------------------------------------------------------

    def on_caller_gone(self, detail: str) -> None:
        """The carrier says that the call is over, which ends it here.

        Only the report of a cold transfer says whether the caller had talked with somebody, and
        the two come in any order.
        """
        attempt = self._pending
        if self._caller_leg.away and attempt is not None and attempt.consult_leg is None:
            loop = asyncio.get_running_loop()
            self._late_hang_up = loop.call_later(
                _REPORT_S, self._control.end, EndReason.CALLER_HUNG_UP, detail
            )
        else:
            self._control.end(EndReason.CALLER_HUNG_UP, detail)

    def on_caller_taken_back(self, token: str) -> None:
        """Somebody outside has put the caller on a new stream, which brings `token`.

        That parts them from the person whom they were transferred to, or were about to be.
        """
        attempt = self._pending
        if attempt is None or self._caller_leg.state is CallerState.ATTACHED:
            return
        if attempt.consult_leg is not None:
            attempt.consult_leg.on_caller_taken_back(token)
            return
        attempt.token = token
        attempt.result.set_result(TransferResult(TransferOutcome.UNKNOWN, "webhook=again"))

    @property
    def carrier_call_id(self) -> CarrierCallId:
        return self._incoming.carrier_call_id

    def knows(self, transfer_id: TransferId) -> bool:
        """True when a webhook's transfer is the last one of this call."""
        return self._attempt is not None and self._attempt.transfer_id == transfer_id

    @property
    def connected_to(self) -> str | None:
        """The destination that has accepted the caller, as far as was reported."""
        attempt = self._pending
        if attempt is None:
            return None
        accepted = attempt.screening is Screening.ACCEPTED
        joined = attempt.consult_leg is not None and attempt.consult_leg.joined
        return attempt.destination.name if accepted or joined else None

    @property
    def screening(self) -> Screening | None:
        """The answer of the person who was asked for a key."""
        return None if self._attempt is None else self._attempt.screening

    @property
    def prompt(self) -> str | None:
        """The prompt for a person who is asked for a key; `None` when no caller waits for them."""
        return None if self._pending is None else self._pending.prompt

    @property
    def wait_limit_s(self) -> int:
        """The longest time that the caller may wait in a queue."""
        return 0 if self._attempt is None else self._attempt.destination.ring_s

    def on_keys(self, leg_id: CarrierCallId, digits: str) -> LegAnswer:
        """The key of the person who was asked whether they take the call; empty for none."""
        attempt = self._pending
        if attempt is None:
            return LegAnswer.TOO_LATE
        if attempt.consult_leg is not None:
            return attempt.consult_leg.on_keys(leg_id, digits)
        if attempt.screening is Screening.MACHINE:
            return LegAnswer.TOO_LATE
        if digits == ACCEPT_KEY:
            attempt.screening = Screening.ACCEPTED
            return LegAnswer.CONNECT
        attempt.screening = Screening.DECLINED if digits else Screening.NO_KEY
        return LegAnswer.DECLINE

    def on_machine(self, leg_id: CarrierCallId) -> bool:
        """A machine picked up; True when the asker is to end its leg.

        The caller may have heard its first words: the detector needs some seconds.
        """
        attempt = self._pending
        if attempt is None:
            return False
        if attempt.consult_leg is not None:
            attempt.consult_leg.on_machine(leg_id)
            return False
        if attempt.screening is not None:
            return False  # a person has pressed a key
        attempt.screening = Screening.MACHINE
        return True

    def on_leg(self, status: LegStatus) -> bool:
        """Progress of a consult leg; False when it is not wanted any more."""
        consult_leg = self._consult_leg
        if consult_leg is None or consult_leg.over:
            return False
        consult_leg.on_leg(status)
        return True

    def on_caller_joined(self) -> None:
        """The caller has come to the person who accepted."""
        if self._consult_leg is not None:
            self._consult_leg.on_caller_joined()

    def on_over(self, transfer_id: TransferId, result: TransferResult) -> str | None:
        """The transfer is over: the token of the caller's next stream, `None` to hang up.

        The same report again gets the same answer.
        """
        attempt = self._attempt
        if attempt is None or not self.knows(transfer_id):
            return None
        if attempt.result.done():
            return attempt.token
        consult_leg = attempt.consult_leg
        if consult_leg is not None and consult_leg.over:
            return consult_leg.return_token()
        joined = consult_leg is not None and consult_leg.joined
        if result.outcome is TransferOutcome.ANSWERED or (
            joined and result.outcome is not TransferOutcome.CANCELED
        ):
            self._record_end(attempt, result)
            self._control.end(EndReason.TRANSFERRED, attempt.destination.name)
        elif result.outcome is TransferOutcome.CANCELED:
            self._record_end(attempt, result)
            self._control.end(EndReason.CALLER_HUNG_UP, "during_transfer")
        elif consult_leg is not None:
            consult_leg.on_not_joined(result)
            return consult_leg.return_token()
        else:
            attempt.token = self._control.issue_token()
            self._caller_leg.come_back(self._control.claim_ms)
            attempt.result.set_result(result)
        return attempt.token

    # Steps ----------------------------------------------------------------------------------------

    def _record_end(self, attempt: TransferAttempt, result: TransferResult) -> None:
        """Record how a transfer ended, once."""
        if attempt.recorded:
            return
        attempt.recorded = True
        self._control.record(
            TransferEnded(
                call_id=self._call_id,
                at_ms=self._control.now_ms(),
                destination=attempt.destination.name,
                outcome=result.outcome.value,
                evidence=result.evidence,
            )
        )

    @property
    def _pending(self) -> TransferAttempt | None:
        """The last attempt, while its outcome is open."""
        attempt = self._attempt
        return None if attempt is None or attempt.result.done() else attempt

    @property
    def _consult_leg(self) -> ConsultLeg | None:
        return None if self._attempt is None else self._attempt.consult_leg

    def _resolve(self, name: object) -> Destination:
        try:
            return self._control.destinations.resolve(name)
        except CarrierRefused as error:
            raise ToolError("There is no such destination.", code=error.code) from error

    @contextlib.contextmanager
    def _exclusively(self) -> Iterator[None]:
        if self._busy or self._caller_leg.state is not CallerState.ATTACHED:
            raise ToolError("The line is busy with something else.", code="line_busy")
        self._busy, self._speech_count_before = True, self._caller_speech_count()
        try:
            yield
        finally:
            self._busy = False

    @property
    def _interrupted(self) -> bool:
        """The caller has more to say: a transfer that has not begun is given up."""
        return self._caller_speech_count() != self._speech_count_before

    async def _until_heard(self) -> None:
        """Wait until the caller has heard the agent, up to a limit; speaking ends the wait."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._control.hear_out_ms / 1000):
                # Audio is heard as time passes, so there is no event to wait for.
                while not (self._heard_out() or self._interrupted):  # noqa: ASYNC110
                    await asyncio.sleep(_HEARD_EVERY_S)

    async def _check_left(self, error: CarrierError, code: str, words: str) -> None:
        """A request was refused, or its answer was lost. Returns when the caller left all the same.

        Raises:
            ToolFailed: the caller is still here.
        """
        if isinstance(error, CarrierUnavailable) and await self._caller_leg.left(LOST_ANSWER_S):
            return
        self._caller_leg.stay()
        raise ToolFailed(words, code=code) from error
