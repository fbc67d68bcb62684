"""A silent model is asked once more and then given up; a session is renewed in time."""

from __future__ import annotations

import pytest

from app.calls.model_watch import ModelWatch
from app.calls.policy import CallPolicy
from app.events import VoiceTrouble
from tests.unit.calls.scene import GiveUp, RenewVoice, ResponseCreate, Scene


def test_a_caller_who_gets_no_answer_is_answered_at_the_second_asking_or_by_reconnecting() -> None:
    scene = Scene(policy=CallPolicy(reply_deadline_ms=2_000))
    scene.greeted()
    scene.caller_starts()
    scene.caller_stops(text="hello")
    scene.wait(2_100)
    assert len(scene.sent(ResponseCreate)) == 1
    scene.wait(10_000)
    assert any(give_up.retryable for give_up in scene.take(GiveUp))
    assert "no_reply" in [trouble.code for trouble in scene.recorded(VoiceTrouble)]


def test_a_response_that_stalls_in_mid_sentence_is_given_up() -> None:
    scene = Scene(policy=CallPolicy(stall_deadline_ms=4_000))
    scene.greeted()
    scene.caller_turn()
    scene.response_begins()
    scene.speaks(300)
    scene.wait(4_100)
    assert scene.take(GiveUp) == [GiveUp(code="response_stalled", retryable=True)]
    assert [trouble.code for trouble in scene.recorded(VoiceTrouble)] == ["response_stalled"]


def test_the_session_is_renewed_in_a_quiet_moment_before_its_end() -> None:
    scene = Scene(live=False, policy=CallPolicy(silence_ms=0, renew_margin_ms=5_000))
    scene.ready(expires_in_ms=16_000)
    scene.stream()
    scene.greeted()
    scene.caller_starts()
    scene.wait(11_500)
    assert scene.take(RenewVoice) == []  # the caller is speaking
    scene.caller_stops(text="")
    scene.wait(200)
    assert len(scene.take(RenewVoice)) == 1
    scene.wait(1_000)
    assert scene.take(RenewVoice) == []


@pytest.mark.parametrize(
    ("expires_in_ms", "renewed_after_ms"),
    [
        (None, 3_300_000),
        (3_600_000, 3_300_000),
        (1_800_000, 1_500_000),
        (60_000, 30_000),  # shorter than the margin
        (5_000, 10_000),
        (-3_600_000, 3_300_000),  # a clock is wrong
    ],
)
def test_a_session_is_renewed_ahead_of_its_end_and_not_for_ever(
    expires_in_ms: int | None, renewed_after_ms: int
) -> None:
    conversation = Scene().conversation
    watch = ModelWatch(
        conversation.call_id, conversation.dialogue, conversation.turns, CallPolicy(), 0
    )
    watch.on_ready(1_000, expires_in_ms)
    assert not watch.renewal_due(1_000 + renewed_after_ms - 1)
    assert watch.renewal_due(1_000 + renewed_after_ms)
