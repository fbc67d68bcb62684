"""The model refuses or does not work: callers hear it soon, and knocking has an end."""

from __future__ import annotations

import asyncio

import pytest

from app.calls.call import LOST
from app.events import AgentSaid, CallSummary, EndReason, VoiceReady, VoiceTrouble
from app.realtime.events import SAY_METADATA_KEY, ItemDelete, ResponseCreate
from audio.format import PCMU_8K
from tests.fakes.voice import Reply, ScriptedVoiceServer, Trouble
from tests.fakes.waiting import until
from tests.integration.server import GREETING, App, trunkline

FATAL = {
    "401": (Trouble(http_status=401, http_code="invalid_api_key"), "invalid_api_key"),
    "403": (Trouble(http_status=403), "http_403"),
    "404": (Trouble(http_status=404, http_code="model_not_found"), "model_not_found"),
    "429 without quota": (
        Trouble(http_status=429, http_code="insufficient_quota"),
        "insufficient_quota",
    ),
    "settings refused": (Trouble(update_error="invalid_value"), "invalid_value"),
    "another format": (Trouble(confirm={"output_format": PCMU_8K}), "format_mismatch"),
    "closed with a reason": (
        Trouble(close_first=1008, close_reason="invalid_api_key"),
        "invalid_api_key",
    ),
}

PASSING = {
    "429": (Trouble(http_status=429, http_code="rate_limit_exceeded"), "http_429"),
    "500": (Trouble(http_status=500), "http_500"),
    "503": (Trouble(http_status=503), "http_503"),
    "closed at once": (Trouble(close_first=1011), "closed_in_setup"),
}

SILENT = {
    "no session": (Trouble(silent=True), "connect_timeout"),
    "settings never confirmed": (Trouble(ignores_update=True), "connect_timeout"),
}


async def lost_call(app: App) -> CallSummary:
    """A call that hears its spoken ending, because our side closed the stream as broken."""
    async with app.twilio() as twilio:
        call = await twilio.call(app.url)
        assert (await call.ended()).close_code == LOST
        call.assert_clean()
        assert [verb.name for verb in call.ringing.verbs[1:]] == ["Say", "Hangup"]
        return await app.ended(call)


@pytest.mark.parametrize("fault", FATAL)
async def test_a_refusal_that_nothing_can_heal_is_met_once(fault: str) -> None:
    trouble, code = FATAL[fault]
    voice = ScriptedVoiceServer(trouble=trouble)
    async with voice, trunkline(voice) as app:
        summary = await lost_call(app)
        assert (summary.reason, summary.detail) == (EndReason.VOICE_LOST, code)
        assert voice.attempts == 1


@pytest.mark.parametrize("fault", PASSING)
async def test_a_refusal_that_may_pass_is_met_until_the_budget_is_used_up(fault: str) -> None:
    trouble, code = PASSING[fault]
    voice = ScriptedVoiceServer(trouble=trouble)
    async with voice, trunkline(voice, policy={"voice_budget_ms": 1_500}) as app:
        summary = await lost_call(app)
        assert (summary.reason, summary.detail) == (EndReason.VOICE_LOST, code)
        assert voice.attempts >= 2
        assert (await app.get("/readyz")).json()["degraded"] == ["voice_model_unavailable"]


@pytest.mark.parametrize("fault", SILENT)
async def test_a_model_that_keeps_silent_is_given_up_when_the_time_is_over(fault: str) -> None:
    trouble, code = SILENT[fault]
    voice = ScriptedVoiceServer(trouble=trouble)
    async with voice, trunkline(voice, policy={"voice_budget_ms": 700}) as app:
        summary = await lost_call(app)
        assert (summary.reason, summary.detail) == (EndReason.VOICE_LOST, code)


