"""Items and settings of an engine session: every client event that is not about sound."""

from __future__ import annotations

from typing import Any

import pytest

from app.engine.actions import Note, NoteKind, ResetVad, Send
from app.engine.engine_session import EngineSession
from app.engine.items import MAX_ITEMS
from app.realtime.events import (
    ContentPart,
    ErrorEvent,
    Item,
    ItemAdded,
    ItemCreate,
    ItemDelete,
    ItemDeleted,
    ItemRetrieve,
    ItemRetrieved,
    ItemTruncate,
    ItemTruncated,
    ResponseCreate,
    SemanticVad,
    ServerVad,
    SessionConfig,
    SessionCreated,
    SessionUpdate,
    SessionUpdated,
    Transcription,
    Unknown,
)
from app.settings.sections.realtime import TurnDetection
from audio.format import PCM16_16K, PCM16_24K, PCMU_8K
from tests.fakes.engine_parts import EchoResponder, speech
from tests.unit.engine.session_driver import Driver, message, names, tool


def retrieve(driver: Driver, item_id: str) -> Item:
    (retrieved,) = driver.client(ItemRetrieve(item_id))
    assert isinstance(retrieved, ItemRetrieved)
    return retrieved.item


# Items --------------------------------------------------------------------------------------------


def test_an_item_is_added_and_done_behind_the_last() -> None:
    driver = Driver()
    driver.client(message("one", item_id="a"))
    driver.client(message("two", item_id="b"))
    assert names(driver.events) == ["ItemAdded", "ItemDone"] * 2
    assert driver.sent(ItemAdded)[1].previous_item_id == "a"
    assert retrieve(driver, "b").status == "completed"


def test_an_item_without_an_id_gets_one_with_the_prefix_of_its_kind() -> None:
    driver = Driver()
    driver.client(message("two"))
    driver.client(message("three", "assistant"))
    driver.client(message("four", "system"))
    driver.client(ItemCreate(Item(type="function_call", call_id="c", name="f", arguments="{}")))
    driver.client(ItemCreate(Item(type="function_call_output", call_id="c", output="42")))
    prefixes = [(added.item.id or "").partition("_")[0] for added in driver.sent(ItemAdded)]
    assert prefixes == ["msg", "msg", "sys", "fc", "fco"]


def test_an_item_can_be_put_first_or_behind_another() -> None:
    driver = Driver()
    driver.client(message("b", item_id="b"))
    driver.client(ItemCreate(message("a", item_id="a").item, previous_item_id="root"))
    driver.client(ItemCreate(message("c", item_id="c").item, previous_item_id="a"))
    assert [added.previous_item_id for added in driver.sent(ItemAdded)] == [None, None, "a"]
    driver.client(ResponseCreate())
    assert driver.responder.log == ["read b"]  # what is put into the past asks nothing


def test_a_replayed_conversation_is_not_answered_again() -> None:
    driver = Driver()
    driver.client(message("one"))
    driver.client(message("You said one.", "assistant"))
    driver.client(message("The call is in progress.", "system"))
    driver.client(message("two"))
    driver.client(ResponseCreate())
    assert driver.responder.log == ["read two"]


def test_a_replayed_conversation_is_not_greeted() -> None:
    driver = Driver()
    driver.client(message("hello", role="assistant"))
    driver.client(ResponseCreate())
    assert driver.responder.log == ["repeat"]


def test_a_replayed_call_and_its_output_are_taken_and_answered_once() -> None:
    driver = Driver()
    call = Item(type="function_call", call_id="call_1", name="lookup", arguments="{}")
    driver.client(ItemCreate(call))
    driver.client(ItemCreate(Item(type="function_call_output", call_id="call_1", output="42")))
    driver.client(ResponseCreate())
    assert driver.responder.log == ["result lookup 42"]


