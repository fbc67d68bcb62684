"""Warm transfers in real calls: the caller stays with the agent until the person has pressed 1."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.events import AgentSaid, CallEvent, EndReason, TransferEnded, TransferStarted
from app.realtime.events import Item, OutputItemDone
from tests.fakes.carrier import FakeCall
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import until
from tests.integration.transfer_site import (
    CALLER,
    FRONT_DESK,
    OURS,
    TransferSite,
    answered,
    asks_for,
    transfer_site,
)

TO_BOSS = asks_for("transfer_call", destination="boss", summary="Ann asks about her bill.")


@asynccontextmanager
async def transferring(**options: Any) -> AsyncIterator[tuple[TransferSite, FakeCall, str]]:
    """A call whose agent has a person called: the site, the call and the person's leg."""
    voice = options.pop("voice", None) or ScriptedVoiceServer(replies=list(TO_BOSS))
    async with voice, transfer_site(voice, **options) as site:
        call = await site.call()
        leg = await site.leg()
        yield site, call, leg
        assert all(posted.status == 200 for posted in site.phones.posted)
        call.assert_clean()


def voice_of(site: TransferSite) -> ScriptedVoiceServer:
    return site.app.voice


async def caller_moved(site: TransferSite, call: FakeCall) -> None:
    """Wait until the caller has left the stream for the conference, and go there."""
    await site.leaves(call)
    await site.phones.follow(call.identity.call_id)


def told(events: list[CallEvent]) -> list[tuple[str, str]]:
    ends = [event for event in events if isinstance(event, TransferEnded)]
    return [(end.destination, end.outcome) for end in ends]


async def stays(site: TransferSite, call: FakeCall) -> list[CallEvent]:
    """The caller is with the agent, who says so; then they hang up. What happened in the call."""
    said = await site.app.event(call, AgentSaid, lambda line: line.text == "I am still with you.")
    assert said.text
    assert not call.over
    await call.hang_up()
    assert (await site.app.ended(call)).reason is EndReason.CALLER_HUNG_UP
    return await site.app.events(call)


# The course of it ---------------------------------------------------------------------------------


async def test_caller_and_person_are_brought_together() -> None:
    async with transferring() as (site, call, leg):
        placed = site.api.calls[leg]
        assert (placed.to, placed.from_) == (FRONT_DESK, OURS)
        assert "Ann asks about her bill." in placed.verbs[0].children[0].text
        assert "Press 1" in placed.verbs[0].children[0].text
        await site.phones.ring(leg)
        await site.phones.pick_up(leg, answered_by="human")
        assert not call.over
        assert not site.at_carrier(call).documents
        await site.phones.press(leg, "1")
        await caller_moved(site, call)
        [room] = site.api.conferences.values()
        assert set(room.participants) == {leg, call.identity.call_id}
        assert site.app.switchboard.active == 1  # it counts until the two have hung up
        await site.phones.end(leg)
        summary = await site.app.ended(call)
        assert (summary.reason, summary.detail) == (EndReason.TRANSFERRED, "boss")
        assert told(await site.app.events(call)) == [("boss", "answered")]
        assert site.at_carrier(call).status == "completed"  # the document said so


async def test_the_caller_hears_it_ring_and_talks_with_the_agent_meanwhile() -> None:
    voice = ScriptedVoiceServer(
        replies=[*TO_BOSS[:2], Reply(audio_ms=400, text="Yes, still here.")]
    )
    async with transferring(voice=voice) as (site, call, leg):
        await site.app.event(call, AgentSaid, lambda line: line.text == "One moment.")
        await call.hear(ms=1_200)  # nobody speaks: it rings
        await call.speak(0.4)
        await site.app.event(call, AgentSaid, lambda line: line.text == "Yes, still here.")
        assert not call.stream.clears  # a phone that rings is not interrupted
        await call.hear(ms=600)  # and it rings again
        await site.phones.end(leg, "busy")
        await site.tool_ran(call)
        await call.hang_up()
        await site.app.ended(call)


async def test_a_wait_for_a_person_does_not_count_as_silence() -> None:
    policy = {"inactivity_after_ms": 300, "silence_ms": 900}
    async with transferring(policy=policy) as (site, call, leg):
        await asyncio.sleep(1.5)
        assert not call.over
        assert voice_of(site).created == 1  # nobody was asked whether they are there
        await site.phones.end(leg, "no-answer")
        await stays(site, call)


