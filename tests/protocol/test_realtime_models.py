"""Our events, validated by the vendor's own models; and both of our sides by each other."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from typing import Any, get_args

import openai.types.beta.realtime as beta_types
import openai.types.realtime as ga_types
import pytest
from pydantic import BaseModel, TypeAdapter

from app.errors import LocalProtocolError
from app.realtime import events as ev
from app.realtime.dialect import BETA, GA, MAX_APPEND_BYTES, Dialect
from app.realtime.events import ClientEvent, ServerEvent
from audio.format import PCM16_16K
from tests.protocol.realtime_samples import BETA_SERVER, CLIENT, GA_CLIENT, GA_SERVER, SERVER

GA_CLIENT_MODEL: TypeAdapter[Any] = TypeAdapter(ga_types.RealtimeClientEvent)
GA_SERVER_MODEL: TypeAdapter[Any] = TypeAdapter(ga_types.RealtimeServerEvent)
BETA_CLIENT_MODEL: TypeAdapter[Any] = TypeAdapter(beta_types.RealtimeClientEvent)
BETA_SERVER_MODEL: TypeAdapter[Any] = TypeAdapter(beta_types.RealtimeServerEvent)

# What the API sends or takes although its models do not list it.
UNLISTED = {"session.id", "session.object", "error.message"}
UNLISTED_BETA = {
    "session.object",
    "error.message",
    "input_token_details.cached_tokens_details",
    "response.function_call_arguments.done.name",
}


def _unlisted(model: BaseModel, path: str) -> list[str]:
    """Fields that the vendor's model does not know: misspelled ones would be among them."""
    found = [f"{path}.{key}" for key in model.model_extra or {}]
    for name in type(model).model_fields:
        value = getattr(model, name)
        for entry in value if isinstance(value, list) else [value]:
            if isinstance(entry, BaseModel):
                found += _unlisted(entry, name)
    return found


def _validate(adapter: TypeAdapter[Any], text: str, allowed: set[str]) -> None:
    spelled = json.loads(text)
    model = adapter.validate_python(spelled)
    assert model.type == spelled["type"]
    assert set(_unlisted(model, spelled["type"])) <= allowed


def _name(event: object) -> str:
    return type(event).__name__


@pytest.mark.parametrize("event", [*CLIENT, *GA_CLIENT], ids=_name)
def test_the_vendor_model_accepts_every_client_event(event: ClientEvent) -> None:
    _validate(GA_CLIENT_MODEL, GA.encode_client(event, "evt_1"), set())


@pytest.mark.parametrize("event", [*SERVER, *GA_SERVER], ids=_name)
def test_the_vendor_model_accepts_every_server_event(event: ServerEvent) -> None:
    _validate(GA_SERVER_MODEL, GA.encode_server(event, "event_1"), UNLISTED)


@pytest.mark.parametrize("event", CLIENT, ids=_name)
def test_the_vendor_beta_model_accepts_every_client_event(event: ClientEvent) -> None:
    _validate(BETA_CLIENT_MODEL, BETA.encode_client(event, "evt_1"), set())


@pytest.mark.parametrize("event", [*SERVER, *BETA_SERVER], ids=_name)
def test_the_vendor_beta_model_accepts_every_server_event(event: ServerEvent) -> None:
    _validate(BETA_SERVER_MODEL, BETA.encode_server(event, "event_1"), UNLISTED_BETA)


@pytest.mark.parametrize("event", [*CLIENT, *GA_CLIENT], ids=_name)
def test_the_server_reads_what_the_client_wrote(event: ClientEvent) -> None:
    assert _bare(GA.decode_client(GA.encode_client(event, "evt_1"))) == _bare(event)


@pytest.mark.parametrize("event", [*SERVER, *GA_SERVER], ids=_name)
def test_the_client_reads_what_the_server_wrote(event: ServerEvent) -> None:
    assert _bare(GA.decode_server(GA.encode_server(event, "event_1"))) == _bare(event)


@pytest.mark.parametrize("event", CLIENT, ids=_name)
def test_the_server_reads_what_the_client_wrote_in_beta(event: ClientEvent) -> None:
    assert _bare(BETA.decode_client(BETA.encode_client(event, "evt_1"))) == _bare(event)


@pytest.mark.parametrize("event", [*SERVER, *BETA_SERVER], ids=_name)
def test_the_client_reads_what_the_server_wrote_in_beta(event: ServerEvent) -> None:
    assert _bare(BETA.decode_server(BETA.encode_server(event, "event_1"))) == _bare(event)


def _bare(event: object) -> dict[str, object]:
    assert is_dataclass(event)
    values = {f.name: getattr(event, f.name) for f in fields(event) if f.name != "event_id"}
    return {"event": type(event), **values}


