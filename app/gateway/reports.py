"""Tells a session's news to the history of calls, the book of charges, and Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from app.events import CallEvent
from app.gateway.access import Client
from app.gateway.meter import Charge
from app.gateway.session import Report, Route
from app.gateway.usage import UsageBook

__all__ = ["GatewayCounts", "Reports"]


class GatewayCounts(Protocol):
    """Numbers for Prometheus."""

    def gateway_connected(self, channel: str, waited_s: float) -> None: ...
    def gateway_channel_failed(self, channel: str) -> None: ...


class Reports(Report):
    """Tells all of them."""

    def __init__(
        self,
        observers: Sequence[Callable[[CallEvent], None]],
        counts: GatewayCounts,
        book: UsageBook,
    ) -> None:
        self._observers = observers
        self._counts = counts
        self._book = book

    def on_event(self, event: CallEvent) -> None:
        """Tell the history, and whoever else observes calls."""
        for observe in self._observers:
            observe(event)

    def on_connected(self, channel: str, waited_s: float) -> None:
        """Count a connection."""
        self._counts.gateway_connected(channel, waited_s)

    def on_channel_failed(self, channel: str) -> None:
        """Count a failure."""
        self._counts.gateway_channel_failed(channel)

    def on_charge(
        self, session_id: str, client: Client, route: Route, channel: str, charge: Charge
    ) -> None:
        """Keep a charge; it is counted then."""
        self._book.add(
            session_id,
            key_name=client.key_name,
            model=route.model,
            channel=channel,
            charge=charge,
        )

    def charge_later(self, charge: Callable[[], None]) -> None:
        """Have the book do it, before it writes."""
        self._book.charge_later(charge)