async def test_a_key_brings_a_person_to_the_phone_without_the_model() -> None:
    agents = {"agent": {"keypad": {"0": {"transfer": "boss"}}}}
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), Reply(audio_ms=300), Reply()])
    policy = {"inactivity_after_ms": 400, "silence_ms": 1_000}
    async with voice, transfer_site(voice, agents=agents, policy=policy) as site:
        call = await site.call()
        call.press("0")
        leg = await site.leg()
        await call.hear(ms=300)
        await asyncio.sleep(1.2)
        assert not call.over  # they wait for us
        await site.phones.pick_up(leg)
        await site.phones.press(leg, "1")
        await caller_moved(site, call)
        await site.phones.end(leg)
        assert (await site.app.ended(call)).reason is EndReason.TRANSFERRED


async def test_twilio_speaks_the_configured_language() -> None:
    twilio = {
        "say_language": "de-DE",
        "say_voice": "Polly.Vicki-Neural",
        "keys_hint": "Mit 1 annehmen.",
        "lost_message": "Leider getrennt.",
    }
    destinations = {"boss": {"number": FRONT_DESK, "mode": "warm", "announcement": "Ein Anruf."}}
    voice = ScriptedVoiceServer(replies=list(TO_BOSS))
    async with voice, transfer_site(voice, twilio=twilio, destinations=destinations) as site:
        call = await site.call()
        leg = await site.leg()
        [say] = site.api.calls[leg].verbs[0].children
        assert say.text == "Ein Anruf. Ann asks about her bill. Mit 1 annehmen."
        lost = next(verb for verb in call.ringing.verbs if verb.name == "Say")
        assert lost.text == "Leider getrennt."
        for said in (say, lost):
            assert said.attributes == {"voice": "Polly.Vicki-Neural", "language": "de-DE"}
        await call.hang_up()
        await site.app.ended(call)


# Nobody comes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "sip_code", "outcome"),
    [
        ("busy", None, "busy"),
        ("no-answer", None, "no_answer"),
        ("failed", 404, "failed"),
        ("busy", 603, "declined"),
    ],
)
async def test_a_phone_that_nobody_picks_up_leaves_the_caller_with_the_agent(
    status: str, sip_code: int | None, outcome: str
) -> None:
    async with transferring() as (site, call, leg):
        await site.phones.ring(leg)
        await site.phones.end(leg, status, sip_code=sip_code)
        assert (await answered(voice_of(site)))["result"]["outcome"] == outcome
        assert told(await stays(site, call)) == [("boss", outcome)]
        assert not site.at_carrier(call).documents


@pytest.mark.parametrize(("key", "outcome"), [("2", "declined"), ("", "voicemail")])
async def test_a_person_who_does_not_accept_is_hung_up(key: str, outcome: str) -> None:
    async with transferring() as (site, call, leg):
        await site.phones.pick_up(leg)
        await (site.phones.press(leg, key) if key else site.phones.keep_silent(leg))
        assert (await answered(voice_of(site)))["result"]["outcome"] == outcome
        assert site.api.calls[leg].status == "completed"
        await stays(site, call)


async def test_a_machine_is_hung_up_on() -> None:
    async with transferring() as (site, call, leg):
        await site.phones.pick_up(leg, answered_by="machine_start")
        assert (await answered(voice_of(site)))["result"]["outcome"] == "voicemail"
        await until(lambda: site.api.calls[leg].status == "completed")
        await site.phones.report_end(leg)
        await stays(site, call)


async def test_a_machine_that_is_detected_after_the_key_is_a_person() -> None:
    async with transferring() as (site, call, leg):
        await site.phones.pick_up(leg)
        await site.phones.press(leg, "1")
        placed = site.api.calls[leg]
        verdict = {"AnsweredBy": "machine_start"}
        await site.phones.post(placed, placed.option("AsyncAmdStatusCallback"), verdict)
        await caller_moved(site, call)
        assert placed.status == "in-progress"
        await site.phones.end(leg)
        assert (await site.app.ended(call)).reason is EndReason.TRANSFERRED


