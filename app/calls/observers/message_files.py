"""Messages that callers leave with an agent, as files that only their owner may read.

One JSON file per message. An observer of all calls of a process: what was said never reaches the
log, where the file is does. Writing happens beside the calls, and outlives the one it is of.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from app.background import BackgroundJobs
from app.events import CallAdmitted, CallEnded, CallEvent, CallId, MessageTaken

__all__ = ["MessageFiles", "keep"]


logger = logging.getLogger(__name__)


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


async def _keep(path: Path, facts: Mapping[str, str]) -> None:
    await asyncio.to_thread(keep, path, facts)
    logger.info("message taken", extra={"call_id": facts["call_id"], "file": str(path)})


def keep(path: Path, facts: Mapping[str, str]) -> None:
    """Write one message.

    Raises:
        OSError: the disk does not take it.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Created with its rights: a file that is made private later was readable until then.
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(dict(facts), file, ensure_ascii=False, indent=2)
        file.write("\n")
