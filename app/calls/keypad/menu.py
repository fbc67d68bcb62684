"""Keypad maps and menus: keys that act by rule and not by the model.

A `KeypadMap` belongs to an agent and works at any time, also before a word was spoken. With a
`MenuPlan` a call has a `KeypadMenu`, which speaks its choices, repeats them, and acts when nobody
presses anything. Pure: keys and `now_ms` go in, values come out; performing them is the call's
part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.errors import ConfigError

__all__ = [
    "HangUp",
    "KeyAction",
    "KeypadMap",
    "KeypadMenu",
    "MenuPlan",
    "Repeat",
    "Say",
    "ToAgent",
    "Transfer",
]


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
    """The words of a menu, and its last resort.

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
    """The action of each key. A key that is not in it goes to the model.

    With a `menu` the choices are spoken first.
    """

    actions: Mapping[str, KeyAction] = field(default_factory=dict)
    menu: MenuPlan | None = None


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
        action = self._keypad.actions.get(key)
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
