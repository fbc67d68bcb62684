"""Keypad menus and digits, by rule and not by the model.

A `KeypadMap` stands beside an agent and works at any time, also before a word was spoken. With a
`MenuPlan` a call has a `KeypadMenu`, which speaks its choices, repeats them, and knows what to do
when nobody presses anything. A `DigitCollection` takes a number (a PIN, an account) whose digits
are masked in all that is recorded. Pure: keys and `now_ms` go in, values come out; performing them
is the call's part.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from app.errors import ConfigError

__all__ = [
    "KEYS",
    "Collected",
    "CollectionEnd",
    "DigitCollection",
    "DigitRequest",
    "HangUp",
    "KeyAction",
    "KeypadMap",
    "KeypadMenu",
    "MenuPlan",
    "Repeat",
    "Say",
    "ToAgent",
    "Transfer",
    "read_action",
    "read_keypad",
]

KEYS: Final = frozenset("0123456789*#")
"""What telephones have; A to D (ITU-T Q.23) are on no caller's keypad."""

MASK: Final = "\u2022"


# Actions ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Say:
    """Say a text word for word; the agent goes on afterwards."""

    text: str


@dataclass(frozen=True, slots=True)
class Transfer:
    """Transfer the call to a destination that the settings name."""

    destination: str


@dataclass(frozen=True, slots=True)
class ToAgent:
    """Let another agent go on."""

    agent: str


@dataclass(frozen=True, slots=True)
class HangUp:
    """End the call, after a text if there is one."""

    text: str | None = None


@dataclass(frozen=True, slots=True)
class Repeat:
    """Say the menu again, or what the agent said last where there is no menu."""


KeyAction = Say | Transfer | ToAgent | HangUp | Repeat


@dataclass(frozen=True, slots=True, kw_only=True)
class MenuPlan:
    """What a menu says, and what it does in the end.

    `prompt` names the choices; `otherwise` is for callers who press nothing, or only keys that do
    nothing, in so many `tries`.
    """

    prompt: str
    otherwise: KeyAction
    invalid: str = "That key does nothing here."
    timeout_ms: int = 6_000
    tries: int = 3

    def __post_init__(self) -> None:
        if isinstance(self.otherwise, Repeat):
            raise ConfigError("a menu that ends by repeating itself never ends")


@dataclass(frozen=True, slots=True)
class KeypadMap:
    """What each key does. A key that is not in it belongs to somebody else.

    With a `menu` the choices are spoken first.
    """

    actions: Mapping[str, KeyAction] = field(default_factory=dict)
    menu: MenuPlan | None = None

    def on_key(self, key: str) -> KeyAction | None:
        return self.actions.get(key)


def read_keypad(
    written: Mapping[str, Any], *, destinations: Collection[str], agents: Collection[str]
) -> KeypadMap:
    """A keypad map as the settings have it.

    `{"1": {"transfer": "sales"}, "2": {"say": "..."}, "0": {"agent": "..."}, "9": "hang_up",
    "*": "repeat"}`; `{"hang_up": "Goodbye."}` says goodbye first.

    Raises:
        ConfigError: a key or action that there is not, or a name that nobody has.
    """
    return KeypadMap(
        {key: _action_of(key, value, destinations, agents) for key, value in written.items()}
    )


def _action_of(
    key: str, written: Any, destinations: Collection[str], agents: Collection[str]
) -> KeyAction:
    place = f"keypad key {key!r}"
    if key not in KEYS:
        raise ConfigError(f"{place}: a keypad has 0 to 9, * and #")
    return read_action(written, place, destinations=destinations, agents=agents)


def read_action(
    written: Any, place: str, *, destinations: Collection[str], agents: Collection[str]
) -> KeyAction:
    """One action as the settings have it; `place` stands before what is wrong with it.

    Raises:
        ConfigError: as `read_keypad`.
    """
    if written == "hang_up":
        return HangUp()
    if written == "repeat":
        return Repeat()
    if not isinstance(written, Mapping) or len(written) != 1:
        raise ConfigError(f"{place}: one of say, transfer, agent, hang_up or repeat")
    [(kind, value)] = written.items()
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{place}: {kind} needs a text")
    match kind:
        case "say":
            return Say(value)
        case "hang_up":
            return HangUp(value)
        case "transfer":
            return Transfer(_known(value, destinations, f"{place}: no transfer destination"))
        case "agent":
            return ToAgent(_known(value, agents, f"{place}: no agent"))
        case _:
            raise ConfigError(f"{place}: one of say, transfer, agent, hang_up or repeat")


def _known(name: str, names: Collection[str], problem: str) -> str:
    if name not in names:
        known = ", ".join(sorted(names)) or "none"
        raise ConfigError(f"{problem} is called {name!r} (there is: {known})")
    return name


# Menus --------------------------------------------------------------------------------------------


