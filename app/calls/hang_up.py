"""Hanging up: ends a call at the carrier and closes the caller's stream.

A failure here is logged and the rest of the end goes on. Every wait is bounded, and a process that
is about to stop shortens the longest one, which is for the carrier's answer to a hang-up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Final

from app.calls.actions import UNHEARD, End
from app.calls.caller_leg import LOST, CallerLeg, CallerState
from app.carrier.base import Carrier, CarrierCallId
from app.errors import CarrierError
from app.events import EndReason

__all__ = ["HangUpDeadline", "close_caller_leg", "contain", "contained", "settled_end"]


logger = logging.getLogger(__name__)

HANG_UP_S: Final = 10.0
HURRIED_HANG_UP_S: Final = 0.5
LOOK_S: Final = 1.0
"""Limit of the question whether the caller is still there; part of the 2 s of an end."""
LINGER_S: Final = 15.0
"""Time for a caller to hang up after the goodbye, where the carrier does not do it."""


_CARRIER_HANGS_UP: Final = frozenset(
    {
        EndReason.AGENT_HUNG_UP,
        EndReason.OPERATOR_HUNG_UP,
        EndReason.SILENCE,
        EndReason.MAX_DURATION,
        EndReason.MAX_COST,
        EndReason.DRAINED,
    }
)
"""Ends that we decide: the carrier is asked by REST to hang up. For the others the markup behind
the stream speaks to the caller, or there is nobody left to speak to."""

_AT_ONCE: Final = frozenset({EndReason.DRAINED, EndReason.OPERATOR_HUNG_UP})
"""Ends that wait for nobody: the process stops, or an operator has hung up."""

_STREAM_LOST: Final = frozenset({"", "stream_silent", "stream_not_opened"})


class HangUpDeadline:
    """Limits the waits for a hang-up of one call, and cuts them short once the process stops."""

    def __init__(self) -> None:
        self.over = False
        self._waiting: asyncio.Timeout | None = None

    @contextlib.asynccontextmanager
    async def limit(self, within_s: float) -> AsyncIterator[None]:
        """Raises TimeoutError when the block takes longer."""
        try:
            async with asyncio.timeout(within_s) as self._waiting:
                yield
        finally:
            self._waiting = None

    def hurry(self) -> None:
        """The process is about to stop: cut a wait under way short."""
        self.over = True
        if self._waiting is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time() + HURRIED_HANG_UP_S)


@contextlib.contextmanager
def contained(part: str) -> Iterator[None]:
    """Log an error in one part of a call's end, and go on with the rest."""
    try:
        yield
    except asyncio.CancelledError:
        raise
    except BaseException:  # an observer's SystemExit would end all calls
        logger.exception("the end of a call failed", extra={"part": part})


async def contain(part: str, closing: Awaitable[None]) -> None:
    """Await one part of a call's end; an error in it is logged."""
    with contained(part):
        await closing


async def settled_end(end: End, carrier: Carrier, carrier_call_id: CarrierCallId) -> End:
    """The end of a call; asks the carrier when the stream was lost without a message."""
    if end.reason is EndReason.CARRIER_LOST and end.detail in _STREAM_LOST:
        with contained("look"), contextlib.suppress(CarrierError, TimeoutError):
            async with asyncio.timeout(LOOK_S):
                if not await carrier.in_progress(carrier_call_id):
                    return End(EndReason.CALLER_HUNG_UP, "without_stop")
    return end


async def close_caller_leg(
    end: End,
    leg: CallerLeg,
    carrier: Carrier,
    carrier_call_id: CarrierCallId,
    deadline: HangUpDeadline,
) -> None:
    """Hang up at the carrier where the reason asks for it, and close the stream.

    Without a goodbye there is no hang-up: the markup behind the stream speaks to the caller, and
    may connect them with somebody else.
    """
    unheard = end.detail == UNHEARD and end.reason is not EndReason.OPERATOR_HUNG_UP
    lost = unheard or end.reason in {EndReason.VOICE_LOST, EndReason.INTERNAL_ERROR}
    ours = end.reason in _CARRIER_HANGS_UP and not lost
    if end.reason is EndReason.DRAINED and (deadline.over or leg.state is CallerState.EXPECTED):
        ours, lost = False, True
    if ours:
        with contained("hang_up"):
            done = await _hang_up(carrier, carrier_call_id, deadline)
            if not (done or deadline.over or end.reason in _AT_ONCE):
                await _wait_for_caller(leg, deadline)
    with contained("caller leg"):
        if lost:
            leg.close(LOST)
        else:
            leg.close(1000, "hung up" if ours else "")


async def _hang_up(
    carrier: Carrier, carrier_call_id: CarrierCallId, deadline: HangUpDeadline
) -> bool:
    """True if the carrier has ended the call."""
    try:
        async with deadline.limit(HANG_UP_S):
            await carrier.hang_up(carrier_call_id)
    except (CarrierError, TimeoutError) as error:
        # The markup behind the stream ends the call once the socket is closed.
        facts = {"code": getattr(error, "code", "timeout"), "reason": str(error) or "no answer"}
        logger.warning("carrier did not hang up", extra=facts)
        return False
    return True


async def _wait_for_caller(leg: CallerLeg, deadline: HangUpDeadline) -> None:
    """Leave the stream open until the caller hangs up, for a while.

    When the socket closes earlier, the markup speaks of a lost connection and dials the fallback.
    """
    with contextlib.suppress(CarrierError, TimeoutError):
        async with deadline.limit(LINGER_S):
            await leg.caller_leaves()
