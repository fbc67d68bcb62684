"""The course of a turn: each step, and where it may break off."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.calls.turn_timer import TurnTimer
from app.events import BargeIn, CallEvent, CallId, SpeechResumed, TurnTimed
from app.realtime.events import (
    AudioDelta,
    Response,
    ResponseCreated,
    ResponseStatus,
    ServerEvent,
    SpeechStopped,
    TranscriptionCompleted,
)
from audio.format import PCMU_8K

CALL = CallId("call_1")


class Timed:
    """A timer and what it has recorded."""

    def __init__(self) -> None:
        self.recorded: list[CallEvent] = []
        self.timer = TurnTimer(CALL, self.recorded.append)

    def voice(self, event: ServerEvent, now_ms: int) -> None:
        self.timer.on_voice(event, now_ms, lambda: 500)

    @property
    def turns(self) -> list[TurnTimed]:
        return [event for event in self.recorded if isinstance(event, TurnTimed)]


def created(response_id: str = "r1") -> ResponseCreated:
    return ResponseCreated(Response(id=response_id, status=ResponseStatus.IN_PROGRESS))


def sound(audio: bytes = b"\0\0") -> AudioDelta:
    return AudioDelta("r1", "i2", 0, 0, audio)


def send_two_frames(timer: TurnTimer, now_ms: int) -> None:
    timer.on_sent(bytes(160), None, PCMU_8K, now_ms)
    timer.on_sent(bytes(160), "0:1", PCMU_8K, now_ms)


def run(timed: Timed, steps: int, at_ms: int = 1_000) -> None:
    """So many of the steps, 100 ms apart."""
    performed: tuple[Callable[[int], None], ...] = (
        lambda ms: timed.voice(SpeechStopped("i1", 0), ms),
        lambda ms: timed.voice(TranscriptionCompleted("i1", 0, "Hello."), ms),
        lambda ms: timed.voice(created(), ms),
        lambda ms: timed.voice(sound(), ms),
        lambda ms: send_two_frames(timed.timer, ms),
        lambda ms: timed.timer.on_mark("0:1", ms),
    )
    for number, step in enumerate(performed[:steps]):
        step(at_ms + 100 * number)


def test_every_step_of_a_turn_is_timed() -> None:
    timed = Timed()
    run(timed, 6)
    [turn] = timed.turns
    assert turn == TurnTimed(
        call_id=CALL,
        at_ms=1_500,
        item_id="i1",
        caller_stopped_ms=500,
        turn_found_ms=1_000,
        transcript_ms=1_100,
        response_ms=1_200,
        model_sound_ms=1_300,
        sent_ms=1_400,
        heard_ms=1_460,  # the mark stands behind 40 ms of sound
    )


@pytest.mark.parametrize("steps", range(1, 6))
def test_a_turn_that_breaks_off_is_recorded_as_far_as_it_came(steps: int) -> None:
    names = ["turn_found_ms", "transcript_ms", "response_ms", "model_sound_ms", "sent_ms"]
    for end in ("next turn", "barge-in", "end of the call"):
        timed = Timed()
        run(timed, steps)
        assert timed.turns == []
        if end == "next turn":
            timed.voice(SpeechStopped("i9", 0), 9_000)
        elif end == "barge-in":
            barge_in = BargeIn(call_id=CALL, at_ms=9_000, item_id="i2", heard_ms=0, sent_ms=20)
            timed.timer.on_event(barge_in)
        else:
            timed.timer.settle(9_000)
        [turn] = timed.turns
        reached = [getattr(turn, name) is not None for name in names]
        assert reached == [number < steps for number in range(5)]
        assert turn.heard_ms is None


def test_a_false_interruption_is_no_turn() -> None:
    timed = Timed()
    run(timed, 2)
    timed.timer.on_event(SpeechResumed(call_id=CALL, at_ms=1_200, item_id="i0", heard_ms=100))
    timed.timer.settle(9_000)
    assert timed.turns == []


@pytest.mark.parametrize(
    "event", [sound(b""), sound(), TranscriptionCompleted("other", 0, "Yes.")], ids=type
)
def test_what_belongs_to_something_else_times_nothing(event: ServerEvent) -> None:
    timed = Timed()
    run(timed, 1)
    timed.voice(event, 1_050)
    timed.timer.on_sent(bytes(160), "0:9", PCMU_8K, 1_060)
    timed.timer.on_mark("0:9", 1_070)
    assert not timed.timer.waits
    timed.timer.settle(1_080)
    [turn] = timed.turns
    steps = (turn.transcript_ms, turn.response_ms, turn.model_sound_ms, turn.heard_ms)
    assert steps == (None, None, None, None)


def test_a_mark_of_an_earlier_answer_says_nothing() -> None:
    timed = Timed()
    run(timed, 5)
    timed.timer.on_mark("0:0", 1_450)
    assert timed.turns == []
