"""The model is lost in mid-call: one reconnect with a replay, else a spoken ending."""

from __future__ import annotations

import asyncio

import pytest

from app.calls.actions import RenewVoice
from app.calls.call import LOST
from app.events import AgentSaid, EndReason, VoiceReady, VoiceReconnecting, VoiceTrouble
from app.realtime.connecting import RECONNECTS_PER_MINUTE
from app.realtime.connection import VoiceConnection
from app.realtime.events import (
    SAY_METADATA_KEY,
    ErrorDetail,
    ErrorEvent,
    Item,
    ItemCreate,
    ItemTruncate,
    OutputItemDone,
    ResponseCreate,
    SessionConfig,
)
from audio.format import PCMU_8K
from tests.fakes.carrier import FakeCall
from tests.fakes.voice import Reply, ScriptedVoiceServer, Served, Trouble
from tests.fakes.waiting import until
from tests.integration.phases import Phase, caller_is_heard, reach, voice_for
from tests.integration.server import ALL_OVER_S, GREETING, App, trunkline

TALKING = [phase for phase in Phase if phase is not Phase.MODEL_NOT_READY]


async def reconnected(app: App, call: FakeCall, count: int = 2) -> Served:
    """The connection that followed the lost one, once the call uses it."""
    await app.voice.until(lambda: len(app.voice.connections) == count)
    served = app.voice.connections[count - 1]
    await app.voice.until(lambda: bool(served.of(ItemCreate)))
    return served


def greetings(served: Served) -> int:
    """The number of greetings that were asked for on a connection."""
    return sum(
        SAY_METADATA_KEY in create.response.metadata
        for create in served.of(ResponseCreate)
        if create.response is not None
    )


def spoken_ending(call: FakeCall, app: App) -> None:
    """Assert that the carrier goes on to tell the caller what happened."""
    say, hang_up = call.ringing.verbs[1:]
    assert (say.name, say.text) == ("Say", app.settings.twilio.lost_message)
    assert hang_up.name == "Hangup"


@pytest.mark.parametrize("how", ["reset", "close 1011"])
@pytest.mark.parametrize("phase", TALKING)
async def test_a_lost_model_is_replaced_and_does_not_greet_again(phase: Phase, how: str) -> None:
    voice = voice_for(phase)
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await reach(phase, app, twilio)
        voice.replies = [Reply(audio_ms=400, text="I am back.")]
        voice.latest.drop() if how == "reset" else voice.latest.close(1011)
        fresh = await reconnected(app, call)
        await call.hear_quiet(ms=400)
        if phase is Phase.CALLER_TURN:
            await call.wait_for(lambda: not call.stream.player.speaking)
        else:
            await call.speak(0.4)
        await call.hear(ms=400)
        await call.hang_up()
        call.assert_clean()
        counters = (await app.ended(call)).counters
        assert (await app.event(call, VoiceReconnecting)).code == "voice_closed"
        assert greetings(fresh) == 0
        assert len(voice.connections) == 2
    assert counters.voice_reconnects == 1


async def test_what_was_sent_before_the_loss_is_heard_to_its_end() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=2000)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.wait_for(lambda: call.counters.agent_audio_ms == 2000)
        voice.latest.drop()
        fresh = await reconnected(app, call)
        await call.hear_quiet(ms=300)
        await call.hang_up()
        call.assert_clean()
        assert fresh.of(ResponseCreate) == []  # nothing is to be said
    assert len(call.agent_sound) == PCMU_8K.ms_to_bytes(2000)
    assert call.stream.clears == []


async def test_a_response_that_is_cut_in_the_middle_is_asked_for_again() -> None:
    broken = Reply(audio_ms=2000, close_after_ms=400, text="one two three four five")
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), broken])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        voice.replies = [Reply(audio_ms=700, text="Again.")]
        await call.speak(0.4)
        await call.hear(ms=400)
        fresh = await reconnected(app, call)
        await call.wait_for(lambda: call.counters.agent_audio_ms == 300 + 400 + 700)
        await call.hear_quiet(ms=300)
        await call.hang_up()
        call.assert_clean()
        assert len(fresh.of(ResponseCreate)) == 1
        said = [event for event in await app.events(call) if isinstance(event, AgentSaid)]
    assert [line.text for line in said][-1] == "Again."
    assert len(call.agent_sound) == PCMU_8K.ms_to_bytes(300 + 400 + 700)


