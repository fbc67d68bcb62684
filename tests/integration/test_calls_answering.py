"""A call is answered, greeted and talked with: the ordinary course of things."""

from __future__ import annotations

from itertools import pairwise

from app.events import (
    AgentSaid,
    CallAdmitted,
    CallEnded,
    CallerSaid,
    EndReason,
    StreamOpened,
    VoiceReady,
)
from app.realtime.dialect import BETA
from app.realtime.events import SAY_METADATA_KEY, ResponseCreate, ServerVad, SessionUpdate
from audio.format import PCM16_24K, PCMU_8K
from tests.fakes.caller import phrase
from tests.fakes.voice import Reply, ScriptedVoiceServer, tone
from tests.integration.server import GREETING, trunkline


async def test_a_call_is_answered_with_a_stream_and_a_spoken_ending_behind_it() -> None:
    voice = ScriptedVoiceServer()
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        ringing = await twilio.ring(app.url)
        assert [verb.name for verb in ringing.verbs] == ["Connect", "Say", "Hangup"]
        assert ringing.order is not None
        assert ringing.order.url.startswith("ws://127.0.0.1:")
        assert set(ringing.order.parameters) == {"token"}
        assert ringing.verbs[1].text == app.settings.twilio.lost_message
        call = await ringing.connect()
        await call.hang_up()
        call.assert_clean()


async def test_the_greeting_is_spoken_in_its_own_words_and_heard_whole() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=900)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        await call.hang_up()
        call.assert_clean()
        events = await app.events(call)
        asked = voice.latest.of(ResponseCreate)[0].response.metadata
    assert asked == {SAY_METADATA_KEY: GREETING}
    assert len(call.agent_sound) == PCMU_8K.ms_to_bytes(900)
    said = [event for event in events if isinstance(event, AgentSaid)]
    assert [(line.text, line.heard_text, line.cut_off) for line in said] == [
        (GREETING, GREETING, False)
    ]


async def test_the_model_is_asked_for_the_session_that_the_settings_describe() -> None:
    voice = ScriptedVoiceServer()
    chosen = {
        "system_instruction": "Be brief.",
        "voice": "cedar",
        "turn_detection": {"type": "server_vad", "threshold": 0.4},
    }
    async with voice, trunkline(voice, model=chosen) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear(ms=100)
        await call.hang_up()
        call.assert_clean()
        session = voice.latest.of(SessionUpdate)[0].session
        assert voice.latest.headers["Authorization"] == "Bearer sk-scripted-model"
    assert (session.instructions, session.voice) == ("Be brief.", "cedar")
    assert (session.input_format, session.output_format) == (PCM16_24K, PCM16_24K)
    assert session.turn_detection == ServerVad(
        threshold=0.4, prefix_padding_ms=200, silence_duration_ms=300
    )


async def test_a_greeting_that_is_ready_before_the_stream_is_heard_whole() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=700)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        ringing = await twilio.ring(app.url)
        await app.event(ringing, VoiceReady)
        await voice.until(lambda: voice.created == 1)
        call = await ringing.connect()
        await call.hear_quiet(ms=300)
        await call.hang_up()
        call.assert_clean()
    assert len(call.agent_sound) == PCMU_8K.ms_to_bytes(700)


async def test_three_turns_are_held_and_written_down_in_their_order() -> None:
    voice = ScriptedVoiceServer(
        replies=[Reply(audio_ms=400, text=f"Answer {turn}.") for turn in range(4)],
        heard=["First.", "Second.", "Third."],
    )
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        for _ in range(3):
            await call.speak(0.4)
            await call.hear(ms=400)
            await call.hear_quiet(ms=300)
        await call.hang_up()
        call.assert_clean()
        events = await app.events(call)
        counters = (await app.ended(call)).counters
    lines = [event for event in events if isinstance(event, AgentSaid | CallerSaid)]
    assert [line.text for line in lines] == [
        GREETING,
        *("First.", "Answer 1.", "Second.", "Answer 2.", "Third.", "Answer 3."),
    ]
    assert all(earlier.at_ms <= later.at_ms for earlier, later in pairwise(lines))
    assert len(call.agent_sound) == PCMU_8K.ms_to_bytes(4 * 400)
    assert (counters.turns, counters.responses, counters.barge_ins) == (3, 4, 0)


async def test_a_turn_that_was_not_understood_keeps_its_place() -> None:
    voice = ScriptedVoiceServer(heard=[None], replies=[Reply(audio_ms=300, text="Pardon?")])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        await call.speak(0.4)
        await call.hear(ms=300)
        await call.hear_quiet(ms=300)
        await call.hang_up()
        events = await app.events(call)
    lines = [event for event in events if isinstance(event, AgentSaid | CallerSaid)]
    assert [(type(line), line.text) for line in lines] == [
        (AgentSaid, GREETING),
        (CallerSaid, ""),
        (AgentSaid, "Pardon?"),
    ]
    assert isinstance(lines[1], CallerSaid)
    assert lines[1].failed


async def test_events_tell_the_course_of_a_call() -> None:
    voice = ScriptedVoiceServer()
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        await call.hang_up(report=True)
        events = await app.events(call)
    assert isinstance(events[0], CallAdmitted)
    assert {StreamOpened, VoiceReady, AgentSaid} <= {type(event) for event in events}
    assert isinstance(events[-1], CallEnded)
    summary = events[-1].summary
    assert summary.reason is EndReason.CALLER_HUNG_UP
    assert summary.carrier_call_id == call.identity.call_id
    assert summary.answer_to_first_audio_ms is not None
    assert summary.usage.output_audio == 80


async def test_a_caller_may_speak_first() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300, text="Yes?")])
    model = {"speaks_first": "caller"}
    async with voice, trunkline(voice, model=model) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await app.event(call, VoiceReady)
        await call.speak(0.4)
        await call.hear(ms=300)
        await call.hang_up()
        call.assert_clean()
        assert voice.created == 0  # the model answers a turn by itself
        events = await app.events(call)
    lines = [event for event in events if isinstance(event, AgentSaid | CallerSaid)]
    assert isinstance(lines[0], CallerSaid)


async def test_sound_that_needs_no_conversion_arrives_bit_for_bit() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=600)])
    model = {"audio": {"format": "pcmu"}}
    async with voice, trunkline(voice, model=model) as app, app.twilio(speed=2) as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=200)
        await call.speak(phrase("hours"))
        await call.hear(ms=600)
        await call.hang_up()
        call.assert_clean()
        assert phrase("hours") in voice.audio
    assert bytes(call.agent_sound[: PCMU_8K.ms_to_bytes(600)]) == tone(PCMU_8K, 600)


async def test_a_gateway_of_the_beta_interface_is_talked_with() -> None:
    voice = ScriptedVoiceServer(dialect=BETA)
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=200)
        await call.speak(0.4)
        await call.hear(ms=300)
        await call.hang_up()
        call.assert_clean()
        assert (await app.ended(call)).counters.turns == 1
