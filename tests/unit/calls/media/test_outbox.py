"""Audio on its way to the carrier: in order, bounded, purged."""

from __future__ import annotations

import asyncio

import pytest

from app.calls.actions import Clear, PlayAudio
from app.calls.media.outbox import CarrierOutbox
from app.carrier.base import CarrierCallId, StreamId, StreamListener, StreamStarted


class Stream:
    """A stream that takes `takes` messages, and then no more until it is told to."""

    started = StreamStarted(
        stream_id=StreamId("MZ1"), carrier_call_id=CarrierCallId("CA1"), account_id="AC1"
    )

    def __init__(self, takes: int = 0) -> None:
        self.takes = takes
        self.sent: list[object] = []

    async def deliver(self, listener: StreamListener) -> None:
        """Nothing comes."""

    def _send(self, sent: object) -> bool:
        if not self.takes:
            return False
        self.takes -= 1
        self.sent.append(sent)
        return True

    def send_audio(self, payload: bytes, mark: str | None = None) -> bool:
        return self._send((payload, mark))

    def clear(self) -> bool:
        return self._send("clear")

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Nothing to close."""


def ignore(_sent: PlayAudio | Clear) -> None:
    pass


def audio(number: int) -> PlayAudio:
    return PlayAudio(bytes([number]) * 160, f"m{number}")


def sent(*numbers: int) -> list[object]:
    return [(bytes([number]) * 160, f"m{number}") for number in numbers]


async def has_room(box: CarrierOutbox) -> bool:
    """True when the model may send more at once."""
    waiting = asyncio.ensure_future(box.room())
    await asyncio.sleep(0)
    done = waiting.done()
    waiting.cancel()
    assert done == box.has_room
    return done


@pytest.mark.parametrize("freed_by", ["sending", "clear", "another stream"])
async def test_a_phone_that_takes_nothing_has_the_model_wait(freed_by: str) -> None:
    box, stream = CarrierOutbox(10 * 20, ignore), Stream()
    box.open(stream)
    for number in range(10):
        box.put(audio(number))
        assert await has_room(box)
    box.put(audio(10))
    assert not await has_room(box)
    if freed_by == "sending":
        stream.takes = 5
        box.on_writable()
        assert not await has_room(box)
        stream.takes = 1
        box.on_writable()
        assert stream.sent == sent(*range(6))
    elif freed_by == "clear":
        stream.takes = 1
        box.clear(Clear())
        assert stream.sent == ["clear"]
    else:
        box.forget()
    assert await has_room(box)


async def test_what_comes_before_the_stream_is_sent_once_it_is_open() -> None:
    box, stream = CarrierOutbox(1_000, ignore), Stream(takes=9)
    box.put(audio(1))
    box.put(audio(2))
    assert stream.sent == []
    box.open(stream)
    box.put(audio(3))
    assert stream.sent == sent(1, 2, 3)


@pytest.mark.parametrize("takes", [0, 1, 9])
async def test_a_clear_comes_before_what_follows_it_and_in_place_of_what_waits(takes: int) -> None:
    left: list[PlayAudio | Clear] = []
    stream = Stream(takes=1)
    box = CarrierOutbox(1_000, left.append)
    box.open(stream)
    box.put(audio(1))
    box.put(audio(2))  # does not leave any more
    stream.takes = takes
    box.clear(Clear())
    assert left == [audio(1), Clear()][: 1 + min(takes, 1)]
    box.put(audio(3))
    stream.takes = 9
    box.on_writable()
    assert stream.sent == [*sent(1), "clear", *sent(3)]
    assert left == [audio(1), Clear(), audio(3)]
