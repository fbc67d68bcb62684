"""The carrier asks for a call again: retries, redirects, another application that updates the call.

While the call is live, one more stream may take the caller over; after it, the same carrier's call
is a new conversation. Every order in which webhooks, streams and reports can come is tried.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from app.calls.caller_leg import LOST
from app.dial.leg import EndedBy
from app.errors import DialError
from app.events import AgentSaid, CallAdmitted, EndReason, StreamOpened, TransferEnded
from app.realtime.events import ResponseCreate
from tests.fakes.carrier import FakeCall, FakeTwilio, Ringing
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import until
from tests.integration.server import ALL_OVER_S, App, trunkline
from tests.integration.transfer_site import answered, asks_for, transfer_site

REPLIES = [Reply(audio_ms=300)]


async def again(app: App, twilio: FakeTwilio, call: FakeCall | Ringing) -> Ringing:
    """The carrier's webhook once more: of a call that was answered, or that still rings."""
    ringing, status = (
        (call, "ringing") if isinstance(call, Ringing) else (call.ringing, "in-progress")
    )
    return await twilio.ring(app.url, call_sid=ringing.caller.call_id, status=status)


def token(ringing: Ringing) -> str:
    assert ringing.order is not None
    return ringing.order.parameters["token"]


async def one_turn(call: FakeCall) -> None:
    """Both are heard."""
    await call.hear_quiet(ms=200)
    await call.speak(0.4)
    await call.hear(ms=200)


# After the call -----------------------------------------------------------------------------------


async def replayed(app: App, twilio: FakeTwilio, call: FakeCall, status: str) -> None:
    """Assert that a copy of a webhook of this call opens nothing."""
    attempts = app.voice.attempts
    with pytest.raises(DialError) as refused:
        await twilio.ring(app.url, call_sid=call.ringing.caller.call_id, status=status)
    assert refused.value.code == "signature_refused"
    assert (app.switchboard.active, app.voice.attempts) == (0, attempts)


@pytest.mark.parametrize(
    ("status", "report"),
    [("ringing", None), ("ringing", "completed"), ("in-progress", "completed")],
)
async def test_a_copy_of_a_webhook_opens_nothing_after_the_call(
    status: str, report: str | None
) -> None:
    voice = ScriptedVoiceServer(replies=REPLIES)
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear(ms=200)
        await call.hang_up()
        await app.ended(call)
        if report is not None:
            await call.ringing.webhooks.report(report)
        await replayed(app, twilio, call, status)


async def test_a_copy_of_a_webhook_opens_nothing_after_a_restart(tmp_path: Path) -> None:
    voice = ScriptedVoiceServer(replies=REPLIES)
    async with voice:
        async with trunkline(voice, state_dir=tmp_path) as app, app.twilio() as twilio:
            call = await twilio.call(app.url)
            await call.hear(ms=200)
            await call.hang_up()
            await app.ended(call)
        async with trunkline(voice, state_dir=tmp_path) as app, app.twilio() as twilio:
            await replayed(app, twilio, call, "ringing")
            other = await twilio.call(app.url)
            await one_turn(other)
            await other.hang_up()


@pytest.mark.parametrize("reports", [[], ["ringing", "in-progress"]])
@pytest.mark.parametrize("settled", [True, False])
async def test_after_its_end_a_call_is_a_new_conversation(
    reports: list[str], settled: bool
) -> None:
    voice = ScriptedVoiceServer(replies=REPLIES)
    limits = {"max_calls": 1}  # a call that is ending takes no room from what follows it
    async with voice, trunkline(voice, limits=limits) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        first = await app.event(call, CallAdmitted)
        await call.hear(ms=200)
        for report in reports[:1]:
            await call.ringing.webhooks.report(report)
        await call.hang_up()
        if settled:
            await app.ended(call)
        for report in reports[1:]:
            await call.ringing.webhooks.report(report)
        following = await again(app, twilio, call)
        assert token(following) != token(call.ringing)
        back = await following.connect()
        await one_turn(back)
        assert (await app.event(back, CallAdmitted)).call_id != first.call_id
        await back.hang_up()
        assert (await app.ended(back)).reason is EndReason.CALLER_HUNG_UP
        assert len(voice.connections) == 2
        stale = await call.ringing.connect()
        assert (await stale.ended()).close_code == 1008