@pytest.mark.parametrize(
    ("item", "param"),
    [
        (Item(type="message", role="caller"), "item.role"),
        (
            Item(type="message", role="user", content=(ContentPart(type="input_audio"),)),
            "item.content[0].type",
        ),
        (
            Item(type="message", role="assistant", content=(ContentPart(type="input_text"),)),
            "item.content[0].type",
        ),
        (Item(type="function_call", name="lookup"), "item"),
        (Item(type="function_call_output", call_id="x", output="42"), "item.call_id"),
        (Item(type="function_call_output", call_id="x"), "item.call_id"),
        (Item(type="mcp_call"), "item.type"),
        (message("x" * 100_001).item, "item"),
        (Item(type="message", id="i" * 129, role="user"), "item.id"),
    ],
)
def test_items_that_the_engine_does_not_have_are_refused(item: Item, param: str) -> None:
    driver = Driver()
    error = driver.refused(ItemCreate(item, event_id="evt_1"))
    assert (error.param, error.client_event_id) == (param, "evt_1")


def test_an_id_is_used_once() -> None:
    driver = Driver()
    driver.client(message("one", item_id="a"))
    assert driver.refused(message("two", item_id="a")).param == "item.id"


def test_a_place_behind_nothing_is_refused() -> None:
    driver = Driver()
    error = driver.refused(ItemCreate(message("one").item, previous_item_id="gone"))
    assert error.param == "previous_item_id"


def test_the_oldest_item_goes_when_there_are_too_many() -> None:
    driver = Driver()
    for number in range(MAX_ITEMS + 1):
        driver.client(message("hello", item_id=f"i{number}"))
    assert driver.refused(ItemRetrieve("i0")).code == "item_retrieve_invalid_item_id"
    assert retrieve(driver, "i1").id == "i1"


def test_a_deleted_item_is_gone_and_needs_no_answer() -> None:
    driver = Driver()
    driver.client(message("one", item_id="a"))
    (deleted,) = driver.client(ItemDelete("a"))
    assert deleted == ItemDeleted("a")
    driver.client(ResponseCreate())
    assert driver.responder.log == ["open"]


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (ItemRetrieve("gone"), "item_retrieve_invalid_item_id"),
        (ItemDelete("gone"), "item_delete_invalid_item_id"),
        (ItemTruncate("gone", 0, 0), "item_truncate_invalid_item_id"),
    ],
)
def test_an_item_that_does_not_exist_is_an_error(event: Any, code: str) -> None:
    assert Driver().refused(event).code == code


def test_a_reply_whose_item_was_deleted_is_still_closed() -> None:
    driver = Driver()
    driver.client(ResponseCreate())
    item_id = driver.sent(ItemAdded)[0].item.id
    assert item_id is not None
    driver.client(ItemDelete(item_id))
    driver.speaks()
    assert names(driver.events)[-2:] == ["ItemDone", "ResponseDone"]
    assert driver.refused(ItemRetrieve(item_id)).code == "item_retrieve_invalid_item_id"


# Truncate -----------------------------------------------------------------------------------------


def _spoken(ms: int = 400) -> tuple[Driver, str]:
    driver = Driver()
    driver.client(ResponseCreate())
    driver.speaks(ms)
    item_id = driver.sent(ItemAdded)[0].item.id
    assert item_id is not None
    return driver, item_id


@pytest.mark.parametrize("audio_end_ms", [0, 250, 400])
def test_a_truncated_message_loses_its_text(audio_end_ms: int) -> None:
    driver, item_id = _spoken()
    (truncated,) = driver.client(ItemTruncate(item_id, 0, audio_end_ms))
    assert truncated == ItemTruncated(item_id, 0, audio_end_ms)
    assert not retrieve(driver, item_id).content[0].transcript


def test_a_message_cannot_be_truncated_beyond_its_sound() -> None:
    driver, item_id = _spoken(400)
    error = driver.refused(ItemTruncate(item_id, 0, 401))
    assert error.message == "Audio content of 400ms is already shorter than 401ms"
    assert retrieve(driver, item_id).content[0].transcript == "Welcome."


def test_a_message_has_no_sound_before_its_beginning() -> None:
    driver, item_id = _spoken()
    assert driver.refused(ItemTruncate(item_id, 0, -1)).param == "audio_end_ms"


