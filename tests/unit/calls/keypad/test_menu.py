"""Spoken menus: they repeat themselves, and end in their last resort."""

from __future__ import annotations

from typing import Any

import pytest

from app.calls.keypad.menu import (
    KeyAction,
    KeypadMap,
    KeypadMenu,
    MenuPlan,
    Repeat,
    Say,
    ToAgent,
    Transfer,
)
from app.errors import ConfigError

# Menus --------------------------------------------------------------------------------------------

PROMPT = "Press 1 for sales."


def menu(otherwise: KeyAction | None = None, **more: Any) -> KeypadMenu:
    keypad = KeypadMap({"1": Transfer("sales"), "2": Say("Closed."), "*": Repeat()})
    return KeypadMenu(
        keypad, MenuPlan(prompt=PROMPT, otherwise=otherwise or ToAgent("reception"), **more)
    )


def test_a_key_works_before_the_prompt_was_heard() -> None:
    asked = menu()
    assert asked.on_key("1") == Transfer("sales")
    assert asked.done
    asked.on_heard(1_000)
    assert asked.on_tick(60_000) is None


def test_the_time_for_a_key_begins_when_the_prompt_was_heard() -> None:
    asked = menu()
    assert asked.on_tick(60_000) is None
    asked.on_heard(60_000)
    assert asked.on_tick(65_999) is None
    assert asked.on_tick(66_000) == Say(PROMPT)
    assert asked.on_tick(90_000) is None, "the prompt has to be heard again first"


def test_after_its_tries_the_menu_takes_its_last_resort() -> None:
    asked = menu()
    for now_ms in (0, 10_000):
        asked.on_heard(now_ms)
        assert asked.on_tick(now_ms + 6_000) == Say(PROMPT)
    asked.on_heard(20_000)
    assert asked.on_tick(26_000) == ToAgent("reception")
    assert asked.done


def test_a_key_without_meaning_says_so_and_counts_as_a_try() -> None:
    asked = menu(tries=2)
    assert asked.on_key("7") == Say(f"That key does nothing here. {PROMPT}")
    assert asked.on_key("*") == ToAgent("reception")


def test_a_text_leaves_the_menu_open() -> None:
    asked = menu()
    assert asked.on_key("2") == Say("Closed.")
    assert not asked.done
    assert asked.on_key("1") == Transfer("sales")


def test_a_menu_must_come_to_an_end() -> None:
    with pytest.raises(ConfigError, match="never ends"):
        menu(Repeat())
