"""A caller who waits for words and hears nothing is seen to in time; a session is renewed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.calls.model_watch import FALLBACK_TAKES_MS, RING_AFTER_MS, ModelWatch
from app.calls.policy import CallPolicy
from app.carrier.base import CallerAudio
from app.events import EndReason, VoiceTrouble
from app.realtime.events import (
    AudioDelta,
    AudioTranscriptDelta,
    Response,
    ResponseCreated,
    ResponseDone,
    ResponseStatus,
    ServerEvent,
    SpeechStarted,
    SpeechStopped,
    TranscriptionCompleted,
    Unknown,
)
from tests.unit.calls.scene import (
    End,
    GiveUp,
    PlayAudio,
    RenewVoice,
    ResponseCreate,
    Scene,
    with_tool_running,
)

WAIT_MS = CallPolicy().answer_wait_ms
LAST_MS = 2 * WAIT_MS - FALLBACK_TAKES_MS
TICK_MS = 100


def silence(scene: Scene, feed: Callable[[], None] = lambda: None) -> dict[str, int]:
    """Return the time of each thing done for a caller who hears nothing, in ten seconds at most."""
    began_ms = scene.now_ms
    done: dict[str, int] = {}
    for _ in range(10_000 // TICK_MS):
        feed()
        scene.wait(TICK_MS)
        for name, happened in (
            ("asked", scene.sent(ResponseCreate)),
            ("given up", scene.take(GiveUp)),
            ("ended", scene.take(End)),
        ):
            if happened:
                done.setdefault(name, scene.now_ms - began_ms)
        if "ended" in done:
            break
    return done


def waits_for_an_answer(*, transcribed: bool = False) -> Scene:
    scene = Scene(transcribed=transcribed)
    scene.greeted()
    scene.caller_turn()
    scene.actions.clear()
    return scene


def waits_for_a_response() -> Scene:
    scene = waits_for_an_answer()
    scene.response_begins()
    return scene


def test_a_turn_that_is_never_answered_is_asked_for_then_reconnected_then_ended() -> None:
    assert silence(waits_for_an_answer()) == {
        "asked": WAIT_MS,  # from the end of the caller's turn, whenever a tick finds it
        "given up": WAIT_MS + WAIT_MS // 2,
        "ended": LAST_MS,
    }


@pytest.mark.parametrize("later_ms", [0, 50, 100, 150])
def test_a_greeting_that_is_asked_for_again_has_time_to_begin(later_ms: int) -> None:
    scene = Scene()
    scene.ready()
    scene.stream()
    scene.now_ms += later_ms  # the ticks are those of all calls, and fall in with nothing here
    scene.sent(ResponseCreate)
    done = silence(scene)
    assert done["given up"] - done["asked"] >= WAIT_MS // 2 - TICK_MS
    assert done["ended"] <= LAST_MS + TICK_MS


def test_the_codes_say_what_the_model_did() -> None:
    for scene, code in (
        (waits_for_an_answer(), "no_reply"),
        (waits_for_a_response(), "response_stalled"),
    ):
        scene.wait(7_000)
        assert scene.take(GiveUp) == [GiveUp(code=code, retryable=True)]
        assert code in [trouble.code for trouble in scene.recorded(VoiceTrouble)]
        scene.wait(1_000)
        assert End(EndReason.VOICE_LOST, "no_answer") in scene.take(End)


def repeated(*events: ServerEvent) -> Callable[[Scene], None]:
    return lambda scene: scene.voice(*events)


FEEDS: dict[str, Callable[[Scene], None]] = {
    "unknown events": repeated(Unknown("rate_limits.updated", {})),
    "words without sound": repeated(AudioTranscriptDelta("r1", "a1", 0, 0, "word ")),
    "empty sound": repeated(AudioDelta("r1", "a1", 0, 0, b"")),
    "sound of nothing": repeated(AudioDelta("r1", "a1", 0, 0, b"\xff" * 800)),
    "the end of an unknown response": repeated(
        ResponseDone(Response(id="other", status=ResponseStatus.COMPLETED))
    ),
    "responses that the server cancels": repeated(
        ResponseCreated(Response(id="r2", status=ResponseStatus.IN_PROGRESS)),
        ResponseDone(Response(id="r2", status=ResponseStatus.CANCELLED)),
    ),
}


@pytest.mark.parametrize("kind", FEEDS)
@pytest.mark.parametrize("wait", [waits_for_an_answer, waits_for_a_response])
def test_what_cannot_be_heard_does_not_count(kind: str, wait: Callable[[], Scene]) -> None:
    scene = wait()
    done = silence(scene, lambda: FEEDS[kind](scene))
    assert done["given up"] <= WAIT_MS + WAIT_MS // 2 + 2 * TICK_MS
    assert done["ended"] <= LAST_MS + 2 * TICK_MS


def test_speech_that_the_model_makes_up_does_not_count() -> None:
    scene = waits_for_an_answer()

    def feed() -> None:
        scene.phone(CallerAudio(b"\xff" * 160, scene.now_ms))
        if scene.now_ms % 1_000 == 0:
            scene.voice(SpeechStarted("u9", 0))
        elif scene.now_ms % 1_000 == 500:
            scene.voice(SpeechStopped("u9", 0))

    assert silence(scene, feed)["ended"] <= LAST_MS + 3 * TICK_MS


def test_a_caller_who_speaks_does_not_wait() -> None:
    scene = waits_for_an_answer()
    scene.caller_starts("u2")
    assert silence(scene, lambda: scene.phone(CallerAudio(b"\x10" * 160, scene.now_ms))) == {}


def flapping(scene: Scene, *, sound_ms: int, pause_ms: int, text: str, answered: bool) -> None:
    """Let the line be loud and quiet in turns, and the model take it for the caller's."""
    at_ms = scene.now_ms % (sound_ms + pause_ms)
    scene.phone(CallerAudio((b"\x10" if at_ms < sound_ms else b"\xff") * 160, scene.now_ms))
    item = f"u{scene.now_ms // (sound_ms + pause_ms) + 100}"
    if at_ms == 0:
        scene.voice(SpeechStarted(item, 0))
    elif at_ms == sound_ms:
        scene.voice(SpeechStopped(item, 0), TranscriptionCompleted(item, 0, text, seconds=1.0))
        if answered:
            scene.response_begins(f"r{item}", None)
    elif answered and at_ms == sound_ms + pause_ms - TICK_MS:
        ended = Response(id=f"r{item}", status=ResponseStatus.CANCELLED)
        scene.voice(ResponseDone(ended))


