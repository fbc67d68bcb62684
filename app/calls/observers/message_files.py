"""Messages that callers leave with an agent, as files that only their owner may read.

One JSON file per message. An observer of all calls of a process: what was said never reaches the
log, where the file is does. Writing happens beside the calls, and outlives the one it is of; what
cannot be written is tried again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from app.background import BackgroundJobs
from app.errors import AppError, StoreUnavailable, ToolFailed
from app.events import CallAdmitted, CallEnded, CallEvent, CallId, MessageTaken
from app.retry import retry
from app.threads import Slots, in_thread

__all__ = ["MessageFiles", "can_keep", "keep"]


logger = logging.getLogger(__name__)

CHECK_S: Final = 2.0
"""The time for the check of a folder: the model waits for it, and the caller for the model."""
CHECK_CHARS: Final = 16_000
"""More than a long message takes."""
TRIES: Final = 13
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 1_200.0
"""Pauses between tries to write a message: about an hour in all, for whoever frees the disk."""
_CHECKS: Final = Slots(4)
_WRITES: Final = Slots(4)
"""Threads: a disk that hangs takes no more than these."""


class MessageFiles:
    """Keeps messages in a folder, which is made when the first one comes."""

    def __init__(self, folder: Path, jobs: BackgroundJobs) -> None:
        self._folder = folder
        self._jobs = jobs
        self._live: dict[CallId, CallAdmitted] = {}

    def observe(self, event: CallEvent) -> None:
        """Take any event of any call; never waits."""
        match event:
            case CallAdmitted():
                self._live[event.call_id] = event
            case MessageTaken():
                self._take(event)
            case CallEnded():
                self._live.pop(event.call_id, None)
            case _:
                pass

    def _take(self, message: MessageTaken) -> None:
        admitted = self._live.get(message.call_id)
        taken_at = datetime.now(UTC)
        facts = {
            "taken_at": taken_at.isoformat(timespec="seconds"),
            "call_id": message.call_id,
            "caller_number": "" if admitted is None else admitted.caller_number,
            "called_number": "" if admitted is None else admitted.called_number,
            "recipient": message.recipient,
            "text": message.text,
        }
        # Item ids are the model's: the file gets a name of its own, so that no id can be a path.
        path = self._folder / f"{taken_at:%Y%m%dT%H%M%S%fZ}-{message.call_id}.json"
        self._jobs.put(f"message {path.stem}", partial(_keep, path, facts))


async def can_keep(folder: Path) -> bool:
    """True when a message could be written now: found out by writing one, within `CHECK_S`."""
    facts = {"text": "x" * CHECK_CHARS}
    path = folder / f".check-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        async with asyncio.timeout(CHECK_S):
            await in_thread(partial(_write_and_remove, path, facts), _CHECKS.here)
    except (OSError, TimeoutError, ToolFailed) as error:
        errno = getattr(error, "errno", None)
        logger.error("messages cannot be kept", extra={"folder": str(folder), "errno": errno})
        return False
    return True


def _write_and_remove(path: Path, facts: Mapping[str, str]) -> None:
    keep(path, facts)
    path.unlink()


async def _keep(path: Path, facts: Mapping[str, str]) -> None:
    """Write a message, again and again where the disk does not take it."""
    named = {"call_id": facts["call_id"], "file": str(path)}

    async def write() -> None:
        try:
            await in_thread(partial(keep, path, facts), _WRITES.here)
        except (OSError, ToolFailed) as error:
            raise StoreUnavailable("the message was not written") from error

    def note(error: AppError, pause_s: float | None) -> None:
        failed = {**named, "errno": getattr(error.__cause__, "errno", None)}
        if pause_s is None:
            logger.error("message not kept", extra=failed)
        else:
            again = {"again_in_s": round(pause_s)}
            logger.warning("message not kept yet", extra={**failed, **again})

    with suppress(StoreUnavailable):
        await retry(
            write,
            attempts=TRIES,
            first_delay_s=FIRST_PAUSE_S,
            max_backoff_s=LONGEST_PAUSE_S,
            on_failure=note,
        )
        logger.info("message taken", extra=named)


def keep(path: Path, facts: Mapping[str, str]) -> None:
    """Write one message.

    Raises:
        OSError: the disk does not take it; nothing is left of it there.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Created with its rights: a file that is made private later was readable until then.
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            json.dump(dict(facts), file, ensure_ascii=False, indent=2)
            file.write("\n")
    except OSError:
        path.unlink(missing_ok=True)
        raise
