"""Counts what sessions of other processes spend against the money of keys and ephemeral secrets.

Of a key each amount is told, of a secret all that the process has spent so far: a message that is
lost is made good by the next one. A process that meets a secret for the first time asks the others,
so that one that has just begun knows what was spent before it. Two sessions of one secret that
settle within the same few milliseconds may each have one more response than allowed.
"""

from __future__ import annotations

from typing import Final

from app.bus import Bus, Message
from app.gateway.access import Client, Ledger

__all__ = ["SharedSpending"]

SPENT: Final = "gateway_spent"
SECRET: Final = "gateway_secret"


class SharedSpending:
    """Connects the ledgers of all processes on a bus."""

    def __init__(self, bus: Bus, ledger: Ledger) -> None:
        self._bus = bus
        self._ledger = ledger
        if bus.shared:
            ledger.process = bus.name
            ledger.on_spent = self._tell
            bus.subscribe(SPENT, self._take)
            bus.respond(SECRET, self._answer)

    async def learn(self, secret_id: str) -> None:
        """Ask the other processes what a secret has spent, unless that is known."""
        if not self._bus.shared or self._ledger.spent_by(secret_id):
            return
        for answer in await self._bus.gather(SECRET, {"secret": secret_id}):
            for process, usd in answer["spent"].items():
                self._ledger.count_secret(secret_id, process, usd)

    def _tell(self, client: Client, usd: float) -> None:
        message = {"by": self._bus.name, "key": client.key_name, "usd": usd}
        if client.max_usd:
            own = self._ledger.spent_by(client.secret_id)[self._bus.name]
            message |= {"secret": client.secret_id, "secret_usd": own}
        self._bus.publish(SPENT, message)

    def _take(self, message: Message) -> None:
        if message["by"] == self._bus.name:
            return
        self._ledger.count_key(message["key"], message["usd"])
        if "secret" in message:
            self._ledger.count_secret(message["secret"], message["by"], message["secret_usd"])

    async def _answer(self, message: Message) -> Message | None:
        spent = self._ledger.spent_by(message["secret"])
        return {"spent": spent} if spent else None
