"""The engine's shell: sessions over a pipe, with speech parts that work by arithmetic."""

from __future__ import annotations

import asyncio
import contextlib
import json
import stat
import wave
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.engine.listening import MESSAGE_PAUSE_MS
from app.errors import VoiceClosed, VoiceRefused, VoiceUnavailable
from app.realtime.connection import Transport, pipe
from app.realtime.events import (
    AudioDelta,
    ContentPart,
    FunctionArgumentsDone,
    InputAudioAppend,
    InputAudioClear,
    InputAudioCleared,
    InputAudioCommit,
    Item,
    ItemCreate,
    ItemRetrieve,
    ItemRetrieved,
    ResponseCancel,
    ResponseConfig,
    ResponseCreate,
    ResponseCreated,
    ResponseDone,
    ServerVad,
    SpeechStarted,
    SpeechStopped,
    TranscriptionCompleted,
    TranscriptionFailed,
    Unknown,
)
from audio.format import PCM16_16K, PCM16_24K, PCMA_8K, PCMU_8K, AudioFormat
from audio.transcoder import Transcoder
from tests.fakes.engine_parts import quiet, said, speech
from tests.fakes.waiting import until
from tests.integration.engine_site import Caller, Site, open_site
from tests.unit.engine.session_driver import message, tool

# Turns --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output_format", [PCM16_24K, PCMU_8K, PCMA_8K])
async def test_a_spoken_turn_is_heard_and_answered_in_speech(output_format: AudioFormat) -> None:
    async with open_site(said("hello")) as site:
        caller = await site.call(output_format=output_format)
        await caller.speak()
        done = (await caller.until(ResponseDone)).response
        assert caller.of(TranscriptionCompleted)[0].transcript == "hello"
        assert done.output[0].content[0].transcript == "You said hello."
        sound = b"".join(delta.audio for delta in caller.of(AudioDelta))
        assert output_format.bytes_to_ms(len(sound)) == 20 * len("You said hello.")
        await caller.connection.close()


@pytest.mark.parametrize("caller_format", [PCMU_8K, PCMA_8K])
async def test_telephone_sound_reaches_the_recognizer_at_16_khz(
    caller_format: AudioFormat,
) -> None:
    async with open_site(said("hello")) as site:
        caller = await site.call(input_format=caller_format)
        coder = Transcoder(PCM16_16K, caller_format)
        sound = coder.push(speech(600) + quiet(700))
        for start in range(0, len(sound), 160):
            await caller.connection.send(InputAudioAppend(sound[start : start + 160]))
        started = await caller.until(SpeechStarted)
        stopped = await caller.until(SpeechStopped)
        await caller.until(ResponseDone)
        assert started.audio_start_ms == 0
        assert 1_090 <= stopped.audio_end_ms <= 1_120
        (hearing,) = site.recognizer.hearings
        assert PCM16_16K.bytes_to_ms(len(hearing.audio)) == stopped.audio_end_ms
        await caller.connection.close()


async def test_one_large_append_is_the_same_as_many_small_ones() -> None:
    async with open_site(said("hello")) as site:
        caller = await site.call()
        sound = quiet(20_000, 24_000) + speech(600, 24_000) + quiet(700, 24_000)
        await caller.connection.send(InputAudioAppend(sound))
        started = await caller.until(SpeechStarted)
        assert started.audio_start_ms == 19_700
        await caller.until(ResponseDone)
        await caller.connection.close()


async def test_a_manual_turn_is_committed_and_answered_on_request() -> None:
    async with open_site(said("hello")) as site:
        caller = await site.call(turn_detection=None)
        await caller.connection.send(InputAudioAppend(speech(500, 24_000)))
        await caller.connection.send(InputAudioCommit())
        await caller.connection.send(ResponseCreate())
        done = (await caller.until(ResponseDone)).response
        assert done.output[0].content[0].transcript == "You said hello."
        assert not caller.of(SpeechStarted)
        await caller.connection.close()


async def test_a_barge_in_stops_the_voice_and_the_next_turn_is_answered() -> None:
    async with open_site(said("never mind")) as site:
        caller = await site.call()
        site.synthesizer.may_go_on.clear()
        await caller.connection.send(ResponseCreate())
        await caller.until(AudioDelta)
        await caller.speak()
        cancelled = (await caller.until(ResponseDone)).response
        assert (cancelled.status, cancelled.status_reason) == ("cancelled", "turn_detected")
        await until(lambda: site.synthesizer.stopped_early == 1)
        site.synthesizer.may_go_on.set()
        answered = (await caller.until(ResponseDone)).response
        assert answered.output[0].content[0].transcript == "You said never mind."
        await caller.connection.close()