@pytest.mark.parametrize(
    ("sound_ms", "pause_ms", "text", "answered", "seen_to"),
    [
        (500, 500, "", True, True),  # noises, and a model that answers each in vain
        (500, 500, "", False, True),
        (1_500, 1_000, "", False, True),
        (500, 2_500, "hello?", False, True),  # asked again and again, and never answered
        (500, 1_000, "seven", True, False),  # a number that is said in pieces
        (3_000, 500, "", True, False),  # a long sound is the caller, in doubt
    ],
)
def test_noises_do_not_begin_the_wait_anew_and_speech_does(
    sound_ms: int, pause_ms: int, text: str, answered: bool, seen_to: bool
) -> None:
    scene = waits_for_an_answer(transcribed=True)
    done = silence(
        scene,
        lambda: flapping(scene, sound_ms=sound_ms, pause_ms=pause_ms, text=text, answered=answered),
    )
    assert ("ended" in done) is seen_to
    if seen_to:
        assert done["ended"] <= LAST_MS + sound_ms + 2 * TICK_MS


def test_a_caller_who_is_silent_after_the_answer_does_not_wait() -> None:
    scene = Scene(policy=CallPolicy(inactivity_after_ms=0))
    scene.greeted()
    assert silence(scene) == {}


def test_a_long_answer_is_no_silence_whether_marks_come_back_or_not() -> None:
    scene = waits_for_an_answer()
    scene.answer(20_000)
    assert silence(scene) == {}


def test_a_response_that_stalls_in_mid_sentence_is_given_up() -> None:
    scene = waits_for_a_response()
    scene.speaks(300)
    scene.marks()
    done = silence(scene)
    assert WAIT_MS <= done["given up"] <= WAIT_MS + 2 * TICK_MS
    assert done["ended"] <= LAST_MS + 2 * TICK_MS


def test_a_caller_hears_of_it_again_while_a_tool_runs_and_then_the_model_has_its_time() -> None:
    scene = with_tool_running()
    due_ms = WAIT_MS
    for filler in range(5):
        scene.wait(due_ms - TICK_MS)
        assert scene.words() == []
        scene.wait(3 * TICK_MS)
        assert scene.words() == ["One moment, please."]
        scene.answer(1_000, name=f"filler{filler}")
        scene.marks()
        due_ms = WAIT_MS * 3 // 2
    scene.actions += scene.conversation.on_tool_done("c1", "{}", scene.now_ms)
    done = silence(scene)
    assert done["given up"] >= WAIT_MS
    assert done["ended"] <= LAST_MS + 2 * TICK_MS


def test_the_reply_after_a_slow_tool_has_time_and_the_caller_hears_of_it_in_time() -> None:
    scene = with_tool_running()
    scene.wait(WAIT_MS - TICK_MS)
    scene.actions += scene.conversation.on_tool_done("c1", "{}", scene.now_ms)
    done = silence(scene)
    assert done["given up"] >= WAIT_MS // 2
    assert done["ended"] <= LAST_MS - WAIT_MS + 3 * TICK_MS


def test_a_caller_who_waits_for_a_connection_hears_ringing_and_then_the_fallback() -> None:
    scene = Scene(live=False)
    scene.stream()
    scene.wait(RING_AFTER_MS - TICK_MS)
    assert scene.take(PlayAudio) == []
    scene.wait(1_500 - RING_AFTER_MS)
    assert scene.take(PlayAudio)
    assert silence(scene)["ended"] <= LAST_MS
    scene.ready()
    scene.answer(500)
    scene.take(PlayAudio)
    scene.wait(100)
    assert scene.take(PlayAudio) == []


def test_the_wait_of_a_call_can_be_longer() -> None:
    scene = Scene(policy=CallPolicy(answer_wait_ms=8_000))
    scene.greeted()
    scene.caller_turn()
    assert silence(scene)["asked"] == 8_000


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
        conversation.call_id, conversation.dialogue, conversation.turns, CallPolicy()
    )
    watch.on_ready(1_000, expires_in_ms)
    assert not watch.renewal_due(1_000 + renewed_after_ms - 1)
    assert watch.renewal_due(1_000 + renewed_after_ms)
