"""Callers are transferred, and come back when nobody answers: the same call, on another stream."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest

from app.calls.call import Call
from app.calls.conversation.floor import REST_MS
from app.errors import DialError
from app.events import AgentSaid, EndReason, TransferEnded, VoiceReady
from app.realtime.events import Item, OutputItemDone
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import TIME_LIMIT_S, until
from tests.integration.server import ALL_OVER_S
from tests.integration.transfer_site import (
    CALLER,
    FRONT_DESK,
    OURS,
    answered,
    asks_for,
    output,
    transfer_site,
)

TO_FRONT_DESK = asks_for("transfer_call", destination="front_desk")

# Somebody answers ---------------------------------------------------------------------------------


async def test_a_caller_is_transferred_after_hearing_the_agent_out() -> None:
    voice = ScriptedVoiceServer(replies=TO_FRONT_DESK)
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        dial = await site.leaves(call)
        assert dial.name == "Dial"
        assert dial.attributes["callerId"] == OURS
        assert [noun.text for noun in dial.children] == [FRONT_DESK]
        assert call.heard_ms >= 600 - 40  # the greeting and the announcement, to their end
        assert site.app.switchboard.active == 1

        after = await site.dial_ends(call, "completed", DialBridged="true")
        assert [verb.name for verb in after.verbs] == ["Hangup"]
        summary = await site.app.ended(call)
        assert (summary.reason, summary.detail) == (EndReason.TRANSFERRED, "front_desk")
        # The document ends the call: it needs no REST request.
        assert len(site.api.requests) == 1


async def test_a_long_transfer_does_not_count_as_silence_and_needs_no_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[int] = []
    watch_away = Call._watch_away

    def counted(call: Call) -> None:
        looks.append(call._now_ms())
        watch_away(call)

    monkeypatch.setattr(Call, "_watch_away", counted)
    voice = ScriptedVoiceServer(replies=TO_FRONT_DESK)
    async with voice, transfer_site(voice, policy={"silence_ms": 300}) as site:
        call = await site.call()
        await site.leaves(call)
        await site.is_away(call)
        voice.latest.drop()
        await until(lambda: not voice.open_connections, within_s=ALL_OVER_S)
        await asyncio.sleep(1.0)  # three times the silence that would end a call
        assert looks[-1] - looks[0] >= REST_MS * (
            len(looks) - 1
        )  # nor is it looked at all the time
        assert (site.app.switchboard.active, voice.attempts) == (1, 1)
        await site.dial_ends(call, "completed")
        assert (await site.app.ended(call)).reason is EndReason.TRANSFERRED


@pytest.mark.parametrize("destination", ["front_desk", "boss"])
async def test_a_transferred_call_whose_reports_are_lost_is_not_held_for_hours(
    destination: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.calls.call.LOOK_EVERY_MS", 100)
    voice = ScriptedVoiceServer(replies=asks_for("transfer_call", destination=destination))
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        if destination == "boss":  # a warm one
            leg = await site.leg()
            await site.phones.pick_up(leg)
            await site.phones.press(leg, "1")
        await site.leaves(call)
        await site.is_away(call)

        def looks() -> int:
            return sum(asked.method == "GET" for asked in site.api.requests)

        await until(lambda: looks() >= 2)  # while they talk with each other
        site.api.fail(503, times=3)
        await until(lambda: not site.api.troubles)
        assert site.app.switchboard.active == 1
        site.at_carrier(call).status = "completed"
        summary = await site.app.ended(call, within_s=TIME_LIMIT_S)
        assert (summary.reason, summary.detail) == (EndReason.TRANSFERRED, "not_reported")
        assert all(asked.method == "GET" for asked in site.api.requests[-2:])


# Nobody answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "fields", "outcome"),
    [
        ("busy", {}, "busy"),
        ("no-answer", {}, "no_answer"),
        ("failed", {}, "failed"),
        ("failed", {"DialSipResponseCode": "603"}, "declined"),
        ("completed", {"DialBridged": "false"}, "declined"),
    ],
)
async def test_the_agent_takes_the_caller_back(
    status: str, fields: dict[str, str], outcome: str
) -> None:
    voice = ScriptedVoiceServer(replies=TO_FRONT_DESK)
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        await site.leaves(call)
        back = await site.comes_back(await site.dial_ends(call, status, **fields))
        await back.hear(ms=350)
        assert output(voice)["result"]["outcome"] == outcome
        assert back.identity.stream_id != call.identity.stream_id

        await back.hear_quiet(ms=300)
        await back.speak(0.4)  # the conversation goes on, in both directions
        await back.hear(ms=350)
        await back.hang_up()
        assert (await site.app.ended(call)).reason is EndReason.CALLER_HUNG_UP
        events = await site.app.events(call)
        assert sum(isinstance(event, VoiceReady) for event in events) == 1
        said = [event for event in events if isinstance(event, AgentSaid)]
        assert [line.text for line in said][1:3] == [
            "One moment.",
            "I am still with you.",
        ]
        assert not any(line.cut_off for line in said[:3])
        back.assert_clean()


async def test_a_model_that_is_lost_meanwhile_is_replaced_when_the_caller_is_back() -> None:
    voice = ScriptedVoiceServer(replies=TO_FRONT_DESK)
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        await site.leaves(call)
        await site.is_away(call)
        voice.replies = [Reply(audio_ms=400, text="There you are.")]
        voice.latest.drop()
        await until(lambda: not voice.open_connections, within_s=ALL_OVER_S)
        back = await site.comes_back(await site.dial_ends(call, "busy"))
        await back.hear(ms=350)
        assert len(voice.connections) == 2
        assert output(voice)["result"]["outcome"] == "busy"
        await back.hang_up()
        await site.app.ended(call)


async def test_a_caller_is_transferred_a_second_time() -> None:
    again = ("transfer_call", json.dumps({"destination": "anna"}))
    voice = ScriptedVoiceServer(replies=[*TO_FRONT_DESK[:2], Reply(audio_ms=200, tool=again)])
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        await site.leaves(call)
        first = site.at_carrier(call).verbs[0].attributes["action"]
        back = await site.comes_back(await site.dial_ends(call, "no-answer"))
        await back.ended()
        await until(lambda: len(site.at_carrier(call).documents) == 2)
        # The first one's report once more, late: it changes nothing.
        late = await site.post(call, first, "in-progress", DialCallStatus="no-answer")
        assert late.order is None
        await site.dial_ends(call, "completed")
        summary = await site.app.ended(call)
        assert (summary.reason, summary.detail) == (EndReason.TRANSFERRED, "anna")


async def test_a_report_that_comes_twice_is_answered_twice() -> None:
    voice = ScriptedVoiceServer(replies=TO_FRONT_DESK)
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        await site.leaves(call)
        first = await site.dial_ends(call, "busy")
        again = await site.dial_ends(call, "busy")
        assert first.order == again.order
        back = await site.comes_back(first)
        await back.hear(ms=200)
        await back.hang_up()
        await site.app.ended(call)


async def test_the_token_of_the_way_back_opens_one_stream() -> None:
    voice = ScriptedVoiceServer(replies=TO_FRONT_DESK)
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        await site.leaves(call)
        ringing = await site.dial_ends(call, "busy")
        assert ringing.order is not None
        old = call.ringing.order
        assert old is not None
        assert ringing.order.parameters["token"] != old.parameters["token"]
        used = await ringing.connect(parameters=dict(old.parameters))
        assert (await used.ended()).close_code == 1008
        back = await site.comes_back(ringing)
        await back.hear(ms=200)
        twice = await ringing.connect()
        assert (await twice.ended()).close_code == 1008
        assert not back.over
        await back.hang_up()
        await site.app.ended(call)


async def test_a_caller_who_never_comes_back_is_not_waited_for() -> None:
    voice = ScriptedVoiceServer(replies=TO_FRONT_DESK)
    async with voice, transfer_site(voice, limits={"claim_s": 1}) as site:
        call = await site.call()
        await site.leaves(call)
        await site.dial_ends(call, "busy")
        summary = await site.app.ended(call, within_s=1 + ALL_OVER_S)
        assert (summary.reason, summary.detail) == (EndReason.CARRIER_LOST, "stream_not_opened")


# The caller -----------------------------------------------------------------------------------


async def test_a_caller_who_hangs_up_in_mid_transfer_ends_the_call() -> None:
    voice = ScriptedVoiceServer(replies=TO_FRONT_DESK)
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        await site.leaves(call)
        await call.ringing.webhooks.report("completed", duration_s=9)
        assert (await site.app.ended(call)).reason is EndReason.CALLER_HUNG_UP
        gone = await site.dial_ends(call, "no-answer", CallStatus="completed")
        assert gone.order is None


async def test_the_report_of_the_transfer_may_tell_that_the_caller_is_gone() -> None:
    voice = ScriptedVoiceServer(replies=TO_FRONT_DESK)
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        await site.leaves(call)
        gone = await site.dial_ends(call, "no-answer", CallStatus="completed")
        assert gone.order is None
        assert (await site.app.ended(call)).reason is EndReason.CALLER_HUNG_UP


async def test_a_caller_who_speaks_before_the_transfer_stays() -> None:
    voice = ScriptedVoiceServer(
        replies=asks_for("transfer_call", audio_ms=3_000, destination="front_desk")
    )
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        await call.barge_in(0.4, after_ms=400)
        assert (await answered(voice))["code"] == "caller_spoke"
        await call.hear_quiet(ms=300)
        assert not site.api.requests
        await call.hang_up()
        await site.app.ended(call)


@pytest.mark.parametrize(
    ("status", "trouble", "reason"),
    [
        ("completed", None, EndReason.CALLER_HUNG_UP),
        ("in-progress", None, EndReason.CARRIER_LOST),
        ("completed", 500, EndReason.CARRIER_LOST),  # nobody can tell, and nobody waits for it
    ],
)
async def test_of_a_stream_that_breaks_the_carrier_knows_whether_the_caller_has_hung_up(
    status: str, trouble: int | None, reason: EndReason
) -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        site.at_carrier(call).status = status
        if trouble is not None:
            site.api.fail(trouble, times=3)
        await call.drop()
        assert (await site.app.ended(call)).reason is reason


async def test_a_cough_does_not_stop_a_transfer() -> None:
    replies = asks_for("transfer_call", audio_ms=3_000, destination="front_desk")
    voice = ScriptedVoiceServer(replies=replies, heard=["Anna, please.", ""])
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        await call.barge_in(0.3, after_ms=1_000)
        assert (await site.leaves(call)).name == "Dial"
        assert call.heard_ms >= 3_300 - 40  # the greeting, and the announcement to its end
        await site.dial_ends(call, "completed")
        assert (await site.app.ended(call)).counters.false_interruptions == 1


async def test_a_caller_who_hangs_up_on_the_person_was_transferred_in_either_order_of_reports() -> (
    None
):
    voice = ScriptedVoiceServer(replies=TO_FRONT_DESK)
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        await site.leaves(call)
        await site.is_away(call)
        await call.ringing.webhooks.report("completed", duration_s=90)
        await site.dial_ends(call, "completed", CallStatus="completed", DialBridged="true")
        summary = await site.app.ended(call)
        assert (summary.reason, summary.detail) == (EndReason.TRANSFERRED, "front_desk")
        assert (await site.app.event(call, TransferEnded)).outcome == "answered"


# The carrier says no ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "times"),
    [(429, 20429, 3), (500, 20500, 1), (404, 20404, 1), (400, 21210, 1)],
)
async def test_a_transfer_that_the_carrier_refuses_leaves_the_caller_with_the_agent(
    status: int, code: int, times: int
) -> None:
    voice = ScriptedVoiceServer(replies=TO_FRONT_DESK)
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        site.api.fail(status, code, times=times)
        assert (await site.tool_ran(call)).error == "transfer_failed"
        await until(lambda: voice.created == 2)
        await call.hear_quiet(ms=300)
        assert len(site.api.requests) == times
        assert not call.over
        await call.hang_up()
        assert (await site.app.ended(call)).reason is EndReason.CALLER_HUNG_UP


async def test_a_caller_who_hangs_up_while_the_carrier_is_asked_is_gone() -> None:
    voice = ScriptedVoiceServer(replies=TO_FRONT_DESK)
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        site.at_carrier(call).status = "completed"  # Twilio knows it before we do
        await until(lambda: bool(site.api.requests))
        await call.hang_up()
        assert (await site.app.ended(call)).reason is EndReason.CALLER_HUNG_UP


# Strangers, and a model that was talked into something --------------------------------------------


async def test_a_forged_report_is_refused_and_changes_nothing() -> None:
    voice = ScriptedVoiceServer(replies=TO_FRONT_DESK)
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        await site.leaves(call)
        webhooks = call.ringing.webhooks
        webhooks._auth_token, right = "f" * 31 + "e", webhooks._auth_token
        with pytest.raises(DialError) as refused:
            await site.dial_ends(call, "completed")
        assert refused.value.code == "signature_refused"
        webhooks._auth_token = right
        other = await site.post(
            call,
            "/twilio/after-transfer?transfer=another-one",
            "in-progress",
            DialCallStatus="busy",
        )
        assert [verb.name for verb in other.verbs] == ["Hangup"]
        assert site.app.switchboard.active == 1
        await site.dial_ends(call, "completed")
        assert (await site.app.ended(call)).reason is EndReason.TRANSFERRED


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("transfer_call", '{"destination": "+19005550100"}'),
        ("transfer_call", '{"destination": "sip:thief@example.net"}'),
        ("transfer_call", '{"destination": "back_door"}'),
        ("transfer_call", '{"destination": ["front_desk"]}'),
        ("transfer_call", '{"destination": "front_desk", "number": "+19005550100"}'),
        ("transfer_call", '{"destination": null}'),
        ("transfer_call", "{}"),
        ("transfer_call", "front_desk"),
        ("send_dtmf", '{"digits": "12<Dial>"}'),
        ("send_dtmf", '{"digits": "wwww"}'),
        ("send_dtmf", '{"digits": "%s"}' % ("W" * 60)),
        ("send_sms", '{"to": "+19005550100", "body": "Hello."}'),
        ("send_sms", '{"to": "anna", "body": "Hello."}'),
        ("send_sms", '{"to": "caller", "body": "%s"}' % ("x" * 481)),
        ("send_sms", '{"to": "caller", "body": "   "}'),
    ],
)
async def test_a_hostile_request_of_the_model_reaches_no_carrier(tool: str, arguments: str) -> None:
    replies = [Reply(audio_ms=200), Reply(audio_ms=200, tool=(tool, arguments)), Reply()]
    voice = ScriptedVoiceServer(replies=replies)
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        assert (await site.tool_ran(call)).error
        await until(lambda: voice.created == 2)
        assert not site.api.requests
        await call.hang_up()
        await site.app.ended(call)


async def test_a_second_transfer_meanwhile_is_refused() -> None:
    voice = ScriptedVoiceServer(replies=TO_FRONT_DESK)
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        await site.leaves(call)
        second = Item(
            type="function_call",
            id="item_second",
            call_id="call_second",
            name="transfer_call",
            arguments='{"destination": "anna"}',
            status="completed",
        )
        voice.latest.emit(OutputItemDone("resp_second", 0, second))
        assert (await site.tool_ran(call)).error == "line_busy"
        assert len(site.api.requests) == 1
        await site.dial_ends(call, "completed")
        await site.app.ended(call)


# Tones and messages -------------------------------------------------------------------------------


async def test_tones_go_out_and_the_conversation_goes_on() -> None:
    voice = ScriptedVoiceServer(replies=asks_for("send_dtmf", digits="1w2#"))
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        play = await site.leaves(call)
        assert (play.name, play.attributes) == ("Play", {"digits": "1w2#"})
        ringing = site.dialed_on(call)
        back = await site.comes_back(ringing)
        await back.hear(ms=350)
        assert output(voice) == {"result": "The tones were sent."}
        assert len(voice.connections) == 1
        await back.hear_quiet(ms=300)
        await back.speak(0.4)
        await back.hear(ms=350)
        await back.hang_up()
        summary = await site.app.ended(call)
        assert (summary.reason, summary.counters.barge_ins) == (EndReason.CALLER_HUNG_UP, 0)
        back.assert_clean()


async def test_a_new_stream_ends_one_that_the_carrier_is_late_to_end() -> None:
    voice = ScriptedVoiceServer(replies=asks_for("send_dtmf", digits="1w2#"))
    async with voice, transfer_site(voice) as site:
        site.api.redirected = lambda _call: None  # the old stream stays open
        call = await site.call()
        await until(lambda: bool(site.at_carrier(call).documents))
        back = await site.comes_back(site.dialed_on(call))
        assert (await call.ended(within_s=3)).close_code == 1000
        await back.hear(ms=350)
        await back.hang_up()
        assert (await site.app.ended(call)).reason is EndReason.CALLER_HUNG_UP
        back.assert_clean()


async def test_a_caller_gets_a_text_message() -> None:
    voice = ScriptedVoiceServer(replies=asks_for("send_sms", to="caller", body="Tuesday, nine."))
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        assert not (await site.tool_ran(call)).error
        [message] = site.api.messages
        assert (message["to"], message["from"], message["body"]) == (CALLER, OURS, "Tuesday, nine.")
        assert not call.over
        await call.hang_up()
        await site.app.ended(call)


async def test_a_caller_gets_no_more_text_messages_in_a_day_than_is_allowed() -> None:
    voice = ScriptedVoiceServer(replies=asks_for("send_sms", to="caller", body="Tuesday, nine."))
    limits = {"per_caller": {"sms_per_day": 1}}
    async with voice, transfer_site(voice, limits=limits) as site:
        for error in ("", "sms_limit"):
            call = await site.call()
            assert (await site.tool_ran(call)).error == error
            await call.hang_up()
            await site.app.ended(call)
        assert len(site.api.messages) == 1


# Screening and queues -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("digits", "answer", "outcome"), [("2", ["Hangup"], "declined"), ("", ["Hangup"], "voicemail")]
)
async def test_a_person_who_does_not_press_1_is_not_connected(
    digits: str, answer: list[str], outcome: str
) -> None:
    voice = ScriptedVoiceServer(replies=asks_for("transfer_call", destination="guarded"))
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        dial = await site.leaves(call)
        asked = await site.post(call, dial.children[0].attributes["url"], "in-progress")
        gather = asked.verbs[0]
        assert gather.name == "Gather"
        assert "guarded" in gather.children[0].text
        key = await site.post(call, gather.attributes["action"], "in-progress", Digits=digits)
        assert [verb.name for verb in key.verbs] == answer
        back = await site.comes_back(await site.dial_ends(call, "completed"))
        await back.hear(ms=200)
        assert output(voice)["result"]["outcome"] == outcome
        await back.hang_up()
        await site.app.ended(call)


async def test_a_person_who_presses_1_is_connected() -> None:
    summary = "It is about a booking."
    voice = ScriptedVoiceServer(
        replies=asks_for("transfer_call", destination="guarded", summary=summary)
    )
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        dial = await site.leaves(call)
        asked = await site.post(call, dial.children[0].attributes["url"], "in-progress")
        assert summary in asked.verbs[0].children[0].text
        url = asked.verbs[0].attributes["action"]
        key = await site.post(call, url, "in-progress", Digits="1")
        assert not key.verbs
        await site.dial_ends(call, "completed")
        assert (await site.app.ended(call)).reason is EndReason.TRANSFERRED


@pytest.mark.parametrize("verdict", ["machine_start", "machine_end_beep", "fax"])
async def test_a_machine_that_picked_up_is_left_and_the_caller_comes_back(verdict: str) -> None:
    voice = ScriptedVoiceServer(replies=asks_for("transfer_call", destination="listened"))
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        dial = await site.leaves(call)
        url = dial.children[0].attributes["amdStatusCallback"]
        machine = site.api.add_call("CA" + "c" * 32)
        await site.phones.post(machine, url, {"AnsweredBy": verdict})
        await until(lambda: machine.status == "completed")
        # It was connected until then: only the verdict tells what that was.
        back = await site.comes_back(await site.dial_ends(call, "completed", DialBridged="true"))
        assert (await answered(voice))["result"]["outcome"] == "voicemail"
        await back.hear(ms=200)
        await back.hang_up()
        await site.app.ended(call)


@pytest.mark.parametrize("verdict", ["human", "unknown"])
async def test_a_person_who_picked_up_is_not_parted_from_the_caller(verdict: str) -> None:
    voice = ScriptedVoiceServer(replies=asks_for("transfer_call", destination="listened"))
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        dial = await site.leaves(call)
        person = site.api.add_call("CA" + "c" * 32)
        url = dial.children[0].attributes["amdStatusCallback"]
        await site.phones.post(person, url, {"AnsweredBy": verdict})
        await site.dial_ends(call, "completed", DialBridged="true")
        assert (await site.app.ended(call)).reason is EndReason.TRANSFERRED
        assert person.status == "in-progress"


# Goodbyes ---------------------------------------------------------------------------------------


async def test_a_caller_who_keys_a_transfer_during_the_goodbye_is_not_hung_up_on() -> None:
    goodbye = ("end_call", '{"reason": "task_complete"}')
    replies = [Reply(audio_ms=300), Reply(audio_ms=3_000, text="Goodbye.", tool=goodbye), Reply()]
    voice = ScriptedVoiceServer(replies=replies)
    agents = {"agent": {"keypad": {"0": {"transfer": "front_desk"}}}}
    async with voice, transfer_site(voice, agents=agents) as site:
        call = await site.call()
        await call.hear(ms=600)
        call.press("0")
        assert (await site.leaves(call)).name == "Dial"
        back = await site.comes_back(await site.dial_ends(call, "busy"))
        await back.hear(ms=100)
        await back.hear_quiet(ms=1_500)
        assert not back.over
        assert not [request for request in site.api.requests if "Status" in request.fields]
        await back.hang_up()
        assert (await site.app.ended(call)).reason is EndReason.CALLER_HUNG_UP


async def test_a_key_during_the_goodbye_keeps_the_caller_connected() -> None:
    goodbye = ("end_call", '{"reason": "task_complete"}')
    replies = [Reply(audio_ms=300), Reply(audio_ms=3_000, text="Goodbye.", tool=goodbye), Reply()]
    voice = ScriptedVoiceServer(replies=replies)
    agents = {"agent": {"keypad": {"1": {"say": "We open at nine."}}}}
    async with voice, transfer_site(voice, agents=agents) as site:
        call = await site.call()
        await call.hear(ms=600)
        call.press("1")
        await site.app.event(call, AgentSaid, lambda line: line.text == "We open at nine.")
        assert not call.over
        await call.hang_up()
        assert (await site.app.ended(call)).reason is EndReason.CALLER_HUNG_UP


async def test_a_queue_is_left_when_the_wait_is_over() -> None:
    voice = ScriptedVoiceServer(replies=asks_for("transfer_call", destination="line"))
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        enqueue = await site.leaves(call)
        assert (enqueue.name, enqueue.text) == ("Enqueue", "support")
        wait = enqueue.attributes["waitUrl"]
        early = await site.post(call, wait, "in-progress", QueueTime="3")
        late = await site.post(call, wait, "in-progress", QueueTime="20")
        assert [early.verbs[0].name, late.verbs[0].name] == ["Pause", "Leave"]
        action = enqueue.attributes["action"]
        left = await site.post(call, action, "in-progress", QueueResult="leave", QueueTime="20")
        back = await site.comes_back(left)
        await back.hear(ms=200)
        assert output(voice)["result"]["outcome"] == "no_answer"
        await back.hang_up()
        await site.app.ended(call)


# Limits while the caller is elsewhere -------------------------------------------------------------


async def test_draining_does_not_part_a_caller_from_the_person() -> None:
    voice = ScriptedVoiceServer(replies=TO_FRONT_DESK)
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        await site.leaves(call)
        await until(lambda: _is_away(site))
        await site.app.switchboard.drain(0.1)
        summary = await site.app.ended(call)
        assert (summary.reason, summary.detail) == (EndReason.TRANSFERRED, "drained")
        assert (await site.app.event(call, TransferEnded)).outcome == "unknown"
        assert len(site.api.requests) == 1
        assert (await site.dial_ends(call, "busy")).order is None


async def test_the_longest_call_is_over_for_us_while_people_talk_on() -> None:
    voice = ScriptedVoiceServer(replies=TO_FRONT_DESK)
    async with voice, transfer_site(voice, policy={"max_duration_ms": 3_000}) as site:
        call = await site.call()
        await site.leaves(call)
        summary = await site.app.ended(call, within_s=5)
        assert (summary.reason, summary.detail) == (EndReason.TRANSFERRED, "max_duration")
        assert (await site.app.event(call, TransferEnded)).outcome == "unknown"
        assert len(site.api.requests) == 1


async def test_an_operator_ends_a_call_whose_caller_was_transferred() -> None:
    voice = ScriptedVoiceServer(replies=TO_FRONT_DESK)
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        await site.leaves(call)
        [call_id] = site.app.switchboard._live
        assert site.app.switchboard.hang_up(call_id)
        assert (await site.app.ended(call)).reason is EndReason.OPERATOR_HUNG_UP
        assert site.at_carrier(call).status == "completed"


def _is_away(site: Any) -> bool:
    return all(call._caller_leg.away for call in site.app.switchboard._live.values())


# When the agent is lost ---------------------------------------------------------------------------


async def test_a_fallback_stands_behind_every_stream() -> None:
    voice = ScriptedVoiceServer(replies=TO_FRONT_DESK)
    numbers = {OURS: {"fallback": "front_desk"}}
    async with voice, transfer_site(voice, numbers=numbers) as site:
        call = await site.call()
        await site.leaves(call)
        ringing = await site.dial_ends(call, "busy")
        for document in (call.ringing, ringing):
            connect, say, dial, hang_up = document.verbs
            assert (connect.name, say.name, hang_up.name) == ("Connect", "Say", "Hangup")
            assert [noun.text for noun in dial.children] == [FRONT_DESK]
            assert "action" not in dial.attributes  # we may be gone
        back = await site.comes_back(ringing)
        await back.hear(ms=200)
        await back.hang_up()
        await site.app.ended(call)


async def test_a_transfer_whose_answer_is_lost_goes_on() -> None:
    voice = ScriptedVoiceServer(replies=TO_FRONT_DESK)
    async with voice, transfer_site(voice) as site:
        rest = cast("Any", site.app.switchboard._carrier)._carrier._rest
        rest._timeout_s = rest._http.timeout = 0.3
        call = await site.call()
        site.api.lose_answer()
        await site.leaves(call)
        back = await site.comes_back(await site.dial_ends(call, "busy"))
        await back.hear(ms=200)
        assert output(voice)["result"]["outcome"] == "busy"
        await back.hang_up()
        await site.app.ended(call)


async def test_a_stopped_server_leaves_people_talking() -> None:
    voice = ScriptedVoiceServer(replies=TO_FRONT_DESK)
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        await site.leaves(call)
        await until(lambda: _is_away(site))
        site.app.trunkline.server.stop()
        site.app.trunkline.server.stop()  # twice: it waits for no call
        assert (await site.app.ended(call)).reason is EndReason.TRANSFERRED
        assert len(site.api.requests) == 1
