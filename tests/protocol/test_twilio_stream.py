"""TwilioStream on real sockets: our server's sockets and Starlette on one side, a websocket client
as Twilio on the other.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from app.carrier.base import (
    CallerAudio,
    CarrierCallId,
    Dtmf,
    MarkReached,
    StreamEvent,
    StreamId,
    StreamStopped,
)
from app.carrier.twilio.carrier import (
    BURST_MESSAGES,
    CLOSE_POLICY,
    CLOSE_TOO_LARGE,
    MAX_MALFORMED,
    TwilioStream,
    open_stream,
)
from app.carrier.twilio.media import (
    Clear,
    SendMark,
    SendMedia,
    parse_server_message,
    render_caller_media,
    render_connected,
    render_dtmf,
    render_mark_reached,
    render_start,
    render_stop,
)
from app.errors import CarrierUnavailable, RemoteProtocolError
from app.web.server.sockets import (
    MessageTransport,
    SocketCounts,
    SocketLimits,
    guarded_protocols,
    transport_of,
)
from tests.fakes.streams import Events

STREAM = StreamId("MZ00aa")
CALL = CarrierCallId("CA00")
START = render_start(STREAM, CALL, account_id="AC00", parameters={"token": "abc"})
MAX_BYTES = 2**20  # for the stream's own limit to be met first
STOP = render_stop(STREAM, CALL, account_id="AC00", sequence=9)

Handler = Callable[[MessageTransport], Awaitable[object]]


def frame(number: int, payload: bytes = b"\x7f" * 160) -> str:
    return render_caller_media(
        STREAM, payload, sequence=number + 1, chunk=number, timestamp_ms=(number - 1) * 20
    )


@asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[tuple[str, asyncio.Future[object]]]:
    """Serve one websocket with `handler`; the future holds what it returned or raised."""
    outcome: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            outcome.set_result(await handler(transport_of(websocket)))
        except (RemoteProtocolError, CarrierUnavailable) as error:
            outcome.set_exception(error)

    app = Starlette(routes=[WebSocketRoute("/media", endpoint)])
    http, protocol = guarded_protocols(SocketLimits(message_bytes=MAX_BYTES), SocketCounts())
    config = uvicorn.Config(app, http=http, ws=protocol, log_level="error", lifespan="off")
    uvicorn_server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(uvicorn_server.serve(sockets=[listener]))
            try:
                yield f"ws://127.0.0.1:{listener.getsockname()[1]}/media", outcome
            finally:
                uvicorn_server.should_exit = True
                uvicorn_server.force_exit = True


async def events_of(transport: MessageTransport) -> list[StreamEvent]:
    stream = await open_stream(transport)
    return [stream.started, *[event async for event in Events(stream)]]


async def begin(url: str) -> ClientConnection:
    client = await connect(url, compression=None)
    await client.send(render_connected())
    await client.send(START)
    return client


async def close_code(client: ClientConnection) -> int | None:
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            await client.recv()
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code


async def test_a_stream_gives_its_events_and_ends_with_stopped() -> None:
    async with server(events_of) as (url, outcome):
        client = await begin(url)
        for text in (
            frame(1),
            '{"event":"weather"}',
            render_dtmf(STREAM, "7", sequence=3),
            render_mark_reached(STREAM, "1:a", sequence=4),
            "not json",
            STOP,
            frame(2),
        ):
            await client.send(text)
        events = await outcome
        await client.close()
    assert isinstance(events, list)
    assert events[0].parameters == {"token": "abc"}
    assert events[1:] == [
        CallerAudio(b"\x7f" * 160, 0),
        Dtmf("7"),
        MarkReached("1:a"),
        StreamStopped(hung_up=True),
    ]


@pytest.mark.parametrize("abruptly", [True, False])
async def test_a_lost_socket_ends_the_stream_as_not_hung_up(abruptly: bool) -> None:
    async with server(events_of) as (url, outcome):
        client = await begin(url)
        await client.send(frame(1))
        if abruptly:
            client.transport.abort()
        else:
            await client.close()
        events = await outcome
    assert isinstance(events, list)
    assert events[-1] == StreamStopped(hung_up=False)
    assert sum(isinstance(event, StreamStopped) for event in events) == 1


async def test_what_we_send_arrives_in_order_and_breaks_no_rule() -> None:
    async def talk(transport: MessageTransport) -> None:
        stream = await open_stream(transport)
        assert stream.send_audio(b"\xff" * 400)
        assert stream.send_audio(b"")
        assert stream.send_audio(b"", "1:item:50")
        assert stream.clear()
        assert stream.send_audio(b"\x7f" * 160, "2:item:20")
        stream.close()
        stream.close()
        assert not stream.clear()

    async with server(talk) as (url, outcome):
        client = await begin(url)
        messages = [parse_server_message(text, STREAM) async for text in client]
        await outcome
    assert messages == [
        SendMedia(b"\xff" * 400),
        SendMark("1:item:50"),
        Clear(),
        SendMedia(b"\x7f" * 160),
        SendMark("2:item:20"),
    ]
    assert client.close_code == 1000


async def test_after_stop_our_close_still_closes_the_socket() -> None:
    async def leave(transport: MessageTransport) -> TwilioStream:
        stream = await open_stream(transport)
        assert await read_all(stream) == [StreamStopped(hung_up=True)]
        assert not stream.send_audio(b"\xff")
        stream.close(1000)
        assert await read_all(stream) == []
        return stream

    async with server(leave) as (url, outcome):
        client = await begin(url)
        await client.send(STOP)
        assert await close_code(client) == 1000
        stream = await outcome
        assert isinstance(stream, TwilioStream)


async def test_our_own_close_ends_our_own_reading() -> None:
    async def hang_up(transport: MessageTransport) -> list[StreamEvent]:
        stream = await open_stream(transport)
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(read_all(stream))
            stream.close()
        return reading.result()

    async with server(hang_up) as (url, outcome):
        client = await begin(url)
        assert await outcome == [StreamStopped(hung_up=False)]
        await client.close()


async def read_all(stream: TwilioStream) -> list[StreamEvent]:
    return [event async for event in Events(stream)]


async def test_nothing_is_sent_into_a_lost_socket() -> None:
    async def talk(transport: MessageTransport) -> None:
        stream = await open_stream(transport)
        assert await read_all(stream) == [StreamStopped(hung_up=False)]
        assert not stream.send_audio(b"\xff")
        assert not stream.send_audio(b"", "m")
        assert not stream.clear()
        stream.close()

    async with server(talk) as (url, outcome):
        client = await begin(url)
        client.transport.abort()
        await outcome


async def test_a_lost_socket_ends_a_stream_that_is_being_sent_to() -> None:
    async def talk(transport: MessageTransport) -> list[StreamEvent]:
        stream = await open_stream(transport)
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(read_all(stream))
            while not reading.done():
                stream.send_audio(b"\xff" * 8_000)
                await asyncio.sleep(0)
        return reading.result()

    async with server(talk) as (url, outcome):
        client = await begin(url)
        client.transport.abort()
        assert await outcome == [StreamStopped(hung_up=False)]


async def test_a_peer_that_does_not_read_ends_its_stream() -> None:
    async def talk(transport: MessageTransport) -> str:
        stream = await open_stream(transport, send_timeout_s=0.2)
        reading = asyncio.ensure_future(read_all(stream))
        await asyncio.sleep(0)
        while stream.send_audio(b"\xff" * 30_000):
            pass
        with pytest.raises(CarrierUnavailable) as caught:
            await reading
        assert not stream.send_audio(b"\xff")
        return caught.value.code

    async with server(talk) as (url, outcome):
        client = await begin(url)
        client.transport.pause_reading()
        assert await outcome == "stream_stalled"
        client.transport.abort()


async def test_a_peer_that_catches_up_is_sent_to_again_and_loses_nothing() -> None:
    sent: list[bytes] = []

    async def talk(transport: MessageTransport) -> None:
        stream = await open_stream(transport)
        events = Events(stream)
        reading = asyncio.ensure_future(anext(aiter(events)))
        await asyncio.sleep(0)
        while stream.send_audio(piece := len(sent).to_bytes(4, "big") * 7_500):
            sent.append(piece)
            await asyncio.sleep(0)
        client.transport.resume_reading()
        await events.writable.wait()
        assert stream.send_audio(b"", "behind")
        assert await reading == MarkReached("behind")
        stream.close()

    async with server(talk) as (url, outcome):
        client = await connect(url, compression=None, max_queue=None)
        client.transport.pause_reading()
        await client.send(render_connected())
        await client.send(START)
        heard = []
        async for text in client:
            message = parse_server_message(text, STREAM)
            if message == SendMark("behind"):
                await client.send(render_mark_reached(STREAM, "behind", sequence=2))
            else:
                heard.append(message)
        await outcome
    assert heard == [SendMedia(piece) for piece in sent]


@pytest.mark.parametrize(
    ("texts", "code"),
    [
        ([START.replace("CA", "CB")], CLOSE_POLICY),
        ([b"\xff" * 160], CLOSE_POLICY),
        ([" " * 70_000], CLOSE_TOO_LARGE),
        ([frame(1, bytes(8_193))], CLOSE_TOO_LARGE),
        (["not json"] * MAX_MALFORMED, CLOSE_POLICY),
    ],
)
async def test_what_no_carrier_sends_closes_the_stream(texts: list[str | bytes], code: int) -> None:
    async with server(events_of) as (url, outcome):
        client = await begin(url)
        for text in texts:
            await client.send(text)
        sent_s = asyncio.get_running_loop().time()
        assert await close_code(client) == code
        assert asyncio.get_running_loop().time() - sent_s < 1  # no timer had to end the closing
        events = await outcome
    assert isinstance(events, list)
    assert events[-1] == StreamStopped(hung_up=False)


async def test_some_malformed_messages_do_not_cost_the_call() -> None:
    async with server(events_of) as (url, outcome):
        client = await begin(url)
        for _ in range(MAX_MALFORMED - 1):
            await client.send('{"event":"me')
        await client.send(frame(1))
        await client.send(STOP)
        events = await outcome
        await client.close()
    assert isinstance(events, list)
    assert [type(event) for event in events[1:]] == [CallerAudio, StreamStopped]


@pytest.mark.parametrize(
    ("numbers", "counted"),
    [
        ((1, 2, 3), {}),
        ((1, 4, 5), {"media": 3, "missing": 2}),
        ((1, 2, 2, 3), {"media": 3, "duplicates": 1, "out_of_order": 1}),
    ],
)
async def test_lost_and_repeated_messages_are_told_at_the_end_of_their_stream(
    numbers: tuple[int, ...], counted: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="app.carrier")
    stop = render_stop(STREAM, CALL, account_id="AC00", sequence=numbers[-1] + 2)
    async with server(events_of) as (url, outcome):
        client = await begin(url)
        for number in numbers:
            await client.send(frame(number))
        await client.send(stop)
        await outcome
        await client.close()
    name = "carrier messages were lost or repeated"
    lines = [one.__dict__ for one in caplog.records if one.message == name]
    assert len(lines) == bool(counted)
    for line in lines:
        assert {key: line[key] for key in counted} == counted


async def test_a_burst_after_a_stalled_network_is_all_heard() -> None:
    async with server(events_of) as (url, outcome):
        client = await begin(url)
        for number in range(1, BURST_MESSAGES - 10):
            await client.send(frame(number, b"\xff"))
        await client.send(STOP)
        events = await outcome
        await client.close()
    assert isinstance(events, list)
    assert sum(isinstance(event, CallerAudio) for event in events) == BURST_MESSAGES - 11
    assert events[-1] == StreamStopped(hung_up=True)


async def test_a_flood_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    async with server(events_of) as (url, outcome):
        client = await begin(url)
        with pytest.raises(ConnectionClosed):
            while True:
                await client.send('{"event":"weather"}')
                await asyncio.sleep(0)  # one loop serves both sides
        events = await outcome
    assert isinstance(events, list)
    assert events[1:] == [StreamStopped(hung_up=False)]
    # The close frame itself may be lost behind what the flood left unread.
    warnings = [record.__dict__ for record in caplog.records if record.levelname == "WARNING"]
    assert [(warning["fault"], warning["close_code"]) for warning in warnings] == [
        ("too many messages", CLOSE_POLICY)
    ]


async def test_a_socket_that_cannot_even_be_closed_is_left_alone() -> None:
    async def talk(transport: MessageTransport) -> None:
        stream = await open_stream(transport)
        transport.close()
        stream.close()
        assert not stream.clear()
        assert stream.counters.media == 0

    async with server(talk) as (url, outcome):
        client = await begin(url)
        await outcome
        await client.close()


async def refused(*texts: str | bytes, handler: Handler = open_stream, keep: bool = True) -> str:
    """The answer of `open_stream` to a client that sends `texts`, and then waits or leaves."""
    async with server(handler) as (url, outcome):
        client = await connect(url, compression=None)
        for text in texts:
            await client.send(text)
        if not keep:
            await client.close()
        with pytest.raises((RemoteProtocolError, CarrierUnavailable)) as caught:
            await outcome
        client.transport.abort()
    return f"{type(caught.value).__name__}: {caught.value.message}"


async def test_a_socket_without_start_is_given_up() -> None:
    async def impatient(transport: MessageTransport) -> TwilioStream:
        return await open_stream(transport, start_deadline_s=0.1)

    said = "RemoteProtocolError: no start within 0.1 s"
    assert await refused(handler=impatient) == said
    assert await refused(render_connected(), handler=impatient) == said


async def test_a_socket_that_says_something_else_is_refused_at_once() -> None:
    hello = render_connected()
    assert "too many" in await refused(*[frame(1)] * 20)
    assert "malformed" in await refused(hello, '{"event":"start"}')
    assert "not JSON" in await refused("GET / HTTP/1.1")
    assert "binary" in await refused(hello, b"\x00")
    assert "too many" in await refused(*[hello] * 20)


async def test_a_stream_of_another_account_is_refused() -> None:
    async def ours(transport: MessageTransport) -> TwilioStream:
        return await open_stream(transport, expect_account="AC99")

    assert "another account" in await refused(render_connected(), START, handler=ours)


async def test_a_caller_who_is_gone_before_start_is_unavailable() -> None:
    gone = await refused(render_connected(), keep=False)
    assert gone == "CarrierUnavailable: the stream's socket closed before start"
    ended = await refused(render_connected(), STOP)
    assert ended == "CarrierUnavailable: the call ended before its stream started"


async def test_the_wire_trace_holds_no_sound_no_keys_and_no_token(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def talk(transport: MessageTransport) -> None:
        stream = await open_stream(transport)
        stream.send_audio(b"\x10" * 160)
        await read_all(stream)

    caplog.set_level("DEBUG", logger="app.carrier")
    async with server(talk) as (url, outcome):
        client = await begin(url)
        await client.send(frame(1))
        await client.send(render_dtmf(STREAM, "8", sequence=3))
        await client.send(STOP)
        await outcome
        await client.close()
    traces = [record.__dict__ for record in caplog.records if record.message in "<>"]
    assert [(trace["message"], trace["kind"]) for trace in traces] == [
        (">", "media"),
        ("<", "CallerAudio"),
        ("<", "Dtmf"),
        ("<", "StreamStopped"),
    ]
    for trace in traces:
        assert "abc" not in repr(trace)
        assert "EBAQ" not in repr(trace)  # the sound, in base64
        assert "digit" not in repr(trace)
