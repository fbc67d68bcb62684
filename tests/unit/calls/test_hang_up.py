"""A call is hung up and closed, whatever the carrier does."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import cast

import pytest

from app.calls import hang_up
from app.calls.actions import UNHEARD, End
from app.calls.caller_leg import LOST, CallerLeg, CallerState
from app.calls.hang_up import HangUpDeadline, close_caller_leg
from app.carrier.base import CarrierCallId
from app.errors import CarrierRefused
from app.events import EndReason
from tests.fakes.waiting import within

CALL = CarrierCallId("CA1")


@dataclass
class Leg:
    """A caller leg that keeps what its stream was closed with."""

    state: CallerState = CallerState.ATTACHED
    closed_with: list[int] = field(default_factory=list)
    waits: asyncio.Event = field(default_factory=asyncio.Event)

    async def caller_leaves(self) -> None:
        self.waits.set()
        await asyncio.Event().wait()

    def close(self, code: int, reason: str = "") -> None:
        self.closed_with.append(code)


@dataclass
class Carrier:
    """Counts its hang-ups; `refuses` or never answers, if it is to."""

    refuses: bool = False
    hangs: bool = False
    hung_up: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def in_progress(self, carrier_call_id: CarrierCallId) -> bool:
        return True

    async def hang_up(self, carrier_call_id: CarrierCallId) -> None:
        self.hung_up += 1
        self.asked.set()
        if self.refuses:
            raise CarrierRefused("no")
        if self.hangs:
            await asyncio.Event().wait()


async def close(
    reason: EndReason,
    carrier: Carrier,
    leg: Leg,
    deadline: HangUpDeadline | None = None,
    *,
    detail: str = "",
) -> None:
    caller_leg, end = cast(CallerLeg, leg), End(reason, detail)
    await close_caller_leg(end, caller_leg, carrier, CALL, deadline or HangUpDeadline())


@pytest.mark.parametrize("reason", EndReason)
async def test_the_end_reason_decides_who_hangs_up_and_how_the_stream_is_closed(
    reason: EndReason,
) -> None:
    carrier, leg = Carrier(), Leg()
    await close(reason, carrier, leg)
    limits = {"silence", "max_duration", "max_cost", "guardrail"}
    ours = {"agent_hung_up", "operator_hung_up", "drained", *limits}
    assert carrier.hung_up == (reason.value in ours)
    assert leg.closed_with == [LOST if reason in ("voice_lost", "internal_error") else 1000]


@pytest.mark.parametrize("reason", EndReason)
async def test_the_carrier_speaks_in_place_of_a_goodbye_that_was_not_heard(
    reason: EndReason,
) -> None:
    carrier, leg = Carrier(), Leg()
    await close(reason, carrier, leg, detail=UNHEARD)
    by_operator = reason is EndReason.OPERATOR_HUNG_UP  # who wants the line to be closed
    assert carrier.hung_up == by_operator
    assert leg.closed_with == [1000 if by_operator else LOST]


@pytest.mark.parametrize("fault", ["refuses", "hangs"])
async def test_a_carrier_that_does_not_hang_up_loses_the_stream_all_the_same(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hang_up, "HANG_UP_S", 0.05)
    monkeypatch.setattr(hang_up, "LINGER_S", 0.05)
    leg = Leg()
    carrier = Carrier(refuses=fault == "refuses", hangs=fault == "hangs")
    await within(2, close(EndReason.AGENT_HUNG_UP, carrier, leg))
    assert leg.closed_with == [1000]
    assert leg.waits.is_set()  # whoever was told goodbye may hang up before that


@pytest.mark.parametrize("reason", [EndReason.OPERATOR_HUNG_UP, EndReason.DRAINED])
async def test_a_hang_up_by_an_operator_that_fails_closes_the_stream(reason: EndReason) -> None:
    leg = Leg()
    await within(2, close(reason, Carrier(refuses=True), leg))
    assert leg.closed_with == [1000]
    assert not leg.waits.is_set()


async def test_a_process_that_goes_waits_for_no_caller_to_hang_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hang_up, "HURRIED_HANG_UP_S", 0.05)
    leg, deadline = Leg(), HangUpDeadline()
    carrier = Carrier(refuses=True)
    closed = asyncio.create_task(close(EndReason.AGENT_HUNG_UP, carrier, leg, deadline))
    await leg.waits.wait()
    deadline.hurry()
    await within(2, closed)
    assert leg.closed_with == [1000]


async def test_a_hang_up_under_way_is_given_little_more_time_when_the_process_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hang_up, "HURRIED_HANG_UP_S", 0.05)
    carrier, leg, deadline = Carrier(hangs=True), Leg(), HangUpDeadline()
    closed = asyncio.create_task(close(EndReason.AGENT_HUNG_UP, carrier, leg, deadline))
    await carrier.asked.wait()
    deadline.hurry()
    await within(2, closed)
    assert leg.closed_with == [1000]
    deadline.hurry()  # too late to matter


async def test_without_a_goodbye_the_caller_is_not_hung_up_on() -> None:
    deadline = HangUpDeadline()
    deadline.hurry()
    cut_off, on_the_way = Leg(), Leg(state=CallerState.EXPECTED)
    carrier = Carrier()
    await close(EndReason.DRAINED, carrier, cut_off, deadline)
    await close(EndReason.DRAINED, carrier, on_the_way)
    assert carrier.hung_up == 0
    assert cut_off.closed_with == on_the_way.closed_with == [LOST]
