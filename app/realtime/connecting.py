"""Connecting to a voice model: retries, and a breaker that all calls share.

`Breaker` (pure) and `GuardedModel` keep calls from waiting for a model that has just refused
several others: they get the last reason at once, and now and then one of them is let through to
see. `app.realtime.faults` classifies errors.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from app.errors import VoiceError, VoiceRefused, VoiceUnavailable
from app.realtime.connection import VoiceConnection, VoiceModel, close_at_once
from app.realtime.events import SessionConfig
from app.retry import retry
from app.tasks import CancellableGroup

__all__ = ["Breaker", "GuardedModel", "ReconnectBudget", "connect_with_retry"]

logger = logging.getLogger(__name__)

FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 1.0
"""Of the pauses between tries to connect: whoever waits hears nothing meanwhile."""
HANGS_AFTER_S: Final = 1.5
"""Of one try: a socket that was opened in the middle of an outage may never answer."""
TRIES_AT_ONCE: Final = 3
"""Sockets that one call takes at most while it connects; the oldest try makes room."""
RECONNECTS_PER_MINUTE: Final = 8
"""With the pauses between them they reach beyond an outage of 4 s, and not much further."""
CONNECT_EVERY_S: Final = 0.004
"""Between the connections that all calls of a process begin: an outage that is over, or a server
that sends everybody away, would else have all of them shake hands in one turn of the loop, in
which no call hears anything."""


async def connect_with_retry(
    model: VoiceModel,
    config: SessionConfig,
    *,
    budget_s: float = 6.0,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    rng: Callable[[], float] = random.random,
) -> VoiceConnection:
    """Connect, trying again for all of `budget_s` while the failure may pass.

    The pauses grow up to a second, so that an outage which is shorter than the budget is outlived.
    A try that has not failed after `HANGS_AFTER_S` goes on, and another one begins beside it: the
    first that is ready is used, the others are closed.

    Raises:
        VoiceRefused: at once.
        VoiceUnavailable: the last failure, once the time is used up.
    """
    tries = _Tries(model, config)
    outcome: VoiceConnection | VoiceError
    try:
        async with tries.group:
            try:
                outcome = await retry(
                    tries.connection,
                    first_delay_s=FIRST_PAUSE_S,
                    max_backoff_s=LONGEST_PAUSE_S,
                    budget_s=budget_s,
                    may_retry=lambda error: isinstance(error, VoiceUnavailable),
                    sleep=sleep,
                    rng=rng,
                )
            except VoiceError as error:  # the group would wrap it
                outcome = error
            except TimeoutError:
                outcome = _late()
            finally:
                tries.end()
    except asyncio.CancelledError:
        if tries.taken is not None:
            await close_at_once(tries.taken)
        raise
    if isinstance(outcome, VoiceError):
        try:
            raise outcome
        finally:
            del outcome  # an error that knows the frame that knows it leaves both to the collector
    return outcome


class _Tries:
    """Tries to connect side by side, each in a task that holds its connection until the end."""

    def __init__(self, model: VoiceModel, config: SessionConfig) -> None:
        self.group = CancellableGroup()
        self.taken: VoiceConnection | None = None
        self._model = model
        self._config = config
        self._running: list[asyncio.Task[None]] = []
        self._outcomes: asyncio.Queue[VoiceConnection | VoiceError] = asyncio.Queue()

    async def connection(self) -> VoiceConnection:
        """The connection of the first try that is ready: one begins now, others while it hangs.

        Raises:
            VoiceRefused: of any try, at once.
            VoiceUnavailable: the last one's, when no try runs any more.
        """
        while True:
            if len(self._running) == TRIES_AT_ONCE:
                self._running.pop(0).cancel()
            self._running.append(self.group.create_task(self._try()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HANGS_AFTER_S):
                    return await self._first()
            hung = {"model": self._model.name}
            logger.info("voice model hangs: connecting once more beside it", extra=hung)

    def end(self) -> None:
        """No try goes on, and no task keeps what tried alive."""
        self.group.cancel()
        self._running.clear()

    async def _first(self) -> VoiceConnection:
        while True:
            outcome = await self._outcomes.get()
            if not isinstance(outcome, VoiceError):
                self.taken = outcome
                return outcome
            self._running = [task for task in self._running if not task.done()]
            if not self._running or isinstance(outcome, VoiceRefused):
                try:
                    raise outcome
                finally:
                    del outcome

    async def _try(self) -> None:
        try:
            connection = await self._model.connect(self._config)
        except VoiceError as error:
            self._outcomes.put_nowait(error)
            return
        self._outcomes.put_nowait(connection)
        try:
            await asyncio.Event().wait()
        finally:
            if connection is not self.taken:
                await close_at_once(connection)


def _late() -> VoiceUnavailable:
    return VoiceUnavailable("the model did not answer in time", code="connect_timeout")


class ReconnectBudget:
    """The times that one conversation may replace its connection, and the pause before. Pure."""

    def __init__(self, per_minute: int = RECONNECTS_PER_MINUTE) -> None:
        self._per_minute = per_minute
        self._lost_ms: list[int] = []

    def on_lost(self, now_ms: int) -> float | None:
        """Seconds to wait before the next connection; `None` when the budget is used up.

        The first replacement within a minute is immediate; the pauses before the others double, up
        to a second: a caller who waits has nearly 8.
        """
        lost = self._lost_ms
        while lost and now_ms - lost[0] >= 60_000:
            del lost[0]
        if len(lost) == self._per_minute:
            return None
        lost.append(now_ms)
        pause_s = FIRST_PAUSE_S * 2.0 ** (len(lost) - 2) if len(lost) > 1 else 0.0
        return min(pause_s, LONGEST_PAUSE_S)


class Breaker:
    """Opens after `limit` refusals within `window_ms`, and lets one try through per `probe_ms`.

    A try that connects closes it on probation: until `on_success`, a single refusal opens it
    again, because a model without quota connects well and then fails every response.
    """

    def __init__(self, *, limit: int = 5, window_ms: int = 30_000, probe_ms: int = 30_000) -> None:
        self._limit = limit
        self._window_ms = window_ms
        self._probe_ms = probe_ms
        self._refusals: deque[int] = deque(maxlen=limit)
        self._reason: VoiceRefused | None = None
        self._probe_at_ms = 0
        self._on_probation = False

    @property
    def reason(self) -> VoiceRefused | None:
        """The fault that opened it; `None` while it is closed."""
        return self._reason

    def check(self, now_ms: int) -> VoiceRefused | None:
        """The refusal to raise instead of connecting; `None` to go ahead."""
        if self._reason is None:
            return None
        if now_ms >= self._probe_at_ms:
            self._probe_at_ms = now_ms + self._probe_ms
            return None
        return self._reason

    def on_refused(self, reason: VoiceRefused, now_ms: int) -> None:
        """The model refused to connect, or failed a response for a fatal reason."""
        self._refusals.append(now_ms)
        full = len(self._refusals) == self._limit
        if self._on_probation or (full and now_ms - self._refusals[0] <= self._window_ms):
            self._reason = reason
            self._probe_at_ms = now_ms + self._probe_ms
            self._on_probation = False

    def on_connected(self) -> None:
        """A connection was opened, which proves little."""
        if self._reason is not None:
            self._reason = None
            self._on_probation = True

    def on_success(self) -> None:
        """A response was completed: the model works."""
        self._reason = None
        self._on_probation = False
        self._refusals.clear()


class GuardedModel:
    """A `VoiceModel` behind a breaker that all calls of a process share.

    Its user reports what only a conversation can see: `note_success` after a completed response,
    `note_refused` after one that failed for a fatal reason (quota, for example).
    """

    def __init__(self, model: VoiceModel, breaker: Breaker | None = None) -> None:
        self._model = model
        self._free_at_s = 0.0  # when the next connection may begin
        self.breaker = breaker or Breaker()
        self.unavailable = False
        """True while the last try to connect found no model that works."""

    @property
    def name(self) -> str:
        return self._model.name

    def __repr__(self) -> str:
        return f"GuardedModel({self._model!r})"

    async def connect(self, config: SessionConfig) -> VoiceConnection:
        """As the model's own, or `VoiceRefused` at once with the reason that others met.

        Of many calls that connect in the same moment, each begins a little after the one before.
        """
        now_s = asyncio.get_running_loop().time()
        begins_s = max(now_s, self._free_at_s)
        self._free_at_s = begins_s + CONNECT_EVERY_S
        if begins_s > now_s:
            await asyncio.sleep(begins_s - now_s)
        refusal = self.breaker.check(_now_ms())
        if refusal is not None:
            raise VoiceRefused(f"{refusal.message} (not tried again yet)", code=refusal.code)
        try:
            connection = await self._model.connect(config)
        except VoiceRefused as error:
            self.breaker.on_refused(error, _now_ms())
            self.unavailable = False
            raise
        except VoiceUnavailable:
            self.unavailable = True
            raise
        self.unavailable = False
        self.breaker.on_connected()
        return connection

    def note_success(self) -> None:
        self.breaker.on_success()

    def note_refused(self, reason: VoiceRefused) -> None:
        self.breaker.on_refused(reason, _now_ms())


def _now_ms() -> int:
    return int(asyncio.get_running_loop().time() * 1000)