async def test_the_conversation_is_replayed_in_its_order() -> None:
    voice = ScriptedVoiceServer(
        replies=[Reply(audio_ms=300), Reply(audio_ms=300, text="It is nine.")],
        heard=["What time is it?"],
    )
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        await call.speak(0.4)
        await call.hear(ms=300)
        await call.hear_quiet(ms=300)
        voice.latest.drop()
        fresh = await reconnected(app, call)
        await voice.until(lambda: len(fresh.of(ItemCreate)) == 4)
        await call.hang_up()
        call.assert_clean()
        items = [create.item for create in fresh.of(ItemCreate)]
    assert [_words(item) for item in items[:3]] == [
        ("assistant", GREETING),
        ("user", "What time is it?"),
        ("assistant", "It is nine."),
    ]
    assert items[3].role == "system"


def _words(item: Item) -> tuple[str | None, str | None]:
    return item.role, item.content[0].text


async def test_what_the_caller_did_not_hear_is_not_replayed() -> None:
    words = "one two three four five six seven eight nine ten"
    voice = ScriptedVoiceServer(
        replies=[Reply(audio_ms=300), Reply(audio_ms=5000, text=words), Reply(never_starts=True)]
    )
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        await call.speak(0.4)
        await call.barge_in(0.4, after_ms=1500)
        await voice.until(lambda: len(voice.truncated) == 1)
        voice.latest.drop()
        fresh = await reconnected(app, call)
        await voice.until(lambda: len(fresh.of(ItemCreate)) >= 4)
        await call.hang_up()
        call.assert_clean()
        spoken = [
            create.item.content[0].text
            for create in fresh.of(ItemCreate)
            if create.item.role == "assistant"
        ]
    assert spoken[0] == GREETING
    assert words.startswith(str(spoken[1]))
    assert spoken[1] != words


async def test_a_tool_is_not_run_again_on_the_new_connection() -> None:
    tool = Reply(audio_ms=200, text="Let me see.", tool=("look_up", "{}"))
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), tool, Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        await call.speak(0.4)
        await voice.until(lambda: any(item.output for item in voice.items))
        await call.hear_quiet(ms=400)
        call_id = next(item.call_id for item in voice.items if item.output)
        voice.latest.drop()
        fresh = await reconnected(app, call)
        # The same call once more, as a confused server may send it.
        again = Item(
            type="function_call", id="item_x", call_id=call_id, name="look_up", arguments="{}"
        )
        fresh.emit(OutputItemDone("resp_x", 0, again))
        fresh.emit(ErrorEvent(ErrorDetail(type="server_error", code="behind_it")))
        await app.event(call, VoiceTrouble, lambda trouble: trouble.code == "behind_it")
        await call.hang_up()
        call.assert_clean()
        counters = (await app.ended(call)).counters
        replayed = [create.item for create in fresh.of(ItemCreate) if create.item.call_id]
    assert counters.tool_calls == 1
    assert [item.type for item in replayed] == ["function_call", "function_call_output"]


async def test_losses_beyond_the_budget_end_the_call_with_a_spoken_apology(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.realtime.connecting.FIRST_PAUSE_S", 0.0)
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        for count in range(2, RECONNECTS_PER_MINUTE + 2):
            voice.latest.drop()
            await reconnected(app, call, count)
        voice.latest.drop()
        assert (await call.ended()).close_code == LOST
        assert (await app.ended(call)).reason is EndReason.VOICE_LOST
        call.assert_clean()
        spoken_ending(call, app)
        assert len(voice.connections) == 1 + RECONNECTS_PER_MINUTE


async def test_a_model_that_has_answered_since_may_be_lost_once_more() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        for count in (2, 3):
            voice.latest.drop()
            await reconnected(app, call, count)
            await call.speak(0.4)
            await call.hear(ms=300)
            await call.hear_quiet(ms=300)
        await call.hang_up()
        call.assert_clean()
        assert (await app.ended(call)).counters.voice_reconnects == 2


async def test_a_model_that_cannot_be_reached_again_ends_the_call() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        voice.trouble = Trouble(http_status=503)
        voice.latest.drop()
        assert (await call.ended()).close_code == LOST
        summary = await app.ended(call)
        call.assert_clean()
        spoken_ending(call, app)
    assert (summary.reason, summary.detail) == (EndReason.VOICE_LOST, "http_503")


async def test_a_stalled_response_is_replaced_by_a_fresh_connection() -> None:
    stalled = Reply(audio_ms=2000, hold_after_ms=300)
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), stalled])
    policy = {"answer_wait_ms": 2_000}
    async with voice, trunkline(voice, policy=policy) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        voice.replies = [Reply(audio_ms=500, text="Sorry, again.")]
        await call.speak(0.4)
        await reconnected(app, call)
        await call.hear(ms=300)
        await call.hang_up()
        call.assert_clean()


async def test_a_turn_that_the_model_leaves_unanswered_is_asked_for_once() -> None:
    voice = ScriptedVoiceServer(
        replies=[Reply(audio_ms=300), Reply(never_starts=True), Reply(audio_ms=500)]
    )
    policy = {"answer_wait_ms": 2_000}
    async with voice, trunkline(voice, policy=policy) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        await call.speak(0.4)
        await call.hear(ms=500)
        await call.hang_up()
        call.assert_clean()
        assert voice.created == 2  # the greeting and this one
        assert len(voice.connections) == 1


