"""What the carrier reports of transfers, given to the call that each of them belongs to.

The half of the switchboard that webhooks of transfers talk with. A report of a transfer that nobody
knows is answered so that nobody is left waiting.
"""

from __future__ import annotations

from collections.abc import Iterable

from app.calls.transfer.transfers import Transfers
from app.carrier.base import CallProgress, CarrierCallId, LegAnswer, LegNews, Screening, TransferId

__all__ = ["TransferReports"]


class TransferReports:
    """Finds the call of a transfer. Who inherits knows the lines, and how a leg is ended."""

    def _lines(self) -> Iterable[Transfers]:
        """The lines of the live calls."""
        raise NotImplementedError

    def _end_leg(self, leg_id: CarrierCallId) -> None:
        """End a leg, without waiting for it."""
        raise NotImplementedError

    def transfer_line(self, transfer_id: TransferId) -> Transfers | None:
        """The line of the live call that a transfer belongs to."""
        return next((line for line in self._lines() if line.knows(transfer_id)), None)

    def screening(self, transfer_id: TransferId) -> Screening | None:
        """What the person did whom a transfer has asked for a key."""
        line = self.transfer_line(transfer_id)
        return None if line is None else line.screening

    def transfer_prompt(self, transfer_id: TransferId) -> str | None:
        """What a person hears who is asked for a key; `None` when nobody waits for them."""
        line = self.transfer_line(transfer_id)
        return None if line is None else line.prompt

    def transfer_keys(
        self, transfer_id: TransferId, leg_id: CarrierCallId, digits: str
    ) -> LegAnswer:
        """A person's answer to the question for a key; empty for none."""
        line = self.transfer_line(transfer_id)
        return LegAnswer.TOO_LATE if line is None else line.on_keys(leg_id, digits)

    def transfer_machine(self, transfer_id: TransferId, leg_id: CarrierCallId) -> None:
        """An answering machine has picked up."""
        line = self.transfer_line(transfer_id)
        if line is not None and line.on_machine(leg_id):
            self._end_leg(leg_id)

    def transfer_leg(self, transfer_id: TransferId, news: LegNews) -> None:
        """Progress of a leg that we have placed. A phone that rings for nobody is let go.

        Nobody may know of it because the call ended, or the server did, while it was being placed.
        """
        line = self.transfer_line(transfer_id)
        # Of a leg that was answered, and is not known, nobody knows whom it talks with.
        unknown = line is None and news.progress.rank < CallProgress.IN_PROGRESS.rank
        unwanted = line is not None and not line.on_leg(news) and not news.progress.ended
        if unknown or unwanted:
            self._end_leg(news.leg_id)

    def transfer_joined(self, transfer_id: TransferId) -> None:
        """The caller has come to the person who accepted."""
        line = self.transfer_line(transfer_id)
        if line is not None:
            line.on_caller_joined()

    def transfer_wait_s(self, transfer_id: TransferId) -> int:
        """How long a caller may wait in a queue; no time at all when nobody knows of them."""
        line = self.transfer_line(transfer_id)
        return 0 if line is None else line.wait_limit_s
