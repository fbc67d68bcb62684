"""The chained engine as a Realtime server: voice activity, transcriber, text model and voice.

Every test talks to it as any Realtime client does; the stages are real HTTP servers on loopback.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from app.realtime import events as ev
from app.realtime.events import Transcription
from app.realtime.probe import ProbeOutcome, probe
from audio.format import PCM16_24K
from tests.fakes.engine_parts import speech
from tests.fakes.stage_servers import (
    chat_events,
    chat_stream,
    form_values,
    piecewise,
    scripted_chat,
    silent,
    sse,
)
from tests.fakes.waiting import time_limit, until
from tests.fakes.web_service import Asked, Script, answer
from tests.integration.chain_site import ChainSite, open_chain
from tests.integration.engine_site import Caller

HEARD = answer(b'{"text": "A table for two, please."}')
SPOKEN = piecewise(speech(400, 24_000), content_type="audio/pcm")
TOOL = {"type": "function", "name": "find_slot", "parameters": {"type": "object"}}


WORDS_SO_FAR = ("A table.", "A table for two.", "A table for two, please.")


async def call(site: ChainSite, **settings: Any) -> Caller:
    config = ev.SessionConfig(
        transcription=Transcription(model="any"),
        input_format=PCM16_24K,
        instructions="You are a waiter.",
        **settings,
    )
    return Caller(await site.engine.model().connect(config))


def bodies(site: ChainSite) -> list[dict[str, Any]]:
    return [json.loads(asked.body) for asked in site.asked("/chat/completions")]


async def test_a_spoken_turn_is_transcribed_answered_and_spoken_by_sentences() -> None:
    words = ("Certainly. A table ", "for two is free at seven. ", "Shall I book it?")
    async with open_chain(stt=HEARD, llm=chat_stream(*words), tts=SPOKEN) as site:
        caller = await call(site)
        await caller.speak()
        done = await caller.until(ev.ResponseDone)
        await caller.connection.close()
    kinds = [type(event) for event in caller.seen]
    for kind in (ev.SpeechStarted, ev.SpeechStopped, ev.TranscriptionCompleted, ev.AudioDelta):
        assert kind in kinds
    assert caller.of(ev.TranscriptionCompleted)[0].transcript == "A table for two, please."
    said = "".join(event.delta for event in caller.of(ev.AudioTranscriptDelta))
    assert said == "".join(words)
    assert caller.of(ev.AudioTranscriptDone)[0].transcript == said
    spoken = [json.loads(asked.body)["input"] for asked in site.asked("/audio/speech")]
    assert spoken == ["Certainly. A table for two is free at seven.", "Shall I book it?"]
    assert sum(len(event.audio) for event in caller.of(ev.AudioDelta)) == 2 * 400 * 48
    response = done.response
    assert response.status == "completed"
    assert response.usage is not None
    assert (response.usage.input_text_tokens, response.usage.output_text_tokens) == (20, 5)
    assert {part.partition("=")[0] for part in response.metadata["stage_ms"].split()} == {
        "stt",
        "llm",
        "tts",
    }
    (asked,) = bodies(site)
    assert asked["messages"] == [
        {"role": "system", "content": "You are a waiter."},
        {"role": "user", "content": "A table for two, please."},
    ]


async def test_the_languages_of_the_session_are_those_of_each_turn() -> None:
    async with open_chain(stt=HEARD, llm=chat_stream("Yes."), tts=SPOKEN) as site:
        caller = await call(site)
        for spoken in ({}, {"language": "de"}, {"languages": ("en", "es")}, {"languages": ("fr",)}):
            asked = Transcription(model="any", **spoken)
            await caller.connection.send(ev.SessionUpdate(ev.SessionConfig(transcription=asked)))
            await caller.speak()
            await caller.until(ev.ResponseDone)
        await caller.connection.close()
        forms = [asked.body for asked in site.asked("/audio/transcriptions")]
    # The stand-in's model takes one language: of several, none is right.
    assert [form_values(body, "language") for body in forms] == [[], ["de"], [], ["fr"]]


async def test_a_tool_is_called_and_its_output_goes_back_to_the_model() -> None:
    def reply(body: dict[str, Any]) -> Script:
        if body["messages"][-1]["role"] == "tool":
            return chat_stream("At seven.")
        return chat_stream("One moment.", calls=[("find_slot", '{"people": 2}')])

    async with open_chain(stt=HEARD, llm=scripted_chat(reply), tts=SPOKEN) as site:
        caller = await call(site, tools=(TOOL,))
        await caller.speak()
        await caller.until(ev.ResponseDone)
        (made,) = [
            event.item
            for event in caller.of(ev.OutputItemDone)
            if event.item.type == "function_call"
        ]
        assert (made.name, json.loads(made.arguments or "")) == ("find_slot", {"people": 2})
        output = ev.Item(type="function_call_output", call_id=made.call_id, output='{"at": 7}')
        await caller.connection.send(ev.ItemCreate(output))
        await caller.connection.send(ev.ResponseCreate(None))
        await caller.until(ev.ResponseDone)
        await caller.connection.close()
    last = bodies(site)[-1]["messages"]
    assert [message["role"] for message in last] == [
        "system",
        "user",
        "assistant",
        "assistant",
        "tool",
    ]
    assert last[-1] == {"role": "tool", "content": '{"at": 7}', "tool_call_id": made.call_id}
    assert last[-2]["tool_calls"][0]["id"] == made.call_id
    said = "".join(event.delta for event in caller.of(ev.AudioTranscriptDelta))
    assert said == "One moment.At seven."


async def test_what_was_not_heard_is_cut_from_the_models_history() -> None:
    def reply(body: dict[str, Any]) -> Script:
        first = len([m for m in body["messages"] if m["role"] == "user"]) == 1
        return (
            chat_stream("We have fish today. We have meat as well.")
            if first
            else chat_stream("Yes.")
        )

    async with open_chain(stt=HEARD, llm=scripted_chat(reply), tts=SPOKEN) as site:
        caller = await call(site)
        await caller.speak()
        await caller.until(ev.ResponseDone)
        item_id = caller.of(ev.AudioDelta)[-1].item_id
        # 400 ms a sentence: the first one and a half of the second were played.
        await caller.connection.send(ev.ItemTruncate(item_id, 0, 600))
        await caller.speak()
        await caller.until(ev.ResponseDone)
        await caller.connection.close()
    said = [m["content"] for m in bodies(site)[-1]["messages"] if m["role"] == "assistant"]
    assert said == ["We have fish today. We have"]


async def test_a_caller_who_speaks_stops_the_model_and_the_voice() -> None:
    closed = asyncio.Event()

    async def endless(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 x\r\nContent-Type: audio/pcm\r\n\r\n")
        try:
            while True:
                writer.write(speech(100, 24_000))
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            closed.set()
            raise

    async with open_chain(stt=HEARD, llm=chat_stream("I talk on and on."), tts=endless) as site:
        caller = await call(site)
        await caller.speak()
        await caller.until(ev.AudioDelta)
        await caller.speak()
        done = await caller.until(ev.ResponseDone)
        assert (done.response.status, done.response.status_reason) == ("cancelled", "turn_detected")
        async with time_limit():
            await closed.wait()
        await caller.connection.close()


FILLER = "One moment."


def is_filler(asked: Asked) -> bool:
    return asked.target.endswith("/audio/speech") and b"One moment" in asked.body


@pytest.mark.parametrize("late", [("stt",), ("llm",), ("tts",), ("stt", "llm", "tts")])
async def test_a_late_stage_is_covered_by_one_filler_and_the_answer_follows(
    late: tuple[str, ...],
) -> None:
    covered = asyncio.Event()

    def when_covered(stage: str, script: Script) -> Script:
        async def write(asked: Asked, writer: asyncio.StreamWriter) -> None:
            if stage in late and not is_filler(asked):
                await covered.wait()
                await asyncio.sleep(0.3)  # another filler would be due
            await script(asked, writer)

        return write

    opened = open_chain(
        stt=when_covered("stt", HEARD),
        llm=when_covered("llm", chat_stream("Here I am.")),
        tts=when_covered("tts", SPOKEN),
        filler=FILLER,
        filler_after_s=0.1,
    )
    async with opened as site:
        caller = await call(site)
        for turn in (1, 2):
            await caller.speak(ms=900)
            said = await caller.until(ev.AudioTranscriptDelta)
            assert said.delta == FILLER, turn
            covered.set()
            done = await caller.until(ev.ResponseDone)
            assert done.response.status == "completed"
            covered.clear()
        await caller.connection.close()
        fillers = [asked for asked in site.asked("/audio/speech") if is_filler(asked)]
    assert [event.transcript for event in caller.of(ev.AudioTranscriptDone)] == [
        "One moment. Here I am."
    ] * 2
    assert len(fillers) == 1, "its sound is kept"
    question, again = bodies(site)
    assert [m["role"] for m in question["messages"]] == ["system", "user"]
    assert again["messages"][2]["content"] == "One moment. Here I am."


@pytest.mark.parametrize(("spoken_ms", "replies"), [(300, 0), (900, 1)])
async def test_what_may_be_a_noise_gets_no_filler_and_who_was_told_to_wait_an_answer(
    spoken_ms: int, replies: int
) -> None:
    async def hears_nothing_late(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.6)
        await answer(b'{"text": ""}')(asked, writer)

    opened = open_chain(
        stt=hears_nothing_late,
        llm=chat_stream("Pardon?"),
        tts=SPOKEN,
        filler=FILLER,
        filler_after_s=0.1,
    )
    async with opened as site:
        caller = await call(site)
        await caller.speak(ms=spoken_ms)
        await caller.until(ev.TranscriptionCompleted)
        if replies:
            await caller.until(ev.ResponseDone)
        await caller.connection.close()
    assert len(caller.of(ev.ResponseCreated)) == replies
    said = "".join(event.delta for event in caller.of(ev.AudioTranscriptDelta))
    assert said == ("One moment. Pardon?" if replies else "")


async def test_a_caller_who_speaks_ends_the_wait_and_is_answered_to_everything() -> None:
    heard = asyncio.Event()

    async def late(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await heard.wait()
        await HEARD(asked, writer)

    async with open_chain(
        stt=late, llm=chat_stream("Here I am."), tts=SPOKEN, filler=FILLER, filler_after_s=0.1
    ) as site:
        caller = await call(site)
        await caller.speak(ms=900)
        await caller.until(ev.AudioTranscriptDelta)
        await caller.speak(ms=900)
        cut = await caller.until(ev.ResponseDone)
        heard.set()
        done = await caller.until(ev.ResponseDone)
        await caller.connection.close()
    assert (cut.response.status, cut.response.status_reason) == ("cancelled", "turn_detected")
    assert done.response.status == "completed"
    (asked,) = bodies(site)
    assert [m["role"] for m in asked["messages"]].count("user") == 2


@pytest.mark.parametrize("late", ["stt", "llm"])
async def test_a_filler_whose_sound_is_not_there_is_not_said(late: str) -> None:
    def slow(stage: str, script: Script) -> Script:
        async def write(asked: Asked, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(0.3 if stage == late else 0)
            await script(asked, writer)

        return write

    async def voice(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await (silent if is_filler(asked) else SPOKEN)(asked, writer)

    async with open_chain(
        stt=slow("stt", HEARD),
        llm=slow("llm", chat_stream("Here I am.")),
        tts=voice,
        filler=FILLER,
        filler_after_s=0.1,
    ) as site:
        caller = await call(site)
        await caller.speak()
        await caller.until(ev.ResponseDone)
        await caller.connection.close()
        site.server.let_go()
    said = "".join(event.delta for event in caller.of(ev.AudioTranscriptDelta))
    assert said == "Here I am."


async def test_a_stage_that_fails_fails_the_response_and_not_the_session() -> None:
    for llm, tts in (
        (answer(b"{}", status=401), SPOKEN),
        (chat_stream("Hello there."), answer(b"", status=500)),
    ):
        async with open_chain(stt=HEARD, llm=llm, tts=tts) as site:
            caller = await call(site)
            await caller.speak()
            failed = (await caller.until(ev.ResponseDone)).response
            assert failed.status == "failed"
            assert failed.error is not None and failed.error.code in (
                "stage_key_refused",
                "stage_busy",
            )
            await caller.connection.send(ev.ItemCreate(typed("Hello?")))
            await caller.connection.send(ev.ResponseCreate(None))
            assert (await caller.until(ev.ResponseDone)).response.status == "failed"
            await caller.connection.close()


async def test_a_turn_that_no_recognizer_understood_is_no_reply_to_nothing() -> None:
    async with open_chain(stt=answer(b'{"text": ""}'), llm=chat_stream("?"), tts=SPOKEN) as site:
        caller = await call(site)
        await caller.speak()
        heard = await caller.until(ev.TranscriptionCompleted)
        assert heard.transcript == ""
        await caller.connection.send(ev.ItemCreate(typed("Hello?")))
        await caller.connection.send(ev.ResponseCreate(None))
        await caller.until(ev.ResponseDone)
        await caller.connection.close()
    assert [m["content"] for m in bodies(site)[0]["messages"]] == ["You are a waiter.", "Hello?"]


async def test_text_goes_out_as_the_model_writes_it_and_questions_aside_are_answered() -> None:
    async with open_chain(stt=HEARD, llm=chat_stream("Ye", "s, 1.", "5."), tts=SPOKEN) as site:
        caller = await call(site, output_modalities=("text",))
        aside = ev.ResponseConfig(
            conversation="none",
            input=(typed("Is it late?"),),
            instructions="Judge.",
            output_modalities=("text",),
        )
        await caller.connection.send(ev.ResponseCreate(aside))
        await caller.until(ev.ResponseDone)
        await caller.connection.close()
    assert [event.delta for event in caller.of(ev.TextDelta)] == ["Ye", "s, 1.", "5."]
    assert bodies(site)[0]["messages"] == [
        {"role": "system", "content": "Judge."},
        {"role": "user", "content": "Is it late?"},
    ]
    assert not site.asked("/audio/speech")


async def test_a_session_that_ends_in_mid_reply_leaves_nothing() -> None:
    async with open_chain(stt=HEARD, llm=silent, tts=SPOKEN) as site:
        caller = await call(site)
        await caller.speak()
        await until(lambda: site.asked("/chat/completions"))
        await caller.connection.close()
        await until(lambda: site.engine.sessions == 0)


def typed(text: str) -> ev.Item:
    return ev.Item(
        type="message", role="user", content=(ev.ContentPart(type="input_text", text=text),)
    )


async def test_a_probe_asks_the_text_model_of_the_chain() -> None:
    async with open_chain(stt=HEARD, llm=chat_stream("Here I am."), tts=SPOKEN) as site:
        found = await probe(site.engine.model(), say="Are you there?")
    assert (found.outcome, found.answer) == (ProbeOutcome.OK, "Here I am.")
    assert bodies(site)[0]["messages"][-1]["content"] == "Are you there?"
    assert site.asked("/audio/speech") == []


@pytest.mark.parametrize(
    ("llm", "outcome"),
    [
        (answer(b"{}", status=401), ProbeOutcome.AUTH),
        (answer(b"{}", status=403), ProbeOutcome.AUTH),
        (answer(b'{"error": {"code": "insufficient_quota"}}', status=429), ProbeOutcome.QUOTA),
        (answer(b"{}", status=429), ProbeOutcome.QUOTA),
        (answer(b"{}", status=404), ProbeOutcome.MODEL_NOT_FOUND),
        (answer(b"{}", status=400), ProbeOutcome.PROTOCOL_INCOMPATIBLE),
        (answer(b"{}", status=500), ProbeOutcome.UPSTREAM_SERVER_ERROR),
        (sse(*chat_events("Let me")[:2], cut=True), ProbeOutcome.UPSTREAM_SERVER_ERROR),
        (silent, ProbeOutcome.TIMEOUT),
        (None, ProbeOutcome.UNREACHABLE),
    ],
)
async def test_a_probe_of_the_chain_has_a_class_for_each_cause(
    llm: Script | None, outcome: ProbeOutcome
) -> None:
    async with open_chain(stt=HEARD, llm=llm or silent, tts=SPOKEN) as site:
        if llm is None:
            site.server.stop()
        found = await probe(site.engine.model(), timeout_ms=2_000)
        site.server.let_go()
    assert (found.outcome, found.model) == (outcome, "pipeline")
    assert found.session_id.startswith("sess_")


def heard_so_far() -> Script:
    """A transcriber that hears more with each request."""
    left = list(WORDS_SO_FAR)

    async def write(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await answer(json.dumps({"text": left.pop(0)}).encode())(asked, writer)

    return write


def echo(body: dict[str, Any]) -> Script:
    return chat_stream(f"You said: {body['messages'][-1]['content']}")


async def test_a_likely_end_begins_the_reply_that_the_proven_end_asks_for() -> None:
    opened = open_chain(stt=heard_so_far(), llm=scripted_chat(echo), tts=SPOKEN, likely_end_ms=60)
    async with opened as site:
        caller = await call(site)
        await caller.speak(then_quiet_ms=100)  # no end is proven yet
        await until(lambda: bool(site.asked("/audio/speech")))
        await caller.speak(ms=0)
        await caller.until(ev.ResponseDone)
        await caller.connection.close()
    (done,) = caller.of(ev.TranscriptionCompleted)
    assert done.transcript == WORDS_SO_FAR[0]
    (said,) = caller.of(ev.AudioTranscriptDone)
    assert said.transcript == f"You said: {WORDS_SO_FAR[0]}"
    for path in ("/audio/transcriptions", "/chat/completions", "/audio/speech"):
        assert len(site.asked(path)) == 1, path


async def go_on_twice(caller: Caller, site: ChainSite) -> None:
    """Speak with two pauses that each seem to be the end, then end the turn."""
    for tries in (1, 2):
        await caller.speak(then_quiet_ms=100)
        await until(lambda: len(site.asked("/audio/speech")) == tries)  # noqa: B023
    await caller.speak(then_quiet_ms=0)
    await caller.speak(ms=0)


async def test_a_caller_who_goes_on_is_answered_once_and_to_everything() -> None:
    opened = open_chain(stt=heard_so_far(), llm=scripted_chat(echo), tts=SPOKEN, likely_end_ms=60)
    async with opened as site:
        caller = await call(site)
        await go_on_twice(caller, site)
        await caller.until(ev.ResponseDone)
        await caller.connection.close()
    (done,) = caller.of(ev.TranscriptionCompleted)
    assert done.transcript == WORDS_SO_FAR[2]
    (said,) = caller.of(ev.AudioTranscriptDone)
    assert said.transcript == f"You said: {WORDS_SO_FAR[2]}"
    assert len(caller.of(ev.ResponseCreated)) == 1


@pytest.mark.parametrize(
    ("answered", "used", "estimated"),
    [
        # Twice dropped behind the whole answer, whose server told its usage; then kept.
        (True, (60, 15), False),
        # Twice dropped while it was written: 25 and 33 characters were asked, 28 came each time.
        (False, (20 + 7 + 9, 5 + 2 * 7), True),
    ],
)
async def test_an_answer_that_is_dropped_is_billed_with_the_next_one(
    answered: bool, used: tuple[int, int], estimated: bool
) -> None:
    def reply(body: dict[str, Any]) -> Script:
        if answered or WORDS_SO_FAR[2] in body["messages"][-1]["content"]:
            return echo(body)
        _, begun, *_ = chat_events("Yes, that would be possible. And")
        return sse(begun, pause_s=600)

    opened = open_chain(stt=heard_so_far(), llm=scripted_chat(reply), tts=SPOKEN, likely_end_ms=60)
    async with opened as site:
        caller = await call(site)
        await go_on_twice(caller, site)
        done = await caller.until(ev.ResponseDone)
        await caller.connection.send(ev.ResponseCreate(None))
        after = await caller.until(ev.ResponseDone)
        await caller.connection.close()
        site.server.let_go()
    usage = done.response.usage
    assert usage is not None
    assert (usage.input_text_tokens, usage.output_text_tokens) == used
    assert usage.estimated is estimated
    assert after.response.usage is not None and after.response.usage.total_tokens == 25


async def test_sound_that_is_transcribed_again_is_billed_again() -> None:
    opened = open_chain(stt=heard_so_far(), llm=scripted_chat(echo), tts=SPOKEN, likely_end_ms=60)
    async with opened as site:
        caller = await call(site)
        await go_on_twice(caller, site)
        await caller.until(ev.ResponseDone)
        await caller.connection.close()
        sent = [len(asked.body) for asked in site.asked("/audio/transcriptions")]
    (heard,) = caller.of(ev.TranscriptionCompleted)
    assert len(sent) == 3
    silence_s = 0.7  # the turn's end, which the last request came before
    assert abs((heard.seconds or 0) - sum(sent) / 32_000) < silence_s


@pytest.mark.parametrize("usage", [(20, 5), None])
async def test_an_answer_that_is_cut_off_has_the_usage_that_was_told(
    usage: tuple[int, int] | None,
) -> None:
    slow = piecewise(*[speech(400, 24_000)] * 20, content_type="audio/pcm", pause_s=0.05)
    async with open_chain(stt=HEARD, llm=chat_stream("We do.", usage=usage), tts=slow) as site:
        caller = await call(site)
        await caller.speak()
        await caller.until(ev.AudioDelta)
        await caller.connection.send(ev.ResponseCancel())
        done = await caller.until(ev.ResponseDone)
        await caller.connection.close()
    used = done.response.usage
    assert used is not None and done.response.status == "cancelled"
    assert (used.input_text_tokens, used.output_text_tokens) == (usage or (11, 2))
    assert used.estimated is (usage is None)


async def test_what_asks_nothing_of_the_text_model_uses_nothing() -> None:
    async with open_chain(stt=HEARD, llm=answer(b"{}", status=401), tts=SPOKEN) as site:
        caller = await call(site)
        say = ev.ResponseConfig(metadata={ev.SAY_METADATA_KEY: "Good day!"})
        await caller.connection.send(ev.ResponseCreate(say))
        said = await caller.until(ev.ResponseDone)
        await caller.connection.send(ev.ResponseCreate(None))
        refused = await caller.until(ev.ResponseDone)
        await caller.connection.close()
    assert (said.response.status, said.response.usage) == ("completed", ev.Usage())
    assert (refused.response.status, refused.response.usage) == ("failed", ev.Usage())


MARKED = "# Today\n\n- **Fish** is fresh. We have [meat](https://a.example/m) as well."


@pytest.mark.parametrize(
    ("played_ms", "history"),
    [
        (None, MARKED),
        # 400 ms a piece: two and a half of three were played.
        (1_000, "# Today\n\n- **Fish** is fresh. We have"),
    ],
)
async def test_markdown_is_not_spoken_and_stays_in_the_models_history(
    played_ms: int | None, history: str
) -> None:
    def reply(body: dict[str, Any]) -> Script:
        first = len([m for m in body["messages"] if m["role"] == "user"]) == 1
        return chat_stream(*MARKED) if first else chat_stream("Yes.")

    async with open_chain(stt=HEARD, llm=scripted_chat(reply), tts=SPOKEN) as site:
        caller = await call(site)
        await caller.speak()
        await caller.until(ev.ResponseDone)
        if played_ms is not None:
            item_id = caller.of(ev.AudioDelta)[-1].item_id
            await caller.connection.send(ev.ItemTruncate(item_id, 0, played_ms))
        shown = caller.of(ev.AudioTranscriptDone)[0].transcript
        spoken = [json.loads(asked.body)["input"] for asked in site.asked("/audio/speech")]
        await caller.speak()
        await caller.until(ev.ResponseDone)
        await caller.connection.close()
    assert spoken == ["Today", "Fish is fresh.", "We have meat as well."]
    assert shown == "Today Fish is fresh. We have meat as well."
    answers = [m for m in bodies(site)[-1]["messages"] if m["role"] == "assistant"]
    assert answers == [{"role": "assistant", "content": history}]
