"""The part of `trunkline doctor` about what is kept of calls: database, disk, spool, recordings."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path
from typing import Final

from app.doctor.system_checks import CheckResult, Verdict
from app.errors import AppError
from app.installation import command
from app.settings import Settings
from app.store.base import CallStore, Status

__all__ = ["check_store"]

_TIGHT_MB: Final = 1_000
_FULL_MB: Final = 100


async def check_store(settings: Settings, store: CallStore | None) -> list[CheckResult]:
    """Results on everything that is kept of calls; `store` is None where no history is kept."""
    found = [] if store is None else [await _database(store)]
    return [*found, _space(settings), *_spool(settings), *_recordings(settings)]


async def _database(store: CallStore) -> CheckResult:
    name = "history"
    try:
        status = await store.status()
    except AppError as error:
        if error.code == "store_not_made":
            return CheckResult(name, Verdict.GOOD, "is made when the server starts")
        remedy = "check store.url, the database and its rights; calls go on without it, and what "
        remedy += "happens in them is kept under state_dir/spool meanwhile"
        return CheckResult(name, Verdict.WRONG, error.message, remedy)
    finally:
        await store.close()
    return _tables(name, status)


def _tables(name: str, status: Status) -> CheckResult:
    place = f"{status.kind}: {status.place}"
    if status.missing_revisions:
        lacks = ", ".join(status.missing_revisions)
        text = f"{place} is not up to date: it lacks {lacks}"
        remedy = f"start the server, or run `{command()} db upgrade`; a database that a newer "
        remedy += "version has made needs that version"
        return CheckResult(name, Verdict.WARNING, text, remedy)
    count = "1 call" if status.calls == 1 else f"{status.calls} calls"
    return CheckResult(name, Verdict.GOOD, f"{place}, {count}, up to date")


def _space(settings: Settings) -> CheckResult:
    place = _existing(settings.state_dir)
    free_mb = shutil.disk_usage(place).free // 1_000_000
    text = f"{free_mb:,} MB free for {settings.state_dir}"
    remedy = "free the disk, or set STATE_DIR to a larger one; store.retention removes by age"
    if free_mb < _FULL_MB:
        return CheckResult("disk", Verdict.WRONG, text, remedy)
    if free_mb < max(_TIGHT_MB, settings.store.spool_mb):
        return CheckResult("disk", Verdict.WARNING, text, remedy)
    return CheckResult("disk", Verdict.GOOD, text)


def _spool(settings: Settings) -> list[CheckResult]:
    files = [path for path in (settings.state_dir / "spool").glob("*.jsonl") if path.is_file()]
    waiting = sum(path.stat().st_size for path in files)
    if not waiting:
        return []
    text = f"{waiting / 1e6:.1f} MB of events wait for the database"
    remedy = "they are stored once a server runs and the database answers it"
    return [CheckResult("spool", Verdict.WARNING, text, remedy)]


def _recordings(settings: Settings) -> list[CheckResult]:
    folder = settings.state_dir / "recordings"
    if not os.path.lexists(folder):
        return []  # made in state_dir, which has its own line
    if folder.is_dir() and os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return [CheckResult("recordings", Verdict.GOOD, f"{folder} can be written")]
    remedy = f'let this user write to it: chown -R "$USER" {shlex.quote(str(folder))}'
    return [CheckResult("recordings", Verdict.WRONG, f"{folder} cannot be written", remedy)]


def _existing(place: Path) -> Path:
    while not os.path.exists(place):  # Path.exists raises where a folder may not be entered
        place = place.parent
    return place
