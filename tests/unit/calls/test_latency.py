"""Latencies of a call as its caller notices them."""

from __future__ import annotations

import pytest

from app.calls.conversation.latency import TurnLatency


@pytest.mark.parametrize(("share", "expected"), [(0.0, 100), (0.5, 300), (0.95, 500), (1.0, 500)])
def test_a_share_of_the_turns_was_not_slower(share: float, expected: int) -> None:
    latency = TurnLatency()
    assert latency.turn_latency_ms(share) is None
    for ms in (500, 100, 300, 200, 400):
        latency.on_caller_stopped(0)
        latency.on_agent_audio(ms)
    assert latency.turn_latency_ms(share) == expected


def test_the_first_audio_counts_from_the_first_stream() -> None:
    latency = TurnLatency()
    assert latency.answer_to_first_audio_ms is None
    latency.on_stream(100)
    latency.on_agent_audio(350)
    latency.on_stream(900)  # back from a transfer
    assert latency.answer_to_first_audio_ms == 250


def test_the_reaction_to_a_barge_in_ends_when_the_clear_was_sent() -> None:
    latency = TurnLatency()
    latency.on_barge_in(1_000, 1_003)
    assert latency.reactions_ms == [3]
