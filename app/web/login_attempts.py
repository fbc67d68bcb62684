"""The wrong logins that the console bears: so many at once, and then so many a second."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from typing import Final

from app.bus import Bus, Message

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
    Passwords are counted in all processes: a worker has no allowance of its own.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        bus.subscribe(_GUESSED, self._on_guessed)
        self._wrong = _Allowance(WRONG_LOGINS, WRONG_LOGINS_PER_S)
        self._passwords = _Allowance(PASSWORDS, PASSWORDS_PER_S)
        self._by_name: OrderedDict[str, _Allowance] = OrderedDict()

    def may_go_on(self) -> bool:
        """Count a wrong link or key; False after too many."""
        return self._wrong.take()

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
        found = self._by_name.pop(who, None)
        found = found or _Allowance(WRONG_PASSWORDS, WRONG_PASSWORDS_PER_S)
        if len(self._by_name) >= MAX_NAMES:
            self._by_name.popitem(last=False)
        self._by_name[who] = found
        return found.take() and self._passwords.take()

    def _give_back(self, who: str) -> None:
        if (found := self._by_name.get(who)) is not None:
            found.give_back()


def _hash_of(name: str) -> str:
    # Somebody types their password into the wrong field: it is sent nowhere as it is.
    return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:16]


class _Allowance:
    """So many wrong logins at once, and then so many a second."""

    def __init__(self, most: int, per_s: float) -> None:
        self._most, self._per_s = float(most), per_s
        self._left, self._since_s = self._most, time.monotonic()

    def take(self) -> bool:
        now_s = time.monotonic()
        gained = (now_s - self._since_s) * self._per_s
        self._left, self._since_s = min(self._most, self._left + gained), now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def give_back(self) -> None:
        self._left += 1