async def test_reports_that_come_twice_and_in_disorder_change_nothing() -> None:
    async with transferring() as (site, call, leg):
        placed = site.api.calls[leg]
        status_url = placed.option("StatusCallback")
        await site.phones.pick_up(leg)
        for late in ("initiated", "ringing", "in-progress", "ringing"):
            placed.status, now = late, placed.status
            await site.phones.post(placed, status_url, {})
            placed.status = now
        key_url = placed.verbs[0].attributes["action"]
        first = await site.phones.post(placed, key_url, {"Digits": "1"})
        again = await site.phones.post(placed, key_url, {"Digits": "1"})
        assert first.text == again.text
        assert "<Conference" in first.text
        await site.leaves(call)
        assert len(site.at_carrier(call).documents) == 1  # moved once
        placed.documents.append(first.text)
        await site.phones.follow(leg)
        await site.phones.follow(call.identity.call_id)
        await site.phones.end(leg)
        summary = await site.app.ended(call)
        assert (summary.reason, summary.detail) == (EndReason.TRANSFERRED, "boss")
        for late in ("in-progress", "completed", "ringing"):
            placed.status = late
            await site.phones.post(placed, status_url, {})


# The caller hangs up ------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["ringing", "asked"])
async def test_the_consult_leg_ends_when_the_caller_hangs_up(phase: str) -> None:
    async with transferring() as (site, call, leg):
        await site.phones.ring(leg)
        if phase == "asked":
            await site.phones.pick_up(leg)
        await call.hang_up()
        assert (await site.app.ended(call)).reason is EndReason.CALLER_HUNG_UP
        assert site.api.calls[leg].status in ("canceled", "completed")
        assert told(await site.app.events(call)) == [("boss", "canceled")]
        if phase == "asked":  # and if the person presses the key at that moment
            placed = site.api.calls[leg]
            url = placed.verbs[0].attributes["action"]
            late = await site.phones.post(placed, url, {"Digits": "1"})
            assert "<Hangup" in late.text


async def test_a_caller_who_hangs_up_in_the_conversation_with_the_person() -> None:
    async with transferring() as (site, call, leg):
        await site.phones.pick_up(leg)
        await site.phones.press(leg, "1")
        await caller_moved(site, call)
        await call.ringing.webhooks.report("completed", duration_s=40)  # before all else
        summary = await site.app.ended(call)
        assert (summary.reason, summary.detail) == (EndReason.TRANSFERRED, "boss")
        await site.phones.end(call.identity.call_id)
        assert site.api.calls[leg].status == "completed"


async def test_a_person_who_accepts_at_the_instant_in_which_the_caller_leaves() -> None:
    async with transferring() as (site, call, leg):
        await site.phones.pick_up(leg)
        site.at_carrier(call).status = "completed"  # Twilio knows it before we do
        await site.phones.press(leg, "1")
        await until(lambda: site.api.calls[leg].status == "completed")
        await call.hang_up()
        assert (await site.app.ended(call)).reason is EndReason.CALLER_HUNG_UP


async def test_a_caller_who_hangs_up_on_the_way_frees_the_person() -> None:
    async with transferring() as (site, call, leg):
        await site.phones.pick_up(leg)
        await site.phones.press(leg, "1")
        await site.leaves(call)  # and never arrives
        site.at_carrier(call).status = "completed"
        await call.ringing.webhooks.report("completed", duration_s=4)
        assert (await site.app.ended(call)).reason is EndReason.CALLER_HUNG_UP
        assert site.api.calls[leg].status == "completed"


async def test_a_leg_whose_placing_was_overtaken_by_the_hang_up_does_not_ring_on() -> None:
    voice = ScriptedVoiceServer(replies=list(TO_BOSS))
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        site.api.lose_answer()  # it is placed, and we do not hear so
        leg = await site.leg()
        await call.hang_up()
        assert (await site.app.ended(call)).reason is EndReason.CALLER_HUNG_UP
        await site.phones.ring(leg)
        await until(lambda: site.api.calls[leg].status != "ringing")
        site.api.drop()


async def test_a_person_who_hangs_up_while_the_caller_is_on_the_way_gives_them_back() -> None:
    async with transferring() as (site, call, leg):
        await site.phones.pick_up(leg)
        await site.phones.press(leg, "1")
        await site.leaves(call)
        await until(lambda: bool(site.app.switchboard._live))
        await site.phones.end(leg)
        await until(lambda: len(site.at_carrier(call).documents) == 2)
        back = await site.comes_back(site.dialed_on(call))
        await back.hear(ms=200)
        assert (await answered(voice_of(site)))["result"]["outcome"] == "declined"
        await back.hang_up()
        await site.app.ended(call)


