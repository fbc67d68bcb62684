"""Callers of the offline receptionist: the real engine behind the real server, by keypad."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from app.events import AgentSaid, CallerSaid, EndReason
from audio.g711 import encode_ulaw
from audio.wav import read_wav
from tests.fakes.voice import ScriptedVoiceServer
from tests.fakes.waiting import time_limit, until
from tests.integration.server import trunkline
from tests.integration.transfer_site import FRONT_DESK, transfer_site

pytestmark = pytest.mark.offline_speech

SPEECH = Path(__file__).parents[1] / "data" / "caller"
ENGINE = {
    "workers": 1,
    "business": "the test office",
    "hours": "We are open from nine to five.",
    "address": "One Test Street.",
}


def question() -> bytes:
    with (SPEECH / "hours.wav").open("rb") as file:
        _, samples = read_wav(file)
    return encode_ulaw(samples)


async def test_a_caller_who_asks_for_a_person_is_put_through_and_taken_back() -> None:
    async with ScriptedVoiceServer() as nobody, transfer_site(nobody, offline=ENGINE) as site:
        ringing = await site.twilio.ring(site.app.url)
        site.api.add_call(ringing.caller.call_id)
        call = await site._connect(ringing)
        await call.hear(ms=400)
        call.press("0")
        dial = await site.leaves(call)
        assert [noun.text for noun in dial.children] == [FRONT_DESK]

        back = await site.comes_back(await site.dial_ends(call, "no-answer"))
        await back.hear(ms=600)
        await back.hang_up()
        assert (await site.app.ended(call)).reason is EndReason.CALLER_HUNG_UP
        said = [e.text for e in await site.app.events(call) if isinstance(e, AgentSaid)]
        assert said[1] == "One moment, I am connecting you."
        assert said[2].startswith("Nobody answered. Would you like to leave a message?")


async def test_what_a_caller_says_is_written_down_as_unverified() -> None:
    async with ScriptedVoiceServer() as nobody, trunkline(nobody, offline=ENGINE) as app:
        async with app.twilio() as twilio:
            call = await twilio.call(app.url)
            await call.hear(ms=400)
            await call.speak(question())
            said = await app.event(call, CallerSaid)
            await call.hang_up()
        assert (said.text, said.unverified) == ("when are you open", True)


async def test_a_caller_who_only_presses_keys_is_told_the_hours_and_seen_off() -> None:
    async with ScriptedVoiceServer() as nobody, trunkline(nobody, offline=ENGINE) as app:
        async with app.twilio() as twilio:
            call = await twilio.call(app.url)
            await call.hear(ms=400)
            call.press("1")
            await call.hear(ms=1_000)
            call.press("8")
            summary = await app.ended(call, within_s=10)
        assert summary.reason is EndReason.AGENT_HUNG_UP
        said = [e.text for e in await app.events(call) if isinstance(e, AgentSaid)]
        assert said[1].startswith("We are open")
        assert said[2:] == ["Thank you for calling. Goodbye."]


def process_of(module: str) -> int:
    """Our worker process that runs a module."""
    listed = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    if not listed.exists():
        pytest.skip("needs /proc")
    (pid,) = (
        int(child)
        for child in listed.read_text().split()
        if module.encode() in Path(f"/proc/{child}/cmdline").read_bytes()
    )
    return pid


@pytest.mark.parametrize("part", ["recognizer", "synthesizer"])
async def test_a_speech_part_that_hangs_is_named_and_keeps_nobody_in_silence(part: str) -> None:
    """In real time, some seconds: those that a worker may take."""
    module = f"app.engine.speech.{part}_worker"
    async with ScriptedVoiceServer() as nobody, trunkline(nobody, offline=ENGINE) as app:

        async def until_degraded(codes: list[str]) -> None:
            async with time_limit():
                while (ready := await app.get("/readyz")).json()["degraded"] != codes:
                    assert ready.status_code == 200
                    await asyncio.sleep(0.05)

        async with app.twilio(1.0) as twilio:
            await until_degraded([])
            call = await twilio.call(app.url)
            await call.hear(ms=400)
            await call.hear_quiet(ms=300)
            os.kill(process_of(module), signal.SIGSTOP)
            await call.speak(question())
            began_ms, heard_ms = call.now_ms, call.heard_ms
            await until_degraded([f"offline_{part}_down"])
            await until(lambda: call.over or call.heard_ms > heard_ms + 200)
            assert call.now_ms - began_ms < 12_000  # 8 s are the promise on a machine that has time
            await until_degraded([])
            await call.drop()


async def test_a_call_that_another_stream_takes_over_goes_on_where_it_was_cut() -> None:
    async with ScriptedVoiceServer() as nobody, trunkline(nobody, offline=ENGINE) as app:
        async with app.twilio() as twilio:
            call = await twilio.call(app.url)
            for press in ("", "1"):  # once during the greeting, once during an answer
                await call.hear(ms=600)
                if press:
                    call.press(press)
                    await call.hear(ms=1_000)
                following = await twilio.ring(app.url, call_sid=call.identity.call_id)
                call.leave_stream()
                await call.ended()
                call = await following.connect()
            await call.wait_for(lambda: call.counters.frames_sent > 50)
            call.press("1")
            await call.hear(ms=1_000)
            await call.hang_up()
            summary = await app.ended(call)
        assert summary.reason is EndReason.CALLER_HUNG_UP
        said = [e.text for e in await app.events(call) if isinstance(e, AgentSaid)]
        assert said[0].split()[0] == said[1].split()[0]  # the greeting, from its beginning
        assert said[-1].startswith("We are open")


async def test_the_receptionist_gives_the_notice_of_a_recording_and_then_greets() -> None:
    rules = {"enabled": True, "notice": "We record this call."}
    async with (
        ScriptedVoiceServer() as nobody,
        trunkline(nobody, offline=ENGINE, recording=rules) as app,
        app.twilio() as twilio,
    ):
        call = await twilio.call(app.url)
        await call.hear(ms=300)
        await call.speak(0.4)  # which stops nothing
        await app.event(call, AgentSaid, lambda said: "the test office" in said.text)
        await call.hang_up()
        said = [e for e in await app.events(call) if isinstance(e, AgentSaid)]
    assert said[0].text == "We record this call." and not said[0].cut_off
    assert not call.stream.clears
