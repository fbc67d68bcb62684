"""Noises, silence, keys and greetings that must be heard, over real sockets."""

from __future__ import annotations

import json
import logging

import pytest

from app.calls.policy import InactivityTexts
from app.dial.leg import EndedBy
from app.events import (
    AgentSaid,
    BargeIn,
    EndReason,
    KeyPressed,
    SpeechResumed,
    StreamOpened,
    ToolRan,
)
from app.realtime.events import SAY_METADATA_KEY, ItemDelete, ResponseCreate, SessionUpdate, Unset
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import until
from tests.integration.server import GREETING, trunkline


def said_for_us(voice: ScriptedVoiceServer) -> list[str]:
    """The sentences that the model was asked to say word for word."""
    configs = [create.response for create in voice.latest.of(ResponseCreate)]
    metadata = [config.metadata for config in configs if config is not None]
    return [str(m[SAY_METADATA_KEY]) for m in metadata if not isinstance(m, Unset)]


# False interruptions ------------------------------------------------------------------------------


async def test_after_a_cough_the_agent_goes_on_where_it_was() -> None:
    replies = [Reply(audio_ms=4000), Reply(audio_ms=500, text="Pardon?")]
    voice = ScriptedVoiceServer(replies=replies, heard=[""])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.barge_in(0.3, after_ms=1000)
        resumed = await app.event(call, SpeechResumed)
        said = await app.event(call, AgentSaid)
        await voice.until(lambda: len(voice.items) == 1)
        heard_ms = call.heard_ms
        await call.hang_up()
        counters = (await app.ended(call)).counters
        call.assert_clean()
        [(item_id, truncated_ms)] = voice.truncated
        [rest] = voice.items
        assert len(call.stream.clears) == 1  # the agent was silent at once all the same
        assert len(voice.latest.of(ItemDelete)) >= 1
    assert (resumed.item_id, resumed.heard_ms) == (item_id, truncated_ms)
    assert 0 < truncated_ms < 4000
    # Sound that was heard since the last mark is heard twice, and nothing is missing.
    assert 4000 <= heard_ms <= 5500
    assert (said.heard_text, said.cut_off) == (GREETING, False)
    assert rest.role == "assistant"
    assert GREETING.endswith(rest.content[0].text or "?")
    assert (counters.false_interruptions, counters.barge_ins, counters.turns) == (1, 1, 0)


async def test_the_agents_own_voice_on_a_speakerphone_does_not_interrupt() -> None:
    replies = [Reply(audio_ms=4000), Reply(audio_ms=500, text="Pardon?")]
    voice = ScriptedVoiceServer(replies=replies, heard=[GREETING.lower()])
    async with voice, trunkline(voice, policy={"echo_guard": True}) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.barge_in(0.3, after_ms=1000)
        await app.event(call, SpeechResumed)
        said = await app.event(call, AgentSaid)
        await call.hang_up()
        counters = (await app.ended(call)).counters
        call.assert_clean()
        assert len(voice.latest.of(ItemDelete)) >= 1  # the model forgets that it was heard
    assert (said.heard_text, said.cut_off) == (GREETING, False)
    assert (counters.false_interruptions, counters.turns) == (1, 0)


async def test_words_end_the_answer_for_good() -> None:
    replies = [Reply(audio_ms=4000), Reply(audio_ms=500, text="Yes?")]
    voice = ScriptedVoiceServer(replies=replies, heard=["Wait, stop."])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.barge_in(0.3, after_ms=1000)
        yes = await app.event(call, AgentSaid, lambda line: line.text == "Yes?")
        await call.hang_up()
        call.assert_clean()
        events = await app.events(call)
    assert not yes.cut_off
    assert not [event for event in events if isinstance(event, SpeechResumed)]
    assert [line.cut_off for line in events if isinstance(line, AgentSaid)] == [True, False]


# Silence ------------------------------------------------------------------------------------------


async def test_a_silent_caller_is_asked_and_then_told_goodbye() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    texts = InactivityTexts(prompts=("Are you there?",), closing_prompt="Bye then.")
    policy = {"inactivity_after_ms": 300, "inactivity_texts": texts}
    async with voice, trunkline(voice, policy=policy) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        assert (await call.ended()).by is EndedBy.AGENT
        assert (await app.ended(call)).reason is EndReason.SILENCE
        call.assert_clean()
        assert said_for_us(voice) == [GREETING, "Are you there?", "Bye then."]


