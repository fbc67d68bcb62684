"""Printing of a simulated call: wrapped on a terminal, one line per event otherwise."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from app.dial.carrier_http import SpokenLine
from app.dial.report import CallPrinter, DialReport, StreamMeasures, print_report

LONG = SpokenLine(at_ms=61_200, who="agent", text="We are open [from] nine to five, and " * 4)


def told(*, terminal: bool) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=60, force_terminal=terminal, color_system=None)
    printer = CallPrinter(console)
    printer.caller(100, "Hello.")
    printer.spoken(LONG)
    printer.release()
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


def _printed(*lines: tuple[int, str], until_ms: int | None = None) -> list[str]:
    file = io.StringIO()
    printer = CallPrinter(Console(file=file, width=60))
    for at_ms, text in lines:
        printer.event(at_ms, text)
        printer.release(until_ms)
    return [line.split()[-1] for line in file.getvalue().splitlines()]


def test_lines_come_in_the_order_of_time_once_nothing_earlier_can_come() -> None:
    assert _printed((300, "c"), (100, "a"), (200, "b"), until_ms=250) == ["a", "b"]
    assert _printed((300, "c"), (300, "d"), until_ms=301) == ["c", "d"]
    assert _printed((300, "c"), until_ms=300) == []
    assert _printed((300, "c"), (100, "a")) == ["c", "a"]


@pytest.mark.parametrize("told_ms", [[300, 100], [300, 100, 200, 400], [-50, 0], [100, 99, 98]])
def test_what_is_told_late_does_not_go_back_in_time(told_ms: list[int]) -> None:
    file = io.StringIO()
    printer = CallPrinter(Console(file=file, width=60))
    for at_ms in told_ms:
        printer.event(at_ms, "x")
        printer.release()
    times = [line.split()[0] for line in file.getvalue().splitlines()]
    assert len(times) == len(told_ms)
    assert times == sorted(times)


def test_a_key_is_told_once() -> None:
    file = io.StringIO()
    printer = CallPrinter(Console(file=file, width=60))
    printer.event(100, "caller presses 4")
    printer.spoken(SpokenLine(who="event", at_ms=90, text="key pressed"))
    printer.release()
    assert file.getvalue().splitlines() == ["00:00.1          caller presses 4"]


def _report(**facts: Any) -> DialReport:
    return DialReport(call_id="CA1", streams=(StreamMeasures(),), **facts)


@pytest.mark.parametrize("terminal", [True, False])
def test_no_word_is_broken_at_80_columns(terminal: bool) -> None:
    path = "/a/folder/with a very long name/" + "x" * 90 + "/dial.wav"
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=terminal, color_system=None)
    failure = "the call was over before the caller had said everything: 3 more to say"
    print_report(_report(recording=path, failures=(failure,)), console)
    shown = file.getvalue()
    assert "x" * 90 in shown
    assert failure in " ".join(shown.split())
    long = [line for line in shown.splitlines() if len(line) > 80 and "xxx" not in line]
    assert not long or not terminal
    assert ("─" in shown, "│" in shown) == (False, False)


def test_the_recording_can_be_played_by_the_line_that_says_so(monkeypatch: Any) -> None:
    monkeypatch.setattr("shutil.which", lambda name: name if name == "aplay" else None)
    file = io.StringIO()
    print_report(_report(recording="my calls/dial.wav"), Console(file=file, width=80))
    assert "aplay 'my calls/dial.wav'" in file.getvalue()
    monkeypatch.setattr("shutil.which", lambda name: None)
    print_report(_report(recording="my calls/dial.wav"), Console(file=file, width=80))
    assert "any program that plays WAV files" in file.getvalue()


def test_a_terminal_without_color_gets_none(monkeypatch: Any) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    file = io.StringIO()
    print_report(_report(failures=("x",)), Console(file=file, force_terminal=True))
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", file.getvalue())