async def test_a_call_whose_stream_never_opened_is_a_new_conversation_as_well() -> None:
    voice = ScriptedVoiceServer(replies=REPLIES)
    async with voice, trunkline(voice, limits={"claim_s": 1}) as app, app.twilio() as twilio:
        ringing = await twilio.ring(app.url)
        assert (await app.ended(ringing, within_s=1 + ALL_OVER_S)).detail == "stream_not_opened"
        call = await (await again(app, twilio, ringing)).connect()
        await one_turn(call)
        await call.hang_up()


async def test_webhooks_after_the_call_are_one_conversation() -> None:
    voice = ScriptedVoiceServer(replies=REPLIES)
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear(ms=100)
        await call.hang_up()
        answers = await asyncio.gather(*(again(app, twilio, call) for _ in range(5)))
        assert len({token(answer) for answer in answers}) == 1
        back = await answers[0].connect()
        await one_turn(back)
        await back.hang_up()
        await app.ended(back)
        assert app.switchboard.active == 0


async def test_a_call_that_is_asked_for_many_times_is_remembered_once() -> None:
    voice = ScriptedVoiceServer(replies=REPLIES)
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        for _ in range(3):
            await call.hang_up()
            await app.ended(call)
            call = await (await again(app, twilio, call)).connect()
        await call.hang_up()
        await app.ended(call)
        assert list(app.switchboard._ended) == [call.identity.call_id]


async def test_a_server_that_drains_begins_no_new_conversation_and_keeps_the_old_one() -> None:
    voice = ScriptedVoiceServer(replies=REPLIES)
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        over = await twilio.call(app.url)
        call = await twilio.call(app.url)
        await call.hear(ms=200)
        await over.hang_up()
        await app.ended(over)
        app.trunkline.server.stop()
        await until(lambda: app.switchboard.draining)
        assert (await again(app, twilio, over)).order is None
        following = await (await again(app, twilio, call)).connect()
        await following.speak(0.4)  # the greeting may have been over before this stream
        await following.hear(ms=200)
        await following.hang_up()


# During the call ----------------------------------------------------------------------------------

Leave = Callable[[FakeCall], Awaitable[object]]


async def stays(call: FakeCall) -> None:
    """The old stream is open when the new one comes."""


async def stops(call: FakeCall) -> None:
    """Twilio ends the old stream first."""
    call.leave_stream()
    await call.ended()


async def breaks(call: FakeCall) -> None:
    await call.drop()


@pytest.mark.parametrize("leave", [stays, stops, breaks])
@pytest.mark.parametrize("webhooks", [1, 3])
@pytest.mark.parametrize("report", [None, "in-progress"])
async def test_another_stream_takes_a_live_call_over(
    leave: Leave, webhooks: int, report: str | None
) -> None:
    voice = ScriptedVoiceServer(replies=REPLIES)
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await one_turn(call)
        await call.hear_quiet(ms=200)
        answers = [await again(app, twilio, call) for _ in range(webhooks)]
        assert len({token(answer) for answer in answers}) == 1
        assert token(answers[0]) != token(call.ringing)
        if report is not None:
            await call.ringing.webhooks.report(report)
        await leave(call)
        back = await answers[-1].connect()
        if leave is stays:
            end = await call.ended()
            assert (end.by, end.close_code) == (EndedBy.AGENT, 1000)
        await app.event(back, StreamOpened)
        await back.speak(0.4)
        await back.hear(ms=200)
        for used in (call.ringing, answers[0]):
            refused = await used.connect()
            assert (await refused.ended()).close_code == 1008
        await back.hang_up()
        assert (await app.ended(back)).reason is EndReason.CALLER_HUNG_UP
        assert len(voice.connections) == 1
        events = await app.events(back)
        assert sum(isinstance(event, CallAdmitted) for event in events) == 1


async def test_a_call_is_taken_over_again_and_again() -> None:
    voice = ScriptedVoiceServer(replies=REPLIES)
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=200)
        for leave in (stays, stops, stays):
            following = await again(app, twilio, call)
            await leave(call)
            call = await following.connect()
            await call.speak(0.4)
            await call.hear(ms=200)
        await call.hang_up()
        assert (await app.ended(call)).reason is EndReason.CALLER_HUNG_UP
        assert len(voice.connections) == 1


