"""Keys of the HTTP API: made at random, kept as hashes, each with a scope.

They are in one JSON file of `state_dir` that only its owner may read, not in the store: calls can
be steered while a database is down, and `trunkline keys` works without a server. A key is
`tk_ID_SECRET`. Its 256 random bits cannot be guessed, so a plain SHA-256 is hash enough. Every
process of a server sees a new key at once, and a revoked one within `FRESH_S`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from app.errors import ConfigError
from app.threads import in_thread

__all__ = [
    "ApiKey",
    "ApiKeys",
    "Scope",
    "first_key",
    "first_key_path",
    "locked",
    "write_private",
]

logger = logging.getLogger(__name__)

FRESH_S: Final = 1.0
USED_EVERY_S: Final = 60.0
"""`last_used_at` is written no more often: it tells keys in use from forgotten ones."""
MAX_KEYS: Final = 500
MAX_NAME_CHARS: Final = 64

_KEY = re.compile(r"tk_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
_T = TypeVar("_T")


class Scope(StrEnum):
    """The rights of a key; each has those of the ones before it.

    `realtime` stands apart: it opens `/v1/realtime` alone, as keys of operators and admins also do.
    """

    REALTIME = "realtime"
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def covers(self, needed: Scope) -> bool:
        """True when this scope is enough where `needed` is asked for."""
        if needed is Scope.REALTIME:  # which costs money: watching does not include it
            return self is not Scope.VIEWER
        if self is Scope.REALTIME:
            return False
        order = list(Scope)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as it is kept; times are ISO 8601 in UTC, empty for never."""

    id: str
    name: str
    scope: Scope
    sha256: str
    created_at: str
    last_used_at: str = ""
    revoked_at: str = ""

    @property
    def shown(self) -> dict[str, str]:
        """The key without its hash."""
        facts = asdict(self)
        del facts["sha256"]
        return facts


