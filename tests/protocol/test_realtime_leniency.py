"""A server's events are read leniently: a table of every field, missing or odd in every way.

An event needs its type and what the call cannot go on without; whatever else is odd is noted.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from typing import Any, Final

import pytest

from app.errors import VoiceRefused
from app.realtime import events as ev
from app.realtime.connection import RealtimeConnection, Transport, open_connection, pipe
from app.realtime.dialect import BETA, GA, Dialect
from app.realtime.fields import MalformedEvent
from app.realtime.protocol import RealtimeProtocol, Side
from audio.format import PCMU_8K
from tests.protocol.realtime_samples import BETA_SERVER, GA_SERVER, SERVER

ASKED: Final = ev.SessionConfig(input_format=PCMU_8K, output_format=PCMU_8K)
ABSENT: Final = object()
ODD: Final[tuple[object, ...]] = (
    ABSENT,
    None,
    7,
    -1,
    1.5,
    True,
    "odd",
    [],
    ["odd", 1],
    [None],
    {},
    {"odd": 1},
)

# The fields without which an event means nothing. What stands below them goes with them.
NEEDED: Final = {
    "session.created": ("session.audio", "session.input_audio", "session.output_audio",
                        "session.turn_detection"),
    "session.updated": ("session.audio", "session.input_audio", "session.output_audio",
                        "session.turn_detection"),
    "response.output_audio.delta": ("delta",),
    "response.audio.delta": ("delta",),
    "response.function_call_arguments.done": ("call_id",),
}  # fmt: skip


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, inner in entries:
        found.append((*path, key))
        if isinstance(inner, (dict, list)):
            found += _paths(inner, (*path, key))
    return found


def _with(message: dict[str, Any], path: tuple[Any, ...], value: object) -> str:
    copy = json.loads(json.dumps(message))
    *parents, key = path
    place = copy
    for parent in parents:
        place = place[parent]
    if value is ABSENT:
        del place[key]
    else:
        place[key] = value
    return json.dumps(copy)


def _is_needed(event_type: str, path: tuple[Any, ...]) -> bool:
    dotted = ".".join(map(str, path))
    return any(
        dotted.startswith(needed) or needed.startswith(f"{dotted}.")
        for needed in NEEDED.get(event_type, ())
    )


@pytest.mark.parametrize(
    ("dialect", "event"),
    [(GA, event) for event in (*SERVER, *GA_SERVER)]
    + [(BETA, event) for event in (*SERVER, *BETA_SERVER)],
    ids=lambda value: repr(value) if isinstance(value, Dialect) else type(value).__name__,
)
def test_no_odd_field_costs_an_event(dialect: Dialect, event: ev.ServerEvent) -> None:
    message = json.loads(dialect.encode_server(event, "event_1"))
    for path in _paths(message):
        if path == ("type",) or _is_needed(message["type"], path):
            continue
        for value in ODD:
            found = dialect.decode_server(_with(message, path, value))
            assert type(found) is type(event), (path, value)


@pytest.mark.parametrize(
    ("text", "param"),
    [
        ('{"type":"response.output_audio.delta"}', "delta"),
        ('{"type":"response.output_audio.delta","delta":null}', "delta"),
        ('{"type":"response.output_audio.delta","delta":"!"}', "delta"),
        ('{"type":"response.function_call_arguments.done","arguments":"{}"}', "call_id"),
        (
            '{"type":"session.updated","session":{"audio":{"output":{"format":"pcm16"}}}}',
            "session.audio.output.format",
        ),
        (
            '{"type":"session.updated","session":{"audio":{"input":{"turn_detection":"on"}}}}',
            "session.audio.input.turn_detection",
        ),
        (
            '{"type":"session.updated","session":{"audio":{"input":{"turn_detection":'
            '{"type":"server_vad","create_response":"yes"}}}}}',
            "session.audio.input.turn_detection.create_response",
        ),
    ],
)
def test_an_event_lacks_what_the_call_cannot_go_on_without(text: str, param: str) -> None:
    with pytest.raises(MalformedEvent) as caught:
        GA.decode_server(text)
    assert caught.value.param == param


def _session(spelled: dict[str, Any]) -> tuple[ev.SessionConfig, list[str]]:
    oddities: list[str] = []
    text = json.dumps({"type": "session.updated", "session": spelled})
    event = GA.decode_server(text, oddities)
    assert isinstance(event, ev.SessionUpdated)
    return event.session, oddities


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ({"audio": {"output": {"voice": {"name": "en-US-Ava", "type": "azure"}}}}, "voice"),
        ({"audio": {"output": {"speed": "fast"}}}, "speed"),
        ({"audio": {"input": {"noise_reduction": "near_field"}}}, "noise_reduction"),
        ({"audio": {"input": {"transcription": "whisper-1"}}}, "transcription"),
        ({"max_output_tokens": "4096"}, "max_output_tokens"),
        ({"tools": {}}, "tools"),
        ({"output_modalities": "audio"}, "output_modalities"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"parallel_tool_calls": "yes"}, "parallel_tool_calls"),
        ({"instructions": 5}, "instructions"),
        ({"reasoning": "low"}, "reasoning_effort"),
        ({"truncation": 1}, "truncation"),
        ({"tracing": 1}, "tracing"),
        ({"include": "x"}, "include"),
        ({"expires_at": "soon"}, "expires_at"),
    ],
)
def test_an_odd_setting_is_noted_and_left_out(spelled: dict[str, Any], name: str) -> None:
    session, oddities = _session(spelled)
    assert getattr(session, name) in (ev.UNSET, None, (), True, ev.Transcription(model=""))
    assert len(oddities) == 1
    assert oddities[0].startswith("session.")


@pytest.mark.parametrize("kind", ["azure_semantic_vad", "azure_semantic_vad_en", "client_vad"])
def test_an_unknown_turn_detection_detects_turns_all_the_same(kind: str) -> None:
    detection = {"type": kind, "create_response": False, "threshold": "low"}
    session, oddities = _session({"audio": {"input": {"turn_detection": detection}}})
    assert session.turn_detection == ev.ServerVad(create_response=False)
    assert len(oddities) == 2


def _response(spelled: dict[str, Any], kind: str = "done") -> ev.Response:
    text = json.dumps({"type": f"response.{kind}", "response": {"id": "r", **spelled}})
    event = GA.decode_server(text)
    assert isinstance(event, ev.ResponseDone | ev.ResponseCreated)
    return event.response


@pytest.mark.parametrize(
    ("kind", "status", "read"),
    [
        ("created", None, ev.ResponseStatus.IN_PROGRESS),
        ("created", "queued", ev.ResponseStatus.IN_PROGRESS),
        ("done", None, ev.ResponseStatus.COMPLETED),
        ("done", "finished", ev.ResponseStatus.COMPLETED),
        ("done", "in_progress", ev.ResponseStatus.COMPLETED),
        ("done", 3, ev.ResponseStatus.COMPLETED),
        ("done", "canceled", ev.ResponseStatus.CANCELLED),
        ("done", "failed", ev.ResponseStatus.FAILED),
    ],
)
def test_a_response_is_over_when_its_event_says_so(
    kind: str, status: object, read: ev.ResponseStatus
) -> None:
    assert _response({"status": status}, kind).status is read


def test_a_response_keeps_what_is_right_in_it() -> None:
    item = {"id": "i", "type": "message", "role": "assistant", "content": [None, {"text": "hi"}]}
    response = _response(
        {
            "status": "failed",
            "status_details": {"error": "no credit"},
            "metadata": {"n": 1, "say": "x", "bad": None},
            "usage": {"total_tokens": -4, "input_tokens": 3},
            "output": [None, item],
        }
    )
    assert response.error == ev.ErrorDetail(message="no credit")
    assert response.metadata == {"n": "1", "say": "x"}
    assert response.usage == ev.Usage(input_tokens=3)
    assert response.output[0].content == (ev.ContentPart(type="text", text="hi"),)


@pytest.mark.parametrize(
    ("spelled", "detail"),
    [
        ({"error": "over quota"}, ev.ErrorDetail(message="over quota")),
        ({"code": "c", "message": "m"}, ev.ErrorDetail(code="c", message="m")),
        ({"error": None}, ev.ErrorDetail()),
        ({"error": {"code": 429, "message": "m"}}, ev.ErrorDetail(message="m")),
    ],
)
def test_an_error_may_be_a_sentence_or_flat(
    spelled: dict[str, Any], detail: ev.ErrorDetail
) -> None:
    event = GA.decode_server(json.dumps({"type": "error", "event_id": "event_9", **spelled}))
    assert isinstance(event, ev.ErrorEvent)
    assert event.error == detail


@pytest.mark.parametrize("text", ["AQ", "AQ==\n", "A Q = ="])
def test_sound_may_lack_its_padding_or_be_broken_into_lines(text: str) -> None:
    event = GA.decode_server(json.dumps({"type": "response.output_audio.delta", "delta": text}))
    assert isinstance(event, ev.AudioDelta)
    assert event.audio == b"\x01"


@pytest.mark.parametrize(
    ("arguments", "read"), [({"a": 1}, '{"a": 1}'), (None, "{}"), ("", "{}"), ("{}", "{}")]
)
def test_the_arguments_of_a_call_may_be_an_object_or_left_out(arguments: Any, read: str) -> None:
    event = GA.decode_server(
        json.dumps(
            {
                "type": "response.function_call_arguments.done",
                "call_id": "c",
                "name": "f",
                "arguments": arguments,
            }
        )
    )
    assert isinstance(event, ev.FunctionArgumentsDone)
    assert (event.call_id, event.name, event.arguments) == ("c", "f", read)


# Ids that are left out ----------------------------------------------------------------------------


def _receive(*messages: dict[str, Any]) -> tuple[list[Any], list[str]]:
    protocol = RealtimeProtocol(Side.CLIENT)
    events = [protocol.receive(json.dumps(message)) for message in messages]
    return events, protocol.oddities


CREATED: Final = {"type": "response.created", "response": {"id": "r1", "status": "in_progress"}}
ADDED: Final = {
    "type": "response.output_item.added",
    "response_id": "r1",
    "item": {"id": "i1", "type": "message", "role": "assistant"},
}
SOUND: Final = {"type": "response.output_audio.delta", "delta": "AQ=="}


@pytest.mark.parametrize(
    "left_out", [{}, {"response_id": None}, {"response_id": "", "item_id": 5}, {"item_id": "i1"}]
)
def test_sound_without_ids_belongs_to_the_running_response(left_out: dict[str, Any]) -> None:
    events, oddities = _receive(CREATED, ADDED, {**SOUND, **left_out})
    assert (events[-1].response_id, events[-1].item_id) == ("r1", "i1")
    assert oddities


PIECES: Final = (
    "content_part.added", "content_part.done", "output_audio.done", "output_text.delta",
    "output_text.done", "output_audio_transcript.delta", "output_audio_transcript.done",
)  # fmt: skip


@pytest.mark.parametrize("kind", PIECES)
def test_every_part_of_a_response_finds_its_place(kind: str) -> None:
    events, _ = _receive(CREATED, ADDED, {"type": f"response.{kind}"})
    assert (events[-1].response_id, events[-1].item_id) == ("r1", "i1")


def test_sound_before_any_item_shares_one_made_up_id() -> None:
    words = {"type": "response.output_audio_transcript.delta", "delta": "hi"}
    events, _ = _receive(CREATED, SOUND, words, SOUND)
    assert len({event.item_id for event in events[1:]}) == 1
    assert events[1].item_id


def test_words_without_an_item_belong_to_the_sound_that_has_one() -> None:
    sound = {**SOUND, "response_id": "r1", "item_id": "i7", "output_index": 0, "content_index": 0}
    words = {"type": "response.output_audio_transcript.delta", "delta": "hi"}
    events, _ = _receive(CREATED, sound, words)
    assert events[-1].item_id == "i7"


def test_a_response_without_an_id_is_one_response() -> None:
    created, done = {"type": "response.created"}, {"type": "response.done", "response": {}}
    events, _ = _receive(created, SOUND, done, created, SOUND, done)
    ids = [getattr(event, "response", None) or event for event in events]
    first = {getattr(one, "id", getattr(one, "response_id", "")) for one in ids[:3]}
    second = {getattr(one, "id", getattr(one, "response_id", "")) for one in ids[3:]}
    assert len(first) == len(second) == 1
    assert first != second


NAMELESS: Final[tuple[Any, ...]] = (None, "odd", 5, [], {}, {"id": None}, {"id": 5})


@pytest.mark.parametrize("created", [{}, *({"response": odd} for odd in NAMELESS)])
def test_a_response_that_was_created_without_an_id_goes_by_one_id(created: dict[str, Any]) -> None:
    protocol = RealtimeProtocol(Side.CLIENT)
    protocol.receive('{"type": "session.updated", "session": {}}')

    def ids(*messages: dict[str, Any]) -> list[str]:
        events: list[Any] = [protocol.receive(json.dumps(message)) for message in messages]
        return [
            event.response.id if hasattr(event, "response") else event.response_id
            for event in events
        ]

    late = {**SOUND, "response_id": "r0", "item_id": "i0", "output_index": 0, "content_index": 0}
    sound = {**late, "response_id": "r1", "item_id": "i1"}
    done = {"type": "response.done", "response": {"id": "r1", "status": "completed"}}
    assert ids({"type": "response.created", "response": {"id": "r0"}}) == ["r0"]
    [first, *others] = ids({"type": "response.created", **created}, ADDED, late, sound, sound)
    assert others == [first, "r0", first, first]
    assert json.loads(protocol.send(ev.ResponseCancel(first))).get("response_id") == "r1"
    assert ids(done, {"type": "response.created"}) == [first, "response_without_id_2"]
    assert "response_id" not in json.loads(
        protocol.send(ev.ResponseCancel("response_without_id_2"))
    )


def test_an_item_id_that_is_used_again_gets_another_name_that_the_server_never_sees() -> None:
    protocol = RealtimeProtocol(Side.CLIENT)
    protocol.receive('{"type": "session.updated", "session": {}}')
    seen: dict[str, set[str]] = {}
    for response_id in ("r1", "r2", "r3"):
        here = {"response_id": response_id, "output_index": 0, "content_index": 0}
        item = {"id": "same", "type": "message", "role": "assistant"}
        piece = {**here, "item_id": "same"}
        messages: list[dict[str, Any]] = [
            {"type": "response.created", "response": {"id": response_id}},
            {"type": "response.output_item.added", **here, "item": item},
            {"type": "conversation.item.added", "item": item},
            *({"type": f"response.{kind}", **piece} for kind in PIECES),
            {**SOUND, **piece},
            {"type": "response.output_item.done", **here, "item": item},
            {"type": "conversation.item.done", "item": item},
            {"type": "response.done", "response": {"id": response_id, "output": [item]}},
        ]
        events: list[Any] = [protocol.receive(json.dumps(message)) for message in messages]
        items = [*events[-1].response.output, *(one.item for one in events if hasattr(one, "item"))]
        names = {one.id for one in items} | {e.item_id for e in events if hasattr(e, "item_id")}
        seen[response_id] = names
        [name] = names
        for sent in (ev.ItemTruncate(name, 0, 100), ev.ItemDelete(name), ev.ItemRetrieve(name)):
            assert json.loads(protocol.send(sent))["item_id"] == "same"
        create = ev.ItemCreate(ev.Item(type="message", role="user"), name)
        assert json.loads(protocol.send(create))["previous_item_id"] == "same"
        truncated = {"item_id": "same", "content_index": 0, "audio_end_ms": 1}
        told: Any = protocol.receive(
            json.dumps({"type": "conversation.item.truncated", **truncated})
        )
        assert told.item_id == name
    assert len(set.union(*seen.values())) == 3


def test_a_response_id_that_is_used_again_gets_another_name_that_the_server_never_sees() -> None:
    protocol = RealtimeProtocol(Side.CLIENT)
    protocol.receive('{"type": "session.updated", "session": {}}')
    created: dict[str, Any] = {"type": "response.created", "response": {"id": "same"}}
    done = {"type": "response.done", "response": {"id": "same", "status": "completed"}}
    sound = {**SOUND, "response_id": "same", "item_id": "i", "output_index": 0, "content_index": 0}
    names = []
    for _ in range(3):
        events: list[Any] = []
        for message in (created, created, sound, done, done):  # all may come twice
            events.append(protocol.receive(json.dumps(message)))
            if message is sound:
                cancel = protocol.send(ev.ResponseCancel(events[-1].response_id))
                assert json.loads(cancel)["response_id"] == "same"
        [name] = {getattr(e, "response_id", "") or e.response.id for e in events}
        names.append(name)
    assert len(set(names)) == 3
    assert names[0] == "same"


def test_pieces_of_no_item_belong_to_the_item_that_their_response_added() -> None:
    protocol = RealtimeProtocol(Side.CLIENT)
    protocol.receive('{"type": "session.updated", "session": {}}')
    for number in (1, 2):
        response_id, item_id = f"r{number}", f"i{number}"
        item = {"id": item_id, "type": "message", "role": "assistant"}
        added = {"type": "response.output_item.added", "response_id": response_id, "item": item}
        odd = {"response_id": response_id, "item_id": "odd"}
        protocol.receive(json.dumps({**CREATED, "response": {"id": response_id}}))
        protocol.receive(json.dumps(added))
        pieces = [{**SOUND, **odd}, *({"type": f"response.{kind}", **odd} for kind in PIECES)]
        events: list[Any] = [protocol.receive(json.dumps(piece)) for piece in pieces]
        assert {event.item_id for event in events} == {item_id}
        call = {"type": "response.function_call_arguments.done", "call_id": "c", **odd}
        called: Any = protocol.receive(json.dumps(call))
        assert called.item_id != item_id


def test_sound_before_its_item_keeps_its_id_and_the_server_is_told_the_items() -> None:
    protocol = RealtimeProtocol(Side.CLIENT)
    protocol.receive('{"type": "session.updated", "session": {}}')
    for number in (1, 2):
        response_id, item_id = f"r{number}", f"i{number}"
        item = {"id": item_id, "type": "message", "role": "assistant"}
        place = {"response_id": response_id, "output_index": 0, "content_index": 0}
        words = {"type": "response.output_audio_transcript.delta", "delta": "hi", **place}
        messages: list[dict[str, Any]] = [
            {**SOUND, **place, "item_id": "odd"},
            {"type": "response.output_item.added", **place, "item": item},
            {"type": "conversation.item.added", "item": item},
            {**words, "item_id": item_id},
            {**SOUND, **place, "item_id": "odd"},
            {"type": "response.output_item.done", **place, "item": item},
            {"type": "response.done", "response": {"id": response_id, "output": [item]}},
        ]
        protocol.receive(json.dumps({**CREATED, "response": {"id": response_id}}))
        events: list[Any] = [protocol.receive(json.dumps(message)) for message in messages]
        items = [*events[-1].response.output, *(e.item for e in events if hasattr(e, "item"))]
        names = {one.id for one in items} | {e.item_id for e in events if hasattr(e, "item_id")}
        [name] = names
        truncate = protocol.send(ev.ItemTruncate(name, 0, 100))
        assert json.loads(truncate)["item_id"] == item_id


def test_a_message_behind_one_that_was_never_added_is_another() -> None:
    whole = {"type": "response.output_audio.done", "item_id": "i0"}
    item = {**ADDED, "item": {"id": "i1", "type": "message", "role": "assistant"}}
    events, _ = _receive(CREATED, {**SOUND, "item_id": "i0"}, whole, item)
    assert events[-1].item.id == "i1"


RENAMED: Final = [
    (dialect, event)
    for dialect, events in ((GA, BETA_SERVER), (BETA, GA_SERVER))
    for event in (*SERVER, *events)
    if (BETA if dialect is GA else GA).can_spell(type(event))
]


@pytest.mark.parametrize(
    ("dialect", "event"),
    RENAMED,
    ids=lambda value: repr(value) if isinstance(value, Dialect) else type(value).__name__,
)
def test_an_event_may_have_its_name_of_the_other_dialect(
    dialect: Dialect, event: ev.ServerEvent
) -> None:
    other = BETA if dialect is GA else GA
    protocol = RealtimeProtocol(Side.CLIENT, dialect)
    assert type(protocol.receive(other.encode_server(event, "event_1"))) is type(event)


@pytest.mark.parametrize("first", [GA, BETA])
def test_of_events_that_come_under_both_names_one_is_taken(first: Dialect) -> None:
    second = BETA if first is GA else GA
    protocol = RealtimeProtocol(Side.CLIENT)
    sound = ev.AudioDelta("r1", "i1", 0, 0, b"\x01")
    texts = [dialect.encode_server(sound, "event_1") for dialect in (first, second)] * 3
    kinds = [type(protocol.receive(text)) for text in texts]
    assert kinds == [ev.AudioDelta, ev.Unknown] * 3


def test_a_byte_order_mark_is_no_part_of_an_event() -> None:
    protocol = RealtimeProtocol(Side.CLIENT)
    assert isinstance(protocol.receive("\ufeff" + json.dumps(CREATED)), ev.ResponseCreated)


@pytest.mark.parametrize(("dialect", "other"), [(GA, BETA), (BETA, GA)], ids=repr)
def test_a_session_may_be_confirmed_in_the_other_dialect(dialect: Dialect, other: Dialect) -> None:
    asked = replace(ASKED, turn_detection=ev.ServerVad(create_response=False), voice="marin")
    text = other.encode_server(ev.SessionUpdated(asked), "event_1")
    oddities: list[str] = []
    confirmed = dialect.decode_server(text, oddities)
    assert isinstance(confirmed, ev.SessionUpdated)
    for name in ("input_format", "output_format", "turn_detection", "voice"):
        assert getattr(confirmed.session, name) == getattr(asked, name)
    assert oddities


def test_a_transcription_without_an_item_is_of_the_callers_last_one() -> None:
    heard = "conversation.item.input_audio_transcription"
    events, _ = _receive(
        {"type": "input_audio_buffer.speech_started", "item_id": "u1", "audio_start_ms": 0},
        {"type": f"{heard}.delta", "delta": "a"},
        {"type": f"{heard}.completed", "transcript": "a b"},
        {"type": f"{heard}.failed"},
    )
    assert [event.item_id for event in events] == ["u1"] * 4


# On a connection ----------------------------------------------------------------------------------


async def _opened(*before: str, answer: str | None = None) -> tuple[RealtimeConnection, Transport]:
    near, far = pipe()
    for text in before:
        await far.send(text)
    opening = asyncio.ensure_future(open_connection(near, ASKED))
    assert json.loads(await far.receive())["type"] == "session.update"
    protocol = RealtimeProtocol(Side.SERVER)
    protocol.send(ev.SessionCreated(ev.SessionConfig()))
    await far.send(answer or protocol.send(ev.SessionUpdated(ASKED)))
    return await opening, far


async def test_a_handshake_does_not_need_the_creation() -> None:
    connection, _ = await _opened()
    assert connection.session.input_format == PCMU_8K


async def test_a_ping_is_not_the_creation() -> None:
    connection, _ = await _opened('{"type":"ping"}')
    assert isinstance(await anext(connection), ev.Unknown)


async def test_a_creation_that_comes_late_says_nothing_new() -> None:
    near, far = pipe()
    opening = asyncio.ensure_future(open_connection(near, ASKED))
    await far.receive()
    protocol = RealtimeProtocol(Side.SERVER)
    await far.send(protocol.send(ev.SessionCreated(ev.SessionConfig(id="late"))))
    await far.send(protocol.send(ev.SessionUpdated(ASKED)))
    await far.send(protocol.send(ev.InputAudioCleared()))
    connection = await opening
    assert connection.session == ASKED
    assert isinstance(await anext(connection), ev.InputAudioCleared)


async def test_a_session_that_cannot_be_used_is_refused_at_once() -> None:
    spelled = '{"type":"session.updated","session":{"audio":{"input":{"format":"opus"}}}}'
    with pytest.raises(VoiceRefused) as caught:
        await _opened(answer=spelled)
    assert caught.value.code == "protocol_mismatch"
    assert "session.audio.input.format" in caught.value.message


async def test_a_later_update_may_name_only_what_it_changed() -> None:
    connection, far = await _opened()
    update = {"type": "session.updated", "session": {"instructions": "new"}}
    await far.send(json.dumps(update))
    event = await anext(connection)
    assert isinstance(event, ev.SessionUpdated)
    assert event.session.instructions == "new"
    assert event.session.output_format == PCMU_8K
    await far.send('{"type":"session.updated"}')
    assert isinstance(await anext(connection), ev.SessionUpdated)
    assert connection.session.instructions == "new"


async def test_a_difference_is_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    connection, far = await _opened()
    odd = {"id": "i", "type": "message", "role": "user", "content": [None, None]}
    with caplog.at_level(logging.INFO, logger="app.realtime.connection"):
        for _ in range(3):
            await far.send(json.dumps({"type": "conversation.item.added", "item": odd}))
            await anext(connection)
    assert (connection.oddities, connection.malformed) == (3, 0)
    [record] = caplog.records
    assert record.__dict__["field"] == (
        "conversation.item.added: item.content: expected an array of objects"
    )


NEWER = replace(ASKED, transcription=ev.Transcription(model="gpt-transcribe", languages=("de",)))
OLDER = ev.Transcription(model="whisper-1", language="de")


def _asked_for(text: str) -> object:
    event = RealtimeProtocol(Side.SERVER).receive(text)
    assert isinstance(event, ev.SessionUpdate)
    return event.session.transcription


@pytest.mark.parametrize("client_event", [True, False])
async def test_a_transcription_model_that_is_refused_gives_way_to_an_older_one(
    client_event: bool,
) -> None:
    near, far = pipe()
    protocol = RealtimeProtocol(Side.SERVER)
    await far.send(protocol.send(ev.SessionCreated(ev.SessionConfig())))
    opening = asyncio.ensure_future(open_connection(near, NEWER))
    first = await far.receive()
    assert _asked_for(first) == NEWER.transcription
    refusal = ev.ErrorDetail(
        type="invalid_request_error",
        message="unknown model",
        param="session.audio.input.transcription.model",
        client_event_id=json.loads(first)["event_id"] if client_event else None,
    )
    await far.send(protocol.send(ev.ErrorEvent(refusal)))
    assert _asked_for(await far.receive()) == OLDER
    await far.send(protocol.send(ev.SessionUpdated(replace(NEWER, transcription=OLDER))))
    connection = await opening
    assert connection.differences == ("transcription",)
    # Later settings, such as those of another agent, ask for what the server knows.
    await connection.send(ev.SessionUpdate(NEWER))
    assert _asked_for(await far.receive()) == OLDER


async def test_a_transcription_that_is_not_confirmed_is_asked_of_an_older_model() -> None:
    near, far = pipe()
    protocol = RealtimeProtocol(Side.SERVER)
    opening = asyncio.ensure_future(open_connection(near, NEWER))
    await far.receive()
    protocol.send(ev.SessionCreated(ev.SessionConfig()))
    await far.send(protocol.send(ev.SessionUpdated(replace(NEWER, transcription=None))))
    connection = await opening  # a lean server says no more than that
    assert _asked_for(await far.receive()) == OLDER
    await far.send(protocol.send(ev.SessionUpdated(replace(NEWER, transcription=OLDER))))
    assert isinstance(await anext(connection), ev.SessionUpdated)
    assert connection.session.transcription == OLDER


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        (NEWER, "session.voice"),
        (NEWER, None),
        (replace(NEWER, transcription=OLDER), "session.audio.input.transcription.model"),
        (replace(NEWER, transcription=None), "session.audio.input.transcription.model"),
    ],
)
async def test_other_refusals_are_final(asked: ev.SessionConfig, param: str | None) -> None:
    near, far = pipe()
    protocol = RealtimeProtocol(Side.SERVER)
    await far.send(protocol.send(ev.SessionCreated(ev.SessionConfig())))
    opening = asyncio.ensure_future(open_connection(near, asked))
    await far.receive()
    refusal = ev.ErrorDetail(type="invalid_request_error", message="no", param=param)
    await far.send(protocol.send(ev.ErrorEvent(refusal)))
    with pytest.raises(VoiceRefused):
        await opening
