"""The bus: what is told, asked and gathered, in one process and between several."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from app.bus import MAX_BYTES, Bus, Message
from app.errors import LocalProtocolError


class Wire:
    """Links in memory, as other processes would be reached."""

    def __init__(self) -> None:
        self.receivers: dict[str, Callable[[bytes], None]] = {}

    def link(self, *, deaf: bool = False) -> WireLink:
        return WireLink(self, deaf)


class WireLink:
    degraded = False

    def __init__(self, wire: Wire, deaf: bool) -> None:
        self.wire = wire
        self.deaf = deaf
        self.name = ""

    @contextlib.asynccontextmanager
    async def open(self, name: str, receive: Callable[[bytes], None]) -> AsyncIterator[None]:
        self.name = name
        self.wire.receivers[name] = (lambda _frame: None) if self.deaf else receive
        yield
        del self.wire.receivers[name]

    def post(self, frame: bytes, to: str | None = None) -> None:
        for name, receive in list(self.wire.receivers.items()):
            if name != self.name and to in (None, name):
                asyncio.get_running_loop().call_soon(receive, frame)

    async def ask(self, frame: bytes) -> int:
        self.post(frame)
        return len(self.wire.receivers) - 1


@contextlib.asynccontextmanager
async def buses(*, deaf: bool = False) -> AsyncIterator[tuple[Bus, Bus, Bus]]:
    wire = Wire()
    one, two, three = (Bus(wire.link()), Bus(wire.link(deaf=deaf)), Bus(wire.link()))
    async with one.open(), two.open(), three.open():
        yield one, two, three


def answering(**answer: Any) -> Callable[[Message], Any]:
    async def answer_with(message: Message) -> Message | None:
        return {**answer, "asked": message.get("n")}

    return answer_with


async def declining(_message: Message) -> Message | None:
    return None


async def failing(_message: Message) -> Message | None:
    raise ValueError("of the responder")


async def test_one_process_tells_and_asks_itself() -> None:
    async with Bus().open() as bus:
        heard: list[Message] = []
        undo = bus.subscribe("events", heard.append)
        bus.publish("events", {"n": 1})
        bus.publish("others", {"n": 2})
        assert await bus.request("who", {"n": 3}) is None
        bus.respond("who", declining)
        bus.respond("who", answering(name="one"))
        assert await bus.request("who", {"n": 4}) == {"name": "one", "asked": 4}
        undo()
        bus.publish("events", {"n": 5})
        assert heard == [{"n": 1}]
        assert not bus.shared and not bus.degraded


async def test_every_process_is_told_once() -> None:
    async with buses() as (one, two, three):
        heard: list[Message] = []
        for bus in (one, two, three):
            bus.subscribe("events", heard.append)
        two.publish("events", {"n": 1})
        await asyncio.sleep(0.01)
        assert heard == [{"n": 1}] * 3


async def test_the_process_that_knows_answers() -> None:
    async with buses() as (one, two, three):
        for bus in (one, two):
            bus.respond("who", declining)
        three.respond("who", answering(name="three"))
        assert await one.request("who", {"n": 1}) == {"name": "three", "asked": 1}
        assert await one.request("unknown", {"n": 1}) is None


async def test_all_answers_are_gathered_with_our_own_first() -> None:
    async with buses() as (one, two, three):
        for name, bus in (("one", one), ("two", two), ("three", three)):
            bus.respond("who", answering(name=name))
        answers = await two.gather("who", {"n": 1})
        assert next(answer["name"] for answer in answers) == "two"
        assert sorted(answer["name"] for answer in answers) == ["one", "three", "two"]


async def test_one_that_does_not_answer_is_waited_for_until_the_deadline() -> None:
    async with buses(deaf=True) as (one, _two, three):
        three.respond("who", declining)
        assert await one.request("who", {}, deadline_s=0.05) is None
        three.respond("which", answering(name="three"))
        assert await one.gather("which", {"n": 1}, deadline_s=0.05) == [
            {"name": "three", "asked": 1}
        ]


async def test_a_responder_that_fails_has_declined() -> None:
    async with buses() as (one, two, three):
        two.respond("who", failing)
        three.respond("who", answering(name="three"))
        assert await one.request("who", {"n": 1}) == {"name": "three", "asked": 1}


@pytest.mark.parametrize("message", [{"x": "y" * MAX_BYTES}, {"x": object()}, {"x": float("nan")}])
async def test_what_cannot_be_sent_is_our_mistake(message: Message) -> None:
    async with buses() as (one, _two, _three):
        with pytest.raises(LocalProtocolError):
            one.publish("events", message)
