"""A caller who waits for words and hears nothing is seen to in time; a session is renewed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.calls.conversation.model_watch import FALLBACK_TAKES_MS, RING_AFTER_MS, ModelWatch
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
from tests.unit.calls.harness import (
    CallHarness,
    End,
    GiveUp,
    PlayAudio,
    RenewVoice,
    ResponseCreate,
    with_tool_running,
)

WAIT_MS = CallPolicy().answer_wait_ms
LAST_MS = 2 * WAIT_MS - FALLBACK_TAKES_MS
TICK_MS = 100


def silence(harness: CallHarness, feed: Callable[[], None] = lambda: None) -> dict[str, int]:
    """Return the time of each thing done for a caller who hears nothing, in ten seconds at most."""
    began_ms = harness.now_ms
    done: dict[str, int] = {}
    for _ in range(10_000 // TICK_MS):
        feed()
        harness.wait(TICK_MS)
        for name, happened in (
            ("asked", harness.sent(ResponseCreate)),
            ("given up", harness.take(GiveUp)),
            ("ended", harness.take(End)),
        ):
            if happened:
                done.setdefault(name, harness.now_ms - began_ms)
        if "ended" in done:
            break
    return done


def waits_for_an_answer(*, transcribed: bool = False) -> CallHarness:
    harness = CallHarness(transcribed=transcribed)
    harness.greeted()
    harness.caller_turn()
    harness.actions.clear()
    return harness


def waits_for_a_response() -> CallHarness:
    harness = waits_for_an_answer()
    harness.response_begins()
    return harness


def test_a_turn_that_is_never_answered_is_asked_for_then_reconnected_then_ended() -> None:
    assert silence(waits_for_an_answer()) == {
        "asked": WAIT_MS,  # from the end of the caller's turn, whenever a tick finds it
        "given up": WAIT_MS + WAIT_MS // 2,
        "ended": LAST_MS,
    }


@pytest.mark.parametrize("later_ms", [0, 50, 100, 150])
def test_a_greeting_that_is_asked_for_again_has_time_to_begin(later_ms: int) -> None:
    harness = CallHarness()
    harness.ready()
    harness.stream()
    harness.now_ms += later_ms  # the ticks are those of all calls, and fall in with nothing here
    harness.sent(ResponseCreate)
    done = silence(harness)
    assert done["given up"] - done["asked"] >= WAIT_MS // 2 - TICK_MS
    assert done["ended"] <= LAST_MS + TICK_MS


def test_the_codes_say_what_the_model_did() -> None:
    for harness, code in (
        (waits_for_an_answer(), "no_reply"),
        (waits_for_a_response(), "response_stalled"),
    ):
        harness.wait(7_000)
        assert harness.take(GiveUp) == [GiveUp(code=code, retryable=True)]
        assert code in [trouble.code for trouble in harness.recorded(VoiceTrouble)]
        harness.wait(1_000)
        assert End(EndReason.VOICE_LOST, "no_answer") in harness.take(End)


def repeated(*events: ServerEvent) -> Callable[[CallHarness], None]:
    return lambda harness: harness.voice(*events)


FEEDS: dict[str, Callable[[CallHarness], None]] = {
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
def test_what_cannot_be_heard_does_not_count(kind: str, wait: Callable[[], CallHarness]) -> None:
    harness = wait()
    done = silence(harness, lambda: FEEDS[kind](harness))
    assert done["given up"] <= WAIT_MS + WAIT_MS // 2 + 2 * TICK_MS
    assert done["ended"] <= LAST_MS + 2 * TICK_MS


def test_speech_that_the_model_makes_up_does_not_count() -> None:
    harness = waits_for_an_answer()

    def feed() -> None:
        harness.phone(CallerAudio(b"\xff" * 160, harness.now_ms))
        if harness.now_ms % 1_000 == 0:
            harness.voice(SpeechStarted("u9", 0))
        elif harness.now_ms % 1_000 == 500:
            harness.voice(SpeechStopped("u9", 0))

    assert silence(harness, feed)["ended"] <= LAST_MS + 3 * TICK_MS


def test_a_caller_who_speaks_does_not_wait() -> None:
    harness = waits_for_an_answer()
    harness.caller_starts("u2")
    assert silence(harness, lambda: harness.phone(CallerAudio(b"\x10" * 160, harness.now_ms))) == {}


def flapping(
    harness: CallHarness, *, sound_ms: int, pause_ms: int, text: str, answered: bool
) -> None:
    """Let the line be loud and quiet in turns, and the model take it for the caller's."""
    at_ms = harness.now_ms % (sound_ms + pause_ms)
    harness.phone(CallerAudio((b"\x10" if at_ms < sound_ms else b"\xff") * 160, harness.now_ms))
    item = f"u{harness.now_ms // (sound_ms + pause_ms) + 100}"
    if at_ms == 0:
        harness.voice(SpeechStarted(item, 0))
    elif at_ms == sound_ms:
        harness.voice(SpeechStopped(item, 0), TranscriptionCompleted(item, 0, text, seconds=1.0))
        if answered:
            harness.response_begins(f"r{item}", None)
    elif answered and at_ms == sound_ms + pause_ms - TICK_MS:
        ended = Response(id=f"r{item}", status=ResponseStatus.CANCELLED)
        harness.voice(ResponseDone(ended))


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
    harness = waits_for_an_answer(transcribed=True)
    done = silence(
        harness,
        lambda: flapping(
            harness, sound_ms=sound_ms, pause_ms=pause_ms, text=text, answered=answered
        ),
    )
    assert ("ended" in done) is seen_to
    if seen_to:
        assert done["ended"] <= LAST_MS + sound_ms + 2 * TICK_MS