class ApiKeys:
    """The keys in one file."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "api-keys.json"
        self._keys: dict[str, ApiKey] = {}
        self._seen: tuple[int, int, int] | None = None
        self._looked_s = -FRESH_S
        self._looking = asyncio.Lock()
        self._used: dict[str, str] = {}
        self._noted_s = time.monotonic()

    async def find(self, token: str) -> ApiKey | None:
        """The key of a token, unless there is none or it was revoked."""
        found = _KEY.fullmatch(token)
        if found is None:
            return None
        await self._refresh()
        if found[1] not in self._keys:  # perhaps another process has made it just now
            await self._refresh(now=True)
        key = self._keys.get(found[1])
        # Compared in either case: the time taken does not tell which ids exist.
        expected = "" if key is None else key.sha256
        if not hmac.compare_digest(_hash(token), expected or "0" * 64):
            return None
        if key is None or key.revoked_at:
            return None
        await self._note_used(key.id)
        return key

    async def by_id(self, key_id: str) -> ApiKey | None:
        """The key with an id, unless there is none or it was revoked."""
        await self._refresh()
        key = self._keys.get(key_id)
        return None if key is None or key.revoked_at else key

    async def _refresh(self, *, now: bool = False) -> None:
        async with self._looking:  # a disk that hangs holds one thread, not many
            if now or time.monotonic() - self._looked_s >= FRESH_S:
                await in_thread(self._look)
                self._looked_s = time.monotonic()

    async def _note_used(self, key_id: str) -> None:
        self._used[key_id] = _now()
        if time.monotonic() - self._noted_s < USED_EVERY_S:
            return
        self._noted_s = time.monotonic()
        used, self._used = self._used, {}
        try:
            await in_thread(partial(self._change, lambda keys: _with_times(keys, used)))
        except OSError:
            logger.warning("api keys cannot be written", extra={"file": str(self._path)})

    # Blocking -----------------------------------------------------------------------------------

    def listed(self) -> list[ApiKey]:
        """All keys, oldest first.

        Raises:
            ConfigError: the file cannot be read.
        """
        self._look(strict=True)
        keys = [*self._keys.values()]
        return [replace(k, last_used_at=self._used.get(k.id, k.last_used_at)) for k in keys]

    def create(self, name: str, scope: Scope) -> tuple[ApiKey, str]:
        """Make a key, and its token, which nothing can show again.

        Raises:
            ConfigError: there are too many keys, or the file is not a list of keys.
            OSError: the file cannot be written.
        """
        key_id = secrets.token_hex(4)
        token = f"tk_{key_id}_{secrets.token_urlsafe(32)}"
        key = ApiKey(id=key_id, name=name, scope=scope, sha256=_hash(token), created_at=_now())

        def add(keys: dict[str, ApiKey]) -> None:
            if len(keys) >= MAX_KEYS:
                raise ConfigError(f"there are {MAX_KEYS} keys: revoked ones can be removed")
            keys[key_id] = key

        self._change(add)
        return key, token

    def revoke(self, key_id: str) -> ApiKey | None:
        """End a key; `None` when there is no such key. Revoked again, a key is removed.

        Raises:
            ConfigError: the file is not a list of keys.
            OSError: the file cannot be written.
        """

        def end(keys: dict[str, ApiKey]) -> ApiKey | None:
            key = keys.get(key_id)
            if key is None:
                return None
            if key.revoked_at:
                return keys.pop(key_id)
            keys[key_id] = replace(key, revoked_at=_now())
            return keys[key_id]

        return self._change(end)

    def _change(self, change: Callable[[dict[str, ApiKey]], _T]) -> _T:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(self._path.with_suffix(".lock")):
            self._look(strict=True)
            keys = dict(self._keys)
            result = change(keys)
            write_private(
                self._path, json.dumps([asdict(key) for key in keys.values()], indent=2) + "\n"
            )
            self._look(strict=True)
        return result

    def _look(self, *, strict: bool = False) -> None:
        """Read the file if it has changed. One that cannot be read lets nobody in."""
        try:
            found = os.stat(self._path)
            seen = (found.st_mtime_ns, found.st_size, found.st_ino)
            if seen == self._seen:
                return
            self._keys, self._seen = _parse(self._path.read_bytes()), seen
        except FileNotFoundError:
            self._keys, self._seen = {}, None
        except (OSError, ConfigError) as error:
            self._keys, self._seen = {}, None
            if strict:
                reason = error.strerror if isinstance(error, OSError) else error.message
                raise ConfigError(f"{self._path} cannot be read: {reason}") from error
            logger.warning("api keys cannot be read", extra={"file": str(self._path)})


def first_key_path(folder: Path) -> Path:
    """The file with the first key, for commands of the user that runs the server."""
    return folder / "api-key"


def first_key(folder: Path) -> str | None:
    """Make the first key where there was never one, and give its token; else `None`.

    Raises:
        ConfigError: `folder` cannot be written.
    """
    keys, path = ApiKeys(folder), first_key_path(folder)
    try:
        if keys.listed() or path.exists():
            return None
        _, token = keys.create("first", Scope.ADMIN)
        write_private(path, token + "\n")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    return token


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _with_times(keys: dict[str, ApiKey], used: dict[str, str]) -> None:
    for key_id, at in used.items():
        if key_id in keys:
            keys[key_id] = replace(keys[key_id], last_used_at=at)


def _parse(text: bytes) -> dict[str, ApiKey]:
    """The keys in a file's text, by id.

    Raises:
        ConfigError: it is not a list of keys.
    """
    try:
        entries: list[dict[str, Any]] = json.loads(text)
        keys = [ApiKey(**{**entry, "scope": Scope(entry["scope"])}) for entry in entries]
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError("it is not a list of keys") from error
    return {key.id: key for key in keys}


def write_private(path: Path, text: str) -> None:
    """Put a whole file in place of the one before; it is private from its first byte on."""
    beside = path.with_name(f"{path.name}.{base64.b32encode(os.urandom(5)).decode().lower()}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time changes the file. Windows, which runs one process, has no such lock."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
