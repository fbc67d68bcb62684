"""`make demo-pipeline`: a whole phone call that a chain of local servers answers."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from app.dial.report import CallPrinter
from tests.demo.pipeline import run_demo
from tests.fakes.clock import FastClock
from tests.integration.server import Leftovers

pytestmark = pytest.mark.offline_speech


async def test_a_phone_call_is_answered_by_the_chain(tmp_path: Path) -> None:
    left = Leftovers()
    printed = io.StringIO()
    shown = await run_demo(
        CallPrinter(Console(file=printed, width=200)),
        tmp_path / "call.wav",
        tmp_path,
        FastClock(1.5),
    )
    text = printed.getvalue()
    assert shown.report.ok, (shown.report.failures, shown.report.faults, text)
    for words in ("We are open Monday", "forty two Harbor Street", "Goodbye!"):
        assert words in text
    assert shown.report.ended_by == "agent", text
    for timed in shown.stages:
        assert {"llm", "tts"} <= set(timed.stages_ms)
    assert sum("stt" in timed.stages_ms for timed in shown.stages) >= 3
    await left.are_gone()
