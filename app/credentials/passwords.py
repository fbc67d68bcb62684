"""Passwords of people who log in to the console, kept as scrypt hashes with a scope.

In one JSON file of `state_dir` that only its owner may read, beside the keys of the API: every
process of a server knows a new password within `FRESH_S`, and `trunkline passwords` works without
one. scrypt's costs are those that OWASP recommends (2023): 32 MB and some 0.2 s for each attempt,
of which a process makes one at a time.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from app.credentials.api_keys import Scope, locked, write_private
from app.errors import ConfigError
from app.threads import in_thread

__all__ = ["MIN_PASSWORD_CHARS", "Passwords", "Person"]

logger = logging.getLogger(__name__)

FRESH_S: Final = 1.0
MIN_PASSWORD_CHARS: Final = 12
MAX_PASSWORD_CHARS: Final = 1_000
MAX_PEOPLE: Final = 500
_COST: Final = {"n": 2**15, "r": 8, "p": 3, "maxmem": 2**26, "dklen": 32}
_NAME = re.compile(r"[A-Za-z0-9._@+-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody with a password; `salt` and `scrypt` are hexadecimal, `set_at` ISO 8601 in UTC."""

    name: str
    scope: Scope
    salt: str
    scrypt: str
    set_at: str

    @property
    def mark(self) -> str:
        """Another value for another password: a login ends when it changes."""
        return hashlib.sha256(self.scrypt.encode()).hexdigest()


class Passwords:
    """The passwords in one file."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "console-passwords.json"
        self._people: dict[str, Person] = {}
        self._looked_s = -FRESH_S
        self._hashing = asyncio.Lock()

    async def find(self, name: str) -> Person | None:
        """The person of a name, unless there is none or their password was removed."""
        if time.monotonic() - self._looked_s >= FRESH_S:
            self._people = await in_thread(self._seen)
            self._looked_s = time.monotonic()
        return self._people.get(name)

    async def check(self, name: str, password: str) -> Person | None:
        """The person of a name and a password; None for any other.

        It takes as long for a name that nobody has.
        """
        if len(password) > MAX_PASSWORD_CHARS:
            return None
        self._looked_s = -FRESH_S  # perhaps it was set just now
        person = await self.find(name)
        salt = "00" * 16 if person is None else person.salt
        async with self._hashing:
            found = await in_thread(partial(_scrypt, password, salt))
        if person is None or not hmac.compare_digest(found, person.scrypt):
            return None
        return person

    # Blocking; all of these raise OSError where the file cannot be written, and ConfigError where
    # it is not a list of people.

    def listed(self) -> list[Person]:
        """Everybody with a password, by name."""
        return sorted(self._read().values(), key=lambda one: one.name)

    def set(self, name: str, scope: Scope, password: str) -> None:
        """Give somebody a password in place of the one before.

        Raises:
            ConfigError: the name or the password will not do.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError("a name has 1 to 64 letters, digits and . _ @ + -")
        if scope is Scope.REALTIME:
            raise ConfigError("the scope realtime opens no console")
        if not MIN_PASSWORD_CHARS <= len(password) <= MAX_PASSWORD_CHARS:
            raise ConfigError(f"a password has at least {MIN_PASSWORD_CHARS} characters")
        salt, now = secrets.token_hex(16), datetime.now(UTC)
        person = Person(
            name=name,
            scope=scope,
            salt=salt,
            scrypt=_scrypt(password, salt),
            set_at=now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        )

        def put(people: dict[str, Person]) -> bool:
            if name not in people and len(people) >= MAX_PEOPLE:
                raise ConfigError(f"there are {MAX_PEOPLE} people with a password already")
            people[name] = person
            return True

        self._change(put)

    def remove(self, name: str) -> bool:
        """Take somebody's password away, which ends their logins; False when they have none."""
        return self._change(lambda people: people.pop(name, None) is not None)

    def _change(self, change: Callable[[dict[str, Person]], bool]) -> bool:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(self._path.with_suffix(".lock")):
            people = self._read()
            result = change(people)
            content = [asdict(person) for person in people.values()]
            write_private(self._path, json.dumps(content, indent=2) + "\n")
        return result

    def _seen(self) -> dict[str, Person]:
        """The content of the file. One that cannot be read lets nobody in."""
        try:
            return self._read()
        except (OSError, ConfigError):
            logger.warning("console passwords cannot be read", extra={"file": str(self._path)})
            return {}

    def _read(self) -> dict[str, Person]:
        try:
            entries: list[dict[str, Any]] = json.loads(self._path.read_bytes())
            people = [Person(**{**one, "scope": Scope(one["scope"])}) for one in entries]
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{self._path} is not a list of passwords") from error
        return {person.name: person for person in people}


def _scrypt(password: str, salt: str) -> str:
    return hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), **_COST).hex()
