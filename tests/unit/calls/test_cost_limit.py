"""A call that costs too much is warned, and ended politely."""

from __future__ import annotations

import pytest

from app.calls.actions import End
from app.calls.policy import CallPolicy
from app.events import EndReason
from tests.unit.calls.harness import CallHarness

POLICY = CallPolicy(
    max_cost_usd=1.0, duration_warning="One more minute.", closing_prompt="Goodbye now."
)


def spend(harness: CallHarness, after_ms: int, usd: float) -> list[str]:
    """Let the call cost so much by then; the sentences that are said for it."""
    harness.now_ms += after_ms
    harness.actions += harness.conversation.on_cost(usd, harness.now_ms)
    return harness.words()


def greeted(policy: CallPolicy = POLICY) -> CallHarness:
    harness = CallHarness(policy=policy)
    harness.greeted()
    return harness


@pytest.mark.parametrize(
    ("rate_usd", "warned_at_s"),
    [
        (0.004, 189),  # another minute at this pace would reach the limit
        (0.008, 65),
        (0.0001, None),
    ],
)
def test_a_caller_is_warned_a_minute_before_the_money_is_spent(
    rate_usd: float, warned_at_s: int | None
) -> None:
    harness = greeted()
    warned: list[int] = []
    for second in range(1, 245):
        if spend(harness, 1_000, rate_usd * second) == ["One more minute."]:
            warned.append(second)
            harness.answer(500, "One more minute.", "warning")
            harness.marks()
        if rate_usd * (second + 1) >= 1.0:
            break
    assert len(warned) == (0 if warned_at_s is None else 1)
    if warned_at_s is not None:
        assert abs(warned[0] - warned_at_s) <= 2


def test_a_call_that_has_cost_too_much_ends_when_its_closing_prompt_was_heard() -> None:
    harness = greeted()
    assert spend(harness, 1_000, 0.999) == []
    assert spend(harness, 1_000, 1.0) == ["Goodbye now."]
    assert spend(harness, 1_000, 1.2) == []  # once
    assert harness.take(End) == []
    harness.answer(500, "Goodbye now.", "closing")
    harness.marks()
    harness.wait(200)
    assert harness.take(End)[0].reason is EndReason.MAX_COST


def test_a_call_without_a_limit_goes_on() -> None:
    harness = greeted(CallPolicy())
    assert spend(harness, 1_000, 1_000_000.0) == []
    assert harness.take(End) == []