@pytest.mark.parametrize("fault", PASSING)
async def test_a_model_that_recovers_greets_once(fault: str) -> None:
    trouble = PASSING[fault][0]
    once = Trouble(
        connections=1,
        http_status=trouble.http_status,
        http_code=trouble.http_code,
        close_first=trouble.close_first,
    )
    voice = ScriptedVoiceServer(trouble=once, replies=[Reply(audio_ms=400)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=400)
        await call.hang_up()
        call.assert_clean()
        assert voice.attempts == 2
        assert voice.created == 1
    assert len(call.agent_sound) == PCMU_8K.ms_to_bytes(400)


async def test_calls_in_an_outage_stop_connecting() -> None:
    voice = ScriptedVoiceServer(trouble=FATAL["401"][0])
    async with voice, trunkline(voice) as app:
        assert (await app.get("/readyz")).json()["degraded"] == []
        for _ in range(8):
            assert (await lost_call(app)).detail == "invalid_api_key"
        assert voice.attempts == 5
        ready = await app.get("/readyz")  # it still answers callers, if only to say sorry
        assert (ready.status_code, ready.json()["degraded"]) == (200, ["voice_model_refuses"])


async def test_a_model_without_quota_fails_its_first_response_and_is_not_asked_again() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(error_code="insufficient_quota")])
    async with voice, trunkline(voice) as app:
        summary = await lost_call(app)
        assert (summary.reason, summary.detail) == (EndReason.VOICE_LOST, "insufficient_quota")
        assert (voice.attempts, voice.created) == (1, 1)
        assert summary.session_id == "sess_fake"


async def test_calls_to_a_model_without_quota_stop_connecting() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(error_code="insufficient_quota")])
    async with voice, trunkline(voice) as app:
        for _ in range(7):
            assert (await lost_call(app)).detail == "insufficient_quota"
        assert voice.attempts == 5


async def test_a_response_that_failed_once_is_asked_for_again() -> None:
    voice = ScriptedVoiceServer(
        replies=[Reply(audio_ms=300), Reply(error_code="server_error"), Reply(audio_ms=500)]
    )
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        await call.speak(0.4)
        await call.hear(ms=500)
        trouble = await app.event(call, VoiceTrouble)
        assert trouble.session_id == "sess_fake"
        await call.hang_up()
        call.assert_clean()
        assert (await app.ended(call)).counters.responses_failed == 1
        assert len(voice.connections) == 1
    assert (trouble.code, trouble.benign) == ("server_error", False)


async def test_an_inaudible_answer_is_asked_for_again() -> None:
    voice = ScriptedVoiceServer(
        replies=[Reply(audio_ms=300), Reply(audio_ms=5_000, dbfs=-70), Reply(audio_ms=500)]
    )
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        await call.speak(0.4)
        await call.wait_for(lambda: len(voice.latest.of(ItemDelete)) == 1)
        await app.event(call, AgentSaid, lambda said: said.text != GREETING)
        await call.hang_up()
        call.assert_clean()
        summary = await app.ended(call)
    assert summary.counters.responses_failed == 1
    assert len(voice.connections) == 1


async def test_a_model_that_only_sends_silence_is_replaced_once_and_then_given_up() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300, dbfs=-70)])
    async with voice, trunkline(voice) as app:
        summary = await lost_call(app)
        assert (summary.reason, summary.detail) == (EndReason.VOICE_LOST, "inaudible_response")
        assert len(voice.connections) == 2


async def test_a_greeting_that_failed_is_spoken_all_the_same() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(error_code="server_error"), Reply(audio_ms=500)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear(ms=500)
        await call.hang_up()
        call.assert_clean()
        asked = [create.response for create in voice.latest.of(ResponseCreate)]
    assert len(asked) == 2
    assert SAY_METADATA_KEY in asked[0].metadata


async def test_a_model_that_fails_every_response_is_given_up_when_the_caller_has_waited() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(error_code="server_error")])
    async with voice, trunkline(voice, policy={"answer_wait_ms": 1_000}) as app:
        summary = await lost_call(app)
        assert (summary.reason, summary.detail) == (EndReason.VOICE_LOST, "server_error")
        assert len(voice.connections) > 2


