"""The command `trunkline`, before anything else of it is imported.

Its imports take most of a second, in which Python would answer Ctrl-C with a traceback of wherever
they are. Beside the package and not in it: whatever is imported from there imports all of it first.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Final

__all__ = ["main"]

EXIT_INTERRUPTED: Final = 130


def main() -> None:
    """Run the command; an interrupt ends it with code 130, unless it has a use for it."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # in the background, a shell has it ignored
        signal.signal(signal.SIGINT, _leave)
    from trunkline.__main__ import main as run

    try:
        signal.signal(signal.SIGINT, before)
        run()
    except KeyboardInterrupt:
        raise SystemExit(EXIT_INTERRUPTED) from None


def _leave(number: int, frame: FrameType | None) -> None:
    # Not an exception, which a module that is being imported may take for a fault of its own.
    os._exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
