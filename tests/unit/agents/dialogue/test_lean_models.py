"""Servers that send less, more or other than OpenAI: nothing is lost, and nothing counts twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from app.agents.dialogue.actions import RunTool
from app.agents.dialogue.messages import SayMode, SayWhen
from app.events import AgentSaid, CallerSaid, TokenUsage, VoiceTrouble
from app.realtime.events import (
    AudioTranscriptDelta,
    AudioTranscriptDone,
    ContentPart,
    FunctionArgumentsDone,
    InputAudioCommitted,
    Item,
    ItemAdded,
    ItemCreate,
    OutputItemAdded,
    OutputItemDone,
    Response,
    ResponseCreate,
    ResponseDone,
    ResponseStatus,
    ServerEvent,
    TextDelta,
    TranscriptionCompleted,
    Usage,
)
from tests.unit.agents.harness import DialogueHarness, agent_named, call_of, tool_named

ITEM = Item(type="message", id="a1", role="assistant")
WORDS = AudioTranscriptDelta("r1", "a1", 0, 0, "Hello.")
ARGUMENTS = FunctionArgumentsDone("r1", "item_c1", 0, "c1", "look_up", "{}")


def done(
    response_id: str = "r1",
    status: ResponseStatus = ResponseStatus.COMPLETED,
    usage: Usage | None = None,
) -> ResponseDone:
    """A lean end: it repeats nothing of the response."""
    return ResponseDone(Response(id=response_id, status=status, usage=usage))


# Empty responses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "seen",
    [
        [WORDS],
        [AudioTranscriptDone("r1", "a1", 0, 0, "Hello.")],
        [TextDelta("r1", "a1", 0, 0, "Hello.")],
        [OutputItemAdded("r1", 0, ITEM)],
        [OutputItemDone("r1", 0, ITEM)],
        [OutputItemDone("r1", 0, call_of("look_up"))],
        [ARGUMENTS],
    ],
    ids=lambda seen: type(seen[0]).__name__,
)
def test_a_response_of_which_anything_was_seen_is_not_empty(seen: list[ServerEvent]) -> None:
    harness = DialogueHarness(agent_named(tools=(tool_named(),)))
    harness.begins()
    harness.voice(*seen, done())
    assert harness.take(VoiceTrouble) == []
    assert harness.dialogue.failures.in_a_row == 0
    assert harness.counters.responses_failed == 0


def test_a_response_of_which_sound_was_seen_is_not_empty() -> None:
    harness = DialogueHarness()
    harness.begins()
    harness.dialogue.on_sound("r1", "a1", 0)
    harness.voice(done())
    assert harness.take(VoiceTrouble) == []


def test_a_response_of_which_nothing_was_seen_is_empty() -> None:
    harness = DialogueHarness()
    harness.begins()
    harness.voice(done())
    assert [trouble.code for trouble in harness.take(VoiceTrouble)] == ["empty_response"]


@pytest.mark.parametrize(("seen", "failed"), [([WORDS], 0), ([OutputItemAdded("r1", 0, ITEM)], 1)])
def test_a_response_that_was_cut_is_empty_without_words(
    seen: list[ServerEvent], failed: int
) -> None:
    harness = DialogueHarness()
    harness.begins()
    harness.voice(*seen, done(status=ResponseStatus.INCOMPLETE))
    assert harness.counters.responses_failed == failed


# Tool calls ---------------------------------------------------------------------------------------

ADDED = OutputItemAdded(
    "r1", 0, Item(type="function_call", id="item_c1", call_id="c1", name="look_up")
)
NAMELESS = FunctionArgumentsDone("r1", "item_c1", 0, "c1", "", "{}")
WHOLE = OutputItemDone("r1", 0, call_of("look_up"))


@pytest.mark.parametrize(
    "events",
    [
        [ARGUMENTS],
        [ARGUMENTS, ARGUMENTS],
        [ADDED, NAMELESS],
        [ARGUMENTS, WHOLE],
        [WHOLE, ARGUMENTS],
        [ADDED, ARGUMENTS, WHOLE, WHOLE],
    ],
)
@pytest.mark.parametrize("repeats", [False, True])
def test_a_call_runs_once_however_it_is_sent(events: list[ServerEvent], repeats: bool) -> None:
    harness = DialogueHarness(agent_named(tools=(tool_named(),)))
    harness.begins()
    harness.voice(*events)
    if repeats:
        harness.ends("r1", ResponseStatus.COMPLETED, call_of("look_up"))
    else:
        harness.voice(done())
    harness.voice(done())
    (run,) = harness.take(RunTool)
    assert (run.tool_call_id, run.name, run.arguments) == ("c1", "look_up", "{}")
    harness.do(harness.dialogue.function_calls.on_tool_done("c1", '"found"', 0))
    assert harness.outputs() == [("c1", '"found"')]
    assert len(harness.take(ResponseCreate)) == 1


@pytest.mark.parametrize(
    "status", [ResponseStatus.CANCELLED, ResponseStatus.FAILED, ResponseStatus.INCOMPLETE]
)
def test_a_call_of_a_response_that_was_not_completed_does_not_run(status: ResponseStatus) -> None:
    harness = DialogueHarness(agent_named(tools=(tool_named(),)))
    harness.begins()
    harness.voice(ARGUMENTS, done(status=status))
    assert harness.take(RunTool) == []


# Usage --------------------------------------------------------------------------------------------


def test_the_usage_of_a_response_counts_once() -> None:
    harness = DialogueHarness()
    end = done(usage=Usage(output_audio_tokens=7, input_text_tokens=3))
    for _ in range(3):
        harness.begins()
        harness.voice(WORDS, end, end, end)
    assert harness.dialogue.usage == TokenUsage(output_audio=7, input_text=3)


def test_the_usage_of_a_transcription_counts_once_per_turn() -> None:
    harness = DialogueHarness()
    for turn in (1, 2):
        harness.voice(InputAudioCommitted("u1"))
        for _ in range(3):
            harness.voice(TranscriptionCompleted("u1", 0, "hi", seconds=2.0, tokens=5))
        assert harness.dialogue.usage == TokenUsage(
            transcription_seconds=2.0 * turn, transcription_tokens=5 * turn
        )


# The transcript -----------------------------------------------------------------------------------


def spoken(harness: DialogueHarness) -> list[str]:
    records = harness.dialogue.transcript.lines(harness.now_ms)
    lines = [record.event for record in records]
    assert all(isinstance(line, AgentSaid | CallerSaid) for line in lines)
    return [line.text for line in lines if isinstance(line, AgentSaid | CallerSaid)]


def words(response_id: str, item_id: str, text: str) -> AudioTranscriptDelta:
    return AudioTranscriptDelta(response_id, item_id, 0, 0, text)


def whole(response_id: str, item_id: str, text: str) -> AudioTranscriptDone:
    return AudioTranscriptDone(response_id, item_id, 0, 0, text)


def added(response_id: str, item_id: str) -> list[ServerEvent]:
    item = Item(type="message", id=item_id, role="assistant")
    return [OutputItemAdded(response_id, 0, item), ItemAdded(item)]


def closed(response_id: str, item_id: str, text: str) -> OutputItemDone:
    part = ContentPart(type="output_audio", transcript=text)
    item = Item(type="message", id=item_id, role="assistant", content=(part,))
    return OutputItemDone(response_id, 0, item)


SENT: dict[str, list[ServerEvent]] = {
    "as OpenAI does": [
        *added("r1", "a1"),
        words("r1", "a1", "one "),
        words("r1", "a1", "two"),
        whole("r1", "a1", "one two"),
        closed("r1", "a1", "one two"),
    ],
    "never closed": [*added("r1", "a1"), words("r1", "a1", "one "), words("r1", "a1", "two")],
    "never added": [words("r1", "a1", "one "), words("r1", "a1", "two")],
    "an id for each piece": [words("r1", "x1", "one "), words("r1", "x2", "two")],
    "an id for each piece beside the item": [
        *added("r1", "a1"),
        words("r1", "x1", "one "),
        words("r1", "x2", "two"),
        closed("r1", "a1", "one two"),
    ],
    "closed thrice": [
        *added("r1", "a1"),
        words("r1", "a1", "one two"),
        *[whole("r1", "a1", "one two")] * 3,
        *[closed("r1", "a1", "one two")] * 3,
    ],
    "whole only": [*added("r1", "a1"), whole("r1", "a1", "one two")],
    "in its item only": [*added("r1", "a1"), closed("r1", "a1", "one two")],
    "an empty whole": [*added("r1", "a1"), words("r1", "a1", "one two"), whole("r1", "a1", "")],
}


@pytest.mark.parametrize("name", SENT)
def test_an_answer_stands_in_the_transcript_whole_and_once(name: str) -> None:
    harness = DialogueHarness()
    harness.begins()
    harness.dialogue.on_sound("r1", "a1", 0)
    harness.voice(*SENT[name], done())
    harness.dialogue.transcript.on_heard("a1", 400, 400)
    harness.caller_stops("three")
    assert spoken(harness) == ["one two", "three"]
    harness.wait(10_000)
    harness.dialogue.history.close()
    assert spoken(harness) == []


def odd(response_id: str) -> str:
    return f"odd@{response_id}"  # as the protocol names an id that is used again


OTHER_IDS: dict[str, Callable[[str, str, str], list[ServerEvent]]] = {
    "of each piece": lambda r, a, text: [
        *added(r, a), words(r, odd(r), text), whole(r, a, text), closed(r, a, text)
    ],
    "of the whole": lambda r, a, text: [
        *added(r, a), words(r, a, text), whole(r, odd(r), text), closed(r, a, text)
    ],
    "of the end": lambda r, a, text: [
        *added(r, a), words(r, a, text), whole(r, a, text), closed(r, odd(r), text)
    ],
    "of all but the beginning": lambda r, a, text: [
        *added(r, a), words(r, odd(r), text), whole(r, odd(r), text), closed(r, odd(r), text)
    ],
    "of the beginning": lambda r, a, text: [
        OutputItemAdded(r, 0, Item(type="odd", id=a)), words(r, a, text), closed(r, a, text)
    ],
}  # fmt: skip
"""Parts that have another id than their item, or another type."""


@pytest.mark.parametrize("name", OTHER_IDS)
def test_answers_stand_in_the_transcript_once_whatever_else_has_another_id(name: str) -> None:
    harness = DialogueHarness()
    said = []
    for number in (1, 2, 3):
        response_id, item_id, text = f"r{number}", f"a{number}", f"answer {number}"
        harness.begins(response_id)
        began, *others = OTHER_IDS[name](response_id, item_id, text)
        harness.voice(began)
        harness.dialogue.on_sound(response_id, item_id, 0)
        harness.voice(*others, done(response_id))
        harness.dialogue.transcript.on_heard(item_id, 400, 400)
        harness.caller_stops("yes", f"u{number}")
        said += spoken(harness)
    harness.wait(10_000)
    harness.dialogue.history.close()
    assert said + spoken(harness) == ["answer 1", "yes", "answer 2", "yes", "answer 3", "yes"]


def test_two_items_of_one_response_stay_two() -> None:
    harness = DialogueHarness()
    harness.begins()
    for item_id in ("a1", "a2"):
        harness.voice(*added("r1", item_id), words("r1", item_id, item_id))
        harness.voice(closed("r1", item_id, item_id))
    harness.voice(done())
    for item_id in ("a1", "a2"):
        harness.dialogue.transcript.on_heard(item_id, 400, 400)
    assert spoken(harness) == ["a1", "a2"]


# Ids of our own -----------------------------------------------------------------------------------


def test_items_of_ours_have_openais_prefix_of_their_kind() -> None:
    harness = DialogueHarness(agent_named(tools=(tool_named(),)))
    harness.do(harness.dialogue.type_in("hello", 0))
    harness.begins()
    harness.voice(WHOLE, done())
    harness.do(harness.dialogue.function_calls.on_tool_done("c1", '"found"', 0))
    harness.answers("r2")
    harness.dialogue.transcript.on_heard("a_r2", 400, 400)
    harness.dialogue.on_lost()
    harness.do(harness.dialogue.on_reconnected(0))
    items = [create.item for create in harness.take(ItemCreate)]
    prefixes = {
        "message": "msg_", "function_call": "fc_", "function_call_output": "fco_",
    }  # fmt: skip
    assert {item.type for item in items} == set(prefixes)
    for item in items:
        prefix = "sys_" if item.role == "system" else prefixes[item.type]
        assert (item.id or "").startswith(prefix), item
        assert len(item.id or "") <= 32


def creates(harness: DialogueHarness) -> list[ItemCreate]:
    return harness.take(ItemCreate)


def refuse(harness: DialogueHarness, create: ItemCreate, code: str = "invalid_item") -> None:
    assert create.event_id
    harness.refuses(create.event_id, code)


def test_a_refused_output_is_sent_again_and_replied_to() -> None:
    harness = DialogueHarness(agent_named(tools=(tool_named(),)))
    harness.begins()
    harness.voice(WHOLE, done())
    harness.do(harness.dialogue.function_calls.on_tool_done("c1", '"found"', 0))
    (first,) = creates(harness)
    assert len(harness.take(ResponseCreate)) == 1
    refuse(harness, first)
    (second,) = creates(harness)
    assert (second.item.id, second.item.output) == (None, '"found"')
    harness.voice(ItemAdded(replace(second.item, id="theirs", status="completed")))
    harness.answers("r2")  # what was asked for before the output came
    assert len(harness.take(ResponseCreate)) == 1
    refuse(harness, second)
    (third,) = creates(harness)
    assert third.item.role == "system"
    assert "found" in (third.item.content[0].text or "")
    refuse(harness, third)
    (fourth,) = creates(harness)
    assert fourth.item.id is None
    refuse(harness, fourth)
    assert creates(harness) == []
    kinds = [entry.kind for entry in harness.dialogue.history]
    assert kinds.count("function_call_output") == 1


def test_refused_words_of_the_caller_are_sent_again_and_stand_once() -> None:
    harness = DialogueHarness()
    harness.do(harness.dialogue.type_in("hello", 0))
    (first,) = creates(harness)
    assert len(harness.take(ResponseCreate)) == 1
    refuse(harness, first)
    (second,) = creates(harness)
    assert second.item.id is None
    harness.voice(ItemAdded(replace(second.item, id="theirs", status="completed")))
    harness.answers("r1")
    assert len(harness.take(ResponseCreate)) == 1
    harness.dialogue.transcript.on_heard("a_r1", 400, 400)
    assert spoken(harness) == ["hello", "words"]


def test_words_that_are_refused_under_any_id_are_told_in_a_note() -> None:
    harness = DialogueHarness()
    harness.do(harness.dialogue.type_in("hello", 0))
    for _ in range(2):
        (create,) = creates(harness)
        refuse(harness, create)
    (told,) = creates(harness)
    assert told.item.role == "system"
    assert '"hello"' in (told.item.content[0].text or "")
    # No item of the server's is taken for one that it has refused.
    harness.voice(
        ItemAdded(
            Item(
                type="message",
                id="theirs",
                role="user",
                content=(ContentPart(type="input_text", text="x"),),
            )
        )
    )
    assert [entry.item_id for entry in harness.dialogue.history][-1] == "theirs"


def test_an_item_that_the_model_has_already_is_not_sent_again() -> None:
    harness = DialogueHarness()
    harness.do(harness.dialogue.type_in("hello", 0))
    (first,) = creates(harness)
    refuse(harness, first, "item_create_duplicate_item_id")
    assert creates(harness) == []


def test_a_refused_replay_is_sent_again_and_adds_no_line() -> None:
    harness = DialogueHarness()
    harness.do(harness.dialogue.type_in("hello", 0))
    assert spoken(harness) == ["hello"]
    harness.dialogue.on_lost()
    harness.actions.clear()
    harness.do(harness.dialogue.on_reconnected(0))
    replayed, _ = creates(harness)
    refuse(harness, replayed)
    (again,) = creates(harness)
    harness.voice(ItemAdded(replace(again.item, id="theirs", status="completed")))
    harness.wait(10_000)
    assert spoken(harness) == []


def tell_booked(harness: DialogueHarness, when: SayWhen | None) -> None:
    if when is None:
        harness.do(harness.dialogue.prompt("Tell them that it is Booked.", 0))
    else:
        harness.do(harness.dialogue.say("Booked.", 0, mode=SayMode.RELAY, when=when))


@pytest.mark.parametrize("forms", [1, 2], ids=["the second form is taken", "no form is taken"])
@pytest.mark.parametrize(
    ("when", "refused"),
    [
        (when, refused)
        for when in (SayWhen.NOW, SayWhen.AFTER_TURN, SayWhen.IDLE, None)
        for refused in ("waits", "requested", "runs", "done")
        # Words for a quiet moment tell the model nothing before it comes.
        if (when, refused) != (SayWhen.IDLE, "waits")
    ],
)
def test_refused_information_is_told_in_another_form(
    when: SayWhen | None, refused: str, forms: int
) -> None:
    harness = DialogueHarness()
    if refused == "waits":
        harness.begins("r0")
    tell_booked(harness, when)
    if when is SayWhen.IDLE:
        harness.do(harness.dialogue.responses.on_quiet(0))
    if refused in {"runs", "done"}:
        harness.begins("r1")
    if refused == "done":
        harness.ends("r1")
    asked = len(harness.take(ResponseCreate))
    assert asked == (0 if refused == "waits" else 1)
    for form in range(forms):
        (create,) = creates(harness)
        assert "Booked." in (create.item.content[0].text or "")
        assert (create.item.id is None) == (form == 1)
        refuse(harness, create)
    left = creates(harness)
    assert [create.item.id for create in left] == ([None] if forms == 1 else [])
    if refused == "waits":
        harness.ends("r0")
    elif refused == "requested":
        harness.begins("r1")
    if refused in {"requested", "runs"}:
        harness.ends("r1")
    asked_for = harness.take(ResponseCreate)
    for number in (2, 3):
        harness.begins(f"r{number}")
        harness.ends(f"r{number}")
        asked_for += harness.take(ResponseCreate)
    told = [str(create.response and create.response.instructions) for create in asked_for]
    assert len(told) == (2 if refused == "done" and forms == 2 else 1)
    assert ("Booked." in told[-1]) == (forms == 2)


def test_what_was_taken_back_is_not_asked_for_because_its_note_is_refused() -> None:
    harness = DialogueHarness()
    harness.begins("r0")
    tell_booked(harness, SayWhen.AFTER_TURN)
    (create,) = creates(harness)
    harness.do(harness.dialogue.say_last("Goodbye.", 0))
    refuse(harness, create)
    harness.ends("r0")
    assert harness.requested() == ["Goodbye."]