def test_a_message_that_was_cut_is_as_long_as_the_cut() -> None:
    driver, item_id = _spoken()
    driver.client(ItemTruncate(item_id, 0, 250))
    assert "250ms is already shorter" in driver.refused(ItemTruncate(item_id, 0, 300)).message


def test_a_message_cut_while_it_is_spoken_stays_cut() -> None:
    driver = Driver()
    driver.client(ResponseCreate())
    response_id = driver.speak().response_id
    driver.take(driver.session.on_speech(response_id, speech(400, 24_000)))
    item_id = driver.sent(ItemAdded)[0].item.id
    assert item_id is not None
    driver.client(ItemTruncate(item_id, 0, 200))
    driver.speaks(400, response_id)
    assert not retrieve(driver, item_id).content[0].transcript
    assert "200ms is already" in driver.refused(ItemTruncate(item_id, 0, 300)).message


def test_only_spoken_messages_of_the_agent_can_be_truncated() -> None:
    driver, item_id = _spoken()
    driver.client(message("hello", item_id="typed"))
    driver.client(message("hello", "assistant", item_id="written"))
    for event in (
        ItemTruncate("typed", 0, 0),
        ItemTruncate("written", 0, 0),
        ItemTruncate(item_id, 1, 0),
    ):
        assert driver.refused(event).code == "invalid_value"


# Session ------------------------------------------------------------------------------------------


def test_the_session_begins_with_the_settings_in_force() -> None:
    created, reset = EngineSession(EchoResponder(), lambda kind: f"{kind}_1").start()
    assert isinstance(created, Send) and isinstance(created.event, SessionCreated)
    assert reset == ResetVad(ServerVad())
    session = created.event.session
    assert session.model == "offline-receptionist"
    assert session.turn_detection == ServerVad()
    assert session.output_format == PCM16_24K


def test_an_update_changes_what_it_names_and_is_echoed_whole() -> None:
    driver = Driver()
    before = driver.session.config
    (updated,) = driver.client(SessionUpdate(SessionConfig(input_format=PCMU_8K)))
    assert isinstance(updated, SessionUpdated)
    assert updated.session.input_format == PCMU_8K
    assert updated.session.output_format == before.output_format
    assert updated.session.transcription == Transcription(model="any")
    assert updated.session == driver.session.config


def test_empty_values_and_null_turn_settings_off() -> None:
    driver = Driver(tools=(tool("lookup"),), instructions="Be brief.")
    driver.client(
        SessionUpdate(SessionConfig(tools=(), instructions="", transcription=None, tracing=None))
    )
    config = driver.session.config
    assert (config.tools, config.instructions, config.transcription) == ((), "", None)


def test_the_model_stays_what_it_is() -> None:
    driver = Driver()
    driver.client(SessionUpdate(SessionConfig(model="gpt-realtime-2.1", id="mine")))
    assert driver.session.config.model == "offline-receptionist"
    assert driver.session.input_format == PCM16_24K
    assert driver.session.config.id != "mine"


def test_instructions_are_taken_and_noted() -> None:
    driver = Driver()
    driver.client(SessionUpdate(SessionConfig(instructions="Be brief.")))
    assert driver.session.config.instructions == "Be brief."
    assert driver.works(Note) == [Note(NoteKind.INSTRUCTIONS_IGNORED)]


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ({"type": "transcription"}, "session.type"),
        ({"output_modalities": ("audio", "text")}, "session.output_modalities"),
        ({"output_modalities": ()}, "session.output_modalities"),
        ({"instructions": "x" * 100_001}, "session.instructions"),
        ({"input_format": PCM16_16K}, "session.audio.input.format"),
        ({"output_format": PCM16_16K}, "session.audio.output.format"),
        ({"voice": "x" * 65}, "session.audio.output.voice"),
        ({"speed": 1.6}, "session.audio.output.speed"),
        ({"speed": 0.2}, "session.audio.output.speed"),
        ({"noise_reduction": "studio"}, "session.audio.input.noise_reduction"),
        ({"tools": ({"type": "function"},)}, "session.tools[0].name"),
        ({"tools": ({"type": "mcp", "server_label": "x"},)}, "session.tools[0]"),
        ({"tool_choice": "maybe"}, "session.tool_choice"),
        ({"tool_choice": {"type": "function", "name": "gone"}}, "session.tool_choice"),
        ({"max_output_tokens": 0}, "session.max_output_tokens"),
        ({"max_output_tokens": "many"}, "session.max_output_tokens"),
        ({"reasoning_effort": "enormous"}, "session.reasoning.effort"),
    ],
)
def test_settings_that_the_session_does_not_have_are_refused(
    settings: dict[str, Any], param: str
) -> None:
    driver = Driver()
    before = driver.session.config
    error = driver.refused(SessionUpdate(SessionConfig(**settings), event_id="evt_1"))
    assert (error.param, error.client_event_id) == (param, "evt_1")
    assert driver.session.config == before