async def test_a_cancelled_reply_sends_nothing_after_its_end() -> None:
    async with open_site() as site:
        caller = await site.call()
        await caller.connection.send(
            ResponseCreate(response=_say("a sentence of some length " * 15))
        )
        created = await caller.until(ResponseCreated)
        await caller.until(AudioDelta)
        await caller.connection.send(ResponseCancel(created.response.id))
        done = await caller.until(ResponseDone)
        await caller.connection.send(ResponseCreate(response=_say("next")))
        await caller.until(ResponseDone)
        late = caller.seen[caller.seen.index(done) + 1 :]
        assert not [e for e in late if getattr(e, "response_id", "") == created.response.id]
        await caller.connection.close()


async def test_a_tool_call_goes_out_and_its_output_is_spoken() -> None:
    async with open_site(said("call lookup")) as site:
        caller = await site.call(tools=(tool("lookup"),))
        await caller.speak()
        call = await caller.until(FunctionArgumentsDone)
        await caller.until(ResponseDone)
        output = Item(type="function_call_output", call_id=call.call_id, output="42")
        await caller.connection.send(ItemCreate(output))
        await caller.connection.send(ResponseCreate())
        done = (await caller.until(ResponseDone)).response
        assert done.output[0].content[0].transcript == "lookup said 42."
        await caller.connection.close()


async def test_a_recognizer_that_fails_leaves_a_session_that_asks_again() -> None:
    async with open_site() as site:
        caller = await site.call()
        await caller.speak()
        failed = await caller.until(TranscriptionFailed)
        assert failed.error.code == "recognizer_lost"
        done = (await caller.until(ResponseDone)).response
        assert done.output[0].content[0].transcript == "You said [unclear]."
        await caller.connection.close()


async def test_a_voice_that_fails_fails_the_response() -> None:
    async with open_site() as site:
        site.synthesizer.fails = True
        caller = await site.call()
        await caller.connection.send(ResponseCreate())
        done = (await caller.until(ResponseDone)).response
        assert done.status == "failed"
        assert done.error is not None
        assert done.error.code == "synthesizer_lost"
        await caller.connection.close()


async def test_a_message_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "messages"
    async with open_site(said("message"), said("call me"), messages=folder) as site:
        caller = await site.call()
        await caller.speak()
        await caller.until(ResponseDone)
        await caller.speak(800, then_quiet_ms=MESSAGE_PAUSE_MS + 100)
        await caller.until(ResponseDone)
        await caller.connection.close()
    (path,) = folder.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with wave.open(str(path), "rb") as recording:
        assert recording.getparams()[:3] == (1, 2, 16_000)
        assert recording.readframes(-1) == bytes(site.recognizer.hearings[1].audio)


async def test_a_typed_message_is_kept_whatever_its_id(tmp_path: Path) -> None:
    folder = tmp_path / "messages"
    async with open_site(said("message"), messages=folder) as site:
        caller = await site.call()
        await caller.speak()
        await caller.until(ResponseDone)
        part = ContentPart(type="input_text", text="Ring me, señor.")
        item = Item(type="message", id="../../etc/1", role="user", content=(part,))
        await caller.connection.send(ItemCreate(item))
        await caller.connection.send(ResponseCreate())
        await caller.until(ResponseDone)
        await caller.connection.close()
    (path,) = folder.iterdir()
    assert path.suffix == ".txt"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text("utf-8") == "Ring me, señor."


async def test_a_message_that_the_disk_does_not_take_does_not_end_the_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    async with open_site(said("message"), said("call me"), messages=blocked) as site:
        caller = await site.call()
        await caller.speak()
        await caller.until(ResponseDone)
        await caller.speak(then_quiet_ms=MESSAGE_PAUSE_MS + 100)
        await caller.until(ResponseDone)
        assert "message not kept" in caplog.text
        await caller.connection.close()


async def test_instructions_are_said_to_be_ignored_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG", logger="app.engine")
    async with open_site() as site:
        caller = await site.call(instructions="Be brief.")
        await caller.connection.send(ResponseCreate(response=_instructions("Say hello.")))
        await caller.until(ResponseDone)
        await caller.connection.close()
    lines = [r for r in caplog.records if r.msg.startswith("offline demo cannot")]
    assert [line.__dict__["what"] for line in lines] == ["instructions_ignored"]


# Many, and too many -------------------------------------------------------------------------------


async def test_eight_sessions_talk_at_once_and_each_gets_its_own_answer() -> None:
    async with open_site(*[said(f"line {n}") for n in range(8)]) as site:
        callers = [await site.call() for _ in range(8)]

        async def talk(caller: Caller) -> tuple[str, str]:
            await caller.speak()
            done = (await caller.until(ResponseDone)).response
            heard = caller.of(TranscriptionCompleted)[0].transcript
            await caller.connection.close()
            return heard, done.output[0].content[0].transcript or ""

        answers = await asyncio.gather(*map(talk, callers))
        assert {heard for heard, _ in answers} == {f"line {n}" for n in range(8)}
        assert all(answer == f"You said {heard}." for heard, answer in answers)


