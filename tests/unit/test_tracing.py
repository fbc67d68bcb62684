"""Traces: the spans of a call, their times and what they hold; nothing is imported without them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from app.events import (
    AgentSaid,
    BargeIn,
    CallAdmitted,
    CallEnded,
    CallId,
    CallSummary,
    EndReason,
    StagesTimed,
    ToolRan,
    TransferEnded,
    TransferStarted,
    TurnTimed,
    VoiceReady,
    VoiceTrouble,
)
from app.tracing import CallTraces

ROOT = Path(__file__).parents[2]
CALL = CallId("call_1")
NUMBER = "+15005550006"
STAGES_MS = {"stt": 150, "llm": 300, "tts": 100}


def admitted() -> CallAdmitted:
    return CallAdmitted(
        call_id=CALL,
        carrier_call_id="CA1",
        caller_number=NUMBER,
        called_number="+15005550001",
        agent="desk",
    )


def ended(reason: EndReason = EndReason.CALLER_HUNG_UP) -> CallEnded:
    summary = CallSummary(
        call_id=CALL,
        carrier_call_id="CA1",
        agent="desk",
        model="m",
        reason=reason,
        duration_ms=9_000,
    )
    return CallEnded(call_id=CALL, at_ms=9_000, summary=summary)


def turn(**steps: int | None) -> TurnTimed:
    known = {"response_ms": 1_600, "model_sound_ms": 1_800, "sent_ms": 1_810, "heard_ms": 1_900}
    return TurnTimed(
        call_id=CALL,
        at_ms=1_950,
        item_id="i",
        caller_stopped_ms=1_000,
        turn_found_ms=1_500,
        **{**known, **steps},
    )


def traced(*events: Any) -> list[ReadableSpan]:
    exporter = InMemorySpanExporter()
    traces = CallTraces(exporter, service="test")
    for event in events:
        traces.observe(event)
    traces._provider.force_flush()
    spans = list(exporter.get_finished_spans())
    traces.close()
    return spans


def named(spans: list[ReadableSpan], name: str) -> ReadableSpan:
    [found] = [span for span in spans if span.name == name]
    return found


def lasted_ms(span: ReadableSpan) -> int:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) // 1_000_000


def test_a_call_has_a_span_for_each_turn_and_its_stages() -> None:
    said = AgentSaid(call_id=CALL, at_ms=5, item_id="i", text="Secret words.", heard_text="Secret")
    spans = traced(
        admitted(),
        VoiceReady(call_id=CALL, at_ms=300, waited_ms=300),
        said,
        turn(),
        StagesTimed(
            call_id=CALL, at_ms=2_400, began_ms=1_500, response_id="r", stages_ms=STAGES_MS
        ),
        BargeIn(call_id=CALL, at_ms=2_000, item_id="i", heard_ms=100, sent_ms=900),
        ToolRan(call_id=CALL, at_ms=3_000, name="book", duration_ms=400),
        ToolRan(call_id=CALL, at_ms=3_500, name="pay", duration_ms=10, error="tool_timeout"),
        TransferStarted(call_id=CALL, at_ms=4_000, destination="sales", warm=False),
        TransferEnded(call_id=CALL, at_ms=6_000, destination="sales", outcome="busy", evidence="x"),
        VoiceTrouble(call_id=CALL, at_ms=7_000, code="rate_limit_exceeded", benign=False),
        ended(),
    )
    call = named(spans, "call")
    assert call.parent is None
    assert lasted_ms(call) == 9_000
    assert [event.name for event in call.events] == ["barge-in", "model trouble"]
    one = named(spans, "turn")
    assert lasted_ms(one) == 900
    assert one.parent is not None
    assert one.parent.span_id == call.context.span_id
    stages = [span for span in spans if span.parent and span.parent.span_id == one.context.span_id]
    assert [(span.name, lasted_ms(span)) for span in stages] == [
        ("turn detection", 500),
        ("model begins", 100),
        ("model sound", 200),
        ("sound sent", 10),
        ("sound heard", 90),
    ]
    reply = named(spans, "pipeline reply")
    assert lasted_ms(reply) == 900
    parts = [span for span in spans if span.parent and span.parent.span_id == reply.context.span_id]
    assert {span.name: lasted_ms(span) for span in parts} == {
        f"pipeline {stage}": ms for stage, ms in STAGES_MS.items()
    }
    tools = [span for span in spans if span.name == "tool"]
    assert [lasted_ms(span) for span in tools] == [400, 10]
    assert [span.status.status_code for span in tools] == [StatusCode.UNSET, StatusCode.ERROR]
    assert lasted_ms(named(spans, "transfer")) == 2_000
    assert lasted_ms(named(spans, "model connects")) == 300
    assert len({span.context.trace_id for span in spans}) == 1
    everything = str([(span.name, span.attributes, span.events) for span in spans])
    assert NUMBER not in everything
    assert "Secret" not in everything


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (EndReason.CALLER_HUNG_UP, StatusCode.UNSET),
        (EndReason.VOICE_LOST, StatusCode.ERROR),
        (EndReason.INTERNAL_ERROR, StatusCode.ERROR),
    ],
)
def test_a_call_that_failed_has_that_status(reason: EndReason, status: StatusCode) -> None:
    assert named(traced(admitted(), ended(reason)), "call").status.status_code is status


def test_a_turn_that_broke_off_has_the_stages_that_it_came_to() -> None:
    nothing = {"response_ms": None, "model_sound_ms": None, "sent_ms": None, "heard_ms": None}
    spans = traced(admitted(), turn(**nothing), ended())
    assert [span.name for span in spans] == ["turn detection", "turn", "call"]
    assert (named(spans, "turn").attributes or {})["trunkline.answered"] is False


def test_events_of_calls_that_nobody_admitted_are_left_out() -> None:
    assert traced(turn(), ended()) == []


def test_the_packages_are_not_imported_without_an_endpoint() -> None:
    code = (
        "import sys, app.main\n"
        "assert not [m for m in sys.modules if m.startswith('opentelemetry.sdk')], 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def test_without_the_packages_the_remedy_is_named() -> None:
    code = (
        "import sys\nsys.modules['opentelemetry.sdk.trace'] = None\n"
        "from app.errors import ConfigError\n"
        "try:\n    import app.tracing\n"
        "except ConfigError as error:\n    assert 'opentelemetry-sdk' in error.message, error\n"
        "else:\n    raise SystemExit('no error')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
