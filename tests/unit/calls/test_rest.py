"""A call that goes well is not looked at on each tick, and loses nothing by it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.calls.conversation.floor import LONGEST_REST_MS, REST_MS
from app.calls.media.uplink import Uplink
from app.calls.policy import CallPolicy
from app.calls.recording.notice import RecordingNotice
from app.calls.recording.tape import Tape
from tests.unit.calls.harness import AppendAudio, CallHarness


def with_sound(harness: CallHarness, ms: int) -> None:
    """Let time pass in ticks of 100 ms while the caller's frames arrive, as they do on a line."""
    for _ in range(ms // 100):
        for _ in range(5):
            harness.now_ms += 20
            harness.frame(harness.now_ms)
        harness.now_ms -= 100
        harness.wait(100)


def speaking_caller() -> CallHarness:
    harness = CallHarness()
    harness.greeted()
    harness.caller_starts()
    return harness


def speaking_agent() -> CallHarness:
    harness = CallHarness()
    harness.greeted()
    harness.response_begins()
    harness.speaks(10_000)
    return harness


def recorded() -> CallHarness:
    harness = CallHarness(tape=Tape(RecordingNotice("")))
    harness.greeted()
    harness.response_begins()
    harness.speaks(10_000)
    return harness


def quiet() -> CallHarness:
    harness = CallHarness(policy=CallPolicy(silence_ms=60_000))
    harness.greeted()
    return harness


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The times at which the steps of a tick were walked through."""
    found: list[int] = []
    on_tick = Uplink.on_tick

    def counted(self: Uplink, now_ms: int, *, speaking: bool) -> bytes:
        found.append(now_ms)
        return on_tick(self, now_ms, speaking=speaking)

    monkeypatch.setattr(Uplink, "on_tick", counted)
    return found


@pytest.mark.parametrize("begin", [speaking_caller, speaking_agent, recorded, quiet])
def test_a_call_that_goes_well_is_looked_at_once_in_a_rest(
    begin: Callable[[], CallHarness], looks: list[int]
) -> None:
    harness = begin()
    with_sound(harness, 1_000)
    looks.clear()
    with_sound(harness, 7 * REST_MS)
    assert len(looks) == 7


def test_sound_of_the_agent_goes_on_with_a_rest_and_its_end_is_noticed_as_soon(
    looks: list[int],
) -> None:
    harness = speaking_agent()
    with_sound(harness, 1_000)
    looks.clear()
    for _ in range(4 * LONGEST_REST_MS // 200):
        with_sound(harness, 200)
        harness.speaks(200)
    assert len(looks) in {3, 4}
    stops_ms = harness.now_ms
    looks.clear()
    with_sound(harness, REST_MS + 200)
    assert looks[0] - stops_ms <= REST_MS


@pytest.mark.parametrize(
    "event",
    [
        lambda harness: harness.caller_starts(),
        lambda harness: harness.caller_turn(),
        lambda harness: harness.key("1"),
        lambda harness: harness.response_ends(),
        lambda harness: harness.conversation.instruct("Hurry.", harness.now_ms),
        lambda harness: harness.conversation.take_over(harness.now_ms),
        lambda harness: harness.conversation.on_voice_lost(harness.now_ms),
        lambda harness: harness.conversation.on_stream_left(harness.now_ms),
    ],
)
def test_whatever_happens_ends_a_rest(
    event: Callable[[CallHarness], object], looks: list[int]
) -> None:
    harness = speaking_agent()
    with_sound(harness, 1_000)
    while looks[-1] != harness.now_ms:
        with_sound(harness, 100)
    event(harness)
    with_sound(harness, 100)
    assert looks[-1] == harness.now_ms


@pytest.mark.parametrize("sounds_ms", range(100, 1_000, 100))
def test_a_rest_does_not_delay_the_silence_behind_a_stall(sounds_ms: int) -> None:
    harness = speaking_caller()
    with_sound(harness, sounds_ms)
    harness.take(AppendAudio)
    harness.wait(700)
    assert harness.take(AppendAudio) == []
    harness.wait(100)
    [filled] = harness.take(AppendAudio)
    assert len(filled.audio) >= 8_000


def test_a_limit_is_noticed_a_rest_later_at_most() -> None:
    harness = CallHarness(policy=CallPolicy(silence_ms=3_000))
    harness.greeted()
    with_sound(harness, 2_900)
    assert harness.words() == []
    with_sound(harness, REST_MS + 200)
    assert harness.words() == [CallPolicy().silence_closing_prompt]


def test_a_pause_within_a_rest_silences_what_is_heard_in_it_and_nothing_else() -> None:
    tape = Tape(RecordingNotice(""))
    harness = CallHarness(tape=tape)
    harness.greeted()
    harness.response_begins()
    tape.take(0)
    begun_ms = harness.now_ms
    harness.speaks(10_000)
    for at_ms, paused in ((100, True), (180, False)):
        harness.conversation.pause_recording(begun_ms + at_ms, paused=paused)
    harness.now_ms = begun_ms + 200
    harness.conversation.on_tick(harness.now_ms)
    heard = [(at_ms - begun_ms, len(ulaw) // 8) for _, at_ms, ulaw in tape.take(0).sounds]
    assert heard == [(0, 100), (180, 20)]
