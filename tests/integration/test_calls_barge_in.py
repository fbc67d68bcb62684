"""Callers interrupt: the agent stops at once, and the model is told what was really heard."""

from __future__ import annotations

from app.events import AgentSaid, BargeIn, CallerSaid, KeyPressed
from app.realtime.events import (
    AudioDelta,
    AudioTranscriptDelta,
    ItemTruncate,
    ResponseCancel,
    SpeechStarted,
)
from audio.format import PCM16_24K, PCMU_8K
from tests.fakes.voice import Reply, ScriptedVoiceServer, tone
from tests.fakes.waiting import until
from tests.integration.server import GREETING, trunkline

SILENT = Reply(never_starts=True)
"""No answer: what the caller has heard until then is one reply only."""


def heard_ms(sound: bytes | bytearray) -> int:
    return len(sound) // PCMU_8K.ms_to_bytes(1)


async def test_a_barge_in_while_the_model_generates_stops_it() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=6000, hold_after_ms=3000), SILENT])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.barge_in(0.4, after_ms=800)
        barge_in = await app.event(call, BargeIn)
        await voice.until(lambda: len(voice.truncated) == 1)
        await call.wait_for(lambda: len(call.stream.clears) == 1)
        await call.hang_up()
        call.assert_clean()
        item_id, truncated_ms = voice.truncated[0]
        assert voice.cancelled == 0  # the model cancels by itself, as its settings say
    assert 0 < truncated_ms <= heard_ms(call.agent_sound) < 3000
    assert (barge_in.item_id, barge_in.heard_ms) == (item_id, truncated_ms)


async def test_a_barge_in_long_after_generation_ended_still_stops_the_agent() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=8000, text="A long story."), SILENT])
    async with voice, trunkline(voice) as app, app.twilio(speed=1) as twilio:
        call = await twilio.call(app.url)
        await call.wait_for(lambda: call.counters.agent_audio_ms == 8000)  # all of it was sent
        await call.barge_in(0.3, after_ms=1000)
        await voice.until(lambda: len(voice.truncated) == 1)
        await call.hang_up()
        call.assert_clean()
        truncated_ms = voice.truncated[0][1]
        said = await app.event(call, AgentSaid)
    heard = heard_ms(call.agent_sound)
    # Knowledge of what was heard is as old as the last mark, and a mark stands every 200 ms.
    assert heard - 500 <= truncated_ms <= heard < 4000
    assert said.cut_off
    assert GREETING.startswith(said.heard_text)
    assert said.heard_text != GREETING


async def test_what_was_cleared_is_not_heard_and_its_marks_count_for_nothing() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=5000), SILENT])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.barge_in(0.4, after_ms=500)
        await call.wait_for(lambda: len(call.stream.clears) == 1)
        await call.wait_for(lambda: any(mark.cleared for mark in call.stream.marks))
        heard = heard_ms(call.agent_sound)
        await call.hear_quiet(ms=600)
        await call.hang_up()
        call.assert_clean()
        said = await app.event(call, AgentSaid)
    assert heard_ms(call.agent_sound) == heard
    assert said.cut_off  # returned marks of cleared sound would have made it heard to the end


async def test_sound_that_arrives_after_the_barge_in_is_dropped() -> None:
    voice = ScriptedVoiceServer(
        replies=[Reply(audio_ms=3000, hold_after_ms=2000), SILENT, Reply(audio_ms=400)]
    )
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.barge_in(0.4, after_ms=500)
        await voice.until(lambda: len(voice.truncated) == 1)
        item_id = voice.truncated[0][0]
        # The fake numbers a response one below its item.
        response_id = f"resp_{int(item_id.removeprefix('item_')) - 1}"
        place = (response_id, item_id, 0, 0)
        for _ in range(5):
            voice.latest.emit(AudioTranscriptDelta(*place, "late "))
            voice.latest.emit(AudioDelta(*place, tone(PCM16_24K, 100)))
        before = heard_ms(call.agent_sound)
        call.press("1")  # asks for the third reply, which comes behind the late sound
        await call.hear(ms=400)
        await call.hear_quiet(ms=300)
        await call.hang_up()
        call.assert_clean()
        counters = (await app.ended(call)).counters
    assert heard_ms(call.agent_sound) == before + 400
    assert counters.stale_audio_dropped_ms == 500


async def test_two_barge_ins_in_a_row_cut_two_answers() -> None:
    voice = ScriptedVoiceServer(
        replies=[
            Reply(audio_ms=5000, text="unused"),
            Reply(audio_ms=5000, text="one two three four five six seven eight nine ten"),
            Reply(audio_ms=400, text="At last."),
        ],
        heard=["Stop.", "Stop again."],
    )
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        for _ in range(2):
            await call.barge_in(0.4, after_ms=600)
        await call.hear(ms=400)
        await call.hear_quiet(ms=300)
        await call.hang_up()
        call.assert_clean()
        events = await app.events(call)
        counters = (await app.ended(call)).counters
        items = [item_id for item_id, _ in voice.truncated]
    assert len(set(items)) == len(items) == len(call.stream.clears) == counters.barge_ins == 2
    lines = [event for event in events if isinstance(event, AgentSaid | CallerSaid)]
    assert [(line.text, getattr(line, "cut_off", None)) for line in lines[1:]] == [
        ("Stop.", None),
        ("one two three four five six seven eight nine ten", True),
        ("Stop again.", None),
        ("At last.", False),
    ]


async def test_a_model_that_does_not_cancel_by_itself_is_told_to() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=6000, hold_after_ms=3000), SILENT])
    model = {"turn_detection": {"type": "server_vad", "interrupt_response": False}}
    async with voice, trunkline(voice, model=model) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.barge_in(0.4, after_ms=500)
        await voice.until(lambda: voice.cancelled == 1)
        await call.hang_up()
        call.assert_clean()
        kinds = [type(event) for event in voice.latest.events]
    assert kinds.index(ResponseCancel) < kinds.index(ItemTruncate)


async def test_speech_that_starts_when_all_was_heard_interrupts_nothing() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=400)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        await call.speak(0.4)
        await call.hear(ms=300)
        await call.hang_up()
        call.assert_clean()
        assert voice.truncated == []
    assert call.stream.clears == []


async def test_a_model_that_repeats_itself_costs_the_caller_nothing() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=5000), SILENT])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear(ms=300)
        for _ in range(3):
            voice.latest.emit(SpeechStarted("item_again", 300))
        await call.wait_for(lambda: len(call.stream.clears) == 1)
        await call.hang_up()
        counters = (await app.ended(call)).counters
        assert len(voice.truncated) == 1
    assert counters.barge_ins == 1


async def test_a_key_is_given_to_the_model_which_answers() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), Reply(audio_ms=500)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        call.press("5")
        await call.hear(ms=500)
        await call.hang_up()
        call.assert_clean()
        assert (await app.event(call, KeyPressed)).digit == "5"
        assert [item.content[0].text for item in voice.items] == ["[keypad] 5"]


async def test_a_key_interrupts_the_agent() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=6000), Reply(audio_ms=500)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear(ms=500)
        call.press("0")
        await call.wait_for(lambda: len(call.stream.clears) == 1)
        await call.hear(ms=200)
        await call.hang_up()
        call.assert_clean()
        assert len(voice.truncated) == 1


async def test_keys_in_quick_succession_arrive_in_their_order() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        call.press("1234#")
        await until(lambda: len(voice.items) == 5)
        await call.hear(ms=200)
        await call.hang_up()
        call.assert_clean()
        texts = [item.content[0].text for item in voice.items]
    assert texts == [f"[keypad] {digit}" for digit in "1234#"]
