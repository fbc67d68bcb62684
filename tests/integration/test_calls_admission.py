"""Admission: who gets in, what repeats itself, and how a server that is full or leaving says no."""

from __future__ import annotations

import asyncio
import time

import pytest

import app.calls.admission.switchboard as switchboard
from app.dial.carrier_http import Caller, Endpoints, Webhooks, http_client
from app.dial.leg import EndedBy
from app.events import CallAdmitted, EndReason, VoiceReady
from app.realtime.events import SAY_METADATA_KEY, ResponseCreate, Unset
from tests.fakes.carrier import FakeCall, FakeTwilio, Ringing
from tests.fakes.voice import Reply, ScriptedVoiceServer, Trouble
from tests.fakes.waiting import until
from tests.integration.server import App, trunkline


def refused_as_busy(ringing: Ringing, app: App) -> bool:
    """True for a webhook answered with a spoken refusal and no stream."""
    return ringing.order is None and [(verb.name, verb.text) for verb in ringing.verbs] == [
        ("Say", app.settings.twilio.busy_message),
        ("Hangup", ""),
    ]


def words_asked_for(voice: ScriptedVoiceServer) -> list[str]:
    """The sentences that the model was asked to say word for word."""
    asked = [create.response for create in voice.latest.of(ResponseCreate)]
    metadata = [response.metadata for response in asked if response is not None]
    return [str(m[SAY_METADATA_KEY]) for m in metadata if not isinstance(m, Unset)]


async def talk(call: FakeCall) -> None:
    """Hold one turn."""
    await call.hear_quiet(ms=200)
    await call.speak(0.4)
    await call.hear(ms=300)


async def test_the_same_webhook_twice_is_one_call_with_one_answer() -> None:
    voice = ScriptedVoiceServer()
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        first = await twilio.ring(app.url)
        again = await twilio.ring(app.url, call_sid=first.caller.call_id)
        assert again.verbs == first.verbs
        assert app.switchboard.active == 1
        call = await again.connect()
        await talk(call)
        await call.hang_up()
        call.assert_clean()
        assert len(voice.connections) == 1


async def test_webhooks_at_the_same_time_are_one_call() -> None:
    voice = ScriptedVoiceServer()
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        sid = "CA" + "7" * 32
        answers = await asyncio.gather(*(twilio.ring(app.url, call_sid=sid) for _ in range(10)))
        assert all(answer.verbs == answers[0].verbs for answer in answers)
        assert app.switchboard.active == 1
        call = await answers[-1].connect()
        await call.hang_up()
        assert voice.attempts <= 1


async def test_a_webhook_is_answered_at_once_while_the_model_hangs() -> None:
    voice = ScriptedVoiceServer(trouble=Trouble(silent=True))
    limits = {"max_calls": 200, "claim_s": 1}
    async with voice, trunkline(voice, limits=limits) as app, app.twilio() as twilio:
        endpoints = Endpoints.of(app.url)
        took_s = []
        async with http_client() as client:
            for number in range(100):
                caller = Caller(
                    call_id=f"CA{number:032x}",
                    account_id=twilio.account_sid,
                    caller_number="+15005550006",
                    called_number="+15005550001",
                )
                webhooks = Webhooks(client, endpoints, app.auth_token, caller)
                asked_s = time.monotonic()  # the time of this process alone
                answer = await webhooks.ask(endpoints.voice_url, "ringing")
                took_s.append(time.monotonic() - asked_s)
                assert [verb.name for verb in answer.verbs] == ["Connect", "Say", "Hangup"]
        assert voice.open_connections  # which have not said a word
    assert sorted(took_s)[98] < 1.0  # one that waited for the model takes 3 s


async def test_a_full_server_says_so_and_has_room_again_when_a_call_ends() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice, limits={"max_calls": 1}) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        refused = await twilio.ring(app.url)
        assert refused_as_busy(refused, app)
        assert (await app.get("/readyz")).status_code == 503
        await talk(call)
        await call.hang_up()
        await app.ended(call)
        assert (await app.get("/readyz")).status_code == 200
        following = await twilio.call(app.url)
        await talk(following)
        await following.hang_up()
        assert voice.attempts == 2