# The carrier says no ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "times"),
    [(429, 20429, 3), (500, 20500, 1), (404, 20404, 1), (400, 21210, 1)],
)
async def test_a_leg_that_is_refused_leaves_the_caller_with_the_agent(
    status: int, code: int, times: int
) -> None:
    voice = ScriptedVoiceServer(replies=list(TO_BOSS))
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        site.api.fail(status, code, times=times)
        assert (await answered(voice))["result"]["outcome"] == "failed"
        events = await stays(site, call)
        [end] = [event for event in events if isinstance(event, TransferEnded)]
        assert end.evidence.startswith("place=")


async def test_a_leg_that_rings_although_its_request_failed_is_let_go() -> None:
    voice = ScriptedVoiceServer(replies=list(TO_BOSS))
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        site.api.lose_answer(504)
        leg = await site.leg()
        assert (await answered(voice))["result"]["outcome"] == "failed"
        await site.phones.ring(leg)
        await until(lambda: site.api.calls[leg].status == "canceled")
        await stays(site, call)


@pytest.mark.parametrize(("status", "code"), [(500, 20500), (400, 21220)])
async def test_a_move_that_is_refused_leaves_the_caller_and_frees_the_person(
    status: int, code: int
) -> None:
    async with transferring() as (site, call, leg):
        await site.phones.pick_up(leg)
        site.api.fail(status, code)
        await site.phones.press(leg, "1")
        back = call
        if status == 500:  # nobody knows: a new stream brings the caller back for certain
            await until(lambda: bool(site.at_carrier(call).documents))
            back = await site.comes_back(site.dialed_on(call))
            await back.hear(ms=200)
        assert (await answered(voice_of(site)))["result"]["outcome"] == "failed"
        await until(lambda: site.api.calls[leg].status == "completed")
        await back.hang_up()
        await site.app.ended(call)


async def test_a_conference_that_fails_brings_the_caller_back() -> None:
    async with transferring() as (site, call, leg):
        await site.phones.pick_up(leg)
        await site.phones.press(leg, "1")
        await site.leaves(call)
        back = await site.comes_back(await site.dial_ends(call, "failed"))
        await back.hear(ms=200)
        assert (await answered(voice_of(site)))["result"]["outcome"] == "failed"
        await until(lambda: site.api.calls[leg].status == "completed")
        await back.hang_up()
        await site.app.ended(call)


# Limits, second thoughts, strangers ---------------------------------------------------------------


async def test_the_agent_stops_a_transfer_for_a_caller_who_has_changed_their_mind() -> None:
    stop = Item(
        type="function_call",
        id="item_stop",
        call_id="call_stop",
        name="cancel_transfer",
        arguments="{}",
        status="completed",
    )
    async with transferring() as (site, call, leg):
        await site.phones.ring(leg)
        voice_of(site).latest.emit(OutputItemDone("resp_stop", 0, stop))
        await until(lambda: site.api.calls[leg].status == "canceled")
        assert told(await stays(site, call)) == [("boss", "canceled")]


async def test_a_second_transfer_waits_for_the_end_of_the_first() -> None:
    second = Item(
        type="function_call",
        id="item_second",
        call_id="call_second",
        name="transfer_call",
        arguments=json.dumps({"destination": "front_desk"}),
        status="completed",
    )
    async with transferring() as (site, call, leg):
        voice_of(site).latest.emit(OutputItemDone("resp_second", 0, second))
        assert (await site.tool_ran(call)).error == "line_busy"
        assert not site.at_carrier(call).documents
        await site.phones.end(leg, "busy")
        await stays(site, call)


async def test_the_longest_call_ends_while_it_rings_and_nobody_is_called_any_more() -> None:
    policy = {"max_duration_ms": 3_000, "duration_warning_ms": 0, "closing_prompt": ""}
    async with transferring(policy=policy) as (site, call, leg):
        await site.phones.ring(leg)
        summary = await site.app.ended(call, within_s=6)
        assert summary.reason is EndReason.MAX_DURATION
        assert site.api.calls[leg].status == "canceled"


