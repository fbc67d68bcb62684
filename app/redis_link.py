"""The bus between several servers, over a Redis that all of them reach.

Every server hears two channels: one of all, and its own. What Redis does not take within half a
second is lost, and so is what a server misses while it connects again: the bus promises no more. A
Redis that does not answer costs the first request that half second; until it answers again nobody
is asked, and the link is `degraded`.

Follows redis-py 8, which is the extra `redis`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final

from app.bus import DEADLINE_S
from app.errors import ConfigError
from app.installation import install_command
from app.tasks import running

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["RedisLink"]

logger = logging.getLogger(__name__)

CHANNEL: Final = "trunkline.bus"
WAITING: Final = 1_000
"""Frames that wait to be sent; beyond them the oldest is lost."""
LOOK_S: Final = 1.0
RETRY_S: Final = 0.5


class RedisLink:
    """A `Link` of the bus."""

    def __init__(self, url: str) -> None:
        """Connects to nothing yet.

        Raises:
            ConfigError: the extra is not installed, or this is not the address of a Redis.
        """
        try:
            from redis.asyncio import Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
            from redis.exceptions import RedisError
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"bus.url needs the package redis: {install_command('redis')}"
            ) from error
        try:
            self._redis: Redis = Redis.from_url(
                url,
                socket_timeout=DEADLINE_S,
                socket_connect_timeout=DEADLINE_S,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            raise ConfigError(f"bus.url is not the address of a Redis: {error}") from error
        self.degraded = True
        self._failures = (RedisError, OSError, TimeoutError)
        self._name = ""
        self._waiting: deque[tuple[str, bytes]] = deque(maxlen=WAITING)
        self._news = asyncio.Event()
        self._told = False

    @contextlib.asynccontextmanager
    async def open(self, name: str, receive: Callable[[bytes], None]) -> AsyncIterator[None]:
        self._name = name
        async with running(self._hear(receive), self._send()):
            yield
        with contextlib.suppress(*self._failures):
            await self._redis.aclose()

    def post(self, frame: bytes, to: str | None = None) -> None:
        self._waiting.append((CHANNEL if to is None else f"{CHANNEL}.{to}", self._sealed(frame)))
        self._news.set()

    async def ask(self, frame: bytes) -> int:
        if self.degraded:
            return 0
        try:
            async with asyncio.timeout(DEADLINE_S):
                heard: int = await self._redis.publish(CHANNEL, self._sealed(frame))
        except self._failures as error:
            self._lost(error)
            return 0
        return max(0, heard - 1)  # we hear it too

    def _sealed(self, frame: bytes) -> bytes:
        return self._name.encode("utf-8") + b"\n" + frame

    async def _send(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                channel, frame = self._waiting.popleft()
                if self.degraded:
                    continue
                try:
                    async with asyncio.timeout(DEADLINE_S):
                        await self._redis.publish(channel, frame)
                except self._failures as error:
                    self._lost(error)

    async def _hear(self, receive: Callable[[bytes], None]) -> None:
        """Hear the channels, and look every second whether Redis still answers."""
        while True:
            try:
                async with self._redis.pubsub() as heard:
                    await heard.subscribe(CHANNEL, f"{CHANNEL}.{self._name}")
                    await self._listen(heard, receive)
            except self._failures as error:
                self._lost(error)
            await asyncio.sleep(RETRY_S)

    async def _listen(self, heard: object, receive: Callable[[bytes], None]) -> None:
        loop = asyncio.get_running_loop()
        look_s = loop.time()
        while True:
            if loop.time() >= look_s:
                async with asyncio.timeout(DEADLINE_S):
                    await self._redis.ping()
                self._found()
                look_s = loop.time() + LOOK_S
            message = await heard.get_message(  # type: ignore[attr-defined]
                ignore_subscribe_messages=True, timeout=LOOK_S
            )
            if message is None:
                continue
            sender, _, frame = message["data"].partition(b"\n")
            if sender != self._name.encode("utf-8"):
                receive(frame)

    def _found(self) -> None:
        if self.degraded and self._told:
            logger.info("other servers are reached again")
        self.degraded = self._told = False

    def _lost(self, error: BaseException) -> None:
        self.degraded = True
        if not self._told:
            reason = str(error) or "Redis does not answer in time"
            logger.warning(
                "other servers are not reached",
                extra={"error": type(error).__name__, "reason": reason},
            )
        self._told = True
