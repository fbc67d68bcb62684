"""`RealtimeProtocol`: event ids, states, and who may send what."""

from __future__ import annotations

import json

import pytest

from app.errors import LocalProtocolError, RemoteProtocolError
from app.realtime import events as ev
from app.realtime.protocol import ProtocolState, RealtimeProtocol, Side
from audio.format import PCM16_24K

CREATED = ev.SessionCreated(ev.SessionConfig(id="sess_1"))


def _configured() -> RealtimeProtocol[ev.ServerEvent, ev.ClientEvent]:
    client = RealtimeProtocol(Side.CLIENT)
    server = RealtimeProtocol(Side.SERVER)
    client.receive(server.send(CREATED))
    client.receive(server.send(ev.SessionUpdated(ev.SessionConfig())))
    return client


def test_a_client_may_send_nothing_but_settings_at_first() -> None:
    client = RealtimeProtocol(Side.CLIENT)
    with pytest.raises(LocalProtocolError):
        client.send(ev.InputAudioAppend(b"\x00"))
    client.send(ev.SessionUpdate(ev.SessionConfig(input_format=PCM16_24K)))
    with pytest.raises(LocalProtocolError):
        client.send(ev.ResponseCreate())


def test_a_client_is_configured_by_the_confirmation() -> None:
    client = _configured()
    assert client.state is ProtocolState.CONFIGURED
    assert client.send(ev.InputAudioAppend(b"\x00"))


def test_the_creation_alone_does_not_configure_a_client() -> None:
    client = RealtimeProtocol(Side.CLIENT)
    client.receive(RealtimeProtocol(Side.SERVER).send(CREATED))
    assert client.state is ProtocolState.NEW


def test_a_server_must_create_the_session_first() -> None:
    server = RealtimeProtocol(Side.SERVER)
    with pytest.raises(LocalProtocolError):
        server.send(ev.InputAudioCleared())
    server.send(ev.ErrorEvent(ev.ErrorDetail(code="busy")))
    server.send(CREATED)
    assert server.state is ProtocolState.CONFIGURED
    assert server.send(ev.InputAudioCleared())


def test_nothing_passes_after_the_close() -> None:
    client = _configured()
    client.close()
    assert client.state is ProtocolState.CLOSED
    with pytest.raises(LocalProtocolError):
        client.send(ev.InputAudioCommit())
    with pytest.raises(LocalProtocolError):
        client.receive("{}")


def test_every_event_of_a_server_has_an_id_of_its_own() -> None:
    server = RealtimeProtocol(Side.SERVER)
    texts = [server.send(CREATED)] + [server.send(ev.InputAudioCleared()) for _ in range(3)]
    ids = [json.loads(text)["event_id"] for text in texts]
    assert len(set(ids)) == 4
    assert all(ids)


def test_the_id_that_an_event_brings_is_kept() -> None:
    client = _configured()
    text = client.send(ev.ResponseCreate(event_id="create_1"))
    assert json.loads(text)["event_id"] == "create_1"
    assert client.last_event_id == "create_1"


def test_the_id_of_an_append_is_reported_too() -> None:
    client = _configured()
    text = client.send(ev.InputAudioAppend(b"\x00"))
    assert json.loads(text)["event_id"] == client.last_event_id != ""


def test_an_event_that_is_not_sent_leaves_the_last_id_alone() -> None:
    client = _configured()
    client.send(ev.InputAudioCommit())
    before = client.last_event_id
    with pytest.raises(LocalProtocolError):
        client.send(ev.Unknown("odd", {"value": object()}))
    assert client.last_event_id == before


def test_a_malformed_message_leaves_the_state_alone() -> None:
    client = _configured()
    with pytest.raises(RemoteProtocolError):
        client.receive('{"type":"response.output_audio.delta"}')
    assert client.state is ProtocolState.CONFIGURED


def test_a_message_of_the_wrong_side_is_unknown() -> None:
    server = RealtimeProtocol(Side.SERVER)
    assert isinstance(server.receive('{"type":"session.created","session":{}}'), ev.Unknown)


def test_half_a_surrogate_pair_is_no_reason_to_end_a_call() -> None:
    part = ev.ContentPart(type="input_text", text="a\ud83d b")
    item = ev.Item(type="message", role="user", content=(part,))
    sent = json.loads(_configured().send(ev.ItemCreate(item)))
    assert sent["item"]["content"][0]["text"] == "a? b"
