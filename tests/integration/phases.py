"""The phases of a call, each reached on purpose: where things may break, everything is tried.

`voice_for(phase)` is a model that makes the phase last; `reach(phase, ...)` places a call and
returns in the middle of it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import numpy as np

from app.events import StreamOpened
from audio.format import PCM16_24K
from audio.level import level_dbfs
from tests.fakes.carrier import FakeCall, FakeTwilio
from tests.fakes.voice import Reply, ScriptedVoiceServer, Trouble
from tests.fakes.waiting import until
from tests.integration.server import App

__all__ = ["Phase", "caller_is_heard", "reach", "voice_for"]

LONG_MS: Final = 3_000
LOUD_DBFS: Final = -40.0


class Phase(StrEnum):
    """The phase of a call."""

    MODEL_NOT_READY = "before the model is ready"
    GREETING = "during the greeting"
    IDLE = "while nobody speaks"
    CALLER_TURN = "while the caller speaks"
    AGENT_TURN = "while the agent answers"


def voice_for(phase: Phase) -> ScriptedVoiceServer:
    """A model with which the phase lasts for as long as a test needs."""
    if phase is Phase.MODEL_NOT_READY:
        return ScriptedVoiceServer(trouble=Trouble(silent=True))
    if phase is Phase.GREETING:
        return ScriptedVoiceServer(replies=[Reply(audio_ms=LONG_MS)])
    return ScriptedVoiceServer(replies=[Reply(audio_ms=300), Reply(audio_ms=LONG_MS)])


async def reach(phase: Phase, app: App, twilio: FakeTwilio) -> FakeCall:
    """A call in that phase."""
    call = await twilio.call(app.url)
    if phase is Phase.MODEL_NOT_READY:
        await until(lambda: app.voice.open_connections == 1)
        await app.event(call, StreamOpened)
        return call
    await call.hear(ms=200)
    if phase is Phase.GREETING:
        return call
    await call.hear_quiet(ms=300)
    if phase is Phase.CALLER_TURN:
        call.say(LONG_MS / 1000)
        await call.wait_for(lambda: caller_is_heard(app.voice))
    elif phase is Phase.AGENT_TURN:
        await call.speak(0.4)
        await call.hear(ms=200)
    return call


def caller_is_heard(voice: ScriptedVoiceServer) -> bool:
    """True once sound of the caller reached the model, and 100 ms more after it."""
    step = PCM16_24K.ms_to_bytes(100)
    before_last = bytes(voice.latest.audio[-2 * step : -step])
    return level_dbfs(np.frombuffer(before_last, dtype="<i2")) > LOUD_DBFS
