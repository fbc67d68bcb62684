"""A call that costs too much is warned, and ended politely."""

from __future__ import annotations

import pytest

from app.calls.actions import End
from app.calls.policy import CallPolicy
from app.events import EndReason
from tests.unit.calls.scene import Scene

POLICY = CallPolicy(
    max_cost_usd=1.0, duration_warning="One more minute.", closing_prompt="Goodbye now."
)


def spend(scene: Scene, after_ms: int, usd: float) -> list[str]:
    """Let the call cost so much by then; the sentences that are said for it."""
    scene.now_ms += after_ms
    scene.actions += scene.conversation.on_cost(usd, scene.now_ms)
    return scene.words()


def greeted(policy: CallPolicy = POLICY) -> Scene:
    scene = Scene(policy=policy)
    scene.greeted()
    return scene


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
    scene = greeted()
    warned: list[int] = []
    for second in range(1, 245):
        if spend(scene, 1_000, rate_usd * second) == ["One more minute."]:
            warned.append(second)
            scene.answer(500, "One more minute.", "warning")
            scene.marks()
        if rate_usd * (second + 1) >= 1.0:
            break
    assert len(warned) == (0 if warned_at_s is None else 1)
    if warned_at_s is not None:
        assert abs(warned[0] - warned_at_s) <= 2


def test_a_call_that_has_cost_too_much_ends_when_its_closing_prompt_was_heard() -> None:
    scene = greeted()
    assert spend(scene, 1_000, 0.999) == []
    assert spend(scene, 1_000, 1.0) == ["Goodbye now."]
    assert spend(scene, 1_000, 1.2) == []  # once
    assert scene.take(End) == []
    scene.answer(500, "Goodbye now.", "closing")
    scene.marks()
    scene.wait(200)
    assert scene.take(End)[0].reason is EndReason.MAX_COST


def test_a_call_without_a_limit_goes_on() -> None:
    scene = greeted(CallPolicy())
    assert spend(scene, 1_000, 1_000_000.0) == []
    assert scene.take(End) == []