@pytest.mark.parametrize("whose", ["caller", "number"])
async def test_a_caller_beyond_a_limit_hears_the_busy_message_and_is_counted(whose: str) -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    limits = {f"per_{whose}": {"calls_per_day": 1}}
    async with voice, trunkline(voice, limits=limits) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        assert refused_as_busy(await twilio.ring(app.url), app)
        other = await twilio.ring(app.url, caller_number="+15005550007")
        assert (other.order is None) == (whose == "number")
        metrics = (await app.get("/metrics")).text
        count = 2.0 if whose == "number" else 1.0
        assert f'trunkline_refused_total{{reason="{whose}_limit"}} {count}' in metrics
        calls = [call] if other.order is None else [call, await other.connect()]
        for taken in calls:
            await talk(taken)
            await taken.hang_up()
            await app.ended(taken)


async def test_of_many_calls_at_once_as_many_get_in_as_may_be_live() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice, limits={"max_calls": 4}) as app, app.twilio() as twilio:
        ringing = await asyncio.gather(*(twilio.ring(app.url) for _ in range(12)))
        admitted = [each for each in ringing if each.order is not None]
        assert len(admitted) == 4
        assert sum(refused_as_busy(each, app) for each in ringing) == 8
        calls = await asyncio.gather(*(each.connect() for each in admitted))
        await asyncio.gather(*(talk(call) for call in calls))
        await asyncio.gather(*(call.hang_up() for call in calls))
        assert voice.attempts == 4


async def test_a_draining_server_refuses_new_calls_while_a_live_one_goes_on() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await talk(call)
        app.trunkline.server.stop()
        await until(lambda: app.switchboard.draining)
        assert refused_as_busy(await twilio.ring(app.url), app)
        assert (await app.get("/readyz")).status_code == 503
        assert (await app.get("/healthz")).status_code == 200
        await talk(call)
        assert await call.ringing.webhooks.report("in-progress") == 200
        await call.hang_up()
        call.assert_clean()
        assert (await app.ended(call)).reason is EndReason.CALLER_HUNG_UP


async def test_a_call_whose_webhook_came_before_the_drain_is_still_connected() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        ringing = await twilio.ring(app.url)
        app.trunkline.server.stop()
        await until(lambda: app.switchboard.draining)
        call = await ringing.connect()
        await talk(call)
        await call.hang_up()
        assert (await app.ended(call)).reason is EndReason.CALLER_HUNG_UP


async def test_no_call_is_lost_between_its_webhook_and_its_stream_when_a_drain_begins() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])

    async def caller(app: App, twilio: FakeTwilio) -> bool:
        ringing = await twilio.ring(app.url)
        if refused_as_busy(ringing, app):
            return False
        call = await ringing.connect()
        await call.hear(ms=200)
        await call.hang_up()
        assert (await app.ended(call)).reason is EndReason.CALLER_HUNG_UP
        return True

    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        async with asyncio.TaskGroup() as group:
            callers = [group.create_task(caller(app, twilio)) for _ in range(30)]
            await until(lambda: app.switchboard.active >= 10)
            app.trunkline.server.stop()
        served = sum(task.result() for task in callers)
        assert served >= 10
        assert served == len(voice.connections)


async def test_the_last_report_of_the_last_call_is_still_taken() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear(ms=100)
        assert await call.ringing.webhooks.report("in-progress") == 200
        app.trunkline.server.stop()
        await until(lambda: app.switchboard.draining)
        await call.hang_up()
        await app.ended(call)
        assert not app.trunkline.server.should_exit
        assert await call.ringing.webhooks.report("completed", duration_s=1) == 200
        await until(lambda: app.trunkline.server.should_exit)


