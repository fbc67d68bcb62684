"""The voice loop: one conversation over one connection to its voice model after another.

Phone calls and `AgentSession` share it. It connects, reads and writes a connection side by side,
replaces one that breaks and changes over to a fresh one in a quiet moment. The listener
understands the events, and replays the dialogue on a fresh connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, Protocol

from app.agents.dialogue.actions import GiveUp
from app.agents.dialogue.dialogue import Dialogue
from app.errors import VoiceError
from app.realtime.connecting import ReconnectBudget, connect_with_retry
from app.realtime.connection import Room, VoiceConnection, VoiceModel
from app.realtime.events import ClientEvent, ServerEvent
from app.tasks import CancellableGroup, pass_cancellation_on

__all__ = ["VoiceListener", "VoiceLoop"]


logger = logging.getLogger(__name__)

CLOSE_S: Final = 1.5


class VoiceListener(Protocol):
    """The conversation that a voice loop serves."""

    @property
    def present(self) -> bool:
        """True while somebody is there to hear the agent."""
        ...

    def on_voice_ready(self, connection: VoiceConnection, *, reconnected: bool) -> None:
        """A connection is in use from now on."""
        ...

    @property
    def voice_room(self) -> Room:
        """Tells when the model's next event has a place to go."""
        ...

    def on_voice(self, event: ServerEvent) -> None:
        """The model sent an event. Waits for nothing."""
        ...

    async def on_voice_lost(self, code: str, session_id: str) -> None:
        """The connection of this session is gone; another one is opened once this returns."""
        ...


class VoiceLoop:
    """The connections of one conversation. `connection` is the one in use."""

    def __init__(
        self,
        model: VoiceModel,
        dialogue: Dialogue,
        next_event: Callable[[], Awaitable[ClientEvent]],
        listener: VoiceListener,
        *,
        budget_s: float = 6.0,
        reconnects: bool = True,
    ) -> None:
        """`next_event` waits for something to send. Tries to connect fill `budget_s`."""
        self.connection: VoiceConnection | None = None
        self.connected = False
        self.error: VoiceError | None = None
        """The error that broke the last connection."""
        self.oddities = 0
        """Fields of the model's events that differed from the protocol, on all connections."""
        self._model = model
        self._dialogue = dialogue
        self._next_event = next_event
        self._listener = listener
        self._budget_s = budget_s
        self._reconnects = reconnects
        self._outcome: asyncio.Future[GiveUp | VoiceConnection] | None = None
        self._broken = False  # the last connection broke; else it was given up

    async def connect(self) -> None:
        """Connect for the agent who speaks now.

        Raises:
            VoiceRefused: wrong key, model or settings.
            VoiceUnavailable: not reached within the budget, after retries.
        """
        self.connection = await connect_with_retry(
            self._model,
            self._dialogue.active.opening(),
            budget_s=self._budget_s,
        )
        self.connected = True

    async def run(self) -> GiveUp:
        """Talk with the model until it is lost for good; returns how.

        A connection that breaks is replaced, within a budget per minute and after growing pauses:
        it may be an outage that passes, and so may a failure of the model's server. One that was
        given up for any other reason is replaced again only when a response was completed since:
        more would be dead air.

        Raises:
            VoiceError: as `connect`.
        """
        budget = ReconnectBudget()
        completed = -1  # responses, when the last connection was given up
        reconnected = False
        while True:
            if self.connection is None:
                await self.connect()
            assert self.connection is not None
            session_id = self.connection.session.id
            outcome = await self._converse(self.connection, reconnected=reconnected)
            reconnected = True
            if not isinstance(outcome, GiveUp):
                continue  # renewed in a quiet moment
            self.connected = False
            await self.close()
            if not outcome.retryable or not self._reconnects:
                return outcome
            if not (self._broken or outcome.passes):
                if completed == self._dialogue.failures.completed and self._listener.present:
                    return outcome
                completed = self._dialogue.failures.completed
            pause_s = budget.on_lost(int(asyncio.get_running_loop().time() * 1000))
            if pause_s is None:
                logger.warning(
                    "voice connection was lost too often",
                    extra={"code": outcome.code, "session_id": session_id},
                )
                return outcome
            logger.warning(
                "voice connection was lost, reconnecting",
                extra={
                    "code": outcome.code,
                    "pause_ms": int(pause_s * 1000),
                    "session_id": session_id,
                },
            )
            await self._listener.on_voice_lost(outcome.code, session_id or "")
            await asyncio.sleep(pause_s)

    def give_up(self, action: GiveUp) -> None:
        """Part with the connection in use, if there is one."""
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_result(action)

    async def renew(self, quiet: Callable[[], bool]) -> None:
        """Open a fresh connection beside the old one, and change over if it is still quiet.

        Raises:
            VoiceError: there is no fresh one; the old one stays in use.
        """
        old = self.connection
        fresh = await self._model.connect(self._dialogue.active.opening())
        outcome = self._outcome
        if outcome is None or outcome.done() or self.connection is not old or not quiet():
            await _close(fresh)
            return
        outcome.set_result(fresh)
        self.connection = fresh
        if old is not None:
            await _close(old)

    async def close(self) -> None:
        """Close the connection within bounds; safe at any time."""
        connection = self.connection
        if connection is not None:
            await _close(connection)
            self.connection = None

    async def _converse(
        self, connection: VoiceConnection, *, reconnected: bool
    ) -> GiveUp | VoiceConnection:
        """Use a connection until it breaks, is given up, or is replaced."""
        outcome: asyncio.Future[GiveUp | VoiceConnection] = (
            asyncio.get_running_loop().create_future()
        )
        self._outcome, self._broken = outcome, False
        self._listener.on_voice_ready(connection, reconnected=reconnected)
        try:
            async with CancellableGroup() as both:
                both.create_task(self._read(connection))
                both.create_task(self._write(connection))
                await asyncio.shield(outcome)  # which a failing task would cancel with this one
                both.cancel()
        finally:
            self._outcome = None
            self.oddities += connection.oddities
        pass_cancellation_on()
        return outcome.result()

    async def _read(self, connection: VoiceConnection) -> None:
        with self._breaking():
            await connection.deliver(self._listener.on_voice, self._listener.voice_room)
            self._on_broken("voice_closed")

    @contextlib.contextmanager
    def _breaking(self) -> Iterator[None]:
        """Take note of the error that breaks the connection.

        Without its frames, and not as one of the group's errors: each would make a cycle that
        leaves all of the call to the collector.
        """
        try:
            yield
        except VoiceError as error:
            self.error = error.with_traceback(None)
            self._on_broken(error.code)

    def _on_broken(self, code: str) -> None:
        if self._outcome is not None and not self._outcome.done():
            self._broken = True
            self._outcome.set_result(GiveUp(code=code, retryable=True))

    async def _write(self, connection: VoiceConnection) -> None:
        with self._breaking():
            while True:
                await connection.send(await self._next_event())


async def _close(connection: VoiceConnection) -> None:
    """Close a connection within bounds; one that is already gone is closed."""
    with contextlib.suppress(VoiceError, TimeoutError):
        async with asyncio.timeout(CLOSE_S):
            await connection.close()