async def test_one_session_too_many_is_refused_before_it_begins() -> None:
    async with open_site(max_sessions=1) as site:
        caller = await site.call()
        with pytest.raises(VoiceUnavailable) as full:
            await site.call()
        assert (full.value.code, full.value.retryable) == ("engine_at_capacity", True)
        await caller.connection.close()
        await until(lambda: site.engine.sessions == 0)
        again = await site.call()
        await again.connection.close()


async def test_one_client_too_many_is_told_so_and_closed() -> None:
    async with open_site(max_sessions=1) as site:
        caller = await site.call()
        ours, theirs = pipe()
        await site.engine.serve(theirs)
        told = json.loads(await ours.receive())
        assert (told["type"], told["error"]["code"]) == ("error", "engine_at_capacity")
        with pytest.raises(VoiceClosed) as closed:
            await ours.receive()
        assert closed.value.close_code == 1013
        await caller.connection.close()


async def test_settings_that_the_engine_does_not_have_refuse_the_connection() -> None:
    async with open_site() as site:
        with pytest.raises(VoiceRefused):
            await site.call(turn_detection=ServerVad(threshold=2.0))
        await until(lambda: site.engine.sessions == 0)


async def test_a_client_that_does_not_read_is_not_spoken_to_for_ever() -> None:
    async with open_site() as site:
        ours, theirs = pipe(capacity=4)
        serving = asyncio.create_task(site.engine.serve(theirs))
        chunks = 0
        speak = site.synthesizer.speak

        async def counted(text: str, *, voice: str, speed: float) -> AsyncIterator[bytes]:
            nonlocal chunks
            async with contextlib.aclosing(speak(text, voice=voice, speed=speed)) as sound:
                async for chunk in sound:
                    chunks += 1
                    yield chunk

        site.synthesizer.speak = counted  # type: ignore[method-assign, assignment]
        say = {"metadata": {"say": "x" * 500}}
        for n in range(40):  # 400 s of speech in all
            out_of_band = {**say, "conversation": "none"} if n % 4 else say
            with contextlib.suppress(VoiceClosed, TimeoutError):
                async with asyncio.timeout(0.5):
                    await ours.send(
                        json.dumps({"type": "response.create", "response": out_of_band})
                    )
        settled = -1
        while settled != chunks:
            settled = chunks
            for _ in range(200):
                await asyncio.sleep(0)
        assert 0 < chunks < 150  # 30 s: the mark, and what was under way in four responses
        await ours.close()
        await serving


# Faults of clients --------------------------------------------------------------------------------


async def _raw(site: Site) -> tuple[Transport, asyncio.Task[None]]:
    ours, theirs = pipe()
    return ours, asyncio.create_task(site.engine.serve(theirs))


@pytest.mark.parametrize(
    ("text", "event_id"),
    [
        ("not json", None),
        ('{"type":"input_audio_buffer.append","event_id":"e1","audio":"%%%"}', "e1"),
        ('{"type":"conversation.item.truncate","event_id":"e2"}', "e2"),
        ('{"type":"session.update","event_id":"e3","session":{"type":"realtime",'
         '"audio":{"input":{"format":{"type":"audio/opus"}}}}}', "e3"),
        ('{"type":"no.such.event","event_id":"e4"}', "e4"),
    ],
)  # fmt: skip
async def test_a_message_that_cannot_be_used_is_an_error_and_the_session_goes_on(
    text: str, event_id: str | None
) -> None:
    async with open_site() as site:
        ours, serving = await _raw(site)
        assert json.loads(await ours.receive())["type"] == "session.created"
        await ours.send(text)
        error = json.loads(await ours.receive())
        assert error["type"] == "error"
        assert error["error"]["event_id"] == event_id
        assert error["event_id"]
        await ours.send('{"type":"input_audio_buffer.clear"}')
        assert json.loads(await ours.receive())["type"] == "input_audio_buffer.cleared"
        await ours.close()
        await serving


async def test_acknowledgements_come_in_the_order_of_the_events() -> None:
    async with open_site() as site:
        caller = await site.call()
        for name in ("a", "b", "c"):
            await caller.connection.send(message(name, item_id=name))
            await caller.connection.send(ItemRetrieve(name))
        found = [(await caller.until(ItemRetrieved)).item.id for _ in range(3)]
        assert found == ["a", "b", "c"]
        assert not caller.of(Unknown)
        await caller.connection.close()


def _say(text: str) -> ResponseConfig:
    return ResponseConfig(metadata={"say": text})


def _instructions(text: str) -> ResponseConfig:
    return ResponseConfig(instructions=text)


async def test_a_cleared_turn_is_abandoned() -> None:
    async with open_site() as site:
        caller = await site.call()
        await caller.speak(300, then_quiet_ms=0)
        await caller.connection.send(InputAudioClear())
        await caller.until(InputAudioCleared)
        assert [hearing.abandoned for hearing in site.recognizer.hearings] == [True]
        await caller.connection.close()
