"""The voice loop: connections that break, are given up, or are renewed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from app.agents.agent import Agent
from app.agents.dialogue.actions import GiveUp
from app.agents.dialogue.dialogue import Dialogue
from app.agents.dialogue.voice_loop import VoiceLoop
from app.errors import VoiceClosed, VoiceError, VoiceRefused
from app.events import CallCounters, CallId
from app.realtime.connecting import RECONNECTS_PER_MINUTE
from app.realtime.connection import Room, VoiceConnection
from app.realtime.events import (
    ClientEvent,
    InputAudioCommit,
    ServerEvent,
    SessionConfig,
    SpeechStarted,
)
from tests.fakes.waiting import time_limit


class MemoryConnection:
    """A connection in memory: `arriving` holds what the model sends, and how it ends."""

    differences = ()
    malformed = 0
    oddities = 0

    def __init__(self, session: SessionConfig) -> None:
        self.session = session
        self.arriving: asyncio.Queue[ServerEvent | VoiceError | None] = asyncio.Queue()
        self.sent: list[ClientEvent] = []
        self.refuses: VoiceError | None = None
        self.closed = False

    def __aiter__(self) -> MemoryConnection:
        return self

    async def __anext__(self) -> ServerEvent:
        arrived = await self.arriving.get()
        if arrived is None:
            raise StopAsyncIteration
        if isinstance(arrived, VoiceError):
            raise arrived
        return arrived

    async def send(self, event: ClientEvent) -> str:
        if self.refuses is not None:
            raise self.refuses
        self.sent.append(event)
        return "evt_1"

    def append_at_once(self, audio: bytes) -> bool:
        return False

    async def deliver(self, on_event: Callable[[ServerEvent], None], room: Room) -> None:
        async for event in self:
            await room.room()
            on_event(event)

    async def close(self) -> None:
        self.closed = True


class Model:
    """Opens a `MemoryConnection` for each connection, or refuses."""

    name = "memory"

    def __init__(self) -> None:
        self.connections: list[MemoryConnection] = []
        self.refuses: VoiceRefused | None = None

    async def connect(self, config: SessionConfig) -> VoiceConnection:
        if self.refuses is not None:
            raise self.refuses
        self.connections.append(MemoryConnection(config))
        return self.connections[-1]


@dataclass
class Talking:
    """The conversation of a loop under test, which notes what it hears."""

    present: bool = True
    noted: list[str] = field(default_factory=list)
    events: asyncio.Queue[ClientEvent] = field(default_factory=asyncio.Queue)
    ready: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    def on_voice_ready(self, connection: VoiceConnection, *, reconnected: bool) -> None:
        self.noted.append("again" if reconnected else "ready")
        self.ready.release()

    has_room = True

    async def room(self) -> None:
        """There is always room."""

    @property
    def voice_room(self) -> Room:
        return self

    def on_voice(self, event: ServerEvent) -> None:
        self.noted.append(type(event).__name__)
        self.heard.set()

    async def on_voice_lost(self, code: str, session_id: str) -> None:
        self.noted.append("lost")


class Site:
    """A loop at work over a model in memory."""

    def __init__(self, *, reconnects: bool = True) -> None:
        self.model = Model()
        self.dialogue = Dialogue(
            Agent(name="a", session=SessionConfig()), CallId("c"), CallCounters()
        )
        self.talking = Talking()
        self.loop = VoiceLoop(
            self.model,
            self.dialogue,
            self.talking.events.get,
            self.talking,
            reconnects=reconnects,
        )
        self.over: asyncio.Task[GiveUp]

    async def connected(self) -> MemoryConnection:
        """The next connection, once it is in use."""
        await self.talking.ready.acquire()
        return self.model.connections[-1]


@asynccontextmanager
async def talking(*, reconnects: bool = True) -> AsyncIterator[Site]:
    site = Site(reconnects=reconnects)
    site.over = asyncio.create_task(site.loop.run())
    try:
        async with time_limit():
            yield site
    finally:
        site.over.cancel()
        await asyncio.wait({site.over})


async def test_events_go_both_ways() -> None:
    async with talking() as site:
        connection = await site.connected()
        connection.arriving.put_nowait(SpeechStarted("item_1", 0))
        await site.talking.heard.wait()
        site.talking.events.put_nowait(InputAudioCommit())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert connection.sent == [InputAudioCommit()]
        assert site.loop.connected
    assert site.talking.noted == ["ready", "SpeechStarted"]


@pytest.mark.parametrize("how", ["closed", "ended", "cannot send", "given up"])
async def test_a_connection_that_breaks_is_replaced_within_a_budget(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.realtime.connecting.FIRST_PAUSE_S", 0.0)
    replaced = 1 if how == "given up" else RECONNECTS_PER_MINUTE

    def lose(connection: MemoryConnection) -> None:
        match how:
            case "closed":
                connection.arriving.put_nowait(VoiceClosed("gone"))
            case "ended":
                connection.arriving.put_nowait(None)
            case "cannot send":
                connection.refuses = VoiceClosed("gone")
                site.talking.events.put_nowait(InputAudioCommit())
            case _:
                site.loop.give_up(GiveUp(code="stalled", retryable=True))

    async with talking() as site:
        for _ in range(replaced + 1):
            lose(await site.connected())
        lost = await site.over
    assert lost.code == ("stalled" if how == "given up" else "voice_closed")
    assert site.talking.noted == ["ready", *["lost", "again"] * replaced]
    assert [c.closed for c in site.model.connections] == [True] * (replaced + 1)
    assert not site.loop.connected
    assert isinstance(site.loop.error, VoiceClosed) == (how in ("closed", "cannot send"))


async def test_a_connection_over_which_a_response_was_completed_may_break_again() -> None:
    async with talking() as site:
        for _ in range(3):
            connection = await site.connected()
            site.dialogue.failures.completed += 1
            connection.arriving.put_nowait(None)
        await site.connected()
    assert site.talking.noted.count("lost") == 3


async def test_with_nobody_there_a_connection_may_break_again() -> None:
    async with talking() as site:
        site.talking.present = False
        for _ in range(3):
            (await site.connected()).arriving.put_nowait(None)
        await site.connected()
    assert site.talking.noted.count("lost") == 3


async def test_a_connection_is_not_replaced_where_that_is_of_no_use() -> None:
    async with talking() as site:
        await site.connected()
        site.loop.give_up(GiveUp(code="insufficient_quota", retryable=False))
        site.loop.give_up(GiveUp(code="later", retryable=True))
        assert (await site.over).code == "insufficient_quota"
    async with talking(reconnects=False) as site:
        (await site.connected()).arriving.put_nowait(None)
        assert (await site.over).code == "voice_closed"
    assert len(site.model.connections) == 1


async def test_a_model_that_refuses_to_connect_again_ends_the_loop() -> None:
    async with talking() as site:
        connection = await site.connected()
        site.model.refuses = VoiceRefused("no more", code="invalid_api_key")
        connection.arriving.put_nowait(None)
        with pytest.raises(VoiceRefused):
            await site.over
    assert site.talking.noted == ["ready", "lost"]


async def test_a_renewal_changes_over_to_a_fresh_connection() -> None:
    async with talking() as site:
        old = await site.connected()
        await site.loop.renew(lambda: True)
        fresh = await site.connected()
        assert old.closed
        assert site.loop.connection is fresh is not old
        fresh.arriving.put_nowait(None)  # a renewal does not count as a loss
        await site.connected()
    assert site.talking.noted == ["ready", "again", "lost", "again"]


async def test_a_renewal_in_a_moment_that_is_not_quiet_any_more_changes_nothing() -> None:
    async with talking() as site:
        old = await site.connected()
        await site.loop.renew(lambda: False)
        assert [connection.closed for connection in site.model.connections] == [False, True]
        assert site.loop.connection is old
    assert site.talking.noted == ["ready"]


async def test_a_renewal_that_fails_keeps_the_connection() -> None:
    async with talking() as site:
        old = await site.connected()
        site.model.refuses = VoiceRefused("no more")
        with pytest.raises(VoiceRefused):
            await site.loop.renew(lambda: True)
        assert site.loop.connection is old
        assert not old.closed


async def test_a_renewal_of_a_connection_that_broke_meanwhile_is_closed() -> None:
    async with talking() as site:
        await site.connected()
        site.loop.give_up(GiveUp(code="stalled", retryable=False))
        await site.loop.renew(lambda: True)
        await site.over
    assert [connection.closed for connection in site.model.connections] == [True, True]