class KeypadMenu:
    """A spoken menu: it repeats itself, and after some failed tries does what is left to do.

    The time for a key begins when the prompt was heard; keys count from the start, since callers
    who know the menu do not wait for it.
    """

    def __init__(self, keypad: KeypadMap, plan: MenuPlan) -> None:
        self._keypad = keypad
        self._plan = plan
        self._tries_left = plan.tries
        self._deadline_ms: int | None = None
        self.done = False

    def on_heard(self, now_ms: int) -> None:
        """The caller has heard everything: their time begins, if it has not yet."""
        if not self.done and self._deadline_ms is None:
            self._deadline_ms = now_ms + self._plan.timeout_ms

    def on_key(self, key: str) -> KeyAction:
        """A key's action, or the menu again with a word about the key."""
        self._deadline_ms = None
        action = self._keypad.on_key(key)
        if isinstance(action, Repeat):
            return self._again("")
        if action is None:
            return self._again(self._plan.invalid)
        if not isinstance(action, Say):
            self.done = True
        return action

    def on_tick(self, now_ms: int) -> KeyAction | None:
        """The menu again, or what is left to do, when the caller's time is over."""
        if self._deadline_ms is None or now_ms < self._deadline_ms:
            return None
        self._deadline_ms = None
        return self._again("")

    def _again(self, before: str) -> KeyAction:
        self._tries_left -= 1
        if self._tries_left <= 0:
            self.done = True
            return self._plan.otherwise
        return Say(f"{before} {self._plan.prompt}".strip())


# Digits -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class DigitRequest:
    """Which digits are wanted. `masked`: nobody reads them in logs, events and transcripts.

    With `min_digits` equal to `max_digits` the last digit ends it; else the terminator does, or a
    pause of `between_ms`. The clear key begins anew.
    """

    min_digits: int = 1
    max_digits: int = 20
    terminator: str = "#"
    clear: str = "*"
    first_ms: int = 8_000
    between_ms: int = 4_000
    masked: bool = True
    show_last: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.min_digits <= self.max_digits <= 64:
            raise ConfigError("digits: 1 <= min_digits <= max_digits <= 64")
        if self.first_ms <= 0 or self.between_ms <= 0:
            raise ConfigError("digits: first_ms and between_ms must be above zero")
        if self.terminator not in ("", "#", "*") or self.clear not in ("", "#", "*"):
            raise ConfigError("digits: terminator and clear are #, * or nothing")
        if self.terminator and self.terminator == self.clear:
            raise ConfigError("digits: one key cannot both end and clear the entry")
        if not 0 <= self.show_last <= min(4, self.min_digits - 1):
            raise ConfigError("digits: show_last is at most 4, and less than min_digits")


class CollectionEnd(StrEnum):
    """How an entry ended."""

    COMPLETE = "complete"
    TOO_SHORT = "too_short"
    NOTHING = "nothing"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """A finished entry; `shown` is what may be recorded of it."""

    digits: str = field(repr=False)
    shown: str
    end: CollectionEnd

    @property
    def complete(self) -> bool:
        return self.end is CollectionEnd.COMPLETE


class DigitCollection:
    """One entry of digits, from the question to the result."""

    def __init__(self, request: DigitRequest) -> None:
        self.request = request
        self._digits = ""
        self._deadline_ms: int | None = None
        self._done = False

    @property
    def begun(self) -> bool:
        """Some digits are there, and the others come or do not."""
        return bool(self._digits)

    def start(self, now_ms: int) -> None:
        """The question was heard; the time for the first digit begins, if none came before."""
        if not self._digits and not self._done:
            self._deadline_ms = now_ms + self.request.first_ms

    def on_key(self, key: str, now_ms: int) -> Collected | None:
        """Take a key; the result when it was the last."""
        request = self.request
        if self._done or key not in KEYS:
            return None
        if request.terminator and key == request.terminator:
            return self._end()
        self._deadline_ms = now_ms + request.between_ms
        if request.clear and key == request.clear:
            self._digits = ""
            self._deadline_ms = now_ms + request.first_ms
            return None
        self._digits += key
        return self._end() if len(self._digits) == request.max_digits else None

    def on_tick(self, now_ms: int) -> Collected | None:
        """The result when the caller has stopped pressing keys."""
        if self._done or self._deadline_ms is None or now_ms < self._deadline_ms:
            return None
        return self._end()

    def cancel(self) -> Collected | None:
        """Something else ends it: the caller speaks, the call ends."""
        return None if self._done else self._end(cancelled=True)

    def shown(self, key: str) -> str:
        """What may be recorded of one key as it is pressed."""
        return MASK if self.request.masked and key.isdecimal() else key

    def _end(self, *, cancelled: bool = False) -> Collected:
        self._done = True
        digits = self._digits
        if cancelled:
            end = CollectionEnd.CANCELLED
        elif not digits:
            end = CollectionEnd.NOTHING
        elif len(digits) < self.request.min_digits:
            end = CollectionEnd.TOO_SHORT
        else:
            end = CollectionEnd.COMPLETE
        return Collected(digits=digits, shown=self._shown(digits, end), end=end)

    def _shown(self, digits: str, end: CollectionEnd) -> str:
        if not self.request.masked:
            return digits
        # Of an entry that was broken off, the last digits may be most of what there is.
        kept = self.request.show_last if end is CollectionEnd.COMPLETE else 0
        hidden = len(digits) - kept
        return MASK * hidden + digits[hidden:]
