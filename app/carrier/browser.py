"""Calls that come from a browser of the console: no carrier knows them.

Their ids say so. Hanging up is the end of their socket, and nothing else can be asked of anybody;
what concerns calls of the phone goes on to the carrier.
"""

from __future__ import annotations

import secrets
from typing import Final

from app.carrier.base import (
    CallControl,
    CarrierCallId,
    Fallback,
    LegOrder,
    TransferId,
    TransferOrder,
)
from app.errors import CarrierRefused

__all__ = ["WithBrowserCalls", "is_browser_call", "new_browser_call_id"]

_PREFIX: Final = "browser-"


def new_browser_call_id() -> CarrierCallId:
    return CarrierCallId(f"{_PREFIX}{secrets.token_hex(16)}")


def is_browser_call(carrier_call_id: CarrierCallId) -> bool:
    """True for a call of which no carrier knows."""
    return carrier_call_id.startswith(_PREFIX)


class WithBrowserCalls:
    """The requests of calls to their carrier, for calls that may have none."""

    def __init__(self, carrier: CallControl) -> None:
        self._carrier = carrier

    async def hang_up(self, carrier_call_id: CarrierCallId) -> None:
        """End the call; that of a browser ends with its socket, which the call closes."""
        if not is_browser_call(carrier_call_id):
            await self._carrier.hang_up(carrier_call_id)

    async def in_progress(self, carrier_call_id: CarrierCallId) -> bool:
        """False for a browser without a socket: it has left."""
        if is_browser_call(carrier_call_id):
            return False
        return await self._carrier.in_progress(carrier_call_id)

    async def transfer(self, order: TransferOrder) -> None:
        _refuse(order.carrier_call_id)
        await self._carrier.transfer(order)

    async def place_leg(self, order: LegOrder) -> CarrierCallId:
        return await self._carrier.place_leg(order)

    async def cancel_leg(self, leg_id: CarrierCallId) -> None:
        await self._carrier.cancel_leg(leg_id)

    async def join(self, carrier_call_id: CarrierCallId, transfer_id: TransferId) -> None:
        _refuse(carrier_call_id)
        await self._carrier.join(carrier_call_id, transfer_id)

    async def redirect(
        self, carrier_call_id: CarrierCallId, token: str, fallback: Fallback | None = None
    ) -> None:
        _refuse(carrier_call_id)
        await self._carrier.redirect(carrier_call_id, token, fallback)

    async def send_digits(
        self,
        carrier_call_id: CarrierCallId,
        digits: str,
        token: str,
        fallback: Fallback | None = None,
    ) -> None:
        _refuse(carrier_call_id)
        await self._carrier.send_digits(carrier_call_id, digits, token, fallback)

    async def send_sms(self, *, to_number: str, our_number: str, body: str) -> str:
        return await self._carrier.send_sms(to_number=to_number, our_number=our_number, body=body)


def _refuse(carrier_call_id: CarrierCallId) -> None:
    if is_browser_call(carrier_call_id):
        raise CarrierRefused("a call from the browser has no line to move", code="browser_call")