async def test_a_drain_that_has_waited_long_enough_says_goodbye() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), Reply(audio_ms=600)])
    limits = {"drain_timeout_s": 0}
    async with voice, trunkline(voice, limits=limits) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=200)
        heard_ms = call.counters.agent_audio_ms
        app.trunkline.server.stop()
        assert (await call.ended()).by is EndedBy.AGENT
        assert (await app.ended(call)).reason is EndReason.DRAINED
        call.assert_clean()
    assert call.counters.agent_audio_ms == heard_ms + 600


async def test_callers_are_warned_before_a_drain_ends_their_call() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), Reply(audio_ms=500)])
    limits = {"drain_timeout_s": 1}
    policy = {"duration_warning_ms": 500, "duration_warning": "One more minute."}
    async with (
        voice,
        trunkline(voice, limits=limits, policy=policy) as app,
        app.twilio() as twilio,
    ):
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=200)
        app.trunkline.server.stop()
        await voice.until(lambda: len(words_asked_for(voice)) == 2)
        assert app.switchboard.active == 1
        assert (await call.ended()).by is EndedBy.AGENT
        assert (await app.ended(call)).reason is EndReason.DRAINED
        call.assert_clean()
    _, warning, goodbye = words_asked_for(voice)
    assert "One more minute." in warning
    assert "Goodbye" in goodbye


async def test_a_second_signal_ends_all_calls_at_once() -> None:
    voice = ScriptedVoiceServer()
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await app.event(call, VoiceReady)
        app.trunkline.server.stop()
        app.trunkline.server.stop()
        await call.ended(within_s=3)
        await app.ended(call)


async def test_a_long_call_does_not_keep_what_is_left_of_those_that_ended_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(switchboard, "REMEMBERED", 3)
    monkeypatch.setattr(switchboard, "FEEDS_KEPT", 1)
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=100)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        long = await twilio.call(app.url)
        short = [await twilio.call(app.url) for _ in range(6)]
        for call in short:
            await call.hang_up()
            await app.ended(call)
        assert isinstance(await app.event(long, CallAdmitted), CallAdmitted)  # in full
        lengths = [len(await app.events(call)) for call in short[3:]]
        assert lengths[:2] == [1, 1]
        assert lengths[2] > 1
        for forgotten in short[:3]:
            with pytest.raises(KeyError):
                await app.events(forgotten)
        await long.hang_up()


async def test_a_spent_budget_turns_new_calls_away_and_lets_the_others_go_on() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    budget = {"per_day_usd": 0.005}  # a response of the fake costs more
    async with voice, trunkline(voice, budget=budget) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await until(lambda: "over_budget" in app.switchboard.reasons_not_ready())
        assert refused_as_busy(await twilio.ring(app.url), app)
        await talk(call)
        await call.hang_up()
        summary = await app.ended(call)
        assert summary.reason is EndReason.CALLER_HUNG_UP
        metrics = (await app.get("/metrics")).text
    assert 'trunkline_refused_total{reason="over_budget"} 1.0' in metrics
    assert summary.cost_usd is not None
    assert f"trunkline_budget_spent_usd {summary.cost_usd:.6f}"[:-2] in metrics


async def test_a_server_that_is_late_turns_new_calls_away_until_it_is_in_time_again() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)] * 2)
    limits = {"max_lag_ms": 50}
    async with voice, trunkline(voice, limits=limits) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        monitor = app.switchboard._overloaded.__self__  # type: ignore[attr-defined]
        for lag_ms in (0, 0, 80) * 40:
            monitor.record(lag_ms)
        assert refused_as_busy(await twilio.ring(app.url), app)
        ready = await app.get("/readyz")
        assert (ready.status_code, ready.json()["reasons"]) == (503, ["overloaded"])
        for _ in range(100):
            monitor.record(0)
        other = await twilio.call(app.url)
        for one in (call, other):
            await one.hang_up()
            await app.ended(one)
        metrics = (await app.get("/metrics")).text
    assert 'trunkline_refused_total{reason="overloaded"} 1.0' in metrics
