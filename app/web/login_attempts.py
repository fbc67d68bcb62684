"""The wrong logins that the console bears: so many at once, and then so many a second."""

from __future__ import annotations

import hashlib
import time
from typing import Final

from app.bus import Bus, Message
from app.web.token_bucket import TokenBucket, TokenBuckets

__all__ = ["WRONG_LOGINS", "WRONG_PASSWORDS", "LoginAttempts"]


WRONG_LOGINS: Final = 20
WRONG_LOGINS_PER_S: Final = 0.2
WRONG_PASSWORDS: Final = 10
WRONG_PASSWORDS_PER_S: Final = 1 / 60
"""For one name. Passwords can be guessed: behind these, the right one does not enter either."""
MAX_NAMES: Final = 1_000
PASSWORDS: Final = 60
PASSWORDS_PER_S: Final = 2.0
"""For all names together, right ones too: each attempt costs 0.2 s of a processor."""

_GUESSED: Final = "password_guessed"
"""A topic of the bus: a password of somebody, by a hash of their name."""


class LoginAttempts:
    """The logins that may still be tried.

    Links and keys are too long to guess: only wrong ones count, and the right one always enters.
    Passwords are counted in all processes: a worker has no count of its own.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        bus.subscribe(_GUESSED, self._on_guessed)
        now_s = time.monotonic()
        self._wrong = TokenBucket(WRONG_LOGINS, WRONG_LOGINS_PER_S, now_s)
        self._passwords = TokenBucket(PASSWORDS, PASSWORDS_PER_S, now_s)
        self._by_name = TokenBuckets(WRONG_PASSWORDS, WRONG_PASSWORDS_PER_S, MAX_NAMES)

    def may_go_on(self) -> bool:
        """Count a wrong link or key; False after too many."""
        return self._wrong.take(time.monotonic())

    def may_guess(self, name: str) -> bool:
        """Count a password before it is looked at: many at once are as slow as one by one."""
        who = _hash_of(name)
        allowed = self._take(who)
        self._tell(who, right=False)
        return allowed

    def was_right(self, name: str) -> None:
        """The password of a name was right: it does not count."""
        who = _hash_of(name)
        self._give_back(who)
        self._tell(who, right=True)

    def _tell(self, who: str, *, right: bool) -> None:
        self._bus.publish(_GUESSED, {"by": self._bus.name, "who": who, "right": right})

    def _on_guessed(self, message: Message) -> None:
        if message["by"] == self._bus.name:
            return
        if message["right"]:
            self._give_back(message["who"])
        else:
            self._take(message["who"])

    def _take(self, who: str) -> bool:
        now_s = time.monotonic()
        return self._by_name.of(who, now_s).take(now_s) and self._passwords.take(now_s)

    def _give_back(self, who: str) -> None:
        self._by_name.of(who, time.monotonic()).give_back()


def _hash_of(name: str) -> str:
    # Somebody types their password into the wrong field: it is sent nowhere as it is.
    return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:16]
