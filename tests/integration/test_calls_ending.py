"""Calls end: by either party, by a broken socket, by a limit; and then nothing is left of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest

import app.calls.admission.switchboard as switchboard
from app.calls.call import LOST
from app.carrier.base import CallProgress
from app.dial.leg import EndedBy, LegEnd
from app.events import AgentSaid, EndReason, VoiceReady
from app.realtime.events import SAY_METADATA_KEY, ResponseCreate
from audio.format import PCMU_8K
from tests.fakes.carrier import FakeCall
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import time_limit, until, within
from tests.integration.phases import Phase, reach, voice_for
from tests.integration.server import ALL_OVER_S, trunkline

HUNG_UP = LegEnd(EndedBy.AGENT, 1000, "hung up")
END_CALL = ("end_call", '{"reason": "caller_said_goodbye"}')

# By the caller ------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", Phase)
async def test_a_caller_who_hangs_up_ends_all_of_the_call(phase: Phase) -> None:
    voice = voice_for(phase)
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await reach(phase, app, twilio)
        await call.hang_up()
        assert (await app.ended(call)).reason is EndReason.CALLER_HUNG_UP
        await until(lambda: not voice.open_connections, within_s=ALL_OVER_S)
        call.assert_clean()


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("how", ["reset", "end of file"])
async def test_a_phone_socket_that_breaks_ends_all_of_the_call(phase: Phase, how: str) -> None:
    voice = voice_for(phase)
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await reach(phase, app, twilio)
        await (call.drop() if how == "reset" else call.close_silently())
        assert (await app.ended(call)).reason is EndReason.CARRIER_LOST
        await until(lambda: not voice.open_connections, within_s=ALL_OVER_S)
        call.assert_clean()


async def test_a_stream_that_breaks_before_its_start_can_be_opened_again() -> None:
    voice = ScriptedVoiceServer()
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        ringing = await twilio.ring(app.url)
        (await ringing.open_socket()).transport.abort()
        call = await ringing.connect()
        await call.hear(ms=300)
        await call.hang_up()
        call.assert_clean()
        assert len(voice.connections) == 1


async def test_a_call_whose_stream_never_opens_is_given_up() -> None:
    voice = ScriptedVoiceServer()
    async with voice, trunkline(voice, limits={"claim_s": 1}) as app, app.twilio() as twilio:
        ringing = await twilio.ring(app.url)
        summary = await app.ended(ringing, within_s=1 + ALL_OVER_S)
        assert (summary.reason, summary.detail) == (EndReason.CARRIER_LOST, "stream_not_opened")
        await until(lambda: not voice.open_connections, within_s=ALL_OVER_S)
        late = await ringing.connect()
        assert (await late.ended()).close_code == LOST


async def test_a_carrier_that_reports_the_end_ends_a_call_whose_stream_said_nothing() -> None:
    voice = ScriptedVoiceServer()
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear(ms=200)
        assert await call.ringing.webhooks.report("completed", duration_s=1) == 200
        summary = await app.ended(call)
        assert (await call.ended()).by is EndedBy.AGENT
        call.assert_clean()
    assert summary.reason is EndReason.CALLER_HUNG_UP
    assert summary.detail == "carrier_reported_completed"


async def test_reports_move_a_call_forward_in_whatever_order_they_come() -> None:
    voice = ScriptedVoiceServer()
    reports = [*[*CallProgress][:4], CallProgress.IN_PROGRESS, CallProgress.COMPLETED]
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        admission = app.switchboard._admissions[call.identity.call_id]
        for order in permutations(reports):
            admission.progress = None
            for progress in order:
                app.switchboard.report(call.identity.call_id, progress)
            assert admission.progress is CallProgress.COMPLETED
        assert (await app.ended(call)).reason is EndReason.CALLER_HUNG_UP


async def test_a_late_report_does_not_hold_up_the_drain() -> None:
    voice = ScriptedVoiceServer()
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear(ms=200)
        await call.hang_up(report=True)
        await app.ended(call)
        assert await call.ringing.webhooks.report("in-progress") == 200
        await within(switchboard.LAST_REPORTS_S / 2, app.switchboard.drain(0))


async def test_reports_of_a_call_that_goes_on_change_nothing() -> None:
    voice = ScriptedVoiceServer()
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear(ms=200)
        for progress in ("in-progress", "ringing", "initiated", "in-progress"):
            assert await call.ringing.webhooks.report(progress) == 200
        await call.speak(0.4)
        await call.hear(ms=200)
        await call.hang_up(report=True)
        assert await call.ringing.webhooks.report("completed") == 200
        assert (await app.ended(call)).detail == ""


# By the agent -------------------------------------------------------------------------------------


async def test_an_agent_hangs_up_when_its_goodbye_was_heard() -> None:
    goodbye = Reply(audio_ms=1500, text="Goodbye.", tool=END_CALL)
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), goodbye], heard=["Bye."])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        await call.speak(0.4)
        assert await call.ended() == HUNG_UP
        summary = await app.ended(call)
        call.assert_clean()
    assert (summary.reason, summary.detail) == (EndReason.AGENT_HUNG_UP, "caller_said_goodbye")
    assert len(call.agent_sound) == PCMU_8K.ms_to_bytes(300 + 1500)


async def test_an_agent_that_hangs_up_without_a_word_is_asked_for_a_goodbye() -> None:
    silent = Reply(audio_ms=0, text="", tool=END_CALL)
    goodbye = Reply(audio_ms=800, text="Goodbye.")
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), silent, goodbye])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        await call.speak(0.4)
        assert await call.ended() == HUNG_UP
        assert (await app.ended(call)).reason is EndReason.AGENT_HUNG_UP
        call.assert_clean()
    assert len(call.agent_sound) == PCMU_8K.ms_to_bytes(300 + 800)


async def test_an_agent_does_not_hang_up_on_a_caller_who_speaks_again() -> None:
    goodbye = Reply(audio_ms=4000, text="Goodbye.", tool=END_CALL)
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), goodbye, Reply(audio_ms=500)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        await call.speak(0.4)
        await call.barge_in(0.4, after_ms=500)
        await call.hear(ms=500)
        await call.hear_quiet(ms=500)
        await call.hang_up()
        assert (await app.ended(call)).reason is EndReason.CALLER_HUNG_UP
        call.assert_clean()


async def test_an_operator_ends_a_call() -> None:
    voice = ScriptedVoiceServer()
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        ready = await app.event(call, VoiceReady)
        assert app.switchboard.hang_up(ready.call_id)
        assert (await call.ended()).by is EndedBy.AGENT
        assert (await app.ended(call)).reason is EndReason.OPERATOR_HUNG_UP
        assert not app.switchboard.hang_up(ready.call_id)


# By a limit ---------------------------------------------------------------------------------------


async def _closing_prompt_heard(call: FakeCall, voice: ScriptedVoiceServer) -> str:
    """The last words that were asked for before our side hung up."""
    assert await call.ended() == HUNG_UP
    call.assert_clean()
    asked = voice.latest.of(ResponseCreate)[-1].response.metadata
    return str(asked[SAY_METADATA_KEY])


async def test_a_call_has_a_longest_duration_and_ends_with_a_closing_prompt() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=60_000), Reply(audio_ms=700)])
    policy = {"max_duration_ms": 500, "closing_prompt": "Time is up."}
    async with voice, trunkline(voice, policy=policy) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        assert await _closing_prompt_heard(call, voice) == "Time is up."
        assert (await app.ended(call)).reason is EndReason.MAX_DURATION
        said = [e for e in await app.events(call) if isinstance(e, AgentSaid)]
    assert [(line.text, line.cut_off) for line in said][1:] == [("Time is up.", False)]


async def test_a_call_that_costs_too_much_ends_with_a_closing_prompt() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), Reply(audio_ms=700)])
    limits = {"max_cost_usd": 0.005}  # a response of the fake costs more
    async with voice, trunkline(voice, limits=limits) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        said = await _closing_prompt_heard(call, voice)
        summary = await app.ended(call)
    assert said == "I am sorry, I have to end the call here. Goodbye."
    assert summary.reason is EndReason.MAX_COST
    assert summary.cost_usd == pytest.approx(2 * 0.0084096)  # the goodbye is paid for as well
    assert sum(summary.costs.values()) == pytest.approx(summary.cost_usd)


async def test_a_silent_line_is_hung_up_with_a_closing_prompt() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), Reply(audio_ms=700)])
    policy = {"silence_ms": 400, "silence_closing_prompt": "Nobody there."}
    async with voice, trunkline(voice, policy=policy) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        assert await _closing_prompt_heard(call, voice) == "Nobody there."
        assert (await app.ended(call)).reason is EndReason.SILENCE
    assert len(call.agent_sound) == PCMU_8K.ms_to_bytes(300 + 700)


@pytest.mark.parametrize("model", ["is silent", "closes"])
async def test_the_carrier_speaks_in_place_of_a_model_that_says_no_goodbye(model: str) -> None:
    last = Reply(never_starts=True) if model == "is silent" else Reply(close_after_ms=100)
    last = replace(last, close_code=1000)
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), last])
    policy = {"silence_ms": 300, "goodbye_max_ms": 500}
    async with voice, trunkline(voice, policy=policy) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear(ms=100)
        voice.replies = [last]  # on further connections
        async with time_limit():
            assert (await call.ended()).close_code == LOST
        summary = await app.ended(call)
    assert (summary.reason, summary.detail) == (EndReason.SILENCE, "goodbye_unheard")
