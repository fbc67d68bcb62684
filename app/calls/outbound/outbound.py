"""Everything that places calls in one process: the dialer, and the runner of campaigns."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from app.calls.outbound.campaigns import Campaigns
from app.calls.outbound.dialer import Dialer
from app.tasks import running

__all__ = ["Outbound"]


@dataclass(frozen=True, slots=True)
class Outbound:
    """Placed calls and campaigns."""

    dialer: Dialer
    campaigns: Campaigns

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Outbound]:
        """Place calls inside this block, where that is enabled."""
        async with self.dialer.open():
            if self.dialer.policy.enabled and self.dialer.keeps:
                async with running(self.campaigns.run()):
                    yield self
            else:
                yield self

    async def stop(self) -> None:
        """Place no more calls, and let no phone ring on."""
        await self.dialer.stop()
