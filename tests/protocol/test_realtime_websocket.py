"""`WebSocketModel` against a real server on a real socket: each way in which connecting ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from app.errors import ConfigError, VoiceClosed, VoiceRefused, VoiceUnavailable
from app.realtime import events as ev
from app.realtime.connecting import connect_with_retry
from app.realtime.connection import VoiceConnection
from app.realtime.dialect import BETA
from app.realtime.websocket import WebSocketModel
from audio.format import PCM16_24K, PCMU_8K
from tests.fakes.voice import Close, Emit, EmitText, Expect, Reply, ScriptedVoiceServer, Trouble
from tests.fakes.waiting import TIME_LIMIT_S, time_limit, within

KEY = "sk-canary-7f3a"
CONFIG = ev.SessionConfig(
    input_format=PCM16_24K,
    output_format=PCM16_24K,
    voice="cedar",
    turn_detection=ev.ServerVad(silence_duration_ms=200),
)


def _model(server: ScriptedVoiceServer, timeout_s: float = 5.0) -> WebSocketModel:
    return WebSocketModel.openai(KEY, "gpt-test", url=server.url, timeout_s=timeout_s)


@asynccontextmanager
async def _connected(server: ScriptedVoiceServer) -> AsyncIterator[VoiceConnection]:
    connection = await _model(server).connect(CONFIG)
    try:
        yield connection
    finally:
        await connection.close()


async def _refusal(trouble: Trouble, timeout_s: float = 5.0) -> VoiceRefused | VoiceUnavailable:
    async with ScriptedVoiceServer(trouble=trouble) as server:
        with pytest.raises((VoiceRefused, VoiceUnavailable)) as caught:
            await _model(server, timeout_s).connect(CONFIG)
        await server.until(lambda: server.open_connections == 0)
    assert isinstance(caught.value, (VoiceRefused, VoiceUnavailable))
    assert KEY not in caught.value.message
    return caught.value


# Connecting ---------------------------------------------------------------------------------------


async def test_a_session_is_opened_and_closed() -> None:
    async with ScriptedVoiceServer() as server:
        async with _connected(server) as connection:
            assert connection.session.voice == "cedar"
            assert server.open_connections == 1
        await server.until(lambda: server.open_connections == 0)
        assert server.latest.path == "/v1/realtime?model=gpt-test"
        assert server.latest.headers["Authorization"] == f"Bearer {KEY}"
        assert "OpenAI-Beta" not in server.latest.headers


async def test_the_beta_dialect_brings_its_header() -> None:
    async with ScriptedVoiceServer(dialect=BETA) as server:
        model = WebSocketModel(server.url, model="m", dialect=BETA, query={"intent": "call"})
        connection = await model.connect(CONFIG)
        assert connection.session.output_format == PCM16_24K
        await connection.close()
        assert server.latest.headers["OpenAI-Beta"] == "realtime=v1"
        assert server.latest.path == "/v1/realtime?model=m&intent=call"


def test_azure_is_configuration() -> None:
    model = WebSocketModel.azure("https://clinic.openai.azure.com/", "front-desk", KEY)
    assert repr(model) == "WebSocketModel('front-desk' at clinic.openai.azure.com)"
    assert model._url == "wss://clinic.openai.azure.com/openai/v1/realtime?model=front-desk"


def test_a_gateway_may_have_a_query_of_its_own_and_no_model() -> None:
    model = WebSocketModel("ws://gateway/rt?tenant=7")
    assert model.name == "gateway"
    assert model._url == "ws://gateway/rt?tenant=7"


@pytest.mark.parametrize(
    "url",
    ["https://api.openai.com/v1/realtime", "wss://", "realtime", "ws://host:x/", "ws://host/#a"],
)
def test_a_url_that_is_no_websocket_is_a_setting_to_correct(url: str) -> None:
    with pytest.raises(ConfigError):
        WebSocketModel(url)


@pytest.mark.parametrize("key", [KEY + "\n", KEY + "é"])
def test_a_key_that_http_cannot_carry_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        WebSocketModel.openai(key, "m")
    assert KEY not in caught.value.message


@pytest.mark.parametrize("key", [None, "", "  ", 5])
def test_a_key_that_is_missing_is_a_setting_to_correct(key: Any) -> None:
    with pytest.raises(ConfigError, match="there is no API key: set OPENAI_API_KEY"):
        WebSocketModel.openai(key, "m")
    with pytest.raises(ConfigError, match="there is no API key"):
        WebSocketModel.azure("https://x.openai.azure.com", "m", key)


def test_a_server_of_your_own_may_need_no_key() -> None:
    assert WebSocketModel.openai("", "m", url="ws://127.0.0.1:9/v1/realtime").name == "m"


async def test_the_key_is_nowhere_to_be_read(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with ScriptedVoiceServer(trouble=Trouble(http_status=401, connections=1)) as server:
        model = _model(server)
        with pytest.raises(VoiceRefused) as caught:
            await model.connect(CONFIG)
        connection = await model.connect(CONFIG)
        await connection.close()
    shown = f"{model!r} {caught.value!r} {caught.value.__cause__!r} {connection!r}"
    ours = [r.getMessage() for r in caplog.records if r.name.startswith(("app", "websockets.cl"))]
    assert KEY not in shown + "".join(ours)


# Refused or unavailable ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (401, "invalid_api_key", "invalid_api_key"),
        (403, "", "http_403"),
        (404, "model_not_found", "model_not_found"),
        (429, "insufficient_quota", "insufficient_quota"),
        (302, "", "http_302"),
    ],
)
async def test_http_refusals_are_final(status: int, code: str, expected: str) -> None:
    headers = {"Location": "ws://127.0.0.1:9/elsewhere"}
    error = await _refusal(Trouble(http_status=status, http_code=code, http_headers=headers))
    assert isinstance(error, VoiceRefused)
    assert error.code == expected


@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_http_failures_may_pass(status: int) -> None:
    error = await _refusal(Trouble(http_status=status, http_headers={"Retry-After": "1.5"}))
    assert isinstance(error, VoiceUnavailable)
    assert error.retry_after_s == 1.5
    assert ("beta" in error.message) == (status == 500)


@pytest.mark.parametrize(
    ("value", "expected_s"),
    [("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("soon", None), ("-3", 0.0), ("inf", None)],
)
async def test_a_retry_after_of_any_kind_is_understood(
    value: str, expected_s: float | None
) -> None:
    error = await _refusal(Trouble(http_status=503, http_headers={"Retry-After": value}))
    assert isinstance(error, VoiceUnavailable)
    assert error.retry_after_s == expected_s


async def test_a_server_that_says_nothing_is_given_up() -> None:
    error = await _refusal(Trouble(silent=True), timeout_s=0.2)
    assert isinstance(error, VoiceUnavailable)
    assert error.code == "session_timeout"


async def test_a_server_that_never_confirms_is_given_up() -> None:
    error = await _refusal(Trouble(ignores_update=True), timeout_s=0.2)
    assert error.code == "session_timeout"


async def test_another_format_than_asked_for_is_refused() -> None:
    error = await _refusal(Trouble(confirm={"output_format": PCMU_8K}))
    assert isinstance(error, VoiceRefused)
    assert error.code == "format_mismatch"


async def test_settings_that_the_server_refuses_are_final() -> None:
    error = await _refusal(Trouble(update_error="invalid_value"))
    assert isinstance(error, VoiceRefused)
    assert error.code == "invalid_value"


@pytest.mark.parametrize(
    ("code", "reason", "kind", "expected"),
    [
        (1013, "", VoiceUnavailable, "closed_in_setup"),
        (1008, "", VoiceRefused, "closed_in_setup"),
        (3000, "invalid_request_error.invalid_api_key", VoiceRefused, "invalid_api_key"),
        (4000, "insufficient_quota", VoiceRefused, "insufficient_quota"),
    ],
)
async def test_a_close_before_the_session_has_a_class(
    code: int, reason: str, kind: type[Exception], expected: str
) -> None:
    error = await _refusal(Trouble(close_first=code, close_reason=reason))
    assert isinstance(error, kind)
    assert error.code == expected


async def test_a_port_that_nobody_listens_on_may_pass() -> None:
    async with ScriptedVoiceServer() as server:
        url = server.url
    with pytest.raises(VoiceUnavailable) as caught:
        await WebSocketModel(url).connect(CONFIG)
    assert caught.value.code == "connection_refused"


async def test_a_host_without_an_address_may_pass() -> None:
    with pytest.raises(VoiceUnavailable) as caught:
        await WebSocketModel("ws://no-such-host.invalid/").connect(CONFIG)
    assert caught.value.code == "dns_failed"


@asynccontextmanager
async def _raw_server(answer: bytes) -> AsyncIterator[int]:
    """A port that waits for a first byte, answers with these, and closes when the client does."""
    handled = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        await reader.read()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        handled.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        await handled.wait()


async def test_a_host_that_accepts_and_never_answers_is_given_up() -> None:
    async with _raw_server(b"") as port:
        with pytest.raises(VoiceUnavailable) as caught:
            await WebSocketModel(f"ws://127.0.0.1:{port}/", timeout_s=0.2).connect(CONFIG)
    assert caught.value.code == "connect_timeout"


@pytest.mark.parametrize(
    ("scheme", "expected"), [("ws", "handshake_failed"), ("wss", "tls_failed")]
)
async def test_a_host_that_speaks_something_else_may_pass(scheme: str, expected: str) -> None:
    async with _raw_server(b"220 mail.example ESMTP\r\n\r\n") as port:
        with pytest.raises(VoiceUnavailable) as caught:
            await WebSocketModel(f"{scheme}://127.0.0.1:{port}/").connect(CONFIG)
    assert caught.value.code == expected


async def test_a_server_that_recovers_is_reached_by_retrying() -> None:
    trouble = Trouble(http_status=503, connections=2)
    async with ScriptedVoiceServer(trouble=trouble) as server:
        connection = await connect_with_retry(_model(server), CONFIG, rng=lambda: 0.0)
        await connection.close()
        assert server.attempts == 3


# In a session -------------------------------------------------------------------------------------


async def _events_until(connection: VoiceConnection, last: type[object]) -> list[ev.ServerEvent]:
    events = []
    async with time_limit():
        async for event in connection:
            events.append(event)
            if isinstance(event, last):
                return events
    raise AssertionError(f"the connection ended before {last.__name__}")


async def test_pings_and_the_close_of_a_server_are_taken_without_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with ScriptedVoiceServer() as server, _connected(server) as connection:
        for _ in range(2):
            await within(TIME_LIMIT_S, await server.latest.ping())
        server.latest.close(1000)
        with pytest.raises(VoiceClosed) as caught:
            async for _ in connection:
                pass
    assert caught.value.close_code == 1000
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_close_in_mid_response_ends_the_iteration_with_its_code() -> None:
    reply = Reply(close_after_ms=200, close_code=1011)
    async with ScriptedVoiceServer(replies=[reply]) as server, _connected(server) as connection:
        await connection.send(ev.ResponseCreate())
        with pytest.raises(VoiceClosed) as caught:
            await _events_until(connection, ev.ResponseDone)
        assert caught.value.close_code == 1011


async def test_a_connection_that_is_cut_is_abnormal() -> None:
    async with ScriptedVoiceServer() as server, _connected(server) as connection:
        server.latest.drop()
        with pytest.raises(VoiceClosed) as caught:
            await _events_until(connection, ev.ResponseDone)
        assert caught.value.close_code == 1006
        with pytest.raises(VoiceClosed):
            await connection.send(ev.InputAudioCommit())


async def test_nothing_is_written_after_the_end_of_what_the_peer_sends() -> None:
    """Sound goes on to come until the call knows that the connection is lost."""
    async with ScriptedVoiceServer() as server, _connected(server) as connection:
        websocket = connection._transport._websocket  # type: ignore[attr-defined]
        assert websocket.frame_writer.open
        websocket.eof_received()
        assert not websocket.send_at_once(b"{}")
        websocket.pause_writing()
        websocket.resume_writing()
        assert not websocket.send_at_once(b"{}")


async def test_the_code_in_a_close_reason_is_kept() -> None:
    script = [Expect(ev.ResponseCreate), Close(1001, "session_expired")]
    async with ScriptedVoiceServer(script=script) as server, _connected(server) as connection:
        await connection.send(ev.ResponseCreate())
        with pytest.raises(VoiceClosed) as caught:
            await _events_until(connection, ev.ResponseDone)
        assert (caught.value.close_code, caught.value.code) == (1001, "session_expired")


async def test_malformed_and_unknown_messages_do_not_end_a_session() -> None:
    texts = ("{", "[]", '{"type":"response.output_audio.delta"}', '{"type":"response.novel"}')
    async with (
        ScriptedVoiceServer(trouble=Trouble(texts=texts)) as server,
        _connected(server) as connection,
    ):
        await connection.send(ev.ResponseCreate())
        events = await _events_until(connection, ev.ResponseDone)
        assert connection.malformed == 3
        assert [event.type for event in events if isinstance(event, ev.Unknown)] == [
            "response.novel"
        ]


async def test_a_binary_message_is_text_or_malformed() -> None:
    async with ScriptedVoiceServer() as server, _connected(server) as connection:
        server.latest.emit_text(b'{"type":"response.novel"}')
        server.latest.emit_text(b"\xff\xfe")
        await connection.send(ev.ResponseCreate())
        events = await _events_until(connection, ev.ResponseDone)
        assert connection.malformed == 1
        assert [event.type for event in events if isinstance(event, ev.Unknown)] == [
            "response.novel"
        ]


async def test_a_megabyte_in_one_message_is_no_trouble() -> None:
    big = ev.ItemRetrieved(
        ev.Item(
            type="message",
            role="user",
            content=(ev.ContentPart(type="input_audio", audio=bytes(3 * 2**20)),),
        )
    )
    script = [Expect(ev.ItemRetrieve), Emit(big)]
    async with ScriptedVoiceServer(script=script) as server, _connected(server) as connection:
        await connection.send(ev.ItemRetrieve("item_1"))
        events = await _events_until(connection, ev.ItemRetrieved)
        assert isinstance(events[-1], ev.ItemRetrieved)
        assert events[-1].item == big.item


async def test_a_peer_that_never_answers_our_close_is_left_within_bounds() -> None:
    async with ScriptedVoiceServer(trouble=Trouble(deaf=True)) as server:
        connection = await _model(server).connect(CONFIG)
        await within(3, connection.close())
        await connection.close()


async def test_a_peer_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.realtime.connection.SEND_TIMEOUT_S", 0.05)
    async with ScriptedVoiceServer(trouble=Trouble(deaf=True)) as server:
        connection = await _model(server).connect(CONFIG)
        with pytest.raises(VoiceClosed, match="takes no more"):
            for _ in range(100):  # more than the sockets on both sides hold
                await connection.send(ev.InputAudioAppend(bytes(2**19)))
        server.latest.drop()
        await connection.close()


async def test_a_text_that_is_no_event_can_be_scripted() -> None:
    script = [EmitText("?"), Emit(ev.InputAudioCleared()), Expect(ev.InputAudioCommit)]
    async with ScriptedVoiceServer(script=script) as server, _connected(server) as connection:
        await _events_until(connection, ev.InputAudioCleared)
        await connection.send(ev.InputAudioCommit())
        await server.until(lambda: len(server.latest.of(ev.InputAudioCommit)) == 1)
