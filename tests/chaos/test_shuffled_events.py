"""Events of a cut-off response and of the next one arrive in any order: nothing stale is played."""

from __future__ import annotations

import random
from collections.abc import Callable

from app.calls.actions import PlayAudio
from app.realtime import events as ev
from app.realtime.events import Response, ResponseStatus
from tests.unit.calls.harness import CallHarness

ORDERS = 1_000
OLD, NEW = b"\x20", b"\x30"


def sound(number: int, byte: bytes) -> ev.AudioDelta:
    return ev.AudioDelta(f"r{number}", f"a{number}", 0, 0, byte * 800)


def done(number: int, status: ResponseStatus) -> ev.ResponseDone:
    item = ev.Item(type="message", id=f"a{number}", role="assistant")
    return ev.ResponseDone(Response(id=f"r{number}", status=status, output=(item,)))


AFTER_THE_CUT: tuple[ev.ServerEvent, ...] = (
    sound(1, OLD),
    sound(1, OLD),
    ev.AudioTranscriptDelta("r1", "a1", 0, 0, "three"),
    ev.AudioDone("r1", "a1", 0, 0),
    done(1, ResponseStatus.CANCELLED),
    ev.SpeechStopped("u1", 0),
    ev.InputAudioCommitted("u1"),
    ev.TranscriptionCompleted("u1", 0, "Wait."),
    ev.ResponseCreated(Response(id="r2", status=ResponseStatus.IN_PROGRESS)),
    ev.ItemAdded(ev.Item(type="message", id="a2", role="assistant")),
    sound(2, NEW),
    ev.AudioDone("r2", "a2", 0, 0),
    done(2, ResponseStatus.COMPLETED),
)


def played_in(order: list[ev.ServerEvent], pause: Callable[[], int]) -> bytes:
    harness = CallHarness()
    harness.response_begins()
    harness.speaks(1_000, "one two")
    harness.wait(300)
    harness.caller_starts()
    harness.take(PlayAudio)
    for event in order:
        harness.voice(event)
        harness.wait(pause())
    return b"".join(play.payload for play in harness.take(PlayAudio))


def test_no_order_of_late_events_plays_what_was_cut_off() -> None:
    dice = random.Random(1)
    order = list(AFTER_THE_CUT)
    assert NEW in played_in(order, lambda: 0)  # the right order is heard
    for _ in range(ORDERS):
        dice.shuffle(order)
        assert OLD not in played_in(order, lambda: dice.choice([0, 0, 100])), order