async def test_the_longest_call_does_not_part_the_two() -> None:
    policy = {"max_duration_ms": 4_000, "duration_warning_ms": 0}
    async with transferring(policy=policy) as (site, call, leg):
        await site.phones.pick_up(leg)
        await site.phones.press(leg, "1")
        await caller_moved(site, call)
        summary = await site.app.ended(call, within_s=6)
        assert (summary.reason, summary.detail) == (EndReason.TRANSFERRED, "max_duration")
        assert site.api.calls[leg].status == "in-progress"
        # A report of long ago, repeated, does not part them either.
        placed = site.api.calls[leg]
        await site.phones.post(placed, placed.option("StatusCallback"), {})
        assert placed.status == "in-progress"


async def test_draining_while_it_rings_ends_the_consult_leg() -> None:
    policy = {"closing_prompt": ""}
    async with transferring(policy=policy) as (site, call, leg):
        await site.phones.ring(leg)
        await site.app.switchboard.drain(0.1)
        assert (await site.app.ended(call)).reason is EndReason.DRAINED
        assert site.api.calls[leg].status == "canceled"


async def test_a_model_that_is_lost_while_it_rings_is_replaced() -> None:
    voice = ScriptedVoiceServer(replies=list(TO_BOSS))
    async with transferring(voice=voice) as (site, call, leg):
        await site.phones.ring(leg)
        voice.latest.drop()
        await until(lambda: len(voice.connections) == 2)
        await site.phones.pick_up(leg)
        await site.phones.press(leg, "1")
        await caller_moved(site, call)
        await site.phones.end(leg)
        assert (await site.app.ended(call)).reason is EndReason.TRANSFERRED


async def test_no_more_than_five_attempts_are_made_in_a_call() -> None:
    again = ("transfer_call", json.dumps({"destination": "boss"}))
    replies = [TO_BOSS[0], *[Reply(audio_ms=60, tool=again) for _ in range(6)], Reply(audio_ms=200)]
    voice = ScriptedVoiceServer(replies=replies)
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        for attempt in range(1, 6):
            await until(lambda n=attempt: len(site._legs()) == n)  # type: ignore[misc]
            await site.phones.end(site._legs()[-1], "busy")
        await until(lambda: voice.created == 7)
        assert len(site._legs()) == 5
        assert (await answered(voice, 5))["code"] == "transfer_limit"
        await call.hang_up()
        await site.app.ended(call)
        events = await site.app.events(call)
        assert sum(isinstance(event, TransferStarted) for event in events) == 5


async def test_unsigned_webhooks_of_a_leg_change_nothing() -> None:
    async with transferring() as (site, call, leg):
        await site.phones.pick_up(leg)
        placed, right = site.api.calls[leg], site.api.auth_token
        site.api.auth_token = "forged"
        for url, fields in (
            (placed.verbs[0].attributes["action"], {"Digits": "1"}),
            (placed.option("StatusCallback"), {"CallStatus": "completed"}),
            (placed.option("AsyncAmdStatusCallback"), {"AnsweredBy": "machine_start"}),
            (placed.option("StatusCallback").replace("leg-status", "conference"), {}),
        ):
            posted = await site.phones.post(placed, url, fields)
            assert (posted.status, "transfer" in posted.text) == (403, False)
        site.phones.posted.clear()
        site.api.auth_token = right
        assert not call.over
        assert not site.at_carrier(call).documents
        assert CALLER not in json.dumps([request.form for request in site.api.requests])
        await site.phones.end(leg, "busy")
        await stays(site, call)


async def test_a_caller_who_is_taken_from_the_person_leaves_them_and_may_be_transferred_again() -> (
    None
):
    asks = (*TO_BOSS[1:2],)
    voice = ScriptedVoiceServer(replies=[*TO_BOSS, *asks, TO_BOSS[2]])
    async with transferring(voice=voice) as (site, call, leg):
        await site.phones.ring(leg)
        await site.phones.pick_up(leg, answered_by="human")
        await site.phones.press(leg, "1")
        await caller_moved(site, call)
        await site.app.event(call, TransferEnded)
        following = await site.twilio.ring(site.app.url, call_sid=call.identity.call_id)
        back = await site.comes_back(following)
        assert (await answered(voice))["result"]["outcome"] == "unknown"
        await until(lambda: site.api.calls[leg].status == "completed")
        await back.hear(ms=200)
        await back.hear_quiet(ms=200)
        await back.speak(0.4)
        await until(lambda: site.leg_count == 2)
        await back.hang_up()
        assert (await site.app.ended(call)).reason is EndReason.CALLER_HUNG_UP
        assert told(await site.app.events(call)) == [("boss", "answered"), ("boss", "canceled")]
