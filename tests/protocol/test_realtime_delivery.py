"""A model's messages told in place of read, over both wires: in order, bounded, and none lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import pairwise

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from app.errors import VoiceClosed
from app.framing import FRAMES_AT_ONCE
from app.realtime.connection import ClientTransport, RealtimeConnection, Transport, pipe
from app.realtime.events import Unknown
from app.realtime.websocket import EagerConnection, WebSocketTransport
from tests.fakes.waiting import TIME_LIMIT_S, time_limit, until, within


class Room:
    """Room that a test gives and takes."""

    def __init__(self) -> None:
        self._free = asyncio.Event()
        self._free.set()

    @property
    def has_room(self) -> bool:
        return self._free.is_set()

    async def room(self) -> None:
        await self._free.wait()

    def take(self) -> None:
        self._free.clear()

    def give(self) -> None:
        self._free.set()


@asynccontextmanager
async def over_a_pipe() -> AsyncIterator[tuple[ClientTransport, Transport]]:
    yield pipe(capacity=8)


class FarSocket:
    """The far end of a websocket, as a transport."""

    def __init__(self, socket: ServerConnection) -> None:
        self._socket = socket

    async def send(self, text: str) -> None:
        await self._socket.send(text)

    async def receive(self) -> str:
        return str(await self._socket.recv())

    async def close(self, code: int = 1000) -> None:
        await self._socket.close(code)


@asynccontextmanager
async def over_a_socket() -> AsyncIterator[tuple[ClientTransport, Transport]]:
    accepted: asyncio.Queue[ServerConnection] = asyncio.Queue()

    async def hold(socket: ServerConnection) -> None:
        accepted.put_nowait(socket)
        await socket.wait_closed()

    async with serve(hold, "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        near = await connect(
            f"ws://127.0.0.1:{port}", compression=None, create_connection=EagerConnection
        )
        assert isinstance(near, EagerConnection)
        transport = WebSocketTransport(near)
        try:
            yield transport, FarSocket(await accepted.get())
        finally:
            await transport.close()


WIRES = pytest.mark.parametrize("wire", [over_a_pipe, over_a_socket])
Wire = Callable[[], AbstractAsyncContextManager[tuple[ClientTransport, Transport]]]


@WIRES
async def test_texts_are_told_in_order_also_those_that_came_before(wire: Wire) -> None:
    async with wire() as (near, far), time_limit():
        heard: list[str] = []
        await far.send("first")
        await near.send("ping")
        assert await far.receive() == "ping"
        delivering = asyncio.ensure_future(near.deliver(heard.append, Room()))
        texts = [str(number) * (1 + number * 300) for number in range(60)]
        for text in texts:
            await far.send(text)
        await until(lambda: len(heard) == 61)
        assert heard == ["first", *texts]
        assert near.send_at_once(b"at once")
        assert await far.receive() == "at once"
        await far.close(1001)
        with pytest.raises(VoiceClosed) as caught:
            await delivering
        assert caught.value.close_code == 1001


@WIRES
async def test_without_room_the_peer_waits_and_nothing_is_lost(wire: Wire) -> None:
    async with wire() as (near, far), time_limit():
        heard: list[str] = []
        room = Room()

        def hear(text: str) -> None:
            heard.append(text)
            if len(heard) % 20 == 0:
                room.take()

        delivering = asyncio.ensure_future(near.deliver(hear, room))
        texts = [f"{number} " + "x" * 50_000 for number in range(100)]
        sent = 0

        async def send_all() -> None:
            nonlocal sent
            for text in texts:
                await far.send(text)
                sent += 1

        sending = asyncio.ensure_future(send_all())
        for count in (20, 40, 60, 80):
            await until(lambda count=count: len(heard) == count)  # type: ignore[misc]
            for _ in range(100):
                await asyncio.sleep(0)
            assert len(heard) == count
            assert not room.has_room
            room.give()
        await until(lambda: len(heard) == 100)
        room.give()
        await sending
        assert heard == texts
        delivering.cancel()
        await asyncio.wait({delivering})


@WIRES
async def test_what_a_listener_raises_ends_the_delivery(wire: Wire) -> None:
    async with wire() as (near, far), time_limit():

        def fail(text: str) -> None:
            raise LookupError(text)

        delivering = asyncio.ensure_future(near.deliver(fail, Room()))
        await far.send("one")
        await far.send("two")
        with pytest.raises(LookupError, match="one"):
            await delivering


async def test_fragments_and_binary_messages_are_told_as_well() -> None:
    async with over_a_socket() as (near, far), time_limit():
        heard: list[str] = []
        delivering = asyncio.ensure_future(near.deliver(heard.append, Room()))
        assert isinstance(far, FarSocket)
        await far.send("whole")
        await far._socket.send(["in ", "three ", "parts"])
        await far._socket.send(b"\xc3\xa4 \xff")
        await (await far._socket.ping())
        await until(lambda: len(heard) == 3)
        assert heard == ["whole", "in three parts", "\u00e4 \ufffd"]
        delivering.cancel()
        await asyncio.wait({delivering})


async def test_a_flood_of_tiny_messages_leaves_every_other_its_turns() -> None:
    async with over_a_socket() as (near, far), time_limit():
        heard = 0
        in_this_turn: list[int] = [0]

        def hear(_text: str) -> None:
            nonlocal heard
            heard += 1
            in_this_turn[-1] += 1

        async def others() -> None:
            while True:
                in_this_turn.append(0)
                await asyncio.sleep(0)

        delivering = asyncio.ensure_future(near.deliver(hear, Room()))
        beside = asyncio.ensure_future(others())
        assert isinstance(far, FarSocket)
        far._socket.transport.write(b"\x81\x02{}" * 20_000)
        await until(lambda: heard == 20_000)
        # Two turns of the reader may come together: one for what was read, and one for the rest.
        assert max(in_this_turn) <= 2 * FRAMES_AT_ONCE
        for task in (delivering, beside):
            task.cancel()
        await asyncio.wait({delivering, beside})


@WIRES
async def test_what_is_sent_at_once_keeps_its_place_among_what_waits(wire: Wire) -> None:
    async with wire() as (near, far), time_limit():
        expected = []
        for number in range(3):
            for letter in "ab":
                assert near.send_at_once(f"{letter}{number}".encode())
            await near.send(f"c{number}")
            expected += [f"a{number}", f"b{number}", f"c{number}"]
            assert [await far.receive() for _ in range(3)] == expected[-3:]
        assert near.send_at_once(b"last words")
        closing = asyncio.ensure_future(near.close())
        assert await far.receive() == "last words"
        await closing
        assert not near.send_at_once(b"too late")


async def test_events_that_came_before_the_session_was_agreed_leave_others_their_turns() -> None:
    ours, _ = pipe()
    connection = RealtimeConnection(ours)
    events = [Unknown(f"x.{number}", {}) for number in range(20 * FRAMES_AT_ONCE)]
    connection._early = [*events]
    seen: list[object] = []
    turns: list[int] = []

    async def look() -> None:
        while len(seen) < len(events):
            turns.append(len(seen))
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    delivering = asyncio.create_task(connection.deliver(seen.append, Room()))
    await within(TIME_LIMIT_S, looking)
    delivering.cancel()
    assert seen == events
    steps = [after - before for before, after in pairwise([*turns, len(seen)])]
    assert max(steps) <= FRAMES_AT_ONCE
