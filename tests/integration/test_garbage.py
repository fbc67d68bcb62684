"""The garbage collector has nothing to do on the way of the sound, and little after a call."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.fakes.voice import Reply, ScriptedVoiceServer, Trouble
from tests.fakes.waiting import until
from tests.integration.server import trunkline

OURS = {"Call", "Conversation", "CallerLeg", "TwilioStream", "VoiceLoop"}


@contextmanager
def garbage() -> Iterator[Counter[str]]:
    """Count, by type, what only a collector frees of the block: objects that know each other."""
    found: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found.update(type(item).__qualname__ for item in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def test_sound_leaves_nothing_to_the_collector() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), Reply(audio_ms=4_000)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=100)
        await call.speak(0.4)
        await call.hear(ms=400)
        heard_ms, frames = call.heard_ms, call.counters.frames_sent
        with garbage() as found:
            await call.wait_for(lambda: call.heard_ms >= heard_ms + 3_000)
            await call.wait_for(lambda: call.counters.frames_sent >= frames + 100)
        assert not found
        await call.hang_up()


@pytest.mark.parametrize("model", ["stays", "is lost"])
async def test_a_call_leaves_few_objects_to_the_collector(model: str) -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        with garbage() as found:
            call = await twilio.call(app.url)
            await call.hear_quiet(ms=100)
            if model == "is lost":
                voice.latest.drop()
                await until(lambda: len(voice.connections) == 2 and voice.open_connections == 1)
            await call.speak(0.4)
            await call.hear(ms=100)
            await call.hang_up()
            await app.ended(call)
            await until(lambda: not voice.open_connections)
            del call
        assert not {*OURS, "EagerConnection"} & set(found), found
        assert sum(found.values()) < 100, found


@pytest.mark.parametrize(
    "trouble",
    [
        Trouble(http_status=401),
        Trouble(http_status=503),
        Trouble(silent=True),
        Trouble(close_first=1011),
    ],
    ids=["401", "503", "silent", "closed"],
)
async def test_a_call_that_gets_no_model_leaves_nothing_of_itself(trouble: Trouble) -> None:
    voice = ScriptedVoiceServer(trouble=trouble)
    site = trunkline(voice, policy={"voice_budget_ms": 700})
    async with voice, site as app, app.twilio() as twilio:
        with garbage() as found:
            call = await twilio.call(app.url)
            await call.ended()
            await app.ended(call)
            del call
        assert not OURS & set(found), found
