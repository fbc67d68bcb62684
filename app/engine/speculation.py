"""A reply that is begun on a likely end of the caller's turn, before silence has proved it.

The turn is transcribed and answered as if it were over, and the answer is held back. Once the turn
is over and asks for the very same request, the held answer becomes the reply; when the caller goes
on, or anything else differs, it is dropped and nobody has heard of it. The text model's server
bills it all the same: its usage goes with that of the next response.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from app.engine.actions import Generate
from app.engine.chain import Chain, Reports
from app.engine.stages.base import AnswerUsage, TextUsage, ToolCall
from app.errors import VoiceUnavailable

__all__ = ["Speculation"]

_HELD_BYTES: Final = 2 * 48_000
"""Two seconds of speech: beyond it a reply that may be dropped is not made."""


class Speculation:
    """One reply that is made ahead. `task` is to be run, or cancelled, by the session's host."""

    def __init__(self, chain: Chain, generate: Generate) -> None:
        self._chain = chain
        self._generate = generate
        self._held = _Held()
        self._asked = self._failed = False

    def fits(self, generate: Generate) -> bool:
        """True if the reply that is asked for is the one that is being made."""
        mine = self._generate
        return (mine.request, mine.speaks, mine.voice, mine.speed) == (
            generate.request,
            generate.speaks,
            generate.voice,
            generate.speed,
        )

    @property
    def usage(self) -> TextUsage:
        """The text model's usage so far, estimated where no server has told it."""
        written = self._held.written
        # A request that failed before its first word is not billed.
        billed = self._asked and bool(written or not self._failed)
        return self._held.usage.total(self._generate.request, written, billed=billed)

    async def run(self) -> VoiceUnavailable | None:
        """Make the reply, and hold it back until `release`; the failure that ended it, if any."""
        self._asked = True
        try:
            await self._chain.run(self._generate, self._held)
        except VoiceUnavailable as error:
            self._failed = True
            return error
        return None

    async def release(self, reports: Reports) -> None:
        """Report what was held back, and all that follows."""
        await self._held.release(reports)


class _Held:
    """Reports that wait for somebody to take them."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[Reports], Awaitable[None]]] = []
        self._bytes = 0
        self.written = ""
        self.usage = AnswerUsage()
        self._reports: Reports | None = None
        self._released = asyncio.Event()

    async def words(self, text: str) -> None:
        self.written += text
        await self._pass(lambda reports: reports.words(text))

    async def spoken(self, text: str, written: str) -> None:
        self.written += written
        await self._pass(lambda reports: reports.spoken(text, written))

    async def used(self, usage: TextUsage) -> None:
        self.usage.add(usage)
        await self._pass(lambda reports: reports.used(usage))

    async def sound(self, pcm16: bytes) -> None:
        self._bytes += len(pcm16)
        if self._bytes > _HELD_BYTES:
            await self._released.wait()
        await self._pass(lambda reports: reports.sound(pcm16))

    async def done(self, calls: Sequence[ToolCall], stages: Mapping[str, int]) -> None:
        await self._pass(lambda reports: reports.done(calls, stages))

    async def _pass(self, report: Callable[[Reports], Awaitable[None]]) -> None:
        if self._reports is None:
            self._waiting.append(report)
        else:
            await report(self._reports)

    async def release(self, reports: Reports) -> None:
        while self._waiting:  # more may come while these are reported
            await self._waiting.pop(0)(reports)
        self._reports = reports
        self._released.set()
