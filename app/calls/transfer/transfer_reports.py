"""Gives the carrier's reports of transfers to the calls that they belong to.

A report of a transfer that no live call knows is answered so that nobody is left waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from app.calls.transfer.transfers import Transfers
from app.carrier.base import (
    CallProgress,
    CarrierCallId,
    LegAnswer,
    LegStatus,
    Screening,
    TransferId,
    TransferResult,
)

__all__ = ["TransferReports"]


class TransferReports:
    """Takes the carrier's reports of the transfers of all calls."""

    def __init__(
        self,
        of_live_calls: Callable[[], Iterable[Transfers]],
        end_leg: Callable[[CarrierCallId], None],
    ) -> None:
        """`end_leg` ends a leg without waiting for it."""
        self._of_live_calls = of_live_calls
        self._end_leg = end_leg

    def _find(self, transfer_id: TransferId) -> Transfers | None:
        return next((one for one in self._of_live_calls() if one.knows(transfer_id)), None)

    def knows(self, transfer_id: TransferId) -> bool:
        """Tell whether a live call has begun that transfer."""
        return self._find(transfer_id) is not None

    def screening(self, transfer_id: TransferId) -> Screening | None:
        """The answer of the person who was asked for a key."""
        transfers = self._find(transfer_id)
        return None if transfers is None else transfers.screening

    def prompt(self, transfer_id: TransferId) -> str | None:
        """The prompt for a person who is asked for a key; `None` when no caller waits for them."""
        transfers = self._find(transfer_id)
        return None if transfers is None else transfers.prompt

    def wait_limit_s(self, transfer_id: TransferId) -> int:
        """The longest wait of a caller in a queue; 0 when no call knows of it."""
        transfers = self._find(transfer_id)
        return 0 if transfers is None else transfers.wait_limit_s

    def on_keys(self, transfer_id: TransferId, leg_id: CarrierCallId, digits: str) -> LegAnswer:
        """A person's answer to the question for a key; empty for none."""
        transfers = self._find(transfer_id)
        return LegAnswer.TOO_LATE if transfers is None else transfers.on_keys(leg_id, digits)

    def on_machine(self, transfer_id: TransferId, leg_id: CarrierCallId) -> None:
        """An answering machine has picked up."""
        transfers = self._find(transfer_id)
        if transfers is not None and transfers.on_machine(leg_id):
            self._end_leg(leg_id)

    def on_leg(self, transfer_id: TransferId, status: LegStatus) -> None:
        """Progress of a leg that we have placed. A phone that rings for nobody is let go.

        No call knows the transfer when the call ended, or the server did, while it was placed.
        """
        transfers = self._find(transfer_id)
        # An unknown leg that was answered may be talking with somebody.
        unknown = transfers is None and status.progress.rank < CallProgress.IN_PROGRESS.rank
        unwanted = (
            transfers is not None and not transfers.on_leg(status) and not status.progress.ended
        )
        if unknown or unwanted:
            self._end_leg(status.leg_id)

    def on_caller_joined(self, transfer_id: TransferId) -> None:
        """The caller has come to the person who accepted."""
        if (transfers := self._find(transfer_id)) is not None:
            transfers.on_caller_joined()

    def on_over(
        self, carrier_call_id: CarrierCallId, transfer_id: TransferId, result: TransferResult
    ) -> str | None:
        """A transfer is over: the token that brings the caller back, `None` to hang up."""
        transfers = self._find(transfer_id)
        if transfers is None or transfers.carrier_call_id != carrier_call_id:
            return None
        return transfers.on_over(transfer_id, result)
