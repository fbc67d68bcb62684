"""A call that goes well is not looked at on each tick, and loses nothing by it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.calls.floor import LONGEST_REST_MS, REST_MS
from app.calls.media.uplink import Uplink
from app.calls.policy import CallPolicy
from app.calls.recording.notice import RecordingNotice
from app.calls.recording.tape import Tape
from tests.unit.calls.scene import AppendAudio, Scene


def with_sound(scene: Scene, ms: int) -> None:
    """Let time pass in ticks of 100 ms while the caller's frames arrive, as they do on a line."""
    for _ in range(ms // 100):
        for _ in range(5):
            scene.now_ms += 20
            scene.frame(scene.now_ms)
        scene.now_ms -= 100
        scene.wait(100)


def speaking_caller() -> Scene:
    scene = Scene()
    scene.greeted()
    scene.caller_starts()
    return scene


def speaking_agent() -> Scene:
    scene = Scene()
    scene.greeted()
    scene.response_begins()
    scene.speaks(10_000)
    return scene


def recorded() -> Scene:
    scene = Scene(tape=Tape(RecordingNotice("")))
    scene.greeted()
    scene.response_begins()
    scene.speaks(10_000)
    return scene


def quiet() -> Scene:
    scene = Scene(policy=CallPolicy(silence_ms=60_000))
    scene.greeted()
    return scene


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
    begin: Callable[[], Scene], looks: list[int]
) -> None:
    scene = begin()
    with_sound(scene, 1_000)
    looks.clear()
    with_sound(scene, 7 * REST_MS)
    assert len(looks) == 7


def test_sound_of_the_agent_goes_on_with_a_rest_and_its_end_is_noticed_as_soon(
    looks: list[int],
) -> None:
    scene = speaking_agent()
    with_sound(scene, 1_000)
    looks.clear()
    for _ in range(4 * LONGEST_REST_MS // 200):
        with_sound(scene, 200)
        scene.speaks(200)
    assert len(looks) in {3, 4}
    stops_ms = scene.now_ms
    looks.clear()
    with_sound(scene, REST_MS + 200)
    assert looks[0] - stops_ms <= REST_MS


@pytest.mark.parametrize(
    "event",
    [
        lambda scene: scene.caller_starts(),
        lambda scene: scene.caller_turn(),
        lambda scene: scene.key("1"),
        lambda scene: scene.response_ends(),
        lambda scene: scene.conversation.instruct("Hurry.", scene.now_ms),
        lambda scene: scene.conversation.take_over(scene.now_ms),
        lambda scene: scene.conversation.on_voice_lost(scene.now_ms),
        lambda scene: scene.conversation.on_stream_left(scene.now_ms),
    ],
)
def test_whatever_happens_ends_a_rest(event: Callable[[Scene], object], looks: list[int]) -> None:
    scene = speaking_agent()
    with_sound(scene, 1_000)
    while looks[-1] != scene.now_ms:
        with_sound(scene, 100)
    event(scene)
    with_sound(scene, 100)
    assert looks[-1] == scene.now_ms


@pytest.mark.parametrize("sounds_ms", range(100, 1_000, 100))
def test_a_rest_does_not_delay_the_silence_behind_a_stall(sounds_ms: int) -> None:
    scene = speaking_caller()
    with_sound(scene, sounds_ms)
    scene.take(AppendAudio)
    scene.wait(700)
    assert scene.take(AppendAudio) == []
    scene.wait(100)
    [filled] = scene.take(AppendAudio)
    assert len(filled.audio) >= 8_000


def test_a_limit_is_noticed_a_rest_later_at_most() -> None:
    scene = Scene(policy=CallPolicy(silence_ms=3_000))
    scene.greeted()
    with_sound(scene, 2_900)
    assert scene.words() == []
    with_sound(scene, REST_MS + 200)
    assert scene.words() == [CallPolicy().silence_closing_prompt]


def test_a_pause_within_a_rest_silences_what_is_heard_in_it_and_nothing_else() -> None:
    tape = Tape(RecordingNotice(""))
    scene = Scene(tape=tape)
    scene.greeted()
    scene.response_begins()
    tape.take(0)
    begun_ms = scene.now_ms
    scene.speaks(10_000)
    for at_ms, paused in ((100, True), (180, False)):
        scene.conversation.pause_recording(begun_ms + at_ms, paused=paused)
    scene.now_ms = begun_ms + 200
    scene.conversation.on_tick(scene.now_ms)
    heard = [(at_ms - begun_ms, len(ulaw) // 8) for _, at_ms, ulaw in tape.take(0).sounds]
    assert heard == [(0, 100), (180, 20)]