@pytest.mark.parametrize(
    ("detection", "field"),
    [
        (ServerVad(threshold=1.1), "threshold"),
        (ServerVad(prefix_padding_ms=-1), "prefix_padding_ms"),
        (ServerVad(prefix_padding_ms=5_001), "prefix_padding_ms"),
        (ServerVad(silence_duration_ms=31), "silence_duration_ms"),
        (ServerVad(idle_timeout_ms=999), "idle_timeout_ms"),
        (ServerVad(idle_timeout_ms=60_001), "idle_timeout_ms"),
        (SemanticVad(eagerness="eager"), "eagerness"),
    ],
)
def test_turn_detection_has_ranges(detection: ServerVad | SemanticVad, field: str) -> None:
    driver = Driver()
    error = driver.refused(SessionUpdate(SessionConfig(turn_detection=detection)))
    assert error.param == f"session.audio.input.turn_detection.{field}"


@pytest.mark.parametrize("end", ["ge", "le"])
def test_what_our_own_settings_allow_is_not_refused(end: str) -> None:
    # A call would fail on a configuration that was found to be right.
    bounds = {
        name: getattr(limit, end)
        for name, field in TurnDetection.model_fields.items()
        for limit in field.metadata
        if hasattr(limit, end)
    }
    assert set(bounds) >= {"threshold", "silence_duration_ms", "idle_timeout_ms"}
    driver = Driver()
    settings = SessionConfig(turn_detection=ServerVad(**bounds), max_output_tokens=100_000)
    assert names(driver.client(SessionUpdate(settings))) == ["SessionUpdated"]


def test_a_wrong_value_beside_right_ones_changes_nothing() -> None:
    driver = Driver()
    before = driver.session.config
    driver.refused(SessionUpdate(SessionConfig(instructions="Be brief.", speed=9.0)))
    assert driver.session.config == before


def test_settings_without_effect_are_taken_and_echoed() -> None:
    driver = Driver()
    settings: dict[str, Any] = {
        "noise_reduction": "near_field",
        "reasoning_effort": "low",
        "max_output_tokens": 500,
        "tool_choice": "required",
        "truncation": "disabled",
        "parallel_tool_calls": False,
        "include": ("item.input_audio_transcription.logprobs",),
    }
    driver.client(SessionUpdate(SessionConfig(**settings)))
    for name, value in settings.items():
        assert getattr(driver.session.config, name) == value


# Other than client events -------------------------------------------------------------------------


@pytest.mark.parametrize("event_id", ["evt_1", None])
def test_an_unknown_event_is_an_error_and_the_session_goes_on(event_id: str | None) -> None:
    driver = Driver()
    raw = {"type": "output_audio_buffer.clear", "event_id": event_id}
    error = driver.refused(Unknown("output_audio_buffer.clear", raw))
    assert (error.param, error.client_event_id) == ("type", event_id)
    driver.client(ResponseCreate())
    assert driver.works(object)


def test_a_message_that_cannot_be_read_is_answered_by_an_error() -> None:
    driver = Driver()
    (sent,) = driver.take(
        driver.session.on_malformed("invalid_type", "wrong", param="audio", event_id="evt_1")
    )
    assert isinstance(sent, ErrorEvent)
    error = sent.error
    assert (error.code, error.param, error.client_event_id) == ("invalid_type", "audio", "evt_1")
