"""The usage of one call at its model and its carrier."""

from __future__ import annotations

import pytest

from app.calls.billing import CallBill, sms_segments
from app.carrier.base import CallDirection
from app.events import CallId, CarrierUsage, Cost, TokenUsage, TransferEnded, TransferStarted

CALL = CallId("call_1")


def bill() -> CallBill:
    def price(usage: TokenUsage, carrier: CarrierUsage | None) -> Cost:
        assert carrier is not None
        return Cost(classes={"time": usage.voice_seconds + carrier.seconds})

    return CallBill(price, CallDirection.INBOUND)


def started(at_ms: int, *, warm: bool) -> TransferStarted:
    return TransferStarted(call_id=CALL, at_ms=at_ms, destination="desk", warm=warm)


def ended(at_ms: int, outcome: str) -> TransferEnded:
    return TransferEnded(
        call_id=CALL, at_ms=at_ms, destination="desk", outcome=outcome, evidence=""
    )


@pytest.mark.parametrize(
    ("warm", "outcome", "legs"),
    [
        (False, "answered", (30.0,)),  # reported when the two have hung up
        (True, "answered", (80.0,)),  # reported when they met: it goes on
        (False, "unknown", (80.0,)),
        (False, "busy", ()),
        (True, "declined", ()),
    ],
)
def test_only_an_answered_transfer_has_a_leg(
    warm: bool, outcome: str, legs: tuple[float, ...]
) -> None:
    one = bill()
    one.on_event(started(20_000, warm=warm))
    one.on_event(ended(50_000, outcome))
    found = one.carrier(100_000)
    assert found.legs == legs and found.seconds == 100.0
    assert found.estimated is bool(legs)


def test_the_model_is_billed_for_the_time_in_which_it_was_connected() -> None:
    one = bill()
    one.on_connected(1_000)
    one.on_disconnected(3_000)
    one.on_disconnected(4_000)
    assert one.usage(TokenUsage(), 9_000).voice_seconds == 2.0
    one.on_connected(10_000)
    one.on_connected(11_000)  # renewed
    assert one.usage(TokenUsage(input_text=1), 12_500) == TokenUsage(
        input_text=1, voice_seconds=4.5
    )
    assert one.cost(TokenUsage(), 12_500).total_usd == 17.0


@pytest.mark.parametrize(
    ("body", "segments"),
    [
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("a" * 306, 2),
        ("a" * 307, 3),
        ("€" * 80, 1),
        ("€" * 81, 2),
        ("ж" * 70, 1),
        ("ж" * 71, 2),
        ("😀" * 35, 1),
        ("😀" * 36, 2),
    ],
)
def test_text_messages_count_by_their_segments(body: str, segments: int) -> None:
    assert sms_segments(body) == segments
