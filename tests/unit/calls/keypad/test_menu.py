"""Keypad maps, menus and digits."""

from __future__ import annotations

from typing import Any

import pytest

from app.calls.keypad.menu import (
    HangUp,
    KeyAction,
    KeypadMap,
    KeypadMenu,
    MenuPlan,
    Repeat,
    Say,
    ToAgent,
    Transfer,
    read_keypad,
)
from app.errors import ConfigError

# Maps ---------------------------------------------------------------------------------------------


def read(written: dict[str, Any]) -> KeypadMap:
    return read_keypad(written, destinations={"sales"}, agents={"desk", "night"})


def test_every_kind_of_action_can_be_written() -> None:
    keypad = read(
        {
            "1": {"transfer": "sales"},
            "2": {"say": "We are on Main Street."},
            "0": {"agent": "desk"},
            "9": "hang_up",
            "#": {"hang_up": "Goodbye."},
            "*": "repeat",
        }
    )
    assert [keypad.on_key(key) for key in "120#9*7"] == [
        Transfer("sales"),
        Say("We are on Main Street."),
        ToAgent("desk"),
        HangUp("Goodbye."),
        HangUp(),
        Repeat(),
        None,
    ]


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ({"A": "repeat"}, "0 to 9"),
        ({"12": "repeat"}, "0 to 9"),
        ({"1": "dance"}, "one of say"),
        ({"1": {"dance": "now"}}, "one of say"),
        ({"1": {"say": "a", "agent": "desk"}}, "one of say"),
        ({"1": {"say": " "}}, "say needs a text"),
        ({"1": {"say": 5}}, "say needs a text"),
        ({"1": {"transfer": "+15550100"}}, r"destination is called '\+15550100' \(there is: sales"),
        ({"1": {"agent": "boss"}}, "there is: desk, night"),
    ],
)
def test_a_map_with_unknown_keys_actions_or_names_is_refused(
    written: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        read(written)


def test_without_destinations_there_is_no_transfer() -> None:
    with pytest.raises(ConfigError, match="there is: none"):
        read_keypad({"1": {"transfer": "sales"}}, destinations=(), agents=())


# Menus --------------------------------------------------------------------------------------------

PROMPT = "Press 1 for sales."


def menu(otherwise: KeyAction | None = None, **more: Any) -> KeypadMenu:
    keypad = read({"1": {"transfer": "sales"}, "2": {"say": "Closed."}, "*": "repeat"})
    return KeypadMenu(
        keypad, MenuPlan(prompt=PROMPT, otherwise=otherwise or ToAgent("desk"), **more)
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
    assert asked.on_tick(26_000) == ToAgent("desk")
    assert asked.done


def test_a_key_without_meaning_says_so_and_counts_as_a_try() -> None:
    asked = menu(tries=2)
    assert asked.on_key("7") == Say(f"That key does nothing here. {PROMPT}")
    assert asked.on_key("*") == ToAgent("desk")


def test_a_text_leaves_the_menu_open() -> None:
    asked = menu()
    assert asked.on_key("2") == Say("Closed.")
    assert not asked.done
    assert asked.on_key("1") == Transfer("sales")


def test_a_menu_must_come_to_an_end() -> None:
    with pytest.raises(ConfigError, match="never ends"):
        menu(Repeat())