async def test_of_two_streams_that_take_a_call_over_at_once_the_later_one_has_it() -> None:
    voice = ScriptedVoiceServer(replies=REPLIES)
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=200)
        call.freeze()  # its close takes a while, in which both come
        second = await (await again(app, twilio, call)).connect()
        third = await (await again(app, twilio, call)).connect()
        await second.ended()
        await third.speak(0.4)
        await third.hear(ms=200)
        await third.hang_up()
        assert (await app.ended(third)).reason is EndReason.CALLER_HUNG_UP


async def test_a_webhook_whose_stream_never_opens_changes_nothing() -> None:
    voice = ScriptedVoiceServer(replies=REPLIES)
    async with voice, trunkline(voice, limits={"claim_s": 1}) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=200)
        await again(app, twilio, call)
        await asyncio.sleep(1.2)  # the time in which it may open
        await one_turn(call)
        await call.hang_up()
        summary = await app.ended(call)
        assert (summary.reason, summary.detail) == (EndReason.CALLER_HUNG_UP, "")


@pytest.mark.parametrize("report", [False, True])
async def test_a_caller_who_hangs_up_right_after_such_a_webhook_has_hung_up(report: bool) -> None:
    voice = ScriptedVoiceServer(replies=REPLIES)
    claim_s = 30 if report else 1
    async with voice, trunkline(voice, limits={"claim_s": claim_s}) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=200)
        await again(app, twilio, call)
        await call.hang_up(report=report)
        summary = await app.ended(call, within_s=ALL_OVER_S + (0 if report else claim_s))
        assert summary.reason is EndReason.CALLER_HUNG_UP


async def test_a_webhook_gives_a_stream_that_is_late_its_time_again() -> None:
    voice = ScriptedVoiceServer(replies=REPLIES)
    async with voice, trunkline(voice, limits={"claim_s": 2}) as app, app.twilio() as twilio:
        ringing = await twilio.ring(app.url)
        for _ in range(2):
            await asyncio.sleep(1.2)  # together longer than the limit
            assert token(await again(app, twilio, ringing)) == token(ringing)
        call = await ringing.connect()
        await one_turn(call)
        await call.hang_up()


async def test_what_the_old_stream_cut_off_is_said_on_the_new_one() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=3_000), Reply(audio_ms=400)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear(ms=400)  # of the greeting
        following = await again(app, twilio, call)
        await stops(call)
        asked = len(voice.latest.of(ResponseCreate))
        back = await following.connect()
        await back.hear(ms=350)
        assert len(voice.latest.of(ResponseCreate)) == asked + 1
        await back.hang_up()
        said = [event for event in await app.events(back) if isinstance(event, AgentSaid)]
        assert said[0].cut_off


# While the caller is with somebody else -----------------------------------------------------------


async def test_a_caller_who_is_taken_from_a_transfer_is_back_with_the_agent() -> None:
    voice = ScriptedVoiceServer(replies=asks_for("transfer_call", destination="front_desk"))
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        await site.leaves(call)
        await site.is_away(call)
        following = await again(site.app, site.twilio, call)
        back = await site.comes_back(following)
        await back.hear(ms=200)
        assert (await answered(voice))["result"]["outcome"] == "unknown"
        assert (await site.app.event(call, TransferEnded)).evidence == "webhook=again"
        late = await site.dial_ends(call, "no-answer")  # its report, which changes nothing
        assert late.order is not None
        await back.hear_quiet(ms=200)
        assert not back.over
        await back.hang_up()
        assert (await site.app.ended(call)).reason is EndReason.CALLER_HUNG_UP


async def test_a_stream_that_comes_when_the_call_is_over_is_left_to_its_document() -> None:
    voice = ScriptedVoiceServer(replies=REPLIES)
    async with voice, trunkline(voice, limits={"claim_s": 1}) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=200)
        following = await again(app, twilio, call)
        await stops(call)
        await app.ended(call, within_s=1 + ALL_OVER_S)
        late = await following.connect()
        assert (await late.ended()).close_code == LOST