async def test_the_session_is_renewed_in_a_quiet_moment_before_its_limit() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=600)])
    policy = {"renew_after_ms": 50}
    async with voice, trunkline(voice, policy=policy) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=100)
        await app.event(call, VoiceReady, lambda ready: ready.reconnected)
        fresh = await reconnected(app, call)
        await until(lambda: voice.connections[0].closed, within_s=ALL_OVER_S)
        await call.speak(0.4)
        await call.hear(ms=600)
        await call.hang_up()
        call.assert_clean()
        assert greetings(fresh) == 0
        assert (await app.ended(call)).counters.voice_reconnects == 0
    assert len(call.agent_sound) == PCMU_8K.ms_to_bytes(1200)


async def test_a_call_that_ends_while_its_session_is_renewed_leaves_no_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        (live,) = app.switchboard._live.values()
        model = live._route.model
        connect = model.connect

        async def connect_at_the_last_moment(config: SessionConfig) -> VoiceConnection:
            fresh = await connect(config)
            asyncio.get_running_loop().call_soon(live.end, EndReason.OPERATOR_HUNG_UP)
            return fresh

        monkeypatch.setattr(model, "connect", connect_at_the_last_moment)
        live._perform([RenewVoice()])
        assert (await app.ended(call)).reason is EndReason.OPERATOR_HUNG_UP
        assert len(voice.connections) == 2
        await until(lambda: not voice.open_connections, within_s=ALL_OVER_S)


async def test_a_caller_who_begins_to_speak_meanwhile_puts_the_renewal_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        (live,) = app.switchboard._live.values()
        model = live._route.model
        connect = model.connect
        speaks = asyncio.Event()

        async def connect_slowly(config: SessionConfig) -> VoiceConnection:
            await speaks.wait()
            return await connect(config)

        monkeypatch.setattr(model, "connect", connect_slowly)
        live._perform([RenewVoice()])
        call.say(1.5)
        await call.wait_for(lambda: caller_is_heard(voice))
        speaks.set()
        await voice.until(lambda: len(voice.connections) == 2)
        await until(lambda: voice.connections[1].closed, within_s=ALL_OVER_S)
        await call.hear(ms=300)
        await call.hang_up()
        call.assert_clean()
        assert (await app.ended(call)).counters.turns == 1
    assert not voice.connections[1].of(ItemCreate)  # the turn was not torn from its connection


async def test_a_renewal_that_fails_costs_the_caller_nothing() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    policy = {"renew_after_ms": 50}
    async with voice, trunkline(voice, policy=policy) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await app.event(call, VoiceReady)
        voice.trouble = Trouble(http_status=500, connections=1_000)
        await app.event(call, VoiceTrouble)
        await call.hear_quiet(ms=300)
        await call.speak(0.4)
        await call.hear(ms=300)
        await call.hang_up()
        call.assert_clean()
        summary = await app.ended(call)
    assert (summary.reason, summary.counters.voice_reconnects) == (EndReason.CALLER_HUNG_UP, 0)
    assert len(voice.connections) == 1
    assert voice.attempts == 2  # and not once more for as long as this call lasts


async def test_nothing_that_was_meant_for_a_lost_connection_is_sent_to_the_next() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=2000)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.wait_for(lambda: call.counters.agent_audio_ms == 2000)
        voice.trouble = Trouble(http_status=500, connections=voice.attempts + 1)
        voice.latest.drop()
        await until(lambda: voice.attempts == 2)
        call.press("1")  # cuts the agent off
        fresh = await reconnected(app, call)
        await voice.until(lambda: bool(fresh.of(ResponseCreate)))
        await call.hang_up()
        call.assert_clean()
    assert call.stream.clears
    assert fresh.of(ItemTruncate) == []


async def test_a_goodbye_that_is_being_heard_outlives_its_model() -> None:
    goodbye = Reply(
        audio_ms=2000, text="Goodbye.", tool=("end_call", '{"reason": "task_complete"}')
    )
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), goodbye])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        await call.speak(0.4)
        await call.wait_for(lambda: call.counters.agent_audio_ms == 2300)
        await voice.until(lambda: any(_is_output(c.item) for c in voice.latest.of(ItemCreate)))
        voice.latest.drop()
        await call.ended()
        call.assert_clean()
        assert (await app.ended(call)).reason is EndReason.AGENT_HUNG_UP
    assert len(call.agent_sound) == PCMU_8K.ms_to_bytes(2300)


def _is_output(item: Item) -> bool:
    return item.type == "function_call_output"
