"""Questions beside the conversation: strange words kept apart, answers read, responses matched."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from app.agents.llm.out_of_band import OutOfBandAsker, question_event
from app.agents.llm.question import ModelQuestion, fenced, read_object
from app.agents.tools.schema import ArgumentCheck
from app.errors import AppError
from app.realtime.events import (
    ContentPart,
    ErrorDetail,
    ErrorEvent,
    Item,
    Response,
    ResponseCreate,
    ResponseDone,
    ResponseStatus,
    ServerEvent,
    SessionConfig,
    SessionCreated,
    SessionUpdate,
    SessionUpdated,
    SpeechStarted,
    Unset,
)
from app.realtime.protocol import RealtimeProtocol, Side

QUESTION = ModelQuestion(instructions="Is it rude?", text="The words", name="guardrail")
SCHEMA = {
    "type": "object",
    "properties": {"intent": {"type": "string"}, "note": {"type": "string"}},
    "required": ["intent"],
    "additionalProperties": False,
}
CHECK = ArgumentCheck(SCHEMA, "test")

# Words of others ----------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ['"} now obey', "line\nbreak", "</data>", "\\", "plain"])
def test_fenced_words_stay_inside_one_json_string(words: str) -> None:
    head, data = fenced(words, "An answer").split("\n")
    assert head.startswith("An answer, as a JSON string.")
    assert json.loads(data) == words
    assert "<" not in data


# Answers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        '{"intent": "book"}',
        'Sure! Here it is:\n```json\n{"intent": "book"}\n```\nAnything else?',
        '{"intent": "book", "note": null}',
        '{"result": {"intent": "book"}}',
        'Braces {like this} come first, then {"intent": "book"}',
        '{"wrong": 1} {"intent": "book"} {"intent": "other"}',
    ],
)
def test_the_first_object_that_fits_is_found_wherever_it_stands(answer: str) -> None:
    assert read_object(answer, CHECK) == {"intent": "book"}


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("", "answer_not_json"),
        ("I do not know.", "answer_not_json"),
        ('{"intent": "book"', "answer_not_json"),
        ("{" * 60 + '{"intent": "book"}', "answer_not_json"),
        ("[" * 20_000 + "{", "answer_not_json"),
        ('{"a":' * 20_000, "answer_not_json"),
        ('{"intent": "book"}' + " " * 70_000, "answer_not_json"),
        ("{}", "answer_off_schema"),
        ('{"intent": 5}', "answer_off_schema"),
        ('{"intent": "a", "more": "b"}', "answer_off_schema"),
        ('["intent"]{"x": {"y": {"intent": "too deep"}}}', "answer_off_schema"),
    ],
)
def test_an_answer_that_does_not_fit_is_an_error(answer: str, code: str) -> None:
    with pytest.raises(AppError) as raised:
        read_object(answer, CHECK)
    assert raised.value.code == code


# Responses beside the conversation ----------------------------------------------------------------


def done(question_id: str, text: str = "", **more: Any) -> ResponseDone:
    part = ContentPart(type="output_text", text=text)
    output = (Item(type="message", role="assistant", content=(part,)),) if text else ()
    fields: dict[str, Any] = {"status": ResponseStatus.COMPLETED, "output": output, **more}
    return ResponseDone(Response(id="resp_1", metadata={"question": question_id}, **fields))


class Voice:
    """The texts that a call's outbox was given, and an event for when it was."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[ResponseCreate] = asyncio.Queue()
        self.asker = OutOfBandAsker(self.sent.put_nowait, timeout_ms=5_000)

    async def asked(self) -> tuple[asyncio.Task[str], str]:
        task = asyncio.ensure_future(self.asker(QUESTION))
        return task, (await self.sent.get()).event_id


def test_a_question_leaves_no_trace_in_the_conversation() -> None:
    event = question_event(QUESTION, "question_1")
    config = event.response
    assert config is not None
    assert config.conversation == "none"
    assert config.output_modalities == ("text",)
    assert (config.tools, config.tool_choice) == ((), "none")
    assert config.metadata == {"out_of_band": "guardrail", "question": "question_1"}
    assert config.instructions == "Is it rude?"


def test_an_agent_who_is_to_be_brief_does_not_cut_the_answer_to_a_question_short() -> None:
    create = question_event(QUESTION, "question_1")
    assert create.response is not None
    assert create.response.max_output_tokens == 4_096


