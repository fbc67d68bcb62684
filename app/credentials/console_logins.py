"""Logins to the console: one-time links and the logins that they, or keys, have opened.

In one JSON file of `state_dir` that only its owner may read, so that every process of a server
knows a login, a restart ends none, and `trunkline console` makes a link without asking the server.
Only hashes are kept. A login that a key has opened ends with the key, and has the key's scope.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from app.credentials.api_keys import Scope, locked, write_private
from app.errors import ConfigError
from app.threads import Slots, in_thread

__all__ = ["LINK_LIFE_S", "Login", "Logins", "csrf_token", "token_hash"]

logger = logging.getLogger(__name__)

LINK_LIFE_S: Final = 3_600.0
FRESH_S: Final = 1.0
"""A login that another process has ended opens nothing after this."""
MAX_LOGINS: Final = 200
"""Beyond this the oldest ends; also the number of links that wait."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A login as it is kept. `key_id` and `key_sha256` are empty for one that a link has opened."""

    id: str
    sha256: str
    name: str
    scope: Scope
    ends_at_s: float
    key_id: str = ""
    key_sha256: str = ""


@dataclass(slots=True)
class _Kept:
    links: dict[str, float] = field(default_factory=dict)
    """The end of each link, as seconds since the epoch, by its hash."""
    logins: dict[str, Login] = field(default_factory=dict)
    """By hash."""


class Logins:
    """The logins in one file."""

    def __init__(self, folder: Path, *, life_s: float = 12 * 3_600.0) -> None:
        self.life_s = life_s
        self._path = folder / "console-logins.json"
        self._kept = _Kept()
        self._seen: tuple[int, int, int] | None = None
        self._looked_s = -FRESH_S
        self._looking = Slots(1)  # a disk that hangs holds one thread, not many

    async def find(self, hashed: str) -> Login | None:
        """The login whose cookie has a token with this hash, unless it is over."""
        if time.monotonic() - self._looked_s >= FRESH_S:
            await in_thread(self._look, self._looking.here)
        login = self._kept.logins.get(hashed)
        if login is None:  # perhaps another process has opened it just now
            await in_thread(self._look, self._looking.here)
            login = self._kept.logins.get(hashed)
        return None if login is None or login.ends_at_s <= time.time() else login

    # Blocking; all of these raise OSError where the file cannot be written, and ConfigError where
    # it is not a list of logins.

    def make_link(self) -> str:
        """Make a token that opens one login, once, within `LINK_LIFE_S`."""
        token = secrets.token_urlsafe(32)

        def add(kept: _Kept) -> None:
            kept.links[_hash(token)] = time.time() + LINK_LIFE_S

        self._change(add)
        return token

    def use_link(self, hashed: str) -> bool:
        """Use up the link whose token has this hash; False where none waits."""
        self._look(strict=True)
        if hashed not in self._kept.links:
            return False

        def use(kept: _Kept) -> bool:
            return kept.links.pop(hashed, None) is not None

        return self._change(use)

    def open(
        self, name: str, scope: Scope, *, key_id: str = "", key_sha256: str = ""
    ) -> tuple[Login, str]:
        """Open a login; returns it with the token of its cookie, which nothing can show again."""
        token = secrets.token_urlsafe(32)
        login = Login(
            id=f"login_{secrets.token_hex(4)}",
            sha256=_hash(token),
            name=name,
            scope=scope,
            ends_at_s=time.time() + self.life_s,
            key_id=key_id,
            key_sha256=key_sha256,
        )

        def add(kept: _Kept) -> None:
            kept.logins[login.sha256] = login

        self._change(add)
        return login, token

    def close(self, login_id: str | None = None) -> int:
        """End a login, or all of them with the links that wait; returns how many have ended."""

        def end(kept: _Kept) -> int:
            over = [h for h, one in kept.logins.items() if login_id in (None, one.id)]
            for hashed in over:
                del kept.logins[hashed]
            if login_id is None:
                kept.links.clear()
            return len(over)

        return self._change(end)

    def _change(self, change: Callable[[_Kept], _T]) -> _T:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(self._path.with_suffix(".lock")):
            self._look(strict=True)
            now_s = time.time()
            links = {h: end for h, end in self._kept.links.items() if end > now_s}
            logins = {h: one for h, one in self._kept.logins.items() if one.ends_at_s > now_s}
            kept = _Kept(links, logins)
            result = change(kept)
            for table in (kept.links, kept.logins):
                while len(table) > MAX_LOGINS:
                    del table[next(iter(table))]
            content = {
                "links": kept.links,
                "logins": [asdict(login) for login in kept.logins.values()],
            }
            write_private(self._path, json.dumps(content, indent=2) + "\n")
            self._look(strict=True)
        return result

    def _look(self, *, strict: bool = False) -> None:
        """Read the file if it has changed. One that cannot be read lets nobody in."""
        self._looked_s = time.monotonic()
        try:
            found = os.stat(self._path)
            seen = (found.st_mtime_ns, found.st_size, found.st_ino)
            if seen != self._seen:
                self._kept, self._seen = _parse(self._path.read_bytes()), seen
        except FileNotFoundError:
            self._kept, self._seen = _Kept(), None
        except (OSError, ConfigError) as error:
            self._kept, self._seen = _Kept(), None
            if strict:
                raise ConfigError(f"{self._path} cannot be read: {error}") from error
            logger.warning("console logins cannot be read", extra={"file": str(self._path)})


def csrf_token(token: str) -> str:
    """The token that a page of ours sends beside the cookie: other sites know neither."""
    return _hash(f"csrf of {token}")


def token_hash(token: str) -> str | None:
    """The hash by which a link or login is kept; None for what can be no token of ours."""
    return None if _TOKEN.fullmatch(token) is None else _hash(token)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _parse(text: bytes) -> _Kept:
    """The content of a file.

    Raises:
        ConfigError: it is not a list of logins.
    """
    try:
        content: dict[str, Any] = json.loads(text)
        links = {str(hashed): float(end) for hashed, end in content["links"].items()}
        logins = [Login(**{**one, "scope": Scope(one["scope"])}) for one in content["logins"]]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError("it is not a list of logins") from error
    return _Kept(links, {login.sha256: login for login in logins})
