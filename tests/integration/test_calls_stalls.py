"""The carrier stops sending or reading: turns end, gaps stay gaps, dead streams are noticed."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from app.events import CallEnded, CallerSaid, EndReason
from app.realtime.connecting import connect_with_retry
from app.realtime.connection import VoiceConnection
from audio.format import PCM16_24K
from audio.level import peak_dbfs
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import until
from tests.integration.phases import Phase, caller_is_heard, reach, voice_for
from tests.integration.server import ALL_OVER_S, trunkline

WATCHED = {"stream_probe_ms": 300, "stream_lost_ms": 900, "inactivity_after_ms": 0}


def goodbye(audio_ms: int) -> Reply:
    """The agent's last words, after which it hangs up."""
    return Reply(
        audio_ms=audio_ms, text="Goodbye.", tool=("end_call", '{"reason": "task_complete"}')
    )


async def test_a_turn_ends_although_the_sound_stops_in_the_middle_of_it() -> None:
    voice = voice_for(Phase.CALLER_TURN)
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await reach(Phase.CALLER_TURN, app, twilio)
        heard_ms = call.heard_ms
        call.mute()
        await call.wait_for(lambda: call.heard_ms >= heard_ms + 300)  # the answer
        call.mute(False)
        await call.hang_up()
        call.assert_clean()
        assert (await app.ended(call)).counters.stall_filled_ms >= 1_000


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


async def test_time_that_the_carrier_skips_is_silence_to_the_model() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        played = call.counters.frames_sent
        call.mute()
        await call.hear_quiet(ms=900)
        call.mute(False)
        await call.wait_for(lambda: call.counters.frames_sent >= played + 10)
        call.say(1.0)
        await call.wait_for(lambda: caller_is_heard(voice))
        await call.hang_up()
        call.assert_clean()
        counters = (await app.ended(call)).counters
    assert counters.gap_filled_ms >= 400
    assert counters.stall_filled_ms == 0  # nobody spoke
    timeline_ms = counters.caller_audio_ms + counters.gap_filled_ms
    given_ms = PCM16_24K.bytes_to_ms(len(voice.latest.audio))
    assert timeline_ms - given_ms <= 40  # what was on its way when the caller hung up


async def test_a_phone_that_sends_no_sound_is_alive_as_long_as_it_returns_marks() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice, policy=WATCHED) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        call.mute()
        marks = call.counters.marks_returned
        await call.wait_for(lambda: call.counters.marks_returned >= marks + 5)
        call.mute(False)
        await call.speak(0.4)
        await call.hear(ms=300)
        await call.hang_up()
        call.assert_clean()
        assert (await app.ended(call)).reason is EndReason.CALLER_HUNG_UP


async def test_a_stream_that_gives_no_sign_of_life_is_lost() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice, policy=WATCHED) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        call.mute()
        call.freeze()
        summary = await app.ended(call, within_s=3)
        assert (summary.reason, summary.detail) == (EndReason.CARRIER_LOST, "stream_silent")
        await until(lambda: not voice.open_connections, within_s=ALL_OVER_S)


async def test_a_goodbye_whose_marks_do_not_return_is_not_waited_for() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), goodbye(audio_ms=1_000)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        call.say(0.4)
        await call.wait_for(lambda: caller_is_heard(voice))
        call.freeze()  # it plays what it has, and says nothing of it
        done = await app.event(call, CallEnded)
        turn = await app.event(call, CallerSaid)
    assert done.summary.reason is EndReason.AGENT_HUNG_UP
    assert done.summary.detail == "task_complete"
    # The goodbye's own second, one of grace, and a tick; not the 15 s of `goodbye_max_ms`.
    assert 1_900 <= done.at_ms - turn.at_ms <= 3_500


async def test_a_caller_who_hangs_up_on_the_goodbye_has_hung_up() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), goodbye(audio_ms=3_000)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        await call.speak(0.4)
        await call.hear(ms=300)
        await call.hang_up()
        call.assert_clean()
        assert (await app.ended(call)).reason is EndReason.CALLER_HUNG_UP


async def test_a_caller_who_takes_nothing_more_is_given_up_and_costs_no_other_call() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), Reply(audio_ms=60_000)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        # Or the kernel would take minutes of sound before anybody noticed.
        app.trunkline.server._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_192)
        frozen = await reach(Phase.IDLE, app, twilio)
        frozen.freeze()
        await frozen.speak(0.4)
        other = await reach(Phase.AGENT_TURN, app, twilio)
        ended = await app.event(frozen, CallEnded)
        assert ended.summary.reason is EndReason.CARRIER_LOST
        await other.barge_in(0.4)
        await other.hear(ms=200)
        await other.hang_up()
        other.assert_clean()


async def test_frames_that_come_together_leave_in_few_messages_and_in_order() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    frame_bytes = PCM16_24K.ms_to_bytes(20)
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=100)
        call.mute()
        call.say(0.8)
        before = len(voice.latest.appends)
        call.catch_up(frames=40)
        await until(lambda: sum(voice.latest.appends[before:]) >= 40 * frame_bytes)
        sizes = voice.latest.appends[before:]
        call.mute(False)
        await call.hang_up()
        call.assert_clean()
    assert sum(size for size in sizes if size > frame_bytes) >= 20 * frame_bytes, sizes
    levels = [
        peak_dbfs(bytes(voice.latest.audio[at : at + frame_bytes]), PCM16_24K)
        for at in range(0, len(voice.latest.audio), frame_bytes)
    ]
    loud = [place for place, level in enumerate(levels) if level > -20]
    assert loud == list(range(loud[0], loud[0] + len(loud)))  # the tone has no hole


@pytest.mark.parametrize(("spoken_s", "kept"), [(1.0, True), (5.0, False)])
async def test_speech_before_the_model_is_connected_is_kept_within_bounds(
    spoken_s: float, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    connect = connect_with_retry
    there = asyncio.Event()

    async def connect_late(*args: Any, **options: Any) -> VoiceConnection:
        await there.wait()
        return await connect(*args, **options)

    monkeypatch.setattr("app.agents.dialogue.voice_loop.connect_with_retry", connect_late)
    model = {"speaks_first": "caller"}
    async with voice, trunkline(voice, model=model) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.speak(spoken_s)
        there.set()
        await call.hear(ms=300)  # the answer to what was said before anybody listened
        await call.hang_up()
        call.assert_clean()
        counters = (await app.ended(call)).counters
    assert (counters.uplink_dropped_ms == 0) is kept
    given_ms = PCM16_24K.bytes_to_ms(len(voice.latest.audio))
    timeline_ms = counters.caller_audio_ms + counters.gap_filled_ms
    assert timeline_ms - given_ms - counters.uplink_dropped_ms <= 40
    if not kept:
        assert counters.uplink_dropped_ms >= 5_000 - 2_000 - 40
    assert max(voice.latest.appends) >= PCM16_24K.ms_to_bytes(200)  # ten frames in one message
