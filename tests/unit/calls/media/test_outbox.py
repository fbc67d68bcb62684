"""Audio on its way to the carrier: in order, bounded, purged."""

from __future__ import annotations

import asyncio

import pytest

from app.calls.actions import Clear, PlayAudio
from app.calls.media.outbox import CarrierOutbox


async def has_room(box: CarrierOutbox) -> bool:
    """True when the model may send more at once."""
    waiting = asyncio.ensure_future(box.room())
    await asyncio.sleep(0)
    done = waiting.done()
    waiting.cancel()
    return done


@pytest.mark.parametrize("freed_by", ["sending", "clear", "another stream"])
async def test_a_phone_that_takes_nothing_has_the_model_wait(freed_by: str) -> None:
    box = CarrierOutbox(max_ms=10 * 20)
    for _ in range(10):
        box.put(PlayAudio(bytes(160), None))
        assert await has_room(box)
    box.put(PlayAudio(bytes(160), None))
    assert not await has_room(box)
    if freed_by == "sending":
        for _ in range(5):
            await box.take()
            assert not await has_room(box)
        await box.take()
    elif freed_by == "clear":
        box.clear(Clear())
        assert await box.take() == Clear()
    else:
        box.forget()
    assert await has_room(box)
