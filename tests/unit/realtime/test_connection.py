"""Pipes, the handshake over them, and a connection's reading."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from app.errors import VoiceClosed, VoiceRefused, VoiceUnavailable
from app.realtime import connection as connection_module
from app.realtime import events as ev
from app.realtime.connection import (
    MALFORMED_LIMIT,
    ClientTransport,
    RealtimeConnection,
    Transport,
    differing_fields,
    formats_match,
    open_connection,
    pipe,
)
from app.realtime.protocol import RealtimeProtocol, Side
from audio.format import PCM16_24K, PCMU_8K

ASKED = ev.SessionConfig(input_format=PCMU_8K, output_format=PCMU_8K, voice="marin")
ServerProtocol = RealtimeProtocol[ev.ClientEvent, ev.ServerEvent]
Answer = Callable[[Transport, ServerProtocol, ev.SessionConfig], Awaitable[None]]


async def _confirm(far: Transport, protocol: ServerProtocol, asked: ev.SessionConfig) -> None:
    await far.send(protocol.send(ev.SessionUpdated(asked)))


async def _open(
    answer: Answer = _confirm, *, timeout_s: float = 5.0
) -> tuple[RealtimeConnection, Transport, ServerProtocol]:
    """Shake hands with a server that answers `session.update` as told."""
    near, far = pipe()
    protocol = RealtimeProtocol(Side.SERVER)

    async def serve() -> None:
        await far.send(protocol.send(ev.SessionCreated(ev.SessionConfig(id="sess_1"))))
        await far.send(protocol.send(ev.ConversationCreated("conv_1")))
        update = protocol.receive(await far.receive())
        assert isinstance(update, ev.SessionUpdate)
        await answer(far, protocol, update.session)

    async with asyncio.TaskGroup() as group:
        group.create_task(serve())
        opened = group.create_task(_refusal_or_connection(near, timeout_s))
    outcome = opened.result()
    if isinstance(outcome, Exception):
        with pytest.raises(VoiceClosed):  # a failed handshake leaves no open transport behind
            await far.send("{}")
        raise outcome
    return outcome, far, protocol


async def _refusal_or_connection(
    near: ClientTransport, timeout_s: float
) -> RealtimeConnection | VoiceRefused | VoiceUnavailable:
    try:
        return await open_connection(near, ASKED, timeout_s=timeout_s)
    except (VoiceRefused, VoiceUnavailable) as error:
        return error


async def test_texts_come_out_as_they_went_in() -> None:
    near, far = pipe()
    await near.send("one")
    await near.send("two")
    await far.send("back")
    assert [await far.receive(), await far.receive()] == ["one", "two"]
    assert await near.receive() == "back"


async def test_a_full_pipe_makes_the_sender_wait() -> None:
    near, far = pipe(capacity=2)
    await near.send("1")
    await near.send("2")
    third = asyncio.ensure_future(near.send("3"))
    await asyncio.sleep(0)
    assert not third.done()
    assert await far.receive() == "1"
    await third
    assert [await far.receive(), await far.receive()] == ["2", "3"]


async def test_what_was_sent_before_the_close_still_arrives() -> None:
    near, far = pipe()
    await near.send("last words")
    await near.close(1001)
    await near.close(1000)
    assert await far.receive() == "last words"
    with pytest.raises(VoiceClosed) as caught:
        await far.receive()
    assert caught.value.close_code == 1001
    with pytest.raises(VoiceClosed):
        await far.send("too late")


async def test_a_close_wakes_those_who_wait() -> None:
    near, far = pipe(capacity=1)
    await near.send("fills it")
    sender = asyncio.ensure_future(near.send("waits"))
    receiver = asyncio.ensure_future(near.receive())
    await asyncio.sleep(0)
    await far.close()
    with pytest.raises(VoiceClosed):
        await sender
    with pytest.raises(VoiceClosed):
        await receiver


async def test_a_cancelled_receive_loses_nothing() -> None:
    near, far = pipe()
    waiting = asyncio.ensure_future(far.receive())
    await asyncio.sleep(0)
    await near.send("kept")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await far.receive() == "kept"


async def test_a_session_is_agreed_on() -> None:
    connection, _, _ = await _open()
    assert connection.session.voice == "marin"
    assert connection.differences == ()
    assert connection.malformed == 0


async def test_events_that_came_during_the_handshake_are_not_lost() -> None:
    connection, _, _ = await _open()
    assert await anext(connection) == ev.ConversationCreated("conv_1", "event_2")


async def test_a_voice_that_was_not_granted_is_reported() -> None:
    async def other_voice(far: Transport, protocol: ServerProtocol, _: ev.SessionConfig) -> None:
        session = ev.SessionConfig(input_format=PCMU_8K, output_format=PCMU_8K, voice="alloy")
        await far.send(protocol.send(ev.SessionUpdated(session)))

    connection, _, _ = await _open(other_voice)
    assert connection.differences == ("voice",)


@pytest.mark.parametrize(
    "confirmed",
    [
        ev.SessionConfig(input_format=PCMU_8K, output_format=PCM16_24K),
        ev.SessionConfig(input_format=PCM16_24K, output_format=PCMU_8K),
        ev.SessionConfig(),
    ],
    ids=["output", "input", "unnamed"],
)
async def test_a_format_that_was_not_confirmed_is_refused(confirmed: ev.SessionConfig) -> None:
    async def confirm(far: Transport, protocol: ServerProtocol, _: ev.SessionConfig) -> None:
        await far.send(protocol.send(ev.SessionUpdated(confirmed)))

    with pytest.raises(VoiceRefused) as caught:
        await _open(confirm)
    assert caught.value.code == "format_mismatch"


async def test_the_creation_need_not_be_readable() -> None:
    # A server may begin with settings of its own kind; ours replace them.
    near, far = pipe()
    session = {"type": "realtime", "audio": {"input": {"format": {"type": "audio/opus"}}}}
    await far.send(json.dumps({"type": "session.created", "session": session}))
    opening = asyncio.ensure_future(open_connection(near, ASKED))
    assert json.loads(await far.receive())["type"] == "session.update"
    protocol = RealtimeProtocol(Side.SERVER)
    protocol.send(ev.SessionCreated(ev.SessionConfig()))
    await far.send(protocol.send(ev.SessionUpdated(ASKED)))
    connection = await opening
    assert (connection.malformed, connection.session) == (1, ASKED)


async def test_refused_settings_are_final() -> None:
    async def refuse(far: Transport, protocol: ServerProtocol, _: ev.SessionConfig) -> None:
        error = ev.ErrorDetail(code="unsupported_model", client_event_id="evt_1")
        await far.send(protocol.send(ev.ErrorEvent(error)))

    with pytest.raises(VoiceRefused) as caught:
        await _open(refuse)
    assert caught.value.code == "unsupported_model"


async def test_an_error_about_something_else_does_not_end_the_handshake() -> None:
    async def complain(far: Transport, protocol: ServerProtocol, asked: ev.SessionConfig) -> None:
        error = ev.ErrorDetail(code="odd", client_event_id="somebody else's")
        await far.send(protocol.send(ev.ErrorEvent(error)))
        await far.send("not JSON at all")
        await _confirm(far, protocol, asked)

    connection, _, _ = await _open(complain)
    assert connection.malformed == 1
    assert [type(await anext(connection)).__name__ for _ in range(2)] == [
        "ConversationCreated",
        "ErrorEvent",
    ]


async def test_silence_in_the_handshake_may_pass() -> None:
    async def nothing(*_: object) -> None:
        return

    with pytest.raises(VoiceUnavailable) as caught:
        await _open(nothing, timeout_s=0.05)
    assert caught.value.code == "session_timeout"


async def test_a_confirmation_that_nobody_can_read_is_final() -> None:
    async def garble(far: Transport, *_: object) -> None:
        await far.send('{"type":"session.updated","session":{"audio":[]}}')

    with pytest.raises(VoiceRefused) as caught:
        await _open(garble)
    assert caught.value.code == "protocol_mismatch"


async def test_a_close_in_the_handshake_may_pass() -> None:
    async def leave(far: Transport, *_: object) -> None:
        await far.close(1013)

    with pytest.raises(VoiceUnavailable) as caught:
        await _open(leave)
    assert "1013" in caught.value.message


async def test_malformed_events_are_skipped_and_counted() -> None:
    connection, far, protocol = await _open()
    await anext(connection)
    await far.send("{")
    await far.send('{"type":"response.output_audio.delta"}')
    await far.send(protocol.send(ev.InputAudioCleared()))
    assert isinstance(await anext(connection), ev.InputAudioCleared)
    assert connection.malformed == 2


async def test_too_many_malformed_events_end_the_connection() -> None:
    connection, far, _ = await _open()
    await anext(connection)
    for _ in range(MALFORMED_LIMIT):
        await far.send("{")
    with pytest.raises(VoiceClosed) as caught:
        await anext(connection)
    assert caught.value.close_code == 1002
    assert connection.malformed == MALFORMED_LIMIT


async def test_iteration_ends_quietly_after_our_close() -> None:
    connection, _, _ = await _open()
    await anext(connection)
    waiting = asyncio.ensure_future(anext(connection, None))
    await asyncio.sleep(0)
    await connection.close()
    assert await waiting is None
    assert await anext(connection, None) is None
    with pytest.raises(VoiceClosed):
        await connection.send(ev.InputAudioCommit())


async def test_iteration_raises_when_the_peer_leaves() -> None:
    connection, far, _ = await _open()
    await anext(connection)
    await far.close(1011)
    with pytest.raises(VoiceClosed) as caught:
        await anext(connection)
    assert caught.value.close_code == 1011


async def test_sending_returns_the_id_of_the_event() -> None:
    connection, far, protocol = await _open()
    event_id = await connection.send(ev.ResponseCreate())
    received = protocol.receive(await far.receive())
    assert isinstance(received, ev.ResponseCreate)
    assert received.event_id == event_id


async def test_a_peer_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "SEND_TIMEOUT_S", 0.01)
    connection, _, _ = await _open()
    with pytest.raises(VoiceClosed):
        while True:
            await connection.send(ev.InputAudioCommit())


async def test_an_update_in_mid_call_is_shown_and_kept() -> None:
    connection, far, protocol = await _open()
    await anext(connection)
    changed = ev.SessionConfig(output_format=PCM16_24K, turn_detection=None)
    await far.send(protocol.send(ev.SessionUpdated(changed)))
    event = await anext(connection)
    assert isinstance(event, ev.SessionUpdated)
    assert not formats_match(ASKED, event.session)
    assert connection.session == replace(
        ASKED, id="sess_1", output_format=PCM16_24K, turn_detection=None
    )


def test_only_what_was_asked_can_differ() -> None:
    asked = ev.SessionConfig(voice="marin", speed=1.2, instructions="x", id="a")
    confirmed = ev.SessionConfig(voice="alloy", speed=1.2, noise_reduction=None, id="b")
    assert differing_fields(asked, confirmed) == ("voice",)


def test_formats_that_were_not_asked_for_always_match() -> None:
    assert formats_match(ev.SessionConfig(), ev.SessionConfig(input_format=PCMU_8K))
