"""`make demo-agents` shows all that it promises, with the scripted model and offline."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from app.dial.report import CallPrinter
from tests.demo.demo_call import run_demo
from tests.fakes.clock import FastClock
from tests.integration.server import Leftovers

pytestmark = pytest.mark.offline_speech

SPEED = {"scripted": 3.0, "offline": 3.0}


@pytest.mark.parametrize("model", list(SPEED))
async def test_the_demo_of_agents_goes_as_its_story(model: str, tmp_path: Path) -> None:
    left = Leftovers()
    printed = io.StringIO()
    out = tmp_path / "call.wav"
    shown = await run_demo(
        offline=model == "offline",
        printer=CallPrinter(Console(file=printed, width=200)),
        out=out,
        state_dir=tmp_path,
        clock=FastClock(SPEED[model]),
    )
    text = printed.getvalue()
    assert [step.what for step in shown.steps if not step.seen] == [], text
    assert shown.report.ok, (shown.report.failures, shown.report.faults, text)
    assert len(shown.report.streams) == 2
    assert "front_desk handed over to booking" in text
    assert "milligrams" not in text
    [appointment] = shown.appointments
    assert (appointment["day"], appointment["phone"]) == ("Thursday", "+15005550006")
    assert appointment["patient_number"] == "4711"
    with wave.open(str(out)) as recorded:
        assert recorded.getnchannels() == 2
        sound = np.frombuffer(recorded.readframes(recorded.getnframes()), "<i2").reshape(-1, 2)
    audible_s = (np.abs(sound.astype(int)) > 500).sum(axis=0) / recorded.getframerate()
    assert (audible_s > 2.0).all()  # both sides of it
    await left.are_gone()
