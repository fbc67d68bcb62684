"""`CallControl` for Twilio: transfers, legs, tones and messages of live calls.

I/O. Puts documents (`transfer.py`) into requests (`rest.py`). The calls room decides whether a
transfer may happen, and what its webhooks mean for the conversation.
"""

from __future__ import annotations

from collections.abc import Callable

from app.carrier.base import (
    CarrierCallId,
    DestinationKind,
    Fallback,
    LegOrder,
    PlacedReport,
    PlacedStatus,
    PlacementOrder,
    TransferId,
    TransferOrder,
)
from app.carrier.destinations import digits_fault, sms_fault
from app.carrier.twilio.carrier import TwilioCarrier
from app.carrier.twilio.faults import NEVER_DONE
from app.carrier.twilio.placing import PLACING_PATHS, report_of
from app.carrier.twilio.rest import CallRequest, LegRequest, TwilioRest
from app.carrier.twilio.transfer import (
    Site,
    digits_document,
    join_document,
    return_document,
    transfer_document,
    whisper_document,
)
from app.errors import CarrierRefused, CarrierUnavailable

__all__ = ["TwilioControl"]


class TwilioControl(TwilioCarrier):
    """Requests about calls by REST; without an account all but hanging up are refused.

    `site` is asked for late: a test's port is not known before the listener is bound.
    """

    def __init__(self, rest: TwilioRest | None, site: Callable[[], Site]) -> None:
        super().__init__(rest)
        self._site = site

    async def transfer(self, order: TransferOrder) -> None:
        """Send the caller to a destination; the stream stops."""
        document = transfer_document(order, self._site())
        await self._account().redirect(order.carrier_call_id, document)

    async def place_leg(self, order: LegOrder) -> CarrierCallId:
        """Call a person for a warm transfer."""
        destination, site = order.destination, self._site()
        if destination.kind is DestinationKind.QUEUE:
            raise CarrierRefused("nobody can be asked in a queue", code="queue_not_warm")
        leg = LegRequest(
            to=destination.address,
            from_number=self._sender(order.our_number),
            twiml=whisper_document(order.prompt, order.transfer_id, site),
            ring_s=destination.ring_s,
            status_url=site.url(site.paths.leg, order.transfer_id),
            machine_url=site.url(site.paths.machine, order.transfer_id)
            if destination.detect_voicemail
            else "",
            extension=destination.extension,
        )
        return await self._account().place_leg(leg)

    async def place(self, order: PlacementOrder) -> CarrierCallId:
        """Call somebody, who is connected with an agent when they answer."""
        site, paths, reference = self._site(), PLACING_PATHS, order.reference
        detects = order.machine_detection != "off"
        call = CallRequest(
            to=order.to,
            from_number=order.from_number,
            url=site.placed_url(paths.answer, reference),
            ring_s=order.ring_s,
            status_url=site.placed_url(paths.status, reference),
            machine_url=site.placed_url(paths.machine, reference) if detects else "",
            to_message_end=order.machine_detection == "message_end",
        )
        try:
            return await self._account().place_call(call)
        except CarrierUnavailable as error:
            if error.code not in NEVER_DONE:
                raise
            raise CarrierRefused(error.message, code=error.code, retryable=True) from error

    async def placed_to(self, number: str, from_number: str) -> list[PlacedStatus]:
        """The latest calls from one number to another, in any state."""
        return [
            PlacedStatus(
                carrier_call_id=row.carrier_call_id,
                progress=row.progress,
                created_at=row.created_at,
            )
            for row in await self._account().calls_between(from_number, number)
        ]

    async def placed_status(self, carrier_call_id: CarrierCallId) -> PlacedReport:
        """The state of a call."""
        row = await self._account().call_row(carrier_call_id)
        return report_of(carrier_call_id, row.progress)

    async def cancel_leg(self, leg_id: CarrierCallId) -> None:
        """End a leg; one that is already gone is success."""
        await self._account().cancel_leg(leg_id)

    async def join(self, carrier_call_id: CarrierCallId, transfer_id: TransferId) -> None:
        """Bring the caller into the transfer's conference; the stream stops."""
        document = join_document(transfer_id, self._site())
        await self._account().redirect(carrier_call_id, document)

    async def redirect(
        self, carrier_call_id: CarrierCallId, token: str, fallback: Fallback | None = None
    ) -> None:
        """Put the call on a new stream; the old one stops."""
        document = return_document(self._site(), token, fallback)
        await self._account().redirect(carrier_call_id, document)

    async def send_digits(
        self,
        carrier_call_id: CarrierCallId,
        digits: str,
        token: str,
        fallback: Fallback | None = None,
    ) -> None:
        """Send tones into the call; the stream stops, and a new one brings `token`."""
        if fault := digits_fault(digits):
            raise CarrierRefused(fault, code="digits_not_possible")
        document = digits_document(digits, self._site(), token, fallback)
        await self._account().redirect(carrier_call_id, document)

    async def send_sms(self, *, to_number: str, our_number: str, body: str) -> str:
        """Send a text message; its id at Twilio."""
        if fault := sms_fault(body):
            raise CarrierRefused(fault, code="sms_not_possible")
        return await self._account().send_sms(
            to_number=to_number, from_number=self._sender(our_number), body=body
        )

    def _sender(self, called: str) -> str:
        """The sender of a leg or a message: Twilio takes numbers only."""
        ours = self._site().ours(called)
        if ":" in ours:
            raise CarrierRefused(
                "the call came in over SIP, so our number is unknown; set twilio.from_number",
                code="no_own_number",
            )
        return ours

    def _account(self) -> TwilioRest:
        if self._rest is None:
            raise CarrierRefused("there is no carrier account here", code="no_carrier_account")
        return self._rest
