"""Calls as files that leave the server."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest

from app.events import AgentSaid, CallId, KeyPressed, ToolRan
from app.store.base import Note, StoredCall
from app.store.export import CSV_COLUMNS, as_csv, as_json, as_text
from app.store.fold import rebuilt
from tests.fakes.call_events import BEGAN, call_events, recorded

RECORDS = recorded(call_events(said=("When do you open?", "Thank you.")))


def row() -> StoredCall:
    found = rebuilt(RECORDS)
    assert found is not None
    return found


def test_a_call_as_json_has_everything_in_plain_values() -> None:
    note = Note(note_id=1, call_id=CallId("call_1"), at=BEGAN, author="me", text="Call back")
    shown = json.loads(json.dumps(as_json(row(), RECORDS, [note], ["vip"])))
    assert (shown["call_id"], shown["outcome"]) == ("call_1", "answered")
    assert shown["started_at"] == "2026-11-30T12:00:01.000Z"
    assert shown["notes"][0]["text"] == "Call back"
    assert [event["seq"] for event in shown["events"]] == [*range(1, 8)]
    assert shown["events"][2]["text"] == "When do you open?"


CELLS = {
    "+15550001111": "+15550001111",
    "anonymous": "anonymous",
    "=HYPERLINK(1)": "'=HYPERLINK(1)",
    "@SUM(A1)": "'@SUM(A1)",
    "+1+cmd|' /C calc'!A0": "'+1+cmd|' /C calc'!A0",
    "-2+3": "'-2+3",
    'quote " comma , line\n': 'quote " comma , line\n',
}


@pytest.mark.parametrize("number", CELLS)
def test_no_cell_of_a_table_is_a_formula(number: str) -> None:
    text = as_csv([replace(row(), caller_number=number)])
    header, cells = csv.reader(io.StringIO(text, newline=""))
    assert header == [*CSV_COLUMNS]
    assert cells[header.index("caller_number")] == CELLS[number]


def test_the_header_of_a_table_comes_once() -> None:
    assert len(as_csv([row(), row()], header=False).splitlines()) == 2


def test_a_call_as_text_is_what_was_said_and_done() -> None:
    at = {"call_id": CallId("call_1")}
    more = recorded(
        [
            *call_events(said=(), ended=False),
            KeyPressed(**at, at_ms=4_000, digit="."),
            ToolRan(**at, at_ms=5_000, name="find_slot", duration_ms=1, error="tool_failed"),
            AgentSaid(
                **at, at_ms=65_000, item_id="i", text="A b c", heard_text="A b", cut_off=True
            ),
        ]
    )
    text = as_text(row(), more)
    assert text.splitlines() == [
        "2026-11-30T12:00:01.000Z  +15550001111 called +15552223333",
        "call call_1, answered (caller_hung_up)",
        "",
        "00:04  [key .]",
        "00:05  [tool find_slot: tool_failed]",
        "01:05  agent: A b (interrupted)",
    ]
    assert "00:01  caller: When do you open?" in as_text(row(), RECORDS)
