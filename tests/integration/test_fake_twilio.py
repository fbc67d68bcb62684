"""The fake carrier behaves as a carrier does: each is shown against a live server."""

from __future__ import annotations

import asyncio
import json

import pytest

from app.dial.leg import EndedBy, LegEnd
from app.errors import DialError
from tests.fakes.caller import phrase, silence
from tests.fakes.carrier import FakeTwilio
from tests.integration.frame_clocked_server import AUTH_TOKEN, CallTimers, serve


def twilio(speed: float = 8.0) -> FakeTwilio:
    return FakeTwilio(auth_token=AUTH_TOKEN, speed=speed)


async def test_a_call_is_heard_spoken_to_and_hung_up() -> None:
    async with serve(CallTimers(answer_ms=600)) as server, twilio() as carrier:
        call = await carrier.call(server.url)
        await call.hear(ms=400)
        await call.speak(phrase("hours"))
        await call.hear(ms=600)
        assert await call.hang_up(report=True) == LegEnd(EndedBy.CALLER, 1000)
        call.assert_clean()
        await asyncio.wait_for(server.over.wait(), 5)
    assert server.stopped
    assert server.statuses[-1]["CallStatus"] == "completed"
    assert len(call.agent_sound) == 1_000 * 8
    assert phrase("hours") in bytes(call.caller_sound)


async def test_a_barge_in_clears_the_line_and_returns_the_marks() -> None:
    async with serve(CallTimers(answer_ms=20_000)) as server, twilio() as carrier:
        call = await carrier.call(server.url)
        await call.hear_quiet(ms=200)
        await call.speak(0.5)
        await call.barge_in(0.5, after_ms=400)
        assert [(mark.name, mark.cleared) for mark in call.stream.marks] == [
            ("hello", False),
            ("answer-1", True),
        ]
        await call.wait_for(lambda: len(server.marks) == 2)


async def test_many_calls_are_placed_at_once() -> None:
    async with serve() as server, twilio(speed=4) as carrier:
        calls = await asyncio.gather(*(carrier.call(server.url) for _ in range(20)))
        await asyncio.gather(*(call.hear(ms=400) for call in calls))
        await asyncio.gather(*(call.hang_up() for call in calls))
        assert len({call.identity.call_id for call in calls}) == 20
    assert len(server.marks) == 20


async def test_the_servers_hang_up_is_seen() -> None:
    async with serve(CallTimers(goodbye_after=1)) as server, twilio() as carrier:
        call = await carrier.call(server.url)
        await call.speak(0.5)
        assert await call.ended() == LegEnd(EndedBy.AGENT, 1000)
        with pytest.raises(AssertionError, match="the call was over before that"):
            await call.wait_for(lambda: False)


async def test_a_reset_connection_sends_neither_stop_nor_close() -> None:
    async with serve() as server, twilio() as carrier:
        call = await carrier.call(server.url)
        await call.hear(ms=100)
        await call.drop()
        assert (await call.ended()).by is EndedBy.LOST
        await asyncio.wait_for(server.over.wait(), 5)
    assert not server.stopped


async def test_a_connection_can_end_without_a_word() -> None:
    async with serve() as server, twilio() as carrier:
        call = await carrier.call(server.url)
        await call.hear(ms=100)
        await call.close_silently()
        await asyncio.wait_for(server.over.wait(), 5)
    assert not server.stopped


async def test_leaving_the_block_ends_every_call() -> None:
    async with serve() as server:
        async with twilio() as carrier:
            call = await carrier.call(server.url)
        assert (await call.ended()).by is EndedBy.LOST


async def test_a_forged_webhook_and_a_forged_handshake_are_refused() -> None:
    async with serve() as server, twilio() as carrier:
        with pytest.raises(DialError) as refused:
            await carrier.ring(server.url, auth_token="forged")
        assert refused.value.code == "signature_refused"
        ringing = await carrier.ring(server.url)
        with pytest.raises(DialError) as refused:
            await ringing.connect(auth_token="forged")
        assert refused.value.code == "31920"


async def test_a_stream_can_be_opened_twice_for_one_webhook() -> None:
    async with serve() as server, twilio() as carrier:
        ringing = await carrier.ring(server.url)
        first, second = await ringing.connect(), await ringing.connect()
        await asyncio.gather(first.hear(ms=100), second.hear(ms=100))
        assert first.identity.call_id == second.identity.call_id
        assert first.identity.parameters == second.identity.parameters == {"token": "t0ken"}
        assert first.identity.stream_id != second.identity.stream_id


async def test_anything_can_be_sent_raw() -> None:
    async with serve() as server, twilio() as carrier:
        call = await carrier.call(server.url)
        await call.hear_quiet(ms=100)
        await call.send_raw(json.dumps({"event": "dtmf", "dtmf": {"digit": "raw"}}))
        call.press("7")
        await call.wait_for(lambda: server.digits == ["raw", "7"])


async def test_a_muted_caller_leaves_a_gap() -> None:
    async with serve() as server, twilio() as carrier:
        call = await carrier.call(server.url)
        await call.hear(ms=100)
        call.mute()
        sent = call.counters.frames_sent
        await call.wait_for(lambda: call.counters.frames_discarded >= 25)
        assert call.counters.frames_sent == sent
        call.mute(False)
        await call.wait_for(lambda: call.counters.frames_sent > sent)


async def test_a_server_that_breaks_the_rules_fails_the_assertion() -> None:
    async with serve(CallTimers(bad_messages=("?",))) as server, twilio() as carrier:
        call = await carrier.call(server.url)
        await call.wait_for(lambda: call.counters.faults == 1)
        with pytest.raises(AssertionError, match="31951"):
            call.assert_clean()


async def test_waiting_in_vain_tells_how_the_call_stands() -> None:
    async with serve(CallTimers(greeting_ms=0)) as server, twilio() as carrier:
        call = await carrier.call(server.url)
        with pytest.raises(AssertionError, match=r"not within 0\.2 s: still open, heard 0 ms"):
            await call.hear(ms=1, within_s=0.2)


async def test_silence_is_sent_between_words() -> None:
    async with serve() as server, twilio() as carrier:
        call = await carrier.call(server.url)
        await call.wait_for(lambda: call.counters.frames_sent >= 10)
        assert bytes(call.caller_sound[:800]) == silence(100)


async def test_a_frozen_caller_takes_nothing_more() -> None:
    async with serve(CallTimers(answer_ms=500)) as server, twilio() as carrier:
        call = await carrier.call(server.url)
        await call.hear_quiet(ms=100)
        received = call.counters.media_received
        call.freeze()
        await call.speak(0.5)
        await call.wait_for(lambda: len(server.lines) == 2)  # the server has answered
        sent = call.counters.frames_sent
        await call.wait_for(lambda: call.counters.frames_sent >= sent + 25)
        assert call.counters.media_received == received