def test_a_caller_who_is_silent_after_the_answer_does_not_wait() -> None:
    harness = CallHarness(policy=CallPolicy(inactivity_after_ms=0))
    harness.greeted()
    assert silence(harness) == {}


def test_a_long_answer_is_no_silence_whether_marks_come_back_or_not() -> None:
    harness = waits_for_an_answer()
    harness.answer(20_000)
    assert silence(harness) == {}


def test_a_response_that_stalls_in_mid_sentence_is_given_up() -> None:
    harness = waits_for_a_response()
    harness.speaks(300)
    harness.marks()
    done = silence(harness)
    assert WAIT_MS <= done["given up"] <= WAIT_MS + 2 * TICK_MS
    assert done["ended"] <= LAST_MS + 2 * TICK_MS


def test_a_caller_hears_of_it_again_while_a_tool_runs_and_then_the_model_has_its_time() -> None:
    harness = with_tool_running()
    due_ms = WAIT_MS
    for filler in range(5):
        harness.wait(due_ms - TICK_MS)
        assert harness.words() == []
        harness.wait(3 * TICK_MS)
        assert harness.words() == ["One moment, please."]
        harness.answer(1_000, name=f"filler{filler}")
        harness.marks()
        due_ms = WAIT_MS * 3 // 2
    harness.actions += harness.conversation.on_tool_done("c1", "{}", harness.now_ms)
    done = silence(harness)
    assert done["given up"] >= WAIT_MS
    assert done["ended"] <= LAST_MS + 2 * TICK_MS


def test_the_reply_after_a_slow_tool_has_time_and_the_caller_hears_of_it_in_time() -> None:
    harness = with_tool_running()
    harness.wait(WAIT_MS - TICK_MS)
    harness.actions += harness.conversation.on_tool_done("c1", "{}", harness.now_ms)
    done = silence(harness)
    assert done["given up"] >= WAIT_MS // 2
    assert done["ended"] <= LAST_MS - WAIT_MS + 3 * TICK_MS


def test_a_caller_who_waits_for_a_connection_hears_ringing_and_then_the_fallback() -> None:
    harness = CallHarness(live=False)
    harness.stream()
    harness.wait(RING_AFTER_MS - TICK_MS)
    assert harness.take(PlayAudio) == []
    harness.wait(1_500 - RING_AFTER_MS)
    assert harness.take(PlayAudio)
    assert silence(harness)["ended"] <= LAST_MS
    harness.ready()
    harness.answer(500)
    harness.take(PlayAudio)
    harness.wait(100)
    assert harness.take(PlayAudio) == []


def test_the_wait_of_a_call_can_be_longer() -> None:
    harness = CallHarness(policy=CallPolicy(answer_wait_ms=8_000))
    harness.greeted()
    harness.caller_turn()
    assert silence(harness)["asked"] == 8_000


def test_the_session_is_renewed_in_a_quiet_moment_before_its_end() -> None:
    harness = CallHarness(live=False, policy=CallPolicy(silence_ms=0, renew_margin_ms=5_000))
    harness.ready(expires_in_ms=16_000)
    harness.stream()
    harness.greeted()
    harness.caller_starts()
    harness.wait(11_500)
    assert harness.take(RenewVoice) == []  # the caller is speaking
    harness.caller_stops(text="")
    harness.wait(200)
    assert len(harness.take(RenewVoice)) == 1
    harness.wait(1_000)
    assert harness.take(RenewVoice) == []


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
    conversation = CallHarness().conversation
    watch = ModelWatch(
        conversation.call_id, conversation.dialogue, conversation.turns, CallPolicy()
    )
    watch.on_ready(1_000, expires_in_ms)
    assert not watch.renewal_due(1_000 + renewed_after_ms - 1)
    assert watch.renewal_due(1_000 + renewed_after_ms)
