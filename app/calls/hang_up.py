"""The end of a call at its two ends: hung up at the carrier, both sockets closed.

Whatever fails here is logged, and the rest of the end goes on: nothing that one call meets may
reach another. Every wait has an end, and a process that is about to go shortens the longest of
them, which is for the carrier's answer to a hang-up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Final

from app.calls.actions import End
from app.calls.caller_leg import LOST, CallerLeg, Whereabouts
from app.calls.goodbye import CARRIER_HANGS_UP
from app.carrier.base import Carrier, CarrierCallId
from app.errors import CarrierError
from app.events import EndReason

__all__ = ["HangUpDeadline", "close_phone", "contained"]


logger = logging.getLogger(__name__)

HANG_UP_S: Final = 10.0
HURRIED_HANG_UP_S: Final = 0.5
LOOK_S: Final = 1.0
"""How long the carrier may take to say whether a caller is there; part of the 2 s of an end."""
LINGER_S: Final = 15.0
"""How long a caller has to hang up who was told goodbye, where the carrier does not do it."""


_AT_ONCE: Final = frozenset({EndReason.DRAINED, EndReason.OPERATOR_HUNG_UP})
"""Ends that wait for nobody: the process is to go, or somebody has pulled the plug."""

_STREAM_LOST: Final = frozenset({"", "stream_silent", "stream_not_opened"})


class HangUpDeadline:
    """How long one call waits for the carrier to hang up: at last not at all."""

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
        """The process is about to go: no more time than is left for a wait under way."""
        self.over = True
        if self._waiting is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time() + HURRIED_HANG_UP_S)


@contextlib.contextmanager
def contained(part: str) -> Iterator[None]:
    """A bug in one part of a call's end stays in it."""
    try:
        yield
    except Exception:
        logger.exception("the end of a call failed", extra={"part": part})


async def who_left(end: End, carrier: Carrier, carrier_call_id: CarrierCallId) -> End:
    """How a call has ended whose stream is gone without a word: the carrier knows of the caller."""
    if end.reason is EndReason.CARRIER_LOST and end.detail in _STREAM_LOST:
        with contained("look"), contextlib.suppress(CarrierError, TimeoutError):
            async with asyncio.timeout(LOOK_S):
                if not await carrier.in_progress(carrier_call_id):
                    return End(EndReason.CALLER_HUNG_UP, "without_stop")
    return end


async def close_phone(
    end: End,
    phone: CallerLeg,
    carrier: Carrier,
    carrier_call_id: CarrierCallId,
    patience: HangUpDeadline,
) -> None:
    """Hang up at the carrier where that is ours to do, and close the stream.

    A caller whom nobody has said goodbye to is not hung up on: the markup behind the stream has
    something to say to them, and maybe somebody else for them to talk with.
    """
    ours = end.reason in CARRIER_HANGS_UP
    lost = end.reason in {EndReason.VOICE_LOST, EndReason.INTERNAL_ERROR}
    if end.reason is EndReason.DRAINED and (patience.over or phone.where is Whereabouts.EXPECTED):
        ours, lost = False, True
    if ours:
        with contained("hang_up"):
            done = await _hang_up(carrier, carrier_call_id, patience)
            if not (done or patience.over or end.reason in _AT_ONCE):
                await _let_them_go(phone, patience)
    with contained("phone"):
        if lost:
            await phone.close(LOST)
        else:
            await phone.close(1000, "hung up" if ours else "")


async def _hang_up(
    carrier: Carrier, carrier_call_id: CarrierCallId, patience: HangUpDeadline
) -> bool:
    """Whether the carrier has ended the call."""
    try:
        async with patience.limit(HANG_UP_S):
            await carrier.hang_up(carrier_call_id)
    except (CarrierError, TimeoutError) as error:
        # The markup behind the stream ends the call once the socket is closed.
        logger.warning("carrier did not hang up", extra={"code": getattr(error, "code", "timeout")})
        return False
    return True


async def _let_them_go(phone: CallerLeg, patience: HangUpDeadline) -> None:
    """Leave the stream open for a while: whoever was told goodbye hangs up by themselves.

    A socket that is closed before that has the carrier speak of a lost connection, and dial the
    fallback.
    """
    with contextlib.suppress(CarrierError, TimeoutError):
        async with patience.limit(LINGER_S):
            await phone.caller_leaves()
