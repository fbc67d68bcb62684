"""A phone that rings for a caller who waits."""

from __future__ import annotations

from app.calls.media.ringback import AHEAD_MS, Ringback
from audio.format import PCM16_24K, PCMU_8K
from audio.level import peak_dbfs
from tests.unit.calls.harness import CallHarness, PlayAudio


def test_the_tone_is_sent_just_ahead_and_pauses_for_four_seconds_in_six() -> None:
    ringback = Ringback()
    sent = [ringback.on_tick(now_ms, PCMU_8K) for now_ms in range(0, 11_800, 200)]
    assert len(sent[0]) == 8 * AHEAD_MS
    assert peak_dbfs(sent[0], PCMU_8K) > -20
    assert sum(len(sound) for sound in sent) == 8 * 2 * 2_000
    assert not any(sent[10:29])


def test_it_begins_anew_after_a_stop() -> None:
    ringback = Ringback()
    ringback.on_tick(0, PCMU_8K)
    ringback.stop()
    assert len(ringback.on_tick(5_000, PCMU_8K)) == 8 * AHEAD_MS


def test_it_is_converted_for_another_carrier() -> None:
    assert len(Ringback().on_tick(0, PCM16_24K)) == 48 * AHEAD_MS


def test_a_caller_hears_it_while_nobody_speaks() -> None:
    harness = CallHarness()
    harness.greeted()

    def rings() -> bool:
        harness.now_ms += 100
        ticked = harness.conversation.on_tick(harness.now_ms, ringing=True)
        return any(isinstance(action, PlayAudio) and action.payload for action in ticked)

    assert rings()
    harness.caller_starts()
    assert not rings()
    harness.caller_stops(text="")
    assert rings()
