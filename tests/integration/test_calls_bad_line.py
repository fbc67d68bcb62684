"""A line that loses, stalls and withholds: what a carrier or a network does to a call."""

from __future__ import annotations

import socket
import time

from app.carrier.twilio.carrier import SEND_TIMEOUT_S
from app.events import CallEnded, EndReason
from audio.format import PCM16_24K
from tests.fakes.voice import Reply, ScriptedVoiceServer, Trouble
from tests.integration.phases import Phase, caller_is_heard, reach
from tests.integration.server import ALL_OVER_S, by_then, trunkline

END_CALL = ("end_call", '{"reason": "task_complete"}')
WEBHOOKS = 100


async def test_a_gap_in_the_callers_sound_is_silence_to_the_model() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=100)
        call.mute()
        await call.wait_for(lambda: call.counters.frames_discarded >= 30)
        call.mute(False)
        sent = call.counters.frames_sent
        await call.wait_for(lambda: call.counters.frames_sent >= sent + 10)
        await call.hang_up()
        summary = await app.ended(call)
    lost_ms = 20 * call.counters.frames_discarded
    assert summary.counters.gap_filled_ms == lost_ms
    timeline_ms = 20 * (call.counters.frames_sent + call.counters.frames_discarded)
    assert abs(PCM16_24K.bytes_to_ms(len(voice.latest.audio)) - timeline_ms) <= 20


async def test_sound_that_stalls_in_mid_speech_ends_the_turn_however_long_its_pause() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), Reply(audio_ms=400)])
    model = {"turn_detection": {"silence_duration_ms": 2_000}}
    async with voice, trunkline(voice, model=model) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=100)
        call.say(30.0)
        await call.wait_for(lambda: caller_is_heard(voice))
        call.mute()
        await call.hear(ms=300)
        await call.hang_up()
        assert (await app.ended(call)).counters.stall_filled_ms >= 2_000


async def test_a_goodbye_whose_marks_never_come_back_is_hung_up_on_in_time() -> None:
    goodbye = Reply(audio_ms=1_000, text="Goodbye.", tool=END_CALL)
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), goodbye])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        call.withhold_marks()
        await call.hear_quiet(ms=300)
        await call.speak(0.4)
        await call.hear(ms=100)
        began_s = time.monotonic()
        summary = await app.ended(call, within_s=4)
        took_s = time.monotonic() - began_s
    assert summary.reason is EndReason.AGENT_HUNG_UP
    # The server reckons that a second of sound plays for a second, and waits for one more.
    assert 1.5 < took_s < 1.0 + 1.2 + 0.4
    assert call.counters.agent_audio_ms == 1_300


async def test_a_caller_who_takes_nothing_more_is_given_up_and_costs_no_other_call() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), Reply(audio_ms=60_000)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        # Or the kernel would take minutes of sound before anybody noticed.
        app.trunkline.server._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_192)
        frozen = await reach(Phase.IDLE, app, twilio)
        frozen.freeze()
        await frozen.speak(0.4)
        other = await reach(Phase.AGENT_TURN, app, twilio)
        ended = await app.event(frozen, CallEnded, within_s=SEND_TIMEOUT_S + ALL_OVER_S)
        assert ended.summary.reason is EndReason.CARRIER_LOST
        await other.barge_in(0.4)
        await other.hear(ms=200)
        await other.hang_up()
        other.assert_clean()


async def test_webhooks_are_answered_at_once_whatever_the_model_does() -> None:
    voice = ScriptedVoiceServer(trouble=Trouble(silent=True))
    limits = {"max_calls": WEBHOOKS, "claim_s": 3}
    async with voice, trunkline(voice, limits=limits) as app, app.twilio() as twilio:
        took_s = []
        for _ in range(WEBHOOKS):
            began_s = time.monotonic()
            ringing = await twilio.ring(app.url)
            took_s.append(time.monotonic() - began_s)
            assert ringing.order is not None
        assert sorted(took_s)[round(0.99 * WEBHOOKS) - 1] < 0.2
        await by_then(lambda: not app.switchboard.active, within_s=10)
