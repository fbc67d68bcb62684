"""Both sockets of a call break at the same moment, or nearly: the call ends all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from app.events import EndReason
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import until
from tests.integration.server import ALL_OVER_S, trunkline

TURNS_OF_THE_LOOP = 12


@pytest.mark.parametrize("first", ["phone", "model"])
async def test_a_call_that_breaks_at_both_ends_is_over(first: str) -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=2000, chunk_ms=20)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        for turns in range(TURNS_OF_THE_LOOP):
            for _ in range(4):
                call = await twilio.call(app.url)
                await call.hear(ms=40)
                breaks: list[Callable[[], None]] = [call.abort, voice.latest.drop]
                if first == "model":
                    breaks.reverse()
                breaks[0]()
                for _ in range(turns):
                    await asyncio.sleep(0)
                breaks[1]()
                ended = await app.ended(call)
                assert ended.reason in {EndReason.CARRIER_LOST, EndReason.VOICE_LOST}
                await until(lambda: not voice.open_connections, within_s=ALL_OVER_S)
