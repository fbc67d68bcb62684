"""Printing of a simulated call: wrapped on a terminal, one line per event otherwise."""

from __future__ import annotations

import io

from rich.console import Console

from app.dial.report import CallPrinter
from app.dial.webhook import SpokenLine

LONG = SpokenLine(at_ms=61_200, who="agent", text="We are open [from] nine to five, and " * 4)


def told(*, terminal: bool) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=60, force_terminal=terminal, color_system=None)
    printer = CallPrinter(console)
    printer.caller(100, "Hello.")
    printer.spoken(LONG)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_on_a_terminal_a_long_text_goes_on_below_its_beginning() -> None:
    first, second, *rest = told(terminal=True)
    assert first == "00:00.1  caller  Hello."
    assert second.startswith("01:01.2  agent   We are open [from] nine")
    assert len(rest) > 1
    assert all(line.startswith(" " * 17) and line[17] != " " for line in rest)


def test_without_a_terminal_each_event_is_one_line() -> None:
    assert told(terminal=False) == [
        "00:00.1  caller  Hello.",
        f"01:01.2  agent   {LONG.text}".rstrip(),
    ]