@pytest.mark.parametrize("when", ["at the start", "in mid-call"])
async def test_a_model_whose_responses_fail_for_four_seconds_costs_no_call(when: str) -> None:
    """In real time: the pauses between the tries have to reach beyond the outage."""
    fails, speaks = [Reply(error_code="server_error")], [Reply(audio_ms=300)]
    voice = ScriptedVoiceServer(replies=speaks if when == "in mid-call" else fails)
    loop = asyncio.get_running_loop()

    def outage() -> None:  # four seconds, however long a busy machine takes for a call
        voice.replies = fails
        loop.call_later(4, setattr, voice, "replies", speaks)

    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        if when == "at the start":
            outage()
        call = await twilio.call(app.url)
        if when == "in mid-call":
            await call.hear_quiet(ms=300)
            outage()
            voice.latest.drop()  # what a connection is to say was settled when it was opened
            await call.speak(0.4)
        await until(lambda: voice.replies is speaks)
        await call.hear(ms=200)
        await call.hang_up()
        assert (await app.ended(call)).reason is EndReason.CALLER_HUNG_UP


async def test_an_error_that_ends_nothing_is_survived() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        for code in ("response_cancel_not_active", "something_new"):
            voice.latest.emit_text(
                '{"type":"error","event_id":"e","error":{"type":"invalid_request_error",'
                f'"code":"{code}","message":"No."}}}}'
            )
        await call.speak(0.4)
        await call.hear(ms=300)
        await call.hang_up()
        call.assert_clean()
        counters = (await app.ended(call)).counters
        assert len(voice.connections) == 1
    assert (counters.benign_errors, counters.voice_errors) == (1, 1)


async def test_an_expired_session_is_replaced() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        voice.latest.emit_text(
            '{"type":"error","event_id":"e","error":{"type":"invalid_request_error",'
            '"code":"session_expired","message":"Over."}}'
        )
        await voice.until(lambda: len(voice.connections) == 2)
        await call.speak(0.4)
        await call.hear(ms=300)
        await call.hang_up()
        call.assert_clean()


async def test_a_model_that_answers_no_goodbye_holds_up_no_call() -> None:
    voice = ScriptedVoiceServer(trouble=Trouble(deaf=True))
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await voice.until(lambda: bool(voice.connections))
        await call.wait_for(lambda: call.counters.frames_sent >= 25)
        await call.hang_up()
        assert (await app.ended(call)).reason is EndReason.CALLER_HUNG_UP
        call.assert_clean()
        voice.latest.drop()  # it reads nothing, so that it cannot see that we are gone


async def test_one_call_in_trouble_does_not_touch_another() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        first = voice.latest
        voice.trouble = Trouble(http_status=503)
        losing = asyncio.ensure_future(lost_call(app))
        await call.speak(0.4)
        await call.hear(ms=300)
        assert (await losing).reason is EndReason.VOICE_LOST
        await call.hang_up()
        call.assert_clean()
        assert first.malformed == []


async def test_a_greeting_that_never_begins_is_asked_for_again() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(never_starts=True), Reply(audio_ms=500)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear(ms=500)
        await call.hang_up()
        call.assert_clean()
        asked = [create.response.metadata for create in voice.latest.of(ResponseCreate)]
    assert len(asked) == 2
    assert asked[0] == asked[1]  # the very words of the greeting


async def test_settings_that_the_model_confirmed_otherwise_are_recorded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    voice = ScriptedVoiceServer(trouble=Trouble(confirm={"voice": "alloy"}))
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        ready = await app.event(call, VoiceReady)
        assert ready.differing == ("voice",)
        await call.hang_up()
    [warning] = [one for one in caplog.records if one.message == "voice model took other settings"]
    assert warning.__dict__["settings"] == "voice"
