"""The bus: short messages between the processes that answer the calls of one address.

A seam. In one process it is a table of functions and costs nothing. `Link` carries messages to the
other processes: workers of one machine, or several hosts. Nothing on the way of a call's sound
depends on the bus.

Three verbs:

- `publish` tells all subscribers of a topic, in every process, this one included. It never waits,
  and a message may be lost: send states, or events whose loss is bearable.
- `request` asks all responders of a topic, this process first, and gives the first answer that is
  not None; None when all have declined, or the deadline has passed. `gather` gives all answers.
- `subscribe` and `respond` register a function, and return one that takes it back.

A topic is a plain word such as `call_events`; what a message is about stands in the message, a JSON
object of at most `MAX_BYTES`. Functions are called on the event loop: a subscriber must not block,
and a responder should answer well within `DEADLINE_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

from app.errors import LocalProtocolError

__all__ = ["DEADLINE_S", "MAX_BYTES", "Bus", "Link", "Message", "Responder", "Subscriber"]

logger = logging.getLogger(__name__)

DEADLINE_S: Final = 0.5
"""The longest wait for other processes: a caller may be waiting for the answer."""
MAX_BYTES: Final = 131_072
"""One datagram of a Unix socket with Linux's default buffers holds it."""

Message = Mapping[str, Any]
Subscriber = Callable[[Message], None]
Responder = Callable[[Message], Awaitable[Message | None]]
Undo = Callable[[], None]


class Link(Protocol):
    """Carries frames between processes. A frame may be lost, and is never split."""

    @property
    def degraded(self) -> bool:
        """True while other processes cannot be reached."""
        ...

    def open(
        self, name: str, receive: Callable[[bytes], None]
    ) -> contextlib.AbstractAsyncContextManager[object]:
        """Hand frames of others to `receive` inside the block, under this process's `name`."""
        ...

    def post(self, frame: bytes, to: str | None = None) -> None:
        """Send to the process of that name, or to all others, without waiting."""
        ...

    async def ask(self, frame: bytes) -> int:
        """Send to all others, and return how many of them have it now. At most `DEADLINE_S`."""
        ...


class Bus:
    """Messages between the processes of one address; without a `link`, of this one."""

    def __init__(self, link: Link | None = None, name: str | None = None) -> None:
        """`name` is this process's among the others; one of its own where it has none."""
        self.name = name or secrets.token_hex(6)
        self._link = link
        self._subscribers: dict[str, list[Subscriber]] = {}
        self._responders: dict[str, list[Responder]] = {}
        self._asked: dict[str, asyncio.Queue[Message | None]] = {}
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def shared(self) -> bool:
        """True when there may be other processes."""
        return self._link is not None

    @property
    def degraded(self) -> bool:
        """True while other processes cannot be reached; this one is told and asked all the same."""
        return self._link is not None and self._link.degraded

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Bus]:
        """Hear other processes inside this block."""
        if self._link is None:
            yield self
            return
        async with asyncio.TaskGroup() as tasks, self._link.open(self.name, self._on_frame):
            self._tasks = tasks
            try:
                yield self
            finally:
                self._tasks = None

    def subscribe(self, topic: str, subscriber: Subscriber) -> Undo:
        """Call `subscriber` with every message that is published under the topic."""
        return _add(self._subscribers, topic, subscriber)

    def respond(self, topic: str, responder: Responder) -> Undo:
        """Have `responder` answer requests of the topic; it returns None for those of others."""
        return _add(self._responders, topic, responder)

    def publish(self, topic: str, message: Message) -> None:
        """Tell all subscribers.

        Raises:
            LocalProtocolError: the message is too long, or no JSON.
        """
        for subscriber in tuple(self._subscribers.get(topic, ())):
            subscriber(message)
        if self._link is not None:
            self._link.post(_frame({"topic": topic, "message": message}))

    async def request(
        self, topic: str, message: Message, *, deadline_s: float = DEADLINE_S
    ) -> Message | None:
        """The first answer, or None.

        Raises:
            LocalProtocolError: the message is too long, or no JSON.
        """
        answers = self._answers(topic, message, deadline_s)
        async with contextlib.aclosing(answers):
            async for answer in answers:
                return answer
        return None

    async def gather(
        self, topic: str, message: Message, *, deadline_s: float = DEADLINE_S
    ) -> list[Message]:
        """All answers that came before the deadline; this process's own are the first.

        Raises:
            LocalProtocolError: the message is too long, or no JSON.
        """
        return [answer async for answer in self._answers(topic, message, deadline_s)]

    async def _answers(
        self, topic: str, message: Message, deadline_s: float
    ) -> AsyncGenerator[Message, None]:
        until_s = asyncio.get_running_loop().time() + deadline_s
        for responder in tuple(self._responders.get(topic, ())):
            own = await responder(message)
            if own is not None:
                yield own
        if self._link is None:
            return
        request_id = secrets.token_hex(8)
        replies: asyncio.Queue[Message | None] = asyncio.Queue()
        self._asked[request_id] = replies
        frame = _frame({"topic": topic, "message": message, "ask": request_id, "from": self.name})
        try:
            for _ in range(await self._link.ask(frame)):
                reply = None
                try:
                    async with asyncio.timeout_at(until_s):
                        reply = await replies.get()
                except TimeoutError:
                    logger.info("no answer on the bus", extra={"topic": topic})
                    return
                if reply is not None:
                    yield reply
        finally:
            del self._asked[request_id]

    def _on_frame(self, frame: bytes) -> None:
        """Take what another process has sent; only processes of this server can."""
        received = json.loads(frame)
        if (request_id := received.get("reply")) is not None:
            if (replies := self._asked.get(request_id)) is not None:
                replies.put_nowait(received["answer"])
        elif "ask" in received:
            if self._tasks is not None:
                self._tasks.create_task(self._reply(received), name="bus reply")
        else:
            for subscriber in tuple(self._subscribers.get(received["topic"], ())):
                subscriber(received["message"])

    async def _reply(self, asked: Mapping[str, Any]) -> None:
        """Answer another process: with None as well, so that it need not wait."""
        assert self._link is not None
        answer = None
        try:
            for responder in tuple(self._responders.get(asked["topic"], ())):
                answer = await responder(asked["message"])
                if answer is not None:
                    break
            reply = _frame({"reply": asked["ask"], "answer": answer})
        except Exception:
            logger.exception("responder failed", extra={"topic": asked["topic"]})
            reply = _frame({"reply": asked["ask"], "answer": None})
        self._link.post(reply, asked["from"])


def _add(table: dict[str, list[Any]], topic: str, function: Any) -> Undo:
    table.setdefault(topic, []).append(function)

    def undo() -> None:
        registered = table.get(topic, [])
        if function in registered:
            registered.remove(function)

    return undo


def _frame(content: Mapping[str, Any]) -> bytes:
    try:
        frame = json.dumps(content, separators=(",", ":"), allow_nan=False).encode("utf-8")
    except (TypeError, ValueError) as error:
        raise LocalProtocolError("a message of the bus is no JSON") from error
    if len(frame) > MAX_BYTES:
        raise LocalProtocolError("a message of the bus is too long")
    return frame
