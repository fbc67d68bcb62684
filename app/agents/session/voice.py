"""A session's side towards the voice model: one connection after another, for as long as it lives.

A connection that breaks is replaced once, and again only when something was said since. What is
said over it, and what its events mean, is `app.agents.session.session`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, Protocol

from app.agents.dialogue.actions import GiveUp
from app.agents.llm.out_of_band import OutOfBandAsker
from app.agents.session.outbox import SessionOutbox
from app.agents.session.talk import Talk
from app.errors import VoiceError, VoiceUnavailable
from app.realtime.connecting import connect_with_retry
from app.realtime.connection import VoiceConnection, VoiceModel
from app.realtime.events import ServerEvent

__all__ = ["SessionVoice"]


CLOSE_S: Final = 2.0


class VoiceListener(Protocol):
    """Who hears of the connection. None of it may wait."""

    def on_voice(self, event: ServerEvent) -> None:
        """The model sent an event."""
        ...

    def on_voice_ready(self) -> None:
        """A fresh connection has taken the place of one that broke."""
        ...


class SessionVoice:
    """Whether there is a connection, and how the present one was given up."""

    def __init__(
        self, model: VoiceModel, talk: Talk, outbox: SessionOutbox, asker: OutOfBandAsker
    ) -> None:
        self.up = False
        self._model = model
        self._talk = talk
        self._outbox = outbox
        self._asker = asker
        self._lost: asyncio.Future[GiveUp] | None = None

    async def connect(self) -> VoiceConnection:
        """Connect for the agent who speaks now.

        Raises:
            VoiceRefused: wrong key, model or settings.
            VoiceUnavailable: not reached within the budget, after retries.
        """
        return await connect_with_retry(self._model, self._talk.dialogue.active.opening())

    def give_up(self, action: GiveUp) -> None:
        """The present connection is of no use any more."""
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(action)

    async def run(self, connection: VoiceConnection, listener: VoiceListener) -> VoiceError:
        """Talk with the model until it is lost for good; says how."""
        completed = -1
        while True:
            outcome = await self._converse(connection, listener)
            said_since = completed != self._talk.dialogue.failures.completed
            if not outcome.retryable or not said_since:
                return VoiceUnavailable("the model was lost", code=outcome.code)
            completed = self._talk.dialogue.failures.completed
            self._outbox.forget()
            self._asker.on_voice_lost()
            self._talk.on_lost()
            try:
                connection = await self.connect()
            except VoiceError as error:
                return error
            self._outbox.forget()
            listener.on_voice_ready()

    async def _converse(self, connection: VoiceConnection, listener: VoiceListener) -> GiveUp:
        """Use a connection until it breaks or is given up."""
        lost: asyncio.Future[GiveUp] = asyncio.get_running_loop().create_future()
        self._lost = lost
        self.up = True
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._read(connection, listener.on_voice))
                both.create_task(self._write(connection))
                await asyncio.shield(lost)
                raise _Over
        except* _Over:
            pass
        except* VoiceError as errors:
            first = errors.exceptions[0]
            code = first.code if isinstance(first, VoiceError) else "voice_error"
            self.give_up(GiveUp(code=code, retryable=True))
        finally:
            self.up = False
            await _close(connection)
        return lost.result()

    async def _read(
        self, connection: VoiceConnection, on_voice: Callable[[ServerEvent], None]
    ) -> None:
        async for event in connection:
            on_voice(event)
        self.give_up(GiveUp(code="voice_closed", retryable=True))

    async def _write(self, connection: VoiceConnection) -> None:
        while True:
            await connection.send(await self._outbox.take())


class _Over(Exception):
    """Leaves a TaskGroup; carries no information."""


async def _close(connection: VoiceConnection) -> None:
    """Close a connection within bounds; one that is already gone is closed."""
    with contextlib.suppress(VoiceError, TimeoutError):
        async with asyncio.timeout(CLOSE_S):
            await connection.close()