async def test_a_silent_caller_who_speaks_during_the_goodbye_stays_connected() -> None:
    replies = [Reply(audio_ms=300), Reply(audio_ms=3_000), Reply(audio_ms=300, text="Yes?")]
    voice = ScriptedVoiceServer(replies=replies, heard=["Hello? I am here."])
    texts = InactivityTexts(prompts=(), closing_prompt="Bye then.")
    policy = {"inactivity_after_ms": 300, "silence_ms": 400, "inactivity_texts": texts}
    async with voice, trunkline(voice, policy=policy) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear(ms=300)
        await call.hear_quiet(ms=300)
        await call.barge_in(0.4, after_ms=500)
        await app.event(call, AgentSaid, lambda line: line.text == "Yes?")
        assert not call.over
        # Silent again, they are not waited for without end.
        assert (await call.ended()).by is EndedBy.AGENT
        assert (await app.ended(call)).reason is EndReason.SILENCE


# Keys ---------------------------------------------------------------------------------------------


async def test_a_key_works_before_anybody_has_spoken() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=3000), Reply(audio_ms=400)])
    agents = {"agent": {"keypad": {"1": {"say": "We open at nine."}}}}
    async with voice, trunkline(voice, agents=agents) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await app.event(call, StreamOpened)
        call.press("1")
        said = await app.event(call, AgentSaid, lambda line: line.text == "We open at nine.")
        await call.hang_up()
        call.assert_clean()
        assert voice.items == []  # the model knows of no key
        assert "We open at nine." in said_for_us(voice)  # before the greeting, or after it
    assert not said.cut_off


async def test_digits_reach_the_model_and_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    question = Reply(
        audio_ms=400, text="Your PIN, please.", tool=("collect_digits", '{"max_digits": 4}')
    )
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), question, Reply(audio_ms=300)])
    agents = {"agent": {"tools": ["collect_digits"]}}
    async with voice, trunkline(voice, agents=agents) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        await call.speak(0.4)
        await app.event(call, AgentSaid, lambda line: line.text == "Your PIN, please.")
        call.press("8642")
        await until(lambda: bool(voice.items))
        [answer] = voice.items
        await call.hang_up()
        call.assert_clean()
        events = await app.events(call)
    assert json.loads(answer.output or "") == {"digits": "8642", "end": "complete"}
    assert [event.digit for event in events if isinstance(event, KeyPressed)] == ["\u2022"] * 4
    assert "8642" not in repr(events)
    ours = [record for record in caplog.records if record.name.startswith(("app", "trunkline"))]
    clock = {"created", "msecs", "relativeCreated", "process", "thread"}  # any digits at all
    told = [{k: v for k, v in vars(record).items() if k not in clock} for record in ours]
    assert "8642" not in repr(told)
    [ran] = [event for event in events if isinstance(event, ToolRan)]
    assert (ran.name, ran.error) == ("collect_digits", "")


# Greetings that must be heard ---------------------------------------------------------------------


@pytest.mark.parametrize("held", [False, True])
async def test_a_protected_greeting_is_heard_to_its_end(held: bool) -> None:
    greeting = Reply(audio_ms=3000, hold_after_ms=1500 if held else None)
    answer = Reply(audio_ms=500, text="At nine.")
    voice = ScriptedVoiceServer(replies=[greeting, answer], heard=["When do you open?"])
    model = {"interruptible_greeting": False}
    async with voice, trunkline(voice, model=model) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.barge_in(0.4, after_ms=500)
        if held:
            await call.hear_quiet(ms=800)  # the caller's turn is over, the greeting is not
            free = voice.latest.free
            assert free is not None
            free.release()
        said = await app.event(call, AgentSaid, lambda line: line.text == "At nine.")
        await call.hang_up()
        call.assert_clean()
        events = await app.events(call)
        assert call.stream.clears == []
        assert voice.truncated == []
        updates = voice.latest.of(SessionUpdate)
        interrupts = [update.session.turn_detection.interrupt_response for update in updates]
    assert interrupts == [False, True]
    assert not said.cut_off
    assert not [event for event in events if isinstance(event, BargeIn)]
    first = next(line for line in events if isinstance(line, AgentSaid))
    assert (first.heard_text, first.cut_off) == (GREETING, False)