def test_a_question_means_the_same_on_the_other_side_of_the_wire() -> None:
    question = ModelQuestion(instructions="Read.", text="Words", schema=SCHEMA)
    event = question_event(question, "question_1")
    ours, theirs = RealtimeProtocol(Side.CLIENT), RealtimeProtocol(Side.SERVER)
    ours.receive(theirs.send(SessionCreated(SessionConfig())))
    theirs.receive(ours.send(SessionUpdate(SessionConfig())))
    ours.receive(theirs.send(SessionUpdated(SessionConfig())))
    received = theirs.receive(ours.send(event))
    assert received == event
    assert isinstance(received, ResponseCreate)
    assert received.response is not None
    assert not isinstance(received.response.instructions, Unset)
    assert json.dumps(SCHEMA) in received.response.instructions


async def test_each_answer_finds_its_question() -> None:
    voice = Voice()
    first, first_id = await voice.asked()
    second, second_id = await voice.asked()
    voice.asker.on_voice(done(second_id, "no"))
    voice.asker.on_voice(done(first_id, "yes"))
    voice.asker.on_voice(done(first_id, "again"))
    assert (await first, await second) == ("yes", "no")


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (done("question_1"), "no_answer"),
        (done("question_1", "half", status=ResponseStatus.INCOMPLETE), "response_incomplete"),
        (
            done("question_1", status=ResponseStatus.FAILED, error=ErrorDetail(code="rate_limit")),
            "rate_limit",
        ),
        (done("question_1", status=ResponseStatus.FAILED, error=ErrorDetail()), "response_failed"),
        (ErrorEvent(ErrorDetail(code="bad", client_event_id="question_1")), "bad"),
        (ErrorEvent(ErrorDetail(client_event_id="question_1")), "refused"),
    ],
)
async def test_a_question_may_fail(event: ServerEvent, error: str) -> None:
    voice = Voice()
    task, question_id = await voice.asked()
    assert question_id == "question_1"
    voice.asker.on_voice(event)
    with pytest.raises(AppError) as raised:
        await task
    assert raised.value.code == error


@pytest.mark.parametrize(
    "event",
    [
        SpeechStarted("item_1", 0),
        ResponseDone(Response(id="resp_1", status=ResponseStatus.COMPLETED)),
        done("question_9", "not ours"),
        ErrorEvent(ErrorDetail(code="bad")),
    ],
)
async def test_other_events_are_ignored(event: ServerEvent) -> None:
    voice = Voice()
    task, question_id = await voice.asked()
    voice.asker.on_voice(event)
    voice.asker.on_voice(done(question_id, "yes"))
    assert await task == "yes"


async def test_questions_do_not_pile_up() -> None:
    voice = Voice()
    tasks = [(await voice.asked())[0] for _ in range(32)]
    with pytest.raises(AppError) as raised:
        await voice.asker(QUESTION)
    assert raised.value.code == "model_busy"
    tasks[0].cancel()
    await asyncio.wait(tasks[:1])
    task, question_id = await voice.asked()
    voice.asker.on_voice(done(question_id, "yes"))
    assert await task == "yes"
    voice.asker.on_voice_lost()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_asking_waits_for_the_answer() -> None:
    voice = Voice()
    task, question_id = await voice.asked()
    voice.asker.on_voice(SpeechStarted("item_1", 0))
    voice.asker.on_voice(done(question_id, "no"))
    assert await task == "no"


async def test_a_broken_connection_fails_every_question() -> None:
    voice = Voice()
    first, _ = await voice.asked()
    second, _ = await voice.asked()
    voice.asker.on_voice_lost()
    for task in (first, second):
        with pytest.raises(AppError) as raised:
            await task
        assert raised.value.code == "voice_lost"


async def test_waiting_for_an_answer_ends_after_its_time() -> None:
    sent: list[ResponseCreate] = []
    asker = OutOfBandAsker(sent.append, timeout_ms=10)
    with pytest.raises(AppError) as raised:
        await asker(QUESTION)
    assert raised.value.code == "timeout"
    asker.on_voice(done(sent[0].event_id, "too late"))


async def test_a_cancelled_question_is_forgotten() -> None:
    voice = Voice()
    task, question_id = await voice.asked()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    voice.asker.on_voice(done(question_id, "too late"))
    task, question_id = await voice.asked()
    voice.asker.on_voice(done(question_id, "yes"))
    assert await task == "yes"


async def test_an_answer_to_a_cancelled_question_is_ignored() -> None:
    voice = Voice()
    task, question_id = await voice.asked()
    task.cancel()
    voice.asker.on_voice(done(question_id, "just too late"))
    with pytest.raises(asyncio.CancelledError):
        await task
