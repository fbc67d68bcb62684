"""A server that is to be killed: it notices one that died within half a second.

What the caller has heard it knows by the carrier's marks alone, however late a busy machine brings
them.
"""

from __future__ import annotations

import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.fakes.forked import ForkedProcess, start_forked
from tests.fakes.waiting import time_limit

__all__ = ["start_server"]


async def start_server(config: Path) -> tuple[ForkedProcess, int]:
    """Start a server with this `config.yaml`, a log beside it; its port, once it answers."""
    with (config.parent / "log").open("ab") as log:
        process = await start_forked(__name__, str(config), stdout=PIPE, stderr=log.fileno())
    assert process.stdout is not None
    async with time_limit():
        port = int(await process.stdout.readline())
    for pipe in process.pipes:  # it says nothing more
        pipe.close()
    return process, port


def _change(function: Callable[..., None], **defaults: object) -> None:
    """Give a function other defaults."""
    changed: Any = function
    changed.__kwdefaults__.update(defaults)


def main() -> None:
    """Serve with the file of the first argument."""
    from app.calls.media import playout
    from app.calls.outbound.campaigns import Campaigns
    from app.calls.outbound.dialer import DialerOptions
    from app.main import serve
    from app.settings import load

    soon = timedelta(seconds=0.4)
    _change(DialerOptions.__init__, lease=soon, look_up_s=(0.05, 0.1))
    _change(Campaigns.__init__, lease=soon, tick_s=0.05)
    vars(playout)["MARK_GRACE_MS"] = 20_000

    def announce(port: int) -> None:
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()

    sys.exit(serve(load(Path(sys.argv[1]), {}), announce))
