"""Counts the calls of other processes against what callers, our numbers and the day may use.

Each process tells the others of its calls as they begin and end, by the events of the live feed. A
caller whose calls reach two processes within the same few milliseconds may have one more than
allowed. Text messages, and callers who were put through without an agent, are counted where they
were.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from app.bus import Bus, Message
from app.calls.admission.allowances import Allowances
from app.calls.admission.budget import Budget
from app.calls.observers.live_feed import CALL_EVENTS
from app.carrier.base import CarrierCallId, IncomingCall
from app.events import CallId

__all__ = ["share_budget", "share_use"]

SPENT: Final = "budget_spent"
TOLD_USD: Final = 0.01
"""The sum that a process spends before it tells the others."""

REMEMBERED: Final = 10_000
"""Calls of other processes that have not ended; one whose process died never does."""


def share_use(bus: Bus, allowances: Allowances, is_own: Callable[[CallId], bool]) -> Allowances:
    """Count calls of other processes on the `bus` in `allowances`, which is returned."""
    live: dict[CallId, tuple[IncomingCall, float]] = {}

    def take(event: Message) -> None:
        kind, call_id = event["type"], CallId(event["call_id"])
        if kind == "call_admitted" and not is_own(call_id):
            incoming = IncomingCall(
                carrier_call_id=CarrierCallId(event["carrier_call_id"]),
                account_id="",
                caller_number=event["caller_number"],
                called_number=event["called_number"],
            )
            now_s = time.monotonic()
            allowances.begin(incoming, None, now_s)
            live[call_id] = (incoming, now_s)
            if len(live) > REMEMBERED:
                del live[next(iter(live))]
        elif kind == "call_ended" and (known := live.pop(call_id, None)) is not None:
            incoming, began_s = known
            now_s = time.monotonic()
            allowances.add_seconds(incoming, now_s - began_s, now_s)

    if bus.shared:
        bus.subscribe(CALL_EVENTS, take)
    return allowances


def share_budget(bus: Bus, budget: Budget) -> Budget:
    """Count what other processes on the `bus` spend in `budget`, which is returned."""
    untold_usd = 0.0

    def tell(usd: float) -> None:
        nonlocal untold_usd
        untold_usd += usd
        if untold_usd >= TOLD_USD:
            bus.publish(SPENT, {"usd": untold_usd, "by": bus.name})
            untold_usd = 0.0

    def take(message: Message) -> None:
        if message["by"] != bus.name:
            budget.count(message["usd"])

    if bus.shared:
        budget.on_spent = tell
        bus.subscribe(SPENT, take)
    return budget
