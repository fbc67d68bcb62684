"""A caller who waits hears a human sentence in time, whatever the model does meanwhile.

Real servers and sockets, with a wait of one second in place of four: all limits follow from it. A
sentence is heard when the agent can be heard, or when the stream is closed as broken: the carrier
speaks then (docs/decisions/0002). Every connection of a faulty model is faulty; one that is well
from the second connection on has to be heard itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import pytest

from app.calls.call import LOST
from app.events import CallEnded
from app.realtime import events as ev
from app.realtime.events import Response, ResponseStatus
from audio.format import PCM16_24K
from tests.fakes.carrier import FakeCall
from tests.fakes.voice import Reply, ScriptedVoiceServer, Served, Trouble
from tests.fakes.waiting import until
from tests.integration.server import trunkline

WAIT_MS: Final = 1_000
POLICY: Final = {"answer_wait_ms": WAIT_MS, "voice_budget_ms": 6_000, "inactivity_after_ms": 0}
SLACK_MS: Final = 700
"""Ticks of 200 ms, the closing of the stream, and a machine that does other things as well."""
FEED_S: Final = 0.05

GREETS: Final = Reply(audio_ms=300)
NEVER: Final = Reply(never_starts=True)
SOUND_OF_NOTHING: Final = bytes(PCM16_24K.ms_to_bytes(40))

Feed = Callable[[Served, int], Sequence[ev.ServerEvent]]
"""The events that a connection of the model sends at its n-th step."""


def running(number: int) -> Response:
    return Response(id=f"feed_{number}", status=ResponseStatus.IN_PROGRESS)


def ended(number: int, status: ResponseStatus) -> ev.ResponseDone:
    return ev.ResponseDone(Response(id=f"feed_{number}", status=status))


def in_one_response(*events: ev.ServerEvent) -> Feed:
    """The same events over and over, in a response that has begun and does not end."""
    return lambda served, step: [ev.ResponseCreated(running(0)), *events] if step == 0 else events


def flapping(served: Served, step: int) -> Sequence[ev.ServerEvent]:
    """A noise every 800 ms that is taken for the caller; each has an answer, cut by the next."""
    number, place = divmod(step, 16)
    item_id = f"noise_{number}"
    match place:
        case 0:
            cut = [ended(number - 1, ResponseStatus.CANCELLED)] if number else []
            return [ev.SpeechStarted(item_id, 0), *cut]
        case 6:
            return [
                ev.SpeechStopped(item_id, 0),
                ev.InputAudioCommitted(item_id),
                ev.TranscriptionCompleted(item_id, 0, "", seconds=0.1),
                ev.ResponseCreated(running(number)),
            ]
        case _:
            return []


FEEDS: Final[dict[str, Feed]] = {
    "nothing at all": lambda served, step: [],
    "rate limits": lambda served, step: [
        ev.RateLimitsUpdated((ev.RateLimit("tokens", 40_000, 39_000, 0.5),))
    ],
    "unknown events": lambda served, step: [ev.Unknown("x.y", {})],
    "words without sound": in_one_response(
        ev.AudioTranscriptDelta("feed_0", "item_feed", 0, 0, "word ")
    ),
    "words of no response": lambda served, step: [
        ev.AudioTranscriptDelta("feed_9", "item_feed", 0, 0, "word ")
    ],
    "empty sound": in_one_response(ev.AudioDelta("feed_0", "item_feed", 0, 0, b"")),
    "sound of nothing": in_one_response(
        ev.AudioDelta("feed_0", "item_feed", 0, 0, SOUND_OF_NOTHING)
    ),
    "speech that begins again and again": lambda served, step: [ev.SpeechStarted("u_feed", 0)],
    "the end of an unknown response": lambda served, step: [ended(9, ResponseStatus.COMPLETED)],
    "responses that the server cancels": lambda served, step: [
        ev.ResponseCreated(running(step)),
        ended(step, ResponseStatus.CANCELLED),
    ],
    "responses that are empty": lambda served, step: [
        ev.ResponseCreated(running(step)),
        ended(step, ResponseStatus.COMPLETED),
    ],
    "errors": lambda served, step: [
        ev.ErrorEvent(ev.ErrorDetail(type="server_error", code="server_error"))
    ],
    "noises on the line": flapping,
}


@asynccontextmanager
async def feeding(
    voice: ScriptedVoiceServer, feed: Feed, *, first_only: bool
) -> AsyncIterator[None]:
    """Let every connection send these events from now on, or the one that is open."""

    async def send() -> None:
        steps: dict[Served, int] = {}
        first = voice.latest
        while True:
            served = voice.latest
            if served is first or not first_only:
                steps[served] = steps.get(served, -1) + 1
                for event in feed(served, steps[served]):
                    served.emit(event)
            await asyncio.sleep(FEED_S)

    sending = asyncio.create_task(send())
    try:
        yield
    finally:
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending


def now_ms() -> int:
    return int(asyncio.get_running_loop().time() * 1000)


@dataclass(frozen=True, slots=True)
class Waited:
    """A wait: how long until a sentence was heard, and whether the agent said it."""

    ms: int
    agent: bool


async def sentence(call: FakeCall, began_ms: int) -> Waited:
    """Wait for the next sentence that the caller hears."""
    heard_ms = call.heard_ms
    await until(lambda: call.over or call.heard_ms > heard_ms + 100, what=lambda: call.counters)
    agent = not call.over
    if not agent:
        assert (await call.ended()).close_code == LOST
    return Waited(now_ms() - began_ms, agent)


@pytest.mark.parametrize("kind", FEEDS)
async def test_a_model_that_says_nothing_keeps_nobody_in_silence(kind: str) -> None:
    voice = ScriptedVoiceServer(replies=[GREETS, NEVER])
    async with voice, trunkline(voice, policy=POLICY) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        voice.replies = [NEVER]
        await call.speak(0.4)
        if kind == "noises on the line":
            call.say(0.2 * 6 * 20)  # the line itself is loud: callers live six times as fast
        async with feeding(voice, FEEDS[kind], first_only=False):
            waited = await sentence(call, now_ms())
        await app.event(call, CallEnded)
    assert waited.ms <= 2 * WAIT_MS + SLACK_MS
    assert not waited.agent


@pytest.mark.parametrize("kind", ["nothing at all", "empty sound", "noises on the line"])
async def test_a_model_that_is_well_on_a_fresh_connection_is_heard(kind: str) -> None:
    wait_ms = 2_000
    policy = {**POLICY, "answer_wait_ms": wait_ms}
    voice = ScriptedVoiceServer(replies=[GREETS, NEVER])
    async with voice, trunkline(voice, policy=policy) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        voice.replies = [Reply(audio_ms=400, text="Here I am.")]
        await call.speak(0.4)
        async with feeding(voice, FEEDS[kind], first_only=True):
            waited = await sentence(call, now_ms())
        if waited.agent:
            await call.hear_quiet(ms=300)
            await call.hang_up()
        await app.event(call, CallEnded)
    assert waited.ms <= 2 * wait_ms + SLACK_MS
    assert waited.agent


HANGS: Final = {
    "connecting hangs": Trouble(silent=True),
    "settings are never confirmed": Trouble(ignores_update=True),
    "refused again and again": Trouble(http_status=503),
    "closed again and again": Trouble(close_first=1011),
}


@pytest.mark.parametrize("kind", HANGS)
@pytest.mark.parametrize("when", ["at the start", "in mid-call"])
async def test_who_waits_for_a_connection_hears_ringing_and_then_the_carrier(
    kind: str, when: str
) -> None:
    wait_ms = 2_500
    policy = {**POLICY, "answer_wait_ms": wait_ms}
    voice = ScriptedVoiceServer(replies=[GREETS, NEVER])
    if when == "at the start":
        voice.trouble = HANGS[kind]
    async with voice, trunkline(voice, policy=policy) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        began_ms = now_ms()
        if when == "in mid-call":
            await call.hear_quiet(ms=300)
            voice.trouble = HANGS[kind]
            await call.speak(0.4)
            began_ms = now_ms()
            voice.latest.drop()
        rung_ms = await sentence(call, began_ms)
        assert rung_ms.agent  # so far it is our own sound
        assert rung_ms.ms <= 1_500 + SLACK_MS
        await until(lambda: call.over)
        assert (await call.ended()).close_code == LOST
        assert now_ms() - began_ms <= 2 * wait_ms + SLACK_MS
        await app.event(call, CallEnded)