def test_there_is_a_sample_of_every_event() -> None:
    sampled = {type(event) for event in (*CLIENT, *GA_CLIENT, *SERVER, *GA_SERVER)}
    named = {*get_args(ev.ClientEvent), *get_args(ev.ServerEvent)}
    assert named - sampled == {ev.Unknown}


def test_every_vendor_client_event_is_known_or_left_out_on_purpose() -> None:
    webrtc_only = {"output_audio_buffer.clear"}
    assert _types(ga_types.RealtimeClientEvent) - _known(GA, "client") == webrtc_only


def test_every_vendor_server_event_is_known_or_left_out_on_purpose() -> None:
    left_out = {
        "conversation.item.created",  # in the schema, not sent any more
        "conversation.item.input_audio_transcription.segment",  # diarization
        "input_audio_buffer.dtmf_event_received",  # SIP
    }
    prefixes = ("output_audio_buffer.", "mcp_list_tools.", "response.mcp_call")
    unknown = _types(ga_types.RealtimeServerEvent) - _known(GA, "server")
    assert {name for name in unknown if not name.startswith(prefixes)} == left_out


def test_every_vendor_beta_server_event_is_known_or_left_out_on_purpose() -> None:
    left_out = {"transcription_session.updated"}
    unknown = _types(beta_types.RealtimeServerEvent) - _known(BETA, "server")
    assert {n for n in unknown if not n.startswith("output_audio_buffer.")} == left_out


def _types(union: Any) -> set[str]:
    models = get_args(get_args(union)[0])
    return {get_args(model.model_fields["type"].annotation)[0] for model in models}


def _known(dialect: Dialect, side: str) -> set[str]:
    decode = dialect.decode_client if side == "client" else dialect.decode_server
    union = (
        (ga_types.RealtimeClientEvent if dialect is GA else beta_types.RealtimeClientEvent)
        if side == "client"
        else (ga_types.RealtimeServerEvent if dialect is GA else beta_types.RealtimeServerEvent)
    )
    known = set()
    for name in _types(union):
        try:
            event = decode(json.dumps({"type": name}))
        except Exception:  # malformed, so the type is known
            known.add(name)
        else:
            if not isinstance(event, ev.Unknown):
                known.add(name)
    return known


def test_beta_cannot_spell_what_it_never_had() -> None:
    assert not BETA.can_spell(ev.ItemDone)
    assert GA.can_spell(ev.ItemDone)
    assert BETA.can_spell(ev.ResponseCreate)
    with pytest.raises(LocalProtocolError):
        BETA.encode_server(ev.ItemDone(ev.Item(type="message")), "event_1")


def test_beta_leaves_out_settings_that_it_never_had() -> None:
    session = ev.SessionConfig(reasoning_effort="low", truncation="auto", include=("x",))
    text = BETA.encode_client(ev.SessionUpdate(session), "evt_1")
    assert json.loads(text)["session"] == {}


def test_a_format_without_a_name_in_beta_is_refused() -> None:
    update = ev.SessionUpdate(ev.SessionConfig(input_format=PCM16_16K))
    with pytest.raises(LocalProtocolError):
        BETA.encode_client(update, "evt_1")
    assert GA.decode_client(GA.encode_client(update, "evt_1")) == ev.SessionUpdate(
        update.session, "evt_1"
    )


def test_beta_has_no_sound_without_text() -> None:
    text = BETA.encode_client(
        ev.SessionUpdate(ev.SessionConfig(output_modalities=("audio",))), "evt_1"
    )
    assert json.loads(text)["session"]["modalities"] == ["text", "audio"]


def test_an_append_larger_than_the_server_takes_is_refused() -> None:
    with pytest.raises(LocalProtocolError):
        GA.encode_client(ev.InputAudioAppend(bytes(MAX_APPEND_BYTES + 1)), "evt_1")


def test_an_event_of_the_other_side_is_refused() -> None:
    with pytest.raises(LocalProtocolError):
        GA.encode_client(ev.InputAudioCleared(), "evt_1")  # type: ignore[arg-type]


def test_an_event_that_json_cannot_hold_is_our_bug() -> None:
    unwritable = ev.Unknown("odd", {"value": object()})
    with pytest.raises(LocalProtocolError):
        GA.encode_client(unwritable, "evt_1")


def test_an_unknown_event_travels_whole() -> None:
    text = GA.encode_client(ev.Unknown("new.thing", {"type": "new.thing", "x": [1]}), "evt_7")
    assert json.loads(text) == {"type": "new.thing", "x": [1], "event_id": "evt_7"}
    decoded = GA.decode_client(text)
    assert decoded == ev.Unknown("new.thing", json.loads(text))


def test_only_the_beta_dialect_asks_for_the_beta_header() -> None:
    assert GA.headers == {}
    assert BETA.headers == {"OpenAI-Beta": "realtime=v1"}
    assert (repr(GA), repr(BETA)) == ("Dialect(ga)", "Dialect(beta)")
