"""The lines that a call writes between its first and its last."""

from __future__ import annotations

import logging

import pytest

from app.calls.observers.journal import log_event
from app.events import CallEvent, CallId, FirstSound, HandedOff, ToolRan, VoiceReady, VoiceTrouble

CALL = CallId("call_1")


def _ran(error: str = "") -> ToolRan:
    return ToolRan(call_id=CALL, at_ms=900, name="find_slot", duration_ms=140, error=error)


TOOL = {"tool": "find_slot", "duration_ms": 140}
LINES: dict[str, tuple[CallEvent, str, dict[str, object]]] = {
    "a tool that worked": (_ran(), "tool ran", {**TOOL, "outcome": "ok"}),
    "a tool that failed": (
        _ran("timeout"),
        "tool ran",
        {**TOOL, "outcome": "failed", "error": "timeout"},
    ),
    "a tool that the caller interrupted": (
        _ran("interrupted"),
        "tool ran",
        {**TOOL, "outcome": "cancelled", "error": "interrupted"},
    ),
    "a tool that the end of its call cut off": (
        _ran("call_over"),
        "tool ran",
        {**TOOL, "outcome": "cancelled", "error": "call_over"},
    ),
    "a handoff": (
        HandedOff(call_id=CALL, at_ms=900, from_agent="Reception", to_agent="Billing"),
        "handed over",
        {"from_agent": "Reception", "to_agent": "Billing"},
    ),
    "the model": (
        VoiceReady(call_id=CALL, at_ms=300, waited_ms=300, session_id="sess_1"),
        "model ready",
        {"waited_ms": 300, "session_id": "sess_1"},
    ),
    "the model again": (
        VoiceReady(call_id=CALL, at_ms=9_000, waited_ms=9_000, reconnected=True),
        "model reconnected",
        {},
    ),
    "an error of the model": (
        VoiceTrouble(call_id=CALL, at_ms=700, code="x", benign=False, session_id="sess_1"),
        "voice model trouble",
        {"code": "x", "session_id": "sess_1"},
    ),
    "a tool that the model refuses": (
        VoiceTrouble(call_id=CALL, at_ms=7, code="x", benign=False, where="tools[0] (tool pay)"),
        "voice model trouble",
        {"code": "x", "where": "tools[0] (tool pay)"},
    ),
    "the first sound": (
        FirstSound(call_id=CALL, at_ms=700, after_ms=400),
        "first sound",
        {"after_ms": 400},
    ),
}


@pytest.mark.parametrize(("event", "message", "facts"), LINES.values(), ids=LINES)
def test_a_call_names_its_milestones(
    event: CallEvent, message: str, facts: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="trunkline.call")
    log_event(event)
    [record] = caplog.records
    assert record.message == message
    assert {key: value for key, value in vars(record).items() if key in facts} == facts
    assert ("error" in vars(record)) is ("error" in facts)


def test_the_name_of_a_tool_that_a_model_made_up_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="trunkline.call")
    log_event(ToolRan(call_id=CALL, at_ms=1, name="x" * 5_000, duration_ms=0, error="unknown"))
    assert vars(caplog.records[0])["tool"] == "x" * 64
